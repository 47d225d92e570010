//! Convolutions of 3×3 taps by minimal filtering, F(2×2, 3×3) of Winograd in the form of Lavin and Gray (2016, section 4).
//!
//! `Y = Aᵀ [Σ over channels of (G g Gᵀ) ⊙ (Bᵀ d B)] A`, where `d` are the 4×4 pixels that a *patch* of 2×2 results reads
//! and `g` the 3×3 taps: 16 products take the place of 36. For each of the 16 *points* the sum over channels is a
//! matrix product `[patches, channels] · [channels, n]`, which the register tile of every other product computes.
//!
//! 1. *Blocks of channels.* Patches and taps of a block are transformed into scratch that stays in cache, multiplied, and
//!    added to the sums of all points, which wait in scratch. Each chunk transforms what it needs itself: beside the
//!    products that is little, and nothing is shared between threads or kept between calls.
//! 2. *Twice as large images.* Where each pixel is seen four times, the two in the middle of a patch are one pixel, and
//!    seven of the points are products with zero: nine products for what the definition does with 36.
//! 3. *Whole numbers.* Where bytes are multiplied in 16 bits anyway, these have room for what is transformed, and the
//!    results are exact; see [`Words`].

mod numbers;
mod transform;

use std::ops::Range;

use numbers::{Numbers, Reals, Words};

use super::{
    Gate, Geometry, MAX_ROWS, Matmul,
    chunk::{Panel, tiles},
    plan, rows,
    tile::{Ahead, Arithmetic, Keep, Rows, Strip, Sums, multiply},
};
use crate::{
    Cpu,
    format::{ActivationFormat, Activations, PANEL, PanelLayout, Panels, int},
    isa::{Int16Dot, Int16Op, Isa, LANES, SimdOp},
    matmul::{Conv2d, Epilogue},
    scratch::{self, Scratch},
    threads::{Grid, Order, OutputTile},
};

/// Points of the transformed patch.
const POINTS: usize = 16;

/// Points that are not zero where images are seen twice as large.
const DOUBLED: [usize; 9] = [0, 1, 3, 4, 5, 7, 12, 13, 15];

/// All points.
const ALL: [usize; POINTS] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// Patches that are transformed together.
const PATCHES: usize = 128;

/// Channels that are transformed together.
const CHANNELS: usize = 128;

/// Patches whose results are finished together.
const SPAN: usize = 8;

/// Results of an image from which on it pays: fewer do not share the transformed taps often enough.
const FEW_ROWS: usize = 100;

/// The same for bytes, whose taps are read in less time and whose other way is slower.
const FEW_ROWS_OF_BYTES: usize = 64;

/// The place of a pixel outside the image.
const OUTSIDE: u32 = u32::MAX;

/// The element at which each of the 4×4 pixels of a patch starts, divided by their channels.
type Places = [u32; POINTS];

/// What is read of an image for some patches.
struct Patches<'a> {
    places: &'a [Places],
    /// Channels of a pixel.
    stride: usize,
    /// Those that are read.
    channels: Range<usize>,
}

/// The sizes of a convolution by minimal filtering, which follow from its shape and the number of threads.
#[derive(Clone, Debug)]
pub(super) struct Winograd {
    conv: Conv2d,
    points: &'static [usize],
    /// Patches and channels that are transformed together.
    patches: usize,
    channels: usize,
    /// Channels whose weights are widened together.
    widened: usize,
    /// Numbers in four bytes.
    per_lane: usize,
    grid: Grid,
    workers: usize,
}

