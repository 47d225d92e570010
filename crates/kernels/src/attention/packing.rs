//! Sizes of the blocks of an attention, and the packing of its keys and values.

use super::{
    AttentionShape, Heads, Scores,
    codes::{self, PackKeys},
    values::{self, Channels, PackValues},
};
use crate::{
    Cpu,
    format::{ActivationFormat, Activations, PANEL, int::QUAD},
    isa::{Isa, LANES, SimdOp, tiles::STEP},
    scratch,
};

/// Rows of queries of a chunk.
const QUERIES: usize = 96;

/// The same where products are those of tiles: whole strips, whose scores stay near.
const TILED_QUERIES: usize = 64;

/// Panels of keys of a block at most.
const PANELS: usize = 8;

/// The same where products are those of tiles.
const TILED_PANELS: usize = 4;

/// Bytes that a block of keys and one of values may take together.
const BLOCK_BYTES: usize = 1 << 19;

/// Bytes of the running softmax of a query.
const STATE_BYTES: usize = 4 * (LANES + 2);

/// Sizes that follow from the shape and the number format.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) shape: AttentionShape,
    format: ActivationFormat,
    /// Whether products of bf16 pairs are used.
    bf16_dot: bool,
    /// Whether these are products of whole tiles, like those of codes.
    tiled: bool,
    /// Whether codes are widened to 16 bits.
    words: bool,
    scores: Scores,
}

/// Packed keys and values of all heads.
pub(super) struct Packed<'a> {
    /// `[batch, heads, tokens / 64]` panels of `[head_dim, width]`, or of pairs.
    pub(super) keys: &'a [u8],
    /// `[batch, heads, tokens, padded head_dim]`, or pairs of tokens.
    pub(super) values: &'a [u8],
    /// What values stand for that are whole numbers.
    pub(super) channels: &'a [f32],
}

impl Sizes {
    pub(super) fn new(
        (format, scores): (ActivationFormat, Scores),
        shape: &AttentionShape,
        cpu: &Cpu,
    ) -> Self {
        let is_bf16 = format == ActivationFormat::Bf16;
        let row = shape.head_dim * if scores == Scores::Int8 { 1 } else { 2 };
        let tiled = is_bf16 && cpu.has_tiles() && row > 0 && row.is_multiple_of(STEP);
        let has_pairs = cpu.has_bf16_dot() && shape.head_dim.is_multiple_of(2);
        Self {
            shape: *shape,
            format,
            bf16_dot: is_bf16 && has_pairs || tiled,
            tiled,
            words: scores == Scores::Int8 && cpu.has_int16_only(),
            scores,
        }
    }

    pub(super) fn is_tiled(&self) -> bool {
        self.tiled
    }

    /// Whether queries and keys are codes.
    pub(super) fn has_codes(&self) -> bool {
        self.scores == Scores::Int8
    }

    /// Whether these have 16 bits.
    pub(super) fn has_words(&self) -> bool {
        self.words
    }

    /// Bytes of a code.
    pub(super) fn code_size(&self) -> usize {
        if self.words { 2 } else { 1 }
    }

    pub(super) fn is_bf16_dot(&self) -> bool {
        self.bf16_dot
    }

    /// Whether values and their weights are whole numbers.
    pub(super) fn has_value_words(&self) -> bool {
        self.has_codes() && !self.bf16_dot
    }

    /// Bytes of a packed value, and of a weight.
    pub(super) fn value_size(&self) -> usize {
        if self.has_value_words() { 2 } else { self.size() }
    }

    /// Whether queries are widened into scratch.
    pub(super) fn gathers_queries(&self) -> bool {
        self.format == ActivationFormat::Bf16 && !self.bf16_dot && !self.has_codes()
    }

    /// Bytes of a packed real number.
    pub(super) fn size(&self) -> usize {
        if self.bf16_dot { 2 } else { 4 }
    }

    /// Elements of a head, padded to whole vectors.
    pub(super) fn padded_dim(&self) -> usize {
        self.shape.head_dim.next_multiple_of(LANES)
    }

    /// Rows of queries of a chunk.
    pub(super) fn query_block(&self) -> usize {
        if self.tiled { TILED_QUERIES } else { QUERIES }.min(self.shape.tokens_q).max(1)
    }

