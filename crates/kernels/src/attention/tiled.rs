//! Products of attention in whole tiles: strips of 32 queries.

use std::ops::Range;

use super::{
    block::{Products, Queries, Work},
    codes::Scores,
    softmax::Brain,
};
use crate::{
    format::PANEL,
    isa::{
        Int8Dot, LANES,
        tiles::{Ahead, Numbers, STEP, STRIP, TILE, TileRows, TileStrip, Tiles},
    },
    matmul::Sink,
};

/// Products by tiles.
#[derive(Clone, Copy)]
pub(super) struct ByTiles<T>(pub(super) T);

/// Rows `rows` of `bytes`, as a strip wants them.
#[inline(always)]
fn halves<'a>(bytes: &'a [u8], stride: usize, rows: &Range<usize>) -> [TileRows<'a>; 2] {
    let mut halves = [TileRows::NONE; 2];
    for (start, half) in rows.clone().step_by(TILE).zip(&mut halves) {
        *half = TileRows { bytes: &bytes[start * stride..], stride };
    }
    halves
}

impl<I: Int8Dot, T: Tiles> Products<I> for ByTiles<T> {
    type Weights = Brain;

    #[inline(always)]
    fn score(
        self,
        isa: I,
        work: &mut Work<'_>,
        (keys, panels, packed): (&Range<usize>, usize, &[u8]),
        queries: Queries<'_>,
    ) {
        let (sizes, stride) = (work.sizes, work.sizes.key_block());
        let numbers = if sizes.has_codes() { Numbers::Bytes } else { Numbers::Pairs };
        work.most.fill(f32::NEG_INFINITY);
        for panel in keys.start / PANEL..keys.end.div_ceil(PANEL) {
            let (bytes, b_stride) = (sizes.key_panel_bytes(), sizes.width(panel) / LANES);
            let b = bytemuck::cast_slice::<u8, f32>(&packed[(panels + panel) * bytes..][..bytes]);
            let behind = if sizes.has_codes() { 2 * PANEL } else { 0 };
            let (units, summands) = b[b.len() - behind..].split_at(behind / 2);
            for start in (0..work.count).step_by(STRIP) {
                let rows = start..work.count.min(start + STRIP);
                let to = &mut work.scores[start * stride + panel * PANEL - keys.start..];
                for vector in (0..b_stride).step_by(2) {
                    let strip = TileStrip {
                        numbers,
                        rows: rows.len(),
                        vectors: 2.min(b_stride - vector),
                        segments: &[halves(queries.bytes, queries.stride, &rows)],
                        steps: 4 * sizes.groups() / STEP,
                        b: &b[vector * LANES..],
                        b_stride,
                        accumulate: false,
                        ahead: Ahead::nothing(b),
                    };
                    self.0.multiply(&strip, (&mut to[vector * LANES..], stride / LANES));
                }
                if sizes.has_codes() {
                    let most = &mut work.most[start * LANES..];
                    let scores = Scores { units, summands, most, to, stride };
                    finish(isa, scores, (rows.len(), b_stride));
                }
            }
        }
    }

    #[inline(always)]
    fn add_values(
        self,
        _: I,
        work: &mut Work<'_>,
        (keys, panels, packed): (&Range<usize>, usize, &[u8]),
    ) {
        let (sizes, stride) = (work.sizes, work.sizes.key_block());
        let vectors = sizes.padded_dim() / LANES;
        let start = (panels + keys.start / PANEL) * sizes.value_panel_bytes();
        let b = bytemuck::cast_slice::<u8, f32>(&packed[start..]);
        // Vectors of weights are written, and what a tile takes beyond them counts for nothing.
        let (written, taken) =
            (keys.len().next_multiple_of(LANES), keys.len().next_multiple_of(STEP / 2));
        if written < taken {
            for weights in work.weights.chunks_exact_mut(stride).take(work.count) {
                weights[written..taken].fill(0);
            }
        }
        let weights = bytemuck::cast_slice::<u16, u8>(work.weights);
        for start in (0..work.count).step_by(STRIP) {
            let rows = start..work.count.min(start + STRIP);
            let to = &mut work.sums[start * sizes.padded_dim()..];
            for vector in (0..vectors).step_by(2) {
                let strip = TileStrip {
                    numbers: Numbers::Pairs,
                    rows: rows.len(),
                    vectors: 2.min(vectors - vector),
                    segments: &[halves(weights, 2 * stride, &rows)],
                    steps: taken * 2 / STEP,
                    b: &b[vector * LANES..],
                    b_stride: vectors,
                    accumulate: true,
                    ahead: Ahead::nothing(b),
                };
                self.0.multiply(&strip, (&mut to[vector * LANES..], vectors));
            }
        }
    }

    #[inline(always)]
    fn end(self) {
        self.0.release();
    }
}

/// Make scores of sums of products of codes, where they lie.
#[inline(always)]
fn finish<I: Int8Dot>(isa: I, mut scores: Scores<'_>, (rows, vectors): (usize, usize)) {
    const WIDE: usize = PANEL / LANES;
    for row in 0..rows {
        let sums = scores.to[row * scores.stride..].as_chunks().0;
        if vectors == WIDE
            && let Some(sums) = sums.first_chunk::<WIDE>()
        {
            let mut acc = [isa.splat(0.0); WIDE];
            for (acc, sum) in acc.iter_mut().zip(sums) {
                *acc = isa.widen_i32(isa.load(sum));
            }
            scores.take(isa, (row, 0), acc);
            continue;
        }
        for vector in 0..vectors {
            let sums = scores.to[row * scores.stride..].as_chunks().0;
            let acc = isa.widen_i32(isa.load(&sums[vector]));
            scores.take(isa, (row, vector), [acc]);
        }
    }
}