impl Winograd {
    /// The sizes, if the product is a convolution for which this way pays.
    pub(super) fn new(
        input: ActivationFormat,
        geometry: &Geometry,
        layout: &PanelLayout,
        cpu: &Cpu,
    ) -> Option<Self> {
        let Geometry::Conv(conv) = *geometry else { return None };
        let (per_lane, few_rows) = match plan::Way::new(input, layout, cpu) {
            plan::Way::F32 | plan::Way::Widened => (1, FEW_ROWS),
            plan::Way::Int16 => (2, FEW_ROWS_OF_BYTES),
            plan::Way::Narrow => (2, FEW_ROWS),
            _ => return None,
        };
        let suits = conv.kernel == [3, 3]
            && conv.stride == [1, 1]
            && conv.channels.is_multiple_of(per_lane * LANES)
            && conv.channels > 0
            && (per_lane == 1 || conv.channels < Words::CHANNELS)
            && conv.out_height * conv.out_width >= few_rows;
        if !suits {
            return None;
        }
        let doubles = conv.seen() == [2 * conv.height, 2 * conv.width]
            && [conv.pad_top, conv.pad_left] == [1, 1];
        let workers = cpu.threads.count();
        let pair = 2 * conv.out_width;
        let rows = conv.out_height * conv.out_width;
        let most = (4 * PATCHES).next_multiple_of(pair);
        let images = conv.batch.max(1);
        let row_block = plan::row_block((rows, most, pair), layout.panels() * images, workers)
            .next_multiple_of(pair);
        let parts = conv.channels.div_ceil(CHANNELS);
        let unit = if layout.format.is_int() { int::GROUP } else { LANES };
        let channels = conv.channels.div_ceil(parts).next_multiple_of(unit).min(conv.channels);
        let widened =
            if per_lane == 1 { Reals::widened_channels(layout.format) } else { Words::WIDENED };
        Some(Self {
            points: if doubles { &DOUBLED } else { &ALL },
            patches: PATCHES.min(row_block / pair * conv.out_width.div_ceil(2)),
            channels,
            widened,
            per_lane,
            grid: Grid {
                groups: conv.batch,
                rows,
                columns: layout.n,
                row_block,
                column_block: PANEL,
                order: if rows > layout.n { Order::ColumnsFirst } else { Order::RowsFirst },
            },
            conv,
            workers,
        })
    }

    /// Bytes of scratch.
    pub(super) fn scratch_bytes(&self) -> usize {
        let worker = scratch::bytes(&self.lengths().map(|length| length * 4));
        worker.saturating_mul(self.workers)
    }

    /// Numbers of each part of a worker's scratch: places, patches, widened weights, weights, sums, results.
    fn lengths(&self) -> [usize; 6] {
        let Self { patches, per_lane, .. } = *self;
        let [channels, widened] = [self.channels, self.widened].map(|count| count / per_lane);
        [
            POINTS * patches,
            POINTS * apart(patches * channels),
            9 * widened * PANEL,
            POINTS * apart(channels * PANEL),
            POINTS * apart(patches * PANEL),
            2 * 2 * SPAN * PANEL,
        ]
    }

    /// Compute the product.
    pub(super) fn run(&self, matmul: Matmul<'_>, cpu: &Cpu) {
        let Matmul { input, weights, epilogue, output, scratch, .. } = matmul;
        assert!(epilogue.gate == Gate::None, "convolutions have no gates");
        let (input, epilogue) = (&input, &epilogue);
        cpu.threads.run_tiles((output, self.grid), scratch, |output, workspace| {
            let chunk = Chunk { winograd: self, input, weights, epilogue, output, workspace };
            if self.per_lane == 1 {
                cpu.eval(chunk);
            } else {
                // The way is chosen only where the CPU has them.
                drop(cpu.eval_int16(chunk));
            }
        });
    }

    /// The place of each pixel that patch `patch` of an image reads, from image line `line` on.
    fn places(&self, (image, line): (usize, usize), patch: usize) -> Places {
        let conv = &self.conv;
        let [height, width] = conv.seen();
        let across = conv.out_width.div_ceil(2);
        let (y, x) = (line + patch / across * 2, patch % across * 2);
        let mut places = [OUTSIDE; POINTS];
        for (i, places) in places.chunks_exact_mut(4).enumerate() {
            let Some(y) = rows::source(y + i, conv.pad_top, (height, conv.height)) else {
                continue;
            };
            let line = (image * conv.height + y) * conv.width;
            for (j, place) in places.iter_mut().enumerate() {
                if let Some(x) = rows::source(x + j, conv.pad_left, (width, conv.width)) {
                    *place = (line + x) as u32;
                }
            }
        }
        places
    }
}

/// The distance of two points of `length` numbers each. Points are written side by side: in the same set of lines of a
/// cache they would drive each other out of it.
fn apart(length: usize) -> usize {
    ((length / LANES) | 1) * LANES
}

/// The work of one call: some pairs of lines of an image times a panel.
struct Chunk<'a, 't> {
    winograd: &'a Winograd,
    input: &'a Activations<'a>,
    weights: Panels<'a>,
    epilogue: &'a Epilogue<'a>,
    output: OutputTile<'t>,
    workspace: &'t mut [u8],
}