    /// Keys of a block, whole panels.
    pub(super) fn key_block(&self) -> usize {
        let panels = BLOCK_BYTES / (2 * self.padded_dim().max(1) * self.value_size() * PANEL);
        let most = if self.tiled { TILED_PANELS } else { PANELS };
        panels.clamp(1, most).min(self.panels().max(1)) * PANEL
    }

    /// Panels of keys per head.
    pub(super) fn panels(&self) -> usize {
        self.shape.tokens_k.div_ceil(PANEL)
    }

    /// Lanes of a panel of keys.
    pub(super) fn width(&self, panel: usize) -> usize {
        PANEL.min((self.shape.tokens_k - panel * PANEL).next_multiple_of(LANES))
    }

    /// Groups of four bytes of a head of a query or key.
    pub(super) fn groups(&self) -> usize {
        if self.has_codes() { self.code_bytes() / 4 } else { self.shape.head_dim * self.size() / 4 }
    }

    /// Bytes of the codes of a head.
    pub(super) fn code_bytes(&self) -> usize {
        self.shape.head_dim.next_multiple_of(QUAD) * self.code_size()
    }

    /// Bytes of a panel of keys.
    pub(super) fn key_panel_bytes(&self) -> usize {
        if self.has_codes() {
            codes::panel_bytes(self.code_bytes())
        } else {
            self.shape.head_dim * PANEL * self.size()
        }
    }

    /// Elements of the means of all keys of each head.
    pub(super) fn means_length(&self) -> usize {
        let heads = self.shape.batch.saturating_mul(self.shape.heads);
        if self.has_codes() { heads.saturating_mul(self.padded_dim()) } else { 0 }
    }

    /// Elements of what the channels of values of each head stand for.
    pub(super) fn channels_length(&self) -> usize {
        let heads = self.shape.batch.saturating_mul(self.shape.heads);
        if self.has_value_words() { heads.saturating_mul(2 * self.padded_dim()) } else { 0 }
    }

    /// Greatest scores of a block of queries, by lanes.
    pub(super) fn most_length(&self) -> usize {
        if self.has_codes() { self.query_block() * LANES } else { 0 }
    }

    /// Bytes of the codes of a block of queries.
    pub(super) fn codes_length(&self) -> usize {
        if self.has_codes() { self.query_block() * self.code_bytes() } else { 0 }
    }

    /// Bytes of the values that belong to a panel of keys.
    pub(super) fn value_panel_bytes(&self) -> usize {
        self.padded_dim() * PANEL * self.value_size()
    }

    fn all_panels(&self) -> usize {
        self.shape.batch.saturating_mul(self.shape.heads).saturating_mul(self.panels())
    }

    pub(super) fn keys_bytes(&self) -> usize {
        self.all_panels().saturating_mul(self.key_panel_bytes())
    }

    pub(super) fn values_bytes(&self) -> usize {
        self.all_panels().saturating_mul(self.value_panel_bytes())
    }

    /// Elements of the queries that are widened into scratch.
    pub(super) fn queries_length(&self) -> usize {
        if self.gathers_queries() { self.query_block() * self.shape.head_dim } else { 0 }
    }

    /// Scores of a block.
    pub(super) fn scores_length(&self) -> usize {
        self.query_block() * self.key_block()
    }

    /// Weights of a block in 16 bits.
    pub(super) fn weights_length(&self) -> usize {
        if self.value_size() == 2 { self.scores_length() } else { 0 }
    }

    /// Sums of values.
    pub(super) fn sums_length(&self) -> usize {
        self.query_block() * self.padded_dim()
    }

    pub(super) fn worker_bytes(&self) -> usize {
        scratch::bytes(&[
            self.queries_length() * 4,
            self.codes_length(),
            self.most_length() * 4,
            self.query_block() * 4,
            self.scores_length() * 4,
            self.weights_length() * 2,
            self.sums_length() * 4,
            self.query_block() * STATE_BYTES,
        ])
    }

    /// The element at which the head starts that row `row` of `heads` has.
    #[inline(always)]
    pub(super) fn start(&self, heads: &Heads<'_>, row: usize, head: usize) -> usize {
        heads.offset + row * heads.stride + head * self.shape.head_dim
    }
}

