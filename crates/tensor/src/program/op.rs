//! The operations of a program. All operands are buffer and slot numbers; sizes are explicit.

use super::{BufferId, Format, SlotId};
use crate::graph::{Activation, Mask};
use crate::{Scores, Span};

/// One operation.
#[derive(Clone, Debug)]
pub enum Op {
    /// Linear layer or convolution with everything fused behind it.
    Matmul(Matmul),
    /// `softmax(q kᵀ / √d) v`.
    Attention(Attention),
    /// Group normalisation.
    GroupNorm(GroupNorm),
    /// Layer normalisation.
    LayerNorm(LayerNorm),
    /// An elementwise function that could not be fused.
    Unary(Unary),
    /// One of the operations that move or combine `f32` numbers.
    Simple(Simple),
    /// `f32` numbers rounded to `bf16`.
    Convert(Convert),
    /// Numbers to codes of 8 bits.
    Quantize(Quantize),
    /// Codes to what they stand for.
    Dequantize(Dequantize),
}

/// A buffer and the format its consumer asked for.
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    /// Where it is.
    pub buffer: BufferId,
    /// [`Format::F32`], [`Format::Bf16`] or [`Format::U8`].
    pub format: Format,
}

/// Where a result goes: once in each format that its consumers ask for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Results {
    /// As `f32`.
    pub f32: Option<BufferId>,
    /// As `bf16`.
    pub bf16: Option<BufferId>,
}

/// `y = scale · act(x Wᵀ + bias + shift + residual)`, or `y = hidden · gelu(gate)` where gated.
#[derive(Clone, Debug)]
pub struct Matmul {
    /// `[rows, inputs]`, or the image of a convolution; rows of codes are whole groups of four long.
    pub input: Operand,
    /// What codes stand for, and how many rows of the product share a range.
    pub ranges: Option<(BufferId, usize)>,
    /// How rows of the product read the input.
    pub geometry: Geometry,
    /// Rows of the product.
    pub rows: usize,
    /// Inputs of one tap.
    pub inputs: usize,
    /// Output channels of the weight.
    pub outputs: usize,
    /// `[outputs, inputs, taps]`.
    pub weight: SlotId,
    /// `[outputs]`.
    pub bias: Option<SlotId>,
    /// `[batch, outputs]`, `f32`, and how many rows share one of them.
    pub shift: Option<(BufferId, usize)>,
    /// `[rows, outputs]`.
    pub residual: Option<Operand>,
    /// Applied to the sum.
    pub activation: Option<Activation>,
    /// Whether outputs are hidden and gate halves of a GEGLU: the result has half the channels.
    pub gated: bool,
    /// Factor on the result.
    pub scale: f32,
    /// `[rows, outputs]`.
    pub output: Results,
    /// Working memory.
    pub scratch: Option<BufferId>,
}

impl Matmul {
    /// Rows of the input: those of the product, or the pixels of all images that are stored.
    pub fn input_rows(&self) -> usize {
        match self.geometry {
            Geometry::Rows => self.rows,
            Geometry::Conv(conv) => conv.batch * conv.stored[0] * conv.stored[1],
        }
    }
}

/// How rows of a product read their input.
#[derive(Clone, Copy, Debug)]
pub enum Geometry {
    /// Row by row.
    Rows,
    /// Through the taps of a convolution.
    Conv(Conv),
}

/// Sizes of a convolution.
#[derive(Clone, Copy, Debug)]
pub struct Conv {
    /// Images.
    pub batch: usize,
    /// Height and width of the input as stored.
    pub stored: [usize; 2],
    /// Height and width that the taps see: another than stored where a nearest-neighbour resize is fused.
    pub seen: [usize; 2],
    /// Height and width of the result.
    pub result: [usize; 2],
    /// Kernel height and width.
    pub kernel: [usize; 2],
    /// Step over the input.
    pub stride: usize,
    /// Zeros above and to the left.
    pub pad: [usize; 2],
}

/// `softmax(q kᵀ / √d) v` over heads that share the channels.
#[derive(Clone, Debug)]
pub struct Attention {
    /// `[batch, queries, channels]`.
    pub query: Operand,
    /// `[batch, keys, channels]`.
    pub key: Operand,
    /// `[batch, keys, channels]`.
    pub value: Operand,
    /// Batch elements.
    pub batch: usize,
    /// Query tokens.
    pub queries: usize,
    /// Key tokens.
    pub keys: usize,
    /// Heads.
    pub heads: usize,
    /// Channels of one head.
    pub head_dim: usize,
    /// Which keys a query sees.
    pub mask: Mask,
    /// How queries meet keys.
    pub scores: Scores,
    /// `[batch, queries, channels]`.
    pub output: Results,
    /// Working memory.
    pub scratch: Option<BufferId>,
}

