//! Matrix products of activations with packed weights: linear layers and convolutions.
//!
//! `y[row, n] = act(Σₖ x[row, k] · w[k, n] + bias[n] + shift[batch, n] + residual[row, n]) · scale`
//!
//! The plain algorithm: for each output row and channel, add the products over `k` = (tap,
//! channel). The tricks:
//!
//! 1. *Register tiles.* A few rows times up to 64 channels are accumulated in registers; each
//!    activation is broadcast from the row where it lies, so activations are never packed, and a
//!    convolution needs only a table that says which pixel each output row reads at each tap.
//! 2. *Blocks of `k`.* All rows of a chunk pass over one block of a panel, which stays in cache,
//!    before the next block; partial sums wait in scratch. Half-precision weights (and bf16 ones
//!    where the CPU does not multiply them) are widened block by block into scratch.
//! 3. *Chunks.* One panel times a block of rows; threads take them dynamically. Each output is
//!    accumulated in ascending order of `k` in one chain of fused multiply-adds, whatever the
//!    blocks are, so that the result depends on nothing but the operands.
//! 4. *Integers.* Activations of 8 bits meet weights of 8 bits, or of 4 or 2 that are unpacked block
//!    by block; sums are exact, and units and zero points are applied to them once, at the end. Taps
//!    outside an image read rows of its zero point. Where the CPU multiplies bytes in 16 bits only,
//!    both are widened to 16 bits first, or narrow weights are summed there and multiplied later.
//! 5. *Tiles.* A CPU that multiplies tiles of 16 rows takes whole strips of 32 rows and 32 channels.
//! 6. *Fewer products.* Convolutions of 3×3 taps in `f32`, and of bytes in 16 bits, take the way of `winograd`.
//! 7. *Epilogue.* Bias, shift, residual, activation, gate and rounding to bf16 are applied to a
//!    finished tile while it is in the nearest cache.

mod chunk;
mod epilogue;
mod plan;
mod rows;
mod tile;
mod tiled;
mod winograd;

pub(crate) use chunk::tiles;
pub use epilogue::{Dequantize, Epilogue, Gate, Ranges, Residual, Shift};
pub(crate) use tile::{
    Ahead, Arithmetic, Fma, Keep, MAX_ROWS, MAX_SEGMENTS, NarrowDot, PairDot, QuadDot, Rows, Sink,
    Strip, Sums, WordDot, multiply,
};

use chunk::{Chunk, NarrowChunk};
use plan::{Plan, Way};
use tiled::TiledChunk;
use winograd::Winograd;

use crate::{
    Cpu,
    format::{ActivationFormat, Activations, PANEL, PanelLayout, Panels},
    isa::LANES,
    scratch::Scratch,
    threads::Output,
};

/// A matrix product of activations with packed weights.
#[derive(Debug)]
pub struct Matmul<'a> {
    /// `[rows, channels]`, or `[batch, height, width, channels]` for a convolution.
    pub input: Activations<'a>,
    /// How output rows read the input.
    pub geometry: Geometry,
    /// `[taps, channels, n]`, packed.
    pub weights: Panels<'a>,
    /// What follows the sums.
    pub epilogue: Epilogue<'a>,
    /// `[rows, n]`; `[rows, hidden]` for a gated layer.
    pub output: Output<'a>,
    /// At least [`scratch_bytes`] bytes of any content.
    pub scratch: &'a mut [u8],
}

/// How output rows read the input.
#[derive(Clone, Copy, Debug)]
pub enum Geometry {
    /// Output row `i` reads input row `i`; the weights have one tap.
    Rows {
        /// Number of rows.
        rows: usize,
        /// Distance of two input rows in elements.
        stride: usize,
    },
    /// Output rows are the pixels of a convolution.
    Conv(Conv2d),
}

/// A two-dimensional convolution.
///
/// Output pixel `(y, x)` reads input pixel `(y · stride[0] + i − pad_top, x · stride[1] + j −
/// pad_left)` at tap `(i, j)`, and zero outside the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2d {
    /// Number of images.
    pub batch: usize,
    /// Rows of pixels of an image in memory.
    pub height: usize,
    /// Pixels of a row.
    pub width: usize,
    /// Channels of a pixel.
    pub channels: usize,
    /// Rows of pixels of the result.
    pub out_height: usize,
    /// Pixels of a row of the result.
    pub out_width: usize,
    /// Height and width of the kernel; their product is the number of taps.
    pub kernel: [usize; 2],
    /// Vertical and horizontal step.
    pub stride: [usize; 2],
    /// Rows of zeros above the image; below it there are as many as the result needs.
    pub pad_top: usize,
    /// Columns of zeros to the left of the image.
    pub pad_left: usize,
    /// Height and width to which the image is enlarged, by repeating its nearest pixel, before the
    /// convolution sees it.
    pub upsampled: Option<[usize; 2]>,
}

impl Conv2d {
    /// Height and width that the convolution sees.
    pub fn seen(&self) -> [usize; 2] {
        self.upsampled.unwrap_or([self.height, self.width])
    }
}

impl Geometry {
    /// Number of output rows.
    pub fn rows(&self) -> usize {
        match *self {
            Self::Rows { rows, .. } => rows,
            Self::Conv(conv) => conv.batch * conv.out_height * conv.out_width,
        }
    }
}

