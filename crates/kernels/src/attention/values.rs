//! Values as whole numbers.
//!
//! Where scores are products of codes and no bf16 pairs are multiplied, values and their weights are numbers of 16 bits.
//! A value is taken relative to the mean of its channel over all tokens of its head (smooth-V of `SageAttention2`, Zhang et
//! al. 2024), in a unit of that channel. What weights lose that are rounded to nothing is then a share of something that is
//! zero on average: without it, thousands of small weights beside a large one would be missed.

use std::ops::Range;

use super::{Heads, block::Work, codes::Row, packing::Sizes, softmax::PAIRED};
use crate::{
    Cpu,
    format::PANEL,
    isa::{Int8Dot, Int8Op, Isa, LANES, SimdOp},
    matmul::{Ahead, MAX_ROWS, Rows, Sink, Strip, Sums, WordDot, multiply, tiles},
};

/// The greatest number that stands for a value.
const MOST: f32 = 1023.0;

/// Keys whose products are summed as integers: 2¹⁴ · 1023 · 128 < 2³¹.
const SPAN: usize = 2 * PANEL;

/// What the numbers of a channel stand for: `value = mean + unit · number`. Rows of a head, whole vectors.
#[derive(Clone, Copy)]
pub(super) struct Channels<'a> {
    /// `[padded head]`.
    pub(super) means: &'a [f32],
    /// `[padded head]`.
    pub(super) units: &'a [f32],
}

impl<'a> Channels<'a> {
    /// Those of a head, counted over all sequences, of `[heads, 2, padded head]`.
    pub(super) fn of(all: &'a [f32], head: usize, sizes: &Sizes) -> Self {
        let padded = sizes.padded_dim();
        let (means, units) = all[2 * head * padded..][..2 * padded].split_at(padded);
        Self { means, units }
    }
}

/// The means and units of the channels of each head, `[batch, heads, 2, padded head]`.
pub(super) fn channels(cpu: &Cpu, sizes: &Sizes, values: Heads<'_>, to: &mut [f32]) {
    cpu.threads.run_pieces(to, 2 * sizes.padded_dim(), |index, to| {
        cpu.eval(Measure { sizes, values, index, to });
    });
}

struct Measure<'a> {
    sizes: &'a Sizes,
    values: Heads<'a>,
    /// Batch entry times heads, plus head.
    index: usize,
    to: &'a mut [f32],
}

impl SimdOp for Measure<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { sizes, values, index, to } = self;
        let shape = &sizes.shape;
        let (batch, head) = (index / shape.heads, index % shape.heads);
        let (means, units) = to.split_at_mut(sizes.padded_dim());
        let share = isa.splat(1.0 / shape.tokens_k as f32);
        let vectors = means.as_chunks_mut().0.iter_mut().zip(units.as_chunks_mut().0);
        for (at, (mean, unit)) in (0..).step_by(LANES).zip(vectors) {
            let mut sum = isa.splat(0.0);
            let (mut least, mut most) = (isa.splat(f32::INFINITY), isa.splat(f32::NEG_INFINITY));
            for token in 0..shape.tokens_k {
                let start = sizes.start(&values, batch * shape.tokens_k + token, head);
                let row =
                    Row { values: values.values, start, length: shape.head_dim, center: None };
                let x = row.read(isa, at);
                sum = isa.add(sum, x);
                least = isa.min(x, least);
                most = isa.max(x, most);
            }
            let center = isa.mul(sum, share);
            let furthest = isa.max(isa.sub(most, center), isa.sub(center, least));
            // Zero times what is not finite is not a number: then none of the channel is one.
            let check = isa.mul(sum, isa.splat(0.0));
            let found = isa.fma(furthest, isa.splat(1.0 / MOST), check);
            let tiny = isa.splat(f32::MIN_POSITIVE);
            isa.store(isa.select_less(found, tiny, [isa.splat(1.0), found]), unit);
            isa.store(center, mean);
        }
    }
}