impl SimdOp for Chunk<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        self.compute(isa, Reals);
    }
}

impl Int16Op for Chunk<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Int16Dot>(self, isa: I) {
        let dequantize = self.epilogue.dequantize.expect("integers have units");
        let ranges = dequantize.ranges.expect("codes have ranges");
        let Grid { rows, .. } = self.winograd.grid;
        let numbers = Words {
            zero: ranges.of(self.output.cell.group * rows).zero as u8,
            weights: &dequantize.sums[self.output.cell.columns.start..],
        };
        self.compute(isa, numbers);
    }
}

impl Chunk<'_, '_> {
    #[inline(always)]
    fn compute<I: Isa, N: Numbers<I>>(self, isa: I, numbers: N) {
        let Self { winograd, input, weights, epilogue, mut output, workspace } = self;
        let conv = &winograd.conv;
        let panel = Panel::of(&weights, output.cell.columns.start / PANEL);
        let (width, vectors) = (panel.width, panel.width / LANES);
        let image = output.cell.group;
        let line = output.cell.rows.start / conv.out_width;
        let lines = output.cell.rows.len() / conv.out_width;
        let across = conv.out_width.div_ceil(2);
        // The epilogue counts rows from the first image on.
        let before = image * conv.out_height * conv.out_width;
        output.cell.rows = output.cell.rows.start + before..output.cell.rows.end + before;

        let mut scratch = Scratch::new(workspace);
        let [places, patches, widened, taps, sums, results] = winograd.lengths();
        let places = scratch.take::<Places>(places / POINTS);
        let [patches, widened, taps, sums, results] =
            [patches, widened, taps, sums, results].map(|length| scratch.take::<f32>(length));
        if winograd.points.len() < POINTS {
            // Those that are not multiplied stay zero.
            sums.fill(0.0);
        }

        let all = lines.div_ceil(2) * across;
        for first in (0..all).step_by(winograd.patches) {
            let count = winograd.patches.min(all - first);
            let places = &mut places[..count];
            for (patch, places) in (first..).zip(&mut *places) {
                *places = winograd.places((image, line), patch);
            }
            for start in (0..conv.channels).step_by(winograd.channels) {
                let channels = start..conv.channels.min(start + winograd.channels);
                let groups = channels.len() / N::PER_LANE;
                let seen = Patches { places, stride: conv.channels, channels: channels.clone() };
                numbers.input(isa, (input, &seen), patches);
                transform::weights((isa, numbers), (&panel, channels), widened, taps);
                for &point in winograd.points {
                    let a = &patches[point * apart(count * groups)..][..count * groups];
                    let b = &taps[point * apart(groups * width)..][..groups * width];
                    let to = &mut sums[point * apart(winograd.patches * width)..][..count * width];
                    for rows in tiles(count, <N::Product as Arithmetic<I>>::ROWS) {
                        let mut found: Rows<'_> = [&[]; MAX_ROWS];
                        for (row, found) in rows.clone().zip(&mut found) {
                            *found = bytemuck::cast_slice(&a[row * groups..]);
                        }
                        let strip = Strip {
                            count: rows.len(),
                            rows: &[found],
                            groups,
                            b,
                            b_stride: vectors,
                            multipliers: &[],
                            vectors,
                            ahead: Ahead::nothing(b),
                            accumulate: start > 0,
                        };
                        let values = &mut to[rows.start * width..rows.end * width];
                        let to = Sums { values, stride: vectors };
                        multiply((isa, N::PRODUCT), &strip, (to, Keep));
                    }
                }
            }
            let (mut patch, end) = (first, first + count);
            while patch < end {
                let (y, x) = (patch / across * 2, patch % across);
                let span = SPAN.min(across - x).min(end - patch);
                for i in 0..span {
                    let from = (&*sums, apart(winograd.patches * width));
                    let to = (&mut results[2 * i * width..], 2 * SPAN * width);
                    transform::output((isa, numbers), from, (patch - first + i, width), to);
                }
                let pixels = (2 * span).min(conv.out_width - 2 * x);
                for i in 0..2.min(lines - y) {
                    let row = (y + i) * conv.out_width + 2 * x;
                    let results = &results[i * 2 * SPAN * width..][..pixels * width];
                    let finished = (row..row + pixels, results, width);
                    epilogue.finish((isa, N::PRODUCT), &mut output, finished);
                }
                patch += span;
            }
        }
    }
}