/// `y = act((x − mean) / √(variance + eps) · gamma + beta)` over groups of channels.
#[derive(Clone, Debug)]
pub struct GroupNorm {
    /// `[batch, pixels, channels]`.
    pub input: Operand,
    /// Batch elements.
    pub batch: usize,
    /// Pixels of each.
    pub pixels: usize,
    /// Channels.
    pub channels: usize,
    /// Groups.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f32,
    /// `[channels]`.
    pub gamma: SlotId,
    /// `[channels]`.
    pub beta: SlotId,
    /// Whether SiLU follows.
    pub silu: bool,
    /// Same shape as the input.
    pub output: Normed,
    /// Working memory.
    pub scratch: Option<BufferId>,
}

/// What a [`GroupNorm`] writes.
#[derive(Clone, Copy, Debug)]
pub enum Normed {
    /// Numbers.
    Real(Results),
    /// Codes with a range for each image, as of [`Quantize`].
    Codes {
        /// The codes.
        codes: BufferId,
        /// Their ranges.
        ranges: BufferId,
        /// The greatest code.
        levels: u8,
        /// The range of all images, where it is known.
        known: Option<Span>,
    },
}

/// `y = (x − mean) / √(variance + eps) · gamma + beta` over each row.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    /// `[rows, channels]`, `f32`.
    pub input: BufferId,
    /// Rows.
    pub rows: usize,
    /// Channels.
    pub channels: usize,
    /// Added to the variance.
    pub eps: f32,
    /// `[channels]`.
    pub gamma: SlotId,
    /// `[channels]`.
    pub beta: SlotId,
    /// Same shape as the input.
    pub output: Results,
}

/// An elementwise function of `f32` numbers.
#[derive(Clone, Debug)]
pub struct Unary {
    /// `f32`.
    pub input: BufferId,
    /// Number of elements.
    pub elements: usize,
    /// The function.
    pub function: Activation,
    /// Same shape as the input.
    pub output: Results,
}

/// An operation on `f32` numbers that costs no more than moving them.
#[derive(Clone, Debug)]
pub struct Simple {
    /// Which.
    pub kind: SimpleKind,
    /// Its operands, in the order of the recording.
    pub inputs: Vec<BufferId>,
    /// `f32`.
    pub output: BufferId,
}

/// Operations that move or combine `f32` numbers. Rows are `channels` wide unless said otherwise.
#[derive(Clone, Copy, Debug)]
pub enum SimpleKind {
    /// Sum of two buffers.
    Add,
    /// Product of two buffers.
    Mul,
    /// `scale · x + offset`.
    Affine {
        /// Factor.
        scale: f32,
        /// Summand.
        offset: f32,
    },
    /// `[batch, rows, channels] + [batch, channels]`.
    AddShift {
        /// Rows of each batch element.
        rows: usize,
        /// Channels.
        channels: usize,
    },
    /// `[rows, channels] · [channels]`.
    ScaleChannels {
        /// The latter.
        factors: SlotId,
    },
    /// `[batch, period] + [period]`, the latter the head of a table of rows.
    AddTable {
        /// The table.
        table: SlotId,
        /// Tokens times channels.
        period: usize,
    },
    /// `[rows, 2 channels]` → `[rows, channels]`: hidden times `gelu(gate)`.
    Geglu {
        /// Channels of the result.
        channels: usize,
    },
    /// Pieces of `widths` elements by turns: concatenation along channels or tokens.
    Concat {
        /// Elements of each piece.
        widths: [usize; 2],
    },
    /// `count` elements from `start` of every row of `width`.
    Slice {
        /// Elements of a row of the input.
        width: usize,
        /// First element.
        start: usize,
        /// Elements of a row of the result.
        count: usize,
    },
    /// Nearest-neighbour resize.
    Upsample {
        /// Height and width of the input.
        from: [usize; 2],
        /// Height and width of the result.
        to: [usize; 2],
        /// Channels.
        channels: usize,
    },
    /// Rows of a table by index.
    Embed {
        /// The table.
        table: SlotId,
    },
    /// One token of each batch element.
    SelectToken {
        /// Tokens of each batch element.
        tokens: usize,
        /// Channels.
        channels: usize,
    },
    /// A learned row, once for each batch element.
    Repeat {
        /// The row.
        row: SlotId,
    },
}

/// `f32` numbers rounded to `bf16`.
#[derive(Clone, Copy, Debug)]
pub struct Convert {
    /// `f32`.
    pub input: BufferId,
    /// `bf16`.
    pub output: BufferId,
}

/// `code = clamp(round(x / scale) + zero)`, with a range for each group of rows.
#[derive(Clone, Copy, Debug)]
pub struct Quantize {
    /// `[rows, channels]`, `f32` or `bf16`.
    pub input: Operand,
    /// Rows.
    pub rows: usize,
    /// Channels.
    pub channels: usize,
    /// Rows that share a range.
    pub rows_per_range: usize,
    /// The greatest code.
    pub levels: u8,
    /// The range of all rows, where it is known; else each group's own is found.
    pub known: Option<Span>,
    /// `[rows, channels]`, channels made a multiple of four.
    pub codes: BufferId,
    /// One range for each group of rows.
    pub ranges: BufferId,
    /// Working memory.
    pub scratch: Option<BufferId>,
}