/// Packs the values of one panel, `[64 / 2, padded head]` pairs.
pub(super) struct PackValues<'a> {
    pub(super) sizes: &'a Sizes,
    pub(super) values: Heads<'a>,
    pub(super) head: usize,
    /// First row and number of rows.
    pub(super) rows: (usize, usize),
    pub(super) channels: Channels<'a>,
    pub(super) to: &'a mut [u8],
}

impl Int8Op for PackValues<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Int8Dot>(self, isa: I) {
        let Self { sizes, values, head, rows: (first, count), channels, to } = self;
        let padded = sizes.padded_dim();
        let to = bytemuck::cast_slice_mut::<u8, f32>(to);
        let read = |token: usize, at: usize| {
            let start = sizes.start(&values, first + token, head);
            let (values, length) = (values.values, sizes.shape.head_dim);
            Row { values, start, length, center: Some(channels.means) }.read(isa, at)
        };
        for at in (0..padded).step_by(LANES) {
            let inverse = isa.div(isa.splat(1.0), isa.read(&channels.units[at..]));
            for (pair, to) in to.chunks_exact_mut(padded).enumerate() {
                let token = pair / LANES * PAIRED + pair % LANES;
                let [mut low, mut high] = [isa.splat(0.0); 2];
                if token < count {
                    low = isa.mul(read(token, at), inverse);
                }
                if token + LANES < count {
                    high = isa.mul(read(token + LANES, at), inverse);
                }
                isa.write(isa.pair_i16(low, high), &mut to[at..at + LANES]);
            }
        }
    }
}

impl Work<'_> {
    /// Add the values of a block of keys, times their weights, both in 16 bits.
    #[inline(always)]
    pub(super) fn add_words<I: Int8Dot>(
        &mut self,
        isa: I,
        (keys, panels, packed): (&Range<usize>, usize, &[u8]),
    ) {
        let (sizes, stride) = (self.sizes, self.sizes.key_block());
        let padded = sizes.padded_dim();
        let vectors = padded / LANES;
        let weights = bytemuck::cast_slice::<u16, u8>(self.weights);
        for start in (0..keys.len()).step_by(SPAN) {
            let panel = panels + (keys.start + start) / PANEL;
            let b = bytemuck::cast_slice(&packed[panel * sizes.value_panel_bytes()..]);
            let groups = SPAN.min(keys.len() - start).div_ceil(PAIRED) * LANES;
            let mut found: [Rows<'_>; 1] = [[&[]; MAX_ROWS]];
            for rows in tiles(self.count, I::TILE_ROWS) {
                for (row, found) in rows.clone().zip(found.as_flattened_mut()) {
                    *found = &weights[2 * (row * stride + start)..];
                }
                let strip = Strip {
                    count: rows.len(),
                    rows: &found,
                    groups,
                    b,
                    b_stride: vectors,
                    multipliers: &[],
                    vectors,
                    ahead: Ahead::nothing(b),
                    accumulate: false,
                };
                let values = &mut self.sums[rows.start * padded..rows.end * padded];
                let sums = Sums { values: &mut [], stride: vectors };
                multiply((isa, WordDot), &strip, (sums, Add { values, stride: padded }));
            }
        }
    }
}

/// Adds sums of products to real ones.
struct Add<'a> {
    values: &'a mut [f32],
    /// Distance of two rows.
    stride: usize,
}

impl<I: Isa> Sink<I> for Add<'_> {
    #[inline(always)]
    fn expect<const C: usize>(&mut self, _: I, _: usize, _: usize) {}

    #[inline(always)]
    fn takes(&self) -> bool {
        true
    }

    #[inline(always)]
    fn take<const C: usize>(&mut self, isa: I, (row, vector): (usize, usize), acc: [I::V; C]) {
        let values = &mut self.values[row * self.stride + vector * LANES..][..C * LANES];
        for (acc, value) in acc.into_iter().zip(values.as_chunks_mut().0) {
            isa.store(isa.add(isa.load(value), acc), value);
        }
    }
}
