//! One block of queries of one head against all keys.

use std::ops::Range;

use super::{
    Heads, Mask,
    packing::{Packed, Sizes, widen},
};
use crate::{
    format::{Activations, PANEL},
    isa::{Bf16Dot, Bf16Op, Isa, LANES, SimdOp},
    math,
    matmul::{Ahead, Arithmetic, Fma, Keep, MAX_ROWS, PairDot, Strip, Sums, multiply, tiles},
    scratch::Scratch,
    threads::OutputTile,
};

/// The work of one call.
pub(super) struct QueryBlock<'a, 't> {
    pub(super) sizes: &'a Sizes,
    pub(super) q: Heads<'a>,
    pub(super) packed: &'a Packed<'a>,
    pub(super) scale: f32,
    pub(super) mask: Mask,
    pub(super) output: OutputTile<'t>,
    pub(super) workspace: &'t mut [u8],
}

impl SimdOp for QueryBlock<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        self.compute(isa, Fma);
    }
}

impl Bf16Op for QueryBlock<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Bf16Dot>(self, isa: I) {
        self.compute(isa, PairDot);
    }
}

impl QueryBlock<'_, '_> {
    #[inline(always)]
    fn compute<I: Isa, A: Arithmetic<I>>(self, isa: I, arithmetic: A) {
        let Self { sizes, q, packed, scale, mask, mut output, workspace } = self;
        let dim = sizes.shape.head_dim;
        let count = output.cell.rows.len();
        let head = output.cell.columns.start / dim.max(1);
        let first = output.cell.group * sizes.shape.tokens_q + output.cell.rows.start;
        let panels = (output.cell.group * sizes.shape.heads + head) * sizes.panels();
        let mut scratch = Scratch::new(workspace);
        let queries = scratch.take::<f32>(sizes.queries_length());
        let scores = scratch.take::<f32>(sizes.scores_length());
        let weights = scratch.take::<u16>(sizes.weights_length());
        let sums = scratch.take::<f32>(sizes.sums_length());
        let states = scratch.take::<[f32; 2]>(sizes.query_block());
        sums.fill(0.0);
        states.fill([f32::NEG_INFINITY, 0.0]);

        let raw = match q.values {
            Activations::F32(values) => bytemuck::cast_slice::<f32, u8>(values),
            Activations::Bf16(bits) => bytemuck::cast_slice(bits),
        };
        if let Activations::Bf16(bits) = q.values
            && sizes.gathers_queries()
        {
            for (row, to) in queries.chunks_exact_mut(dim.max(1)).take(count).enumerate() {
                let start = sizes.start(&q, first + row, head);
                widen(isa, &bits[start..start + dim], to);
            }
        }
        let query = |row: usize| {
            if sizes.gathers_queries() {
                bytemuck::cast_slice(&queries[row * dim..])
            } else {
                &raw[sizes.start(&q, first + row, head) * sizes.size()..]
            }
        };

        let stride = sizes.key_block();
        let padded = sizes.padded_dim();
        let mut keys = 0..0;
        while keys.end < sizes.shape.tokens_k {
            keys = keys.end..sizes.shape.tokens_k.min(keys.end + stride);
            if mask == Mask::Causal && keys.start >= output.cell.rows.end {
                break;
            }
            for panel in keys.start / PANEL..keys.end.div_ceil(PANEL) {
                let width = sizes.width(panel);
                let bytes = sizes.key_panel_bytes();
                let b = bytemuck::cast_slice(&packed.keys[(panels + panel) * bytes..][..bytes]);
                for rows in tiles(count, I::TILE_ROWS) {
                    let to = &mut scores[rows.start * stride + panel * PANEL - keys.start..];
                    let mut found = [&raw[..0]; MAX_ROWS];
                    for (row, found) in rows.clone().zip(&mut found) {
                        *found = query(row);
                    }
                    let strip = Strip {
                        count: rows.len(),
                        rows: &[found],
                        groups: dim * sizes.size() / 4,
                        b,
                        b_stride: width / LANES,
                        vectors: width / LANES,
                        ahead: Ahead::nothing(b),
                        accumulate: false,
                    };
                    let sums = Sums { values: to, stride: stride / LANES };
                    multiply((isa, arithmetic), &strip, (sums, Keep));
                }
            }
            for row in 0..count {
                let scores = &mut scores[row * stride..][..stride];
                let seen = seen(mask, output.cell.rows.start + row, &keys);
                let weights = weights.get_mut(row * stride..(row + 1) * stride);
                let factor = softmax(isa, scale, (scores, seen, keys.len()), weights, &mut states[row]);
                if factor != 1.0 {
                    for sum in sums[row * padded..][..padded].as_chunks_mut().0 {
                        isa.store(isa.mul(isa.load(sum), isa.splat(factor)), sum);
                    }
                }
            }
            let bytes = sizes.value_panel_bytes();
            let start = (panels + keys.start / PANEL) * bytes;
            let b = bytemuck::cast_slice(&packed.values[start..]);
            let weights = if sizes.is_bf16_dot() {
                bytemuck::cast_slice::<u16, u8>(weights)
            } else {
                bytemuck::cast_slice(scores)
            };
            for rows in tiles(count, I::TILE_ROWS) {
                let mut found = [&weights[..0]; MAX_ROWS];
                for (row, found) in rows.clone().zip(&mut found) {
                    *found = &weights[row * stride * sizes.size()..];
                }
                let strip = Strip {
                    count: rows.len(),
                    rows: &[found],
                    groups: keys.len().div_ceil(4 / sizes.size()),
                    b,
                    b_stride: padded / LANES,
                    vectors: padded / LANES,
                    ahead: Ahead::nothing(b),
                    accumulate: true,
                };
                let values = &mut sums[rows.start * padded..];
                let sums = Sums { values, stride: padded / LANES };
                multiply((isa, arithmetic), &strip, (sums, Keep));
            }
        }
        for (row, [_, total]) in states[..count].iter().enumerate() {
            let total = isa.splat(*total);
            for column in (0..dim).step_by(LANES) {
                let sum = isa.read(&sums[row * padded + column..]);
                output.write(isa, (row, column), isa.div(sum, total));
            }
        }
    }
}

