//! One chunk of a matrix product in whole tiles: strips of 32 rows times 32 lanes of a panel.

use std::ops::Range;

use super::{
    MAX_SEGMENTS, QuadDot, Sink,
    chunk::{Blocks, Chunk, Panel},
    epilogue::Direct,
    plan::Way,
    rows::{Block, RowTable},
    tile::{Arithmetic, Fma},
};
use crate::{
    format::PANEL,
    isa::{
        Int8Dot, Isa, LANES,
        tiles::{Ahead, Numbers, STEP, STRIP, TILE, TileOp, TileRows, TileStrip, Tiles},
    },
    matmul::Gate,
    scratch::Scratch,
};

/// A chunk that is multiplied in tiles.
pub(super) struct TiledChunk<'a, 't>(pub(super) Chunk<'a, 't>);

impl TileOp for TiledChunk<'_, '_> {
    #[inline(always)]
    fn eval<I: Int8Dot, T: Tiles>(self, isa: I, tiles: T) {
        if self.0.plan.way == Way::ByteTiles {
            self.compute((isa, QuadDot), (tiles, Numbers::Bytes));
        } else {
            // Sums of pairs are real already, which is all that is asked of this arithmetic.
            self.compute((isa, Fma), (tiles, Numbers::Pairs));
        }
    }
}

impl TiledChunk<'_, '_> {
    #[inline(always)]
    fn compute<I: Isa, A: Arithmetic<I>, T: Tiles>(
        self,
        (isa, arithmetic): (I, A),
        (tiles, numbers): (T, Numbers),
    ) {
        let Chunk { input, geometry, weights, epilogue, plan, blank, streams, .. } = self.0;
        let Chunk { mut output, workspace, .. } = self.0;
        let layout = weights.layout;
        let column_block = if epilogue.gate == Gate::None { PANEL } else { PANEL / 2 };
        let panel = Panel::of(&weights, output.cell.columns.start / column_block);
        let Panel { width, bytes, .. } = panel;
        let count = output.cell.rows.len();
        let (first, size) = (output.cell.rows.start, STEP / LANES / plan.way.per_group());

        let mut scratch = Scratch::new(workspace);
        let table = scratch.take(plan.table_length());
        let table = RowTable::new(geometry, (first, count), table);
        let sums = scratch.take::<f32>(plan.partial_length());
        let widened = scratch.take::<f32>(plan.widened_length());
        let gathered = scratch.take::<f32>(plan.gathered_length());
        let gathered = bytemuck::cast_slice_mut::<f32, u8>(gathered);

        let raw = input.bytes();
        let is_direct = output.cell.columns.len() == width && epilogue.is_linear();
        let vectors = width / LANES;
        for (block, is_first, is_last) in (Blocks { layout, plan }).iter() {
            let start = block.taps.start * layout.padded_channels() + block.channels.start;
            let b = panel.factors(isa, (plan, &block), widened);
            let steps = block.channels.len() * size / STEP;
            // What follows in memory is the next block, or the panel that is likely to be next.
            let depth = block.taps.len() * block.channels.len();
            let following =
                layout.row_bytes(start + depth, width)..layout.row_bytes(start + 2 * depth, width);
            let mut asked = following.start;
            for start in (0..count).step_by(STRIP) {
                let rows = start..count.min(start + STRIP);
                let source =
                    Source { raw, size, blank: |row| &blank[plan.blank_start(first + row)..] };
                let found = source.find(&table, (&block, &rows), gathered);
                for vector in (0..vectors).step_by(2) {
                    let strip = TileStrip {
                        numbers,
                        rows: rows.len(),
                        vectors: 2.min(vectors - vector),
                        segments: &found[..block.taps.len()],
                        steps,
                        b: &b[vector * LANES..],
                        b_stride: vectors,
                        accumulate: !is_first,
                        ahead: Ahead::new(bytes, asked, following.end),
                    };
                    asked += block.taps.len() * steps * Ahead::STEP;
                    let to = &mut sums[rows.start * width + vector * LANES..];
                    tiles.multiply(&strip, (to, vectors));
                }
                if !is_last {
                    continue;
                }
                let finished = &sums[rows.start * width..rows.end * width];
                if is_direct {
                    let first = rows.start;
                    let output = &mut output;
                    let mut sink = Direct { epilogue, output, first, takes: true, streams };
                    finish((isa, arithmetic), (finished, vectors), &mut sink);
                } else {
                    epilogue.finish((isa, arithmetic), &mut output, (rows, finished, width));
                }
            }
        }
        tiles.release();
        if streams {
            isa.fence();
        }
    }
}

/// Hand rows of `vectors` vectors of sums to their sink.
#[inline(always)]
fn finish<I: Isa, A: Arithmetic<I>>(
    (isa, arithmetic): (I, A),
    (sums, vectors): (&[f32], usize),
    sink: &mut impl Sink<I>,
) {
    const WIDE: usize = PANEL / LANES;
    for (row, sums) in sums.chunks_exact(vectors * LANES).enumerate() {
        let sums = sums.as_chunks().0;
        if let Some(sums) = sums.first_chunk::<WIDE>() {
            let mut acc = [isa.splat(0.0); WIDE];
            for (acc, sum) in acc.iter_mut().zip(sums) {
                *acc = arithmetic.real(isa, isa.load(sum));
            }
            sink.take(isa, (row, 0), acc);
        } else {
            for (vector, sum) in sums.iter().enumerate() {
                sink.take(isa, (row, vector), [arithmetic.real(isa, isa.load(sum))]);
            }
        }
    }
}

/// Where rows of activations are.
struct Source<'a, B> {
    /// The bytes of all activations.
    raw: &'a [u8],
    /// Bytes of an element.
    size: usize,
    /// What a row reads outside its image.
    blank: B,
}

impl<'a, B: Fn(usize) -> &'a [u8]> Source<'a, B> {
    /// The rows of each tap of a block that some output rows read: in place where they lie equally far apart, else
    /// copied into `gathered`.
    #[inline(always)]
    fn find<'g>(
        &self,
        table: &RowTable<'_>,
        (block, rows): (&Block, &Range<usize>),
        gathered: &'g mut [u8],
    ) -> [[TileRows<'g>; 2]; MAX_SEGMENTS]
    where
        'a: 'g,
    {
        let mut found = [[TileRows::NONE; 2]; MAX_SEGMENTS];
        let (offset, length) = (block.channels.start * self.size, block.channels.len() * self.size);
        let mut free = gathered;
        for (tap, found) in block.taps.clone().zip(&mut found) {
            for (start, found) in rows.clone().step_by(TILE).zip(found) {
                let rows = start..rows.end.min(start + TILE);
                if let Some((start, stride)) = table.evenly(tap, rows.clone()) {
                    let bytes = &self.raw[start * self.size + offset..];
                    *found = TileRows { bytes, stride: stride * self.size };
                    continue;
                }
                let (to, rest) = std::mem::take(&mut free).split_at_mut(rows.len() * length);
                free = rest;
                for (row, to) in rows.zip(to.chunks_exact_mut(length)) {
                    let from = match table.start(tap, row) {
                        Some(start) => &self.raw[start * self.size + offset..],
                        None => (self.blank)(row),
                    };
                    to.copy_from_slice(&from[..length]);
                }
                *found = TileRows { bytes: to, stride: length };
            }
        }
        found
    }
}