/// `x = scale · (code − zero)`, with a range for each group of rows: what [`Quantize`] keeps of numbers.
#[derive(Clone, Copy, Debug)]
pub struct Dequantize {
    /// `[rows, channels]`, channels made a multiple of four.
    pub codes: BufferId,
    /// One range for each group of rows.
    pub ranges: BufferId,
    /// Channels.
    pub channels: usize,
    /// Rows that share a range.
    pub rows_per_range: usize,
    /// `[rows, channels]`, `f32`.
    pub output: BufferId,
}

impl Op {
    /// Multiply-adds, counted from the shapes.
    pub fn multiply_adds(&self) -> u64 {
        let product = |sizes: &[usize]| sizes.iter().map(|&n| n as u64).product();
        match self {
            Self::Matmul(m) => product(&[m.rows, m.inputs * m.geometry.taps(), m.outputs]),
            Self::Attention(a) => 2 * product(&[a.batch, a.queries, a.keys, a.heads * a.head_dim]),
            _ => 0,
        }
    }

    /// What kind of work it is, with its sizes where they matter: for tables of times.
    pub fn label(&self) -> String {
        match self {
            Self::Matmul(m) => {
                let taps = m.geometry.taps();
                let residual = if m.residual.is_some() { " + residual" } else { "" };
                format!("matmul {} x {} x {}·{taps}{residual}", m.rows, m.outputs, m.inputs)
            }
            Self::Attention(a) => {
                format!("attention {} x {} heads of {}", a.queries, a.keys, a.head_dim)
            }
            Self::GroupNorm(n) => format!("group_norm {} x {}", n.pixels, n.channels),
            Self::LayerNorm(n) => format!("layer_norm {} x {}", n.rows, n.channels),
            Self::Unary(_) => "activation".into(),
            Self::Simple(s) => {
                format!("{:?}", s.kind).split([' ', '(']).next().unwrap_or("").to_lowercase()
            }
            Self::Convert(_) => "convert".into(),
            Self::Quantize(q) => format!("quantize {} x {}", q.rows, q.channels),
            Self::Dequantize(_) => "dequantize".into(),
        }
    }

    /// The buffers it writes results to.
    pub fn results(&self) -> Vec<BufferId> {
        let both = |r: &Results| r.f32.into_iter().chain(r.bf16).collect();
        match self {
            Self::Matmul(m) => both(&m.output),
            Self::Attention(a) => both(&a.output),
            Self::GroupNorm(n) => match &n.output {
                Normed::Real(results) => both(results),
                Normed::Codes { codes, ranges, .. } => vec![*codes, *ranges],
            },
            Self::LayerNorm(n) => both(&n.output),
            Self::Unary(u) => both(&u.output),
            Self::Simple(s) => vec![s.output],
            Self::Convert(c) => vec![c.output],
            Self::Quantize(q) => vec![q.codes, q.ranges],
            Self::Dequantize(d) => vec![d.output],
        }
    }

    /// The buffers it reads.
    pub fn operands(&self) -> Vec<BufferId> {
        match self {
            Self::Matmul(m) => {
                let shift = m.shift.map(|(buffer, _)| buffer);
                let ranges = m.ranges.map(|(buffer, _)| buffer);
                let residual = m.residual.map(|residual| residual.buffer);
                let all = [Some(m.input.buffer), ranges, shift, residual];
                all.into_iter().flatten().collect()
            }
            Self::Attention(a) => vec![a.query.buffer, a.key.buffer, a.value.buffer],
            Self::GroupNorm(n) => vec![n.input.buffer],
            Self::LayerNorm(n) => vec![n.input],
            Self::Unary(u) => vec![u.input],
            Self::Simple(s) => s.inputs.clone(),
            Self::Convert(c) => vec![c.input],
            Self::Quantize(q) => vec![q.input.buffer],
            Self::Dequantize(d) => vec![d.codes, d.ranges],
        }
    }

    /// Its working memory.
    pub fn scratch(&self) -> Option<BufferId> {
        match self {
            Self::Matmul(m) => m.scratch,
            Self::Attention(a) => a.scratch,
            Self::GroupNorm(n) => n.scratch,
            Self::Quantize(q) => q.scratch,
            _ => None,
        }
    }

    pub(crate) fn set_scratch(&mut self, buffer: BufferId) {
        match self {
            Self::Matmul(m) => m.scratch = Some(buffer),
            Self::Attention(a) => a.scratch = Some(buffer),
            Self::GroupNorm(n) => n.scratch = Some(buffer),
            Self::Quantize(q) => q.scratch = Some(buffer),
            _ => {}
        }
    }
}

impl Geometry {
    /// Taps of the kernel; one for a linear layer.
    pub fn taps(&self) -> usize {
        match self {
            Self::Rows => 1,
            Self::Conv(conv) => conv.kernel[0] * conv.kernel[1],
        }
    }
}