/// How many of `keys` the query at `position` sees.
fn seen(mask: Mask, position: usize, keys: &Range<usize>) -> usize {
    match mask {
        Mask::None => keys.len(),
        Mask::Causal => (position + 1).saturating_sub(keys.start).min(keys.len()),
    }
}

/// Turn the scores of one query into weights, in place or as bf16; give back the factor by which
/// its earlier sums are to be multiplied.
///
/// `state` is the greatest score so far and the sum of weights relative to it.
#[inline(always)]
fn softmax<I: Isa>(
    isa: I,
    scale: f32,
    (scores, seen, count): (&mut [f32], usize, usize),
    mut weights: Option<&mut [u16]>,
    [greatest, total]: &mut [f32; 2],
) -> f32 {
    let scale = isa.splat(scale);
    let mut most = isa.splat(*greatest);
    let (whole, rest) = scores[..seen].as_chunks::<LANES>();
    for s in whole {
        most = isa.max(isa.mul(isa.load(s), scale), most);
    }
    let mut new = isa.reduce_max(most);
    for s in rest {
        new = new.max(isa.to_array(isa.mul(isa.splat(*s), scale))[0]);
    }
    let (old, center) = (*greatest, isa.splat(-new));
    *greatest = new;

    let mut sum = isa.splat(0.0);
    for start in (0..count).step_by(LANES) {
        let mut p = math::exp(isa, isa.fma(isa.read(&scores[start..]), scale, center));
        if seen < start + LANES {
            let mut lanes = isa.to_array(p);
            lanes[seen.saturating_sub(start)..].fill(0.0);
            p = isa.load(&lanes);
        }
        sum = isa.add(sum, p);
        match &mut weights {
            Some(weights) => isa.write_bf16(p, &mut weights[start..start + LANES]),
            None => isa.write(p, &mut scores[start..start + LANES]),
        }
    }
    let factor = if old == new { 1.0 } else { isa.to_array(math::exp(isa, isa.splat(old - new)))[0] };
    *total = *total * factor + isa.reduce_add(sum);
    factor
}