/// Results of this many bytes are gone from the caches before they are read: they are written past them, which
/// saves reading what is overwritten.
const STREAMED: usize = 1 << 25;

/// Bytes of scratch that a [`Matmul`] of these operands needs on `cpu`.
pub fn scratch_bytes(
    input: ActivationFormat,
    geometry: &Geometry,
    layout: &PanelLayout,
    cpu: &Cpu,
) -> usize {
    match Winograd::new(input, geometry, layout, cpu) {
        Some(winograd) => winograd.scratch_bytes(),
        None => Plan::new(input, geometry, layout, cpu).scratch_bytes(),
    }
}

/// What multiplies activations of this format with panels of this layout, for reports.
pub fn kernel_name(
    input: ActivationFormat,
    geometry: &Geometry,
    layout: &PanelLayout,
    cpu: &Cpu,
) -> String {
    let way = Way::new(input, layout, cpu);
    if Winograd::new(input, geometry, layout, cpu).is_none() {
        return way.name(cpu);
    }
    // Transformed taps have more bits than bytes, and than sums in 16 bits have room for.
    let way = if matches!(way, Way::Narrow | Way::Int8) { Way::Int16 } else { way };
    format!("{}, Winograd", way.name(cpu))
}

impl Matmul<'_> {
    /// Compute the product.
    ///
    /// # Panics
    ///
    /// Panics if an operand is smaller than the shapes say, if the shapes contradict each other, or
    /// if the scratch is smaller than [`scratch_bytes`].
    pub fn run(self, cpu: &Cpu) {
        check(&self.input, &self.geometry, &self.weights);
        check_integers(&self.input, &self.weights, &self.epilogue);
        let layout = self.weights.layout;
        let streams = self.output.f32.as_ref().is_some_and(|all| size_of_val(*all) >= STREAMED);
        if let Some(winograd) = Winograd::new(self.input.format(), &self.geometry, &layout, cpu) {
            return winograd.run(self, streams, cpu);
        }
        let Self { input, geometry, weights, epilogue, output, scratch } = self;
        let plan = Plan::new(input.format(), &geometry, &layout, cpu);
        let grid = plan.grid(&layout, epilogue.gate);
        let mut scratch = Scratch::new(scratch);
        let blank = scratch.take::<u8>(plan.blank_bytes());
        let ranges = epilogue.dequantize.and_then(|dequantize| dequantize.ranges);
        plan.fill_blank(blank, ranges);
        let blank = &*blank;
        let scratch = scratch.rest();
        let (input, geometry, epilogue, plan) = (&input, &geometry, &epilogue, &plan);
        cpu.threads.run_tiles((output, grid), scratch, |output, workspace| {
            let chunk = Chunk {
                input,
                geometry,
                weights,
                epilogue,
                plan,
                blank,
                streams,
                output,
                workspace,
            };
            match plan.way {
                // The plan asks for these only where the CPU has them.
                Way::Bf16Dot => drop(cpu.eval_bf16(chunk)),
                Way::Int8 => cpu.eval_int8(chunk),
                Way::Int16 => drop(cpu.eval_int16_only(chunk)),
                Way::Narrow => drop(cpu.eval_int16_only(NarrowChunk(chunk))),
                Way::ByteTiles | Way::PairTiles => {
                    cpu.eval_tiles(TiledChunk(chunk));
                }
                Way::F32 | Way::Widened => cpu.eval(chunk),
            }
        });
    }
}

fn check(input: &Activations<'_>, geometry: &Geometry, weights: &Panels<'_>) {
    let layout = &weights.layout;
    let (needed, taps) = match *geometry {
        Geometry::Rows { rows: 0, .. } => (0, 1),
        Geometry::Rows { rows, stride } => ((rows - 1) * stride + layout.channels, 1),
        Geometry::Conv(conv) => {
            assert_eq!(conv.channels, layout.channels, "channels of the image and the weights");
            let taps = conv.kernel[0] * conv.kernel[1];
            (conv.batch * conv.height * conv.width * conv.channels, taps)
        }
    };
    assert_eq!(taps, layout.taps, "taps of the geometry and of the weights");
    assert!(input.len() >= needed, "input of {} elements, not {needed}", input.len());
    assert_eq!(weights.bytes.len(), layout.bytes(), "bytes of the weights and of their layout");
}

fn check_integers(input: &Activations<'_>, weights: &Panels<'_>, epilogue: &Epilogue<'_>) {
    let layout = &weights.layout;
    let integers = epilogue.dequantize.filter(|_| layout.format.is_int());
    assert_eq!(integers.is_some(), layout.format.is_int(), "integers have units, others have none");
    let Some(dequantize) = integers else {
        return assert!(!matches!(input, Activations::U8(_)), "codes meet integers only");
    };
    let lanes = layout.n.next_multiple_of(LANES);
    assert!(layout.channels.is_multiple_of(4), "integers come in groups of four channels");
    assert!(dequantize.scales.len() >= lanes && dequantize.sums.len() >= lanes, "units of lanes");
    assert_eq!(dequantize.ranges.is_some(), input.format() == ActivationFormat::U8, "ranges");
    let multipliers = layout.panels() * layout.groups() * PANEL;
    assert!(weights.multipliers.is_none_or(|m| m.len() >= multipliers), "multipliers of groups");
}