/// Pack keys and values into their parts of the scratch.
pub(super) fn pack(
    cpu: &Cpu,
    sizes: &Sizes,
    [(k, keys), (v, values)]: [(Heads<'_>, &mut [u8]); 2],
    [means, channels]: [&mut [f32]; 2],
) {
    let shape = &sizes.shape;
    if sizes.has_codes() {
        codes::means(cpu, sizes, k, means);
    }
    if sizes.has_value_words() {
        values::channels(cpu, sizes, v, channels);
    }
    let (means, channels) = (&*means, &*channels);
    let pack = |which: Which, from: Heads<'_>, to: &mut [u8], length: usize| {
        cpu.threads.run_pieces(to, length, |index, to| {
            let (sequence, panel) = (index / sizes.panels(), index % sizes.panels());
            let (batch, head) = (sequence / shape.heads, sequence % shape.heads);
            let token = panel * PANEL;
            let count = PANEL.min(shape.tokens_k - token);
            let (rows, width) = ((batch * shape.tokens_k + token, count), sizes.width(panel));
            if which == Which::Keys && sizes.has_codes() {
                let center = &means[sequence * sizes.padded_dim()..][..sizes.padded_dim()];
                cpu.eval(PackKeys { sizes, keys: from, head, rows, width, center, to });
            } else if which == Which::Values && sizes.has_value_words() {
                let channels = Channels::of(channels, sequence, sizes);
                cpu.eval_int8(PackValues { sizes, values: from, head, rows, channels, to });
            } else {
                cpu.eval(PackPanel { which, sizes, from, head, rows, width, to });
            }
        });
    };
    pack(Which::Keys, k, keys, sizes.key_panel_bytes());
    pack(Which::Values, v, values, sizes.value_panel_bytes());
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Keys,
    Values,
}

/// Packs the keys or values of one panel.
struct PackPanel<'a> {
    which: Which,
    sizes: &'a Sizes,
    from: Heads<'a>,
    head: usize,
    /// First row and number of rows.
    rows: (usize, usize),
    /// Lanes of the panel.
    width: usize,
    to: &'a mut [u8],
}

impl SimdOp for PackPanel<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { which, sizes, from, head, rows: (first, count), width, to } = self;
        let dim = sizes.shape.head_dim;
        to.fill(0);
        for i in 0..count {
            let start = sizes.start(&from, first + i, head);
            match (which, from.values) {
                // Refused before.
                (_, Activations::U8(_)) => {}
                (Which::Keys, Activations::F32(values)) => {
                    let column = bytemuck::cast_slice_mut::<u8, f32>(to)[i..].chunks_mut(width);
                    for (to, &x) in column.zip(&values[start..start + dim]) {
                        to[0] = x;
                    }
                }
                (Which::Keys, Activations::Bf16(bits)) if sizes.is_bf16_dot() => {
                    let column =
                        bytemuck::cast_slice_mut::<u8, [u16; 2]>(to)[i..].chunks_mut(width);
                    for (to, x) in column.zip(bits[start..start + dim].as_chunks::<2>().0) {
                        to[0] = *x;
                    }
                }
                (Which::Keys, Activations::Bf16(bits)) => {
                    let column = bytemuck::cast_slice_mut::<u8, f32>(to)[i..].chunks_mut(width);
                    for (to, &x) in column.zip(&bits[start..start + dim]) {
                        to[0] = f32::from_bits(u32::from(x) << 16);
                    }
                }
                (Which::Values, Activations::F32(values)) => {
                    let padded = sizes.padded_dim();
                    bytemuck::cast_slice_mut(to)[i * padded..][..dim]
                        .copy_from_slice(&values[start..start + dim]);
                }
                (Which::Values, Activations::Bf16(bits)) if sizes.is_bf16_dot() => {
                    let padded = sizes.padded_dim();
                    let pairs = bytemuck::cast_slice_mut::<u8, [u16; 2]>(to);
                    let row = &mut pairs[i / 2 * padded..][..dim];
                    for (to, &x) in row.iter_mut().zip(&bits[start..start + dim]) {
                        to[i % 2] = x;
                    }
                }
                (Which::Values, Activations::Bf16(bits)) => {
                    let padded = sizes.padded_dim();
                    let row = &mut bytemuck::cast_slice_mut::<u8, f32>(to)[i * padded..][..dim];
                    widen(isa, &bits[start..start + dim], row);
                }
            }
        }
    }
}

/// Widen bf16 numbers.
#[inline(always)]
pub(super) fn widen<I: Isa>(isa: I, from: &[u16], to: &mut [f32]) {
    for (to, from) in to.chunks_mut(LANES).zip(from.chunks(LANES)) {
        isa.write(isa.read_bf16(from), to);
    }
}
