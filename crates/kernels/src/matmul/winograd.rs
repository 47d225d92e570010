//! Convolutions of 3×3 taps by minimal filtering, F(2×2, 3×3) and F(4×4, 3×3) of Winograd in the form of Lavin and Gray
//! (2016, section 4).
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
//! 3. *Whole numbers.* 16 bits have room for what codes are transformed into, and the results are exact; see [`Words`].
//! 4. *Larger patches.* Where nothing is rounded, larger patches cost no accuracy: 36 products do for 4×4 results what the
//!    definition does with 144; see [`LargeWords`]. That pays even where bytes are multiplied, twice as many at a time.

mod numbers;
mod spaced;
mod transform;
mod words;

use std::ops::Range;

use numbers::{Numbers, Reals};
use words::{LargeWords, Words};

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

/// Points that are not zero where images are seen twice as large, of a patch of 2×2 results.
const DOUBLED: [usize; 9] = [0, 1, 3, 4, 5, 7, 12, 13, 15];

/// All points of the largest patch.
const ALL: [usize; 36] = {
    let mut all = [0; 36];
    let mut point = 0;
    while point < all.len() {
        all[point] = point;
        point += 1;
    }
    all
};

/// Patches that are transformed together.
const PATCHES: usize = 128;

/// The same of those that have more points.
const LARGE_PATCHES: usize = 64;

/// Channels that are transformed together.
const CHANNELS: usize = 128;

/// Patches whose results are finished together.
const SPAN: usize = 8;

/// Results of an image from which on it pays: fewer do not share the transformed taps often enough.
const FEW_ROWS: usize = 100;

/// The same for bytes, whose taps are read in less time and whose other way is slower.
const FEW_ROWS_OF_BYTES: usize = 64;

/// The same where bytes are multiplied as such otherwise, twice as many at a time.
const FEW_ROWS_OF_WORDS: usize = 500;

/// The place of a pixel outside the image.
const OUTSIDE: u32 = u32::MAX;

/// What is read of an image for some patches.
struct Patches<'a> {
    /// The element at which each pixel of each patch starts, divided by their channels.
    places: &'a [u32],
    /// Channels of a pixel.
    stride: usize,
    /// Those that are read.
    channels: Range<usize>,
}

/// The sizes of a convolution by minimal filtering, which follow from its shape and the number of threads.
#[derive(Clone, Debug)]
pub(super) struct Winograd {
    conv: Conv2d,
    /// Pixels and results of a side of a patch.
    sides: [usize; 2],
    points: &'static [usize],
    /// Patches that are transformed together, and how many could be.
    patches: usize,
    most_patches: usize,
    /// Channels that are transformed together.
    channels: usize,
    /// Channels whose sums of points are transformed together.
    span: usize,
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
            plan::Way::Int8 if cpu.has_int16() => (2, FEW_ROWS_OF_WORDS),
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
        // Twice as large images take as few products with small patches.
        let is_large = per_lane == 2 && !doubles;
        let (pixels, side, together) =
            if is_large { (6, 4, LARGE_PATCHES) } else { (4, 2, PATCHES) };
        let workers = cpu.threads.count();
        let lines = side * conv.out_width;
        let rows = conv.out_height * conv.out_width;
        let most = (side * side * together).next_multiple_of(lines);
        let images = conv.batch.max(1);
        let row_block = plan::row_block((rows, most, lines), layout.panels() * images, workers)
            .next_multiple_of(lines);
        let span = if is_large { LargeWords::CHANNELS } else { conv.channels };
        let unit = if is_large { per_lane * LANES } else { int::GROUP };
        let unit = if layout.format.is_int() { unit } else { LANES };
        let span = share(conv.channels, span, unit);
        let channels = share(span, CHANNELS, unit);
        let widened =
            if per_lane == 1 { Reals::widened_channels(layout.format) } else { Words::WIDENED };
        Some(Self {
            sides: [pixels, side],
            points: if doubles { &DOUBLED } else { &ALL[..pixels * pixels] },
            most_patches: together,
            patches: together.min(row_block / lines * conv.out_width.div_ceil(side)),
            channels,
            span,
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
        let Self { patches, per_lane, sides: [pixels, side], .. } = *self;
        let points = pixels * pixels;
        let distances = Distances::new(self.most_patches, per_lane);
        // Those of all patches wait for the next channels.
        let waiting = if self.span < self.conv.channels { patches } else { SPAN };
        [
            points * patches,
            points * distances.patches,
            9 * self.widened / per_lane * PANEL,
            points * distances.taps,
            points * distances.sums,
            side * side * waiting * PANEL,
        ]
    }

    /// Compute the product.
    pub(super) fn run(&self, matmul: Matmul<'_>, streams: bool, cpu: &Cpu) {
        let Matmul { input, weights, epilogue, output, scratch, .. } = matmul;
        assert!(epilogue.gate == Gate::None, "convolutions have no gates");
        let (input, epilogue) = (&input, &epilogue);
        cpu.threads.run_tiles((output, self.grid), scratch, |output, workspace| {
            let winograd = self;
            let chunk = Chunk { winograd, input, weights, epilogue, streams, output, workspace };
            if self.per_lane == 1 {
                cpu.eval(chunk);
            } else {
                // The way is chosen only where the CPU has them.
                drop(cpu.eval_int16(chunk));
            }
        });
    }

    /// The place of each pixel that patch `patch` of an image reads, from image line `line` on.
    fn places(&self, (image, line): (usize, usize), patch: usize, places: &mut [u32]) {
        let Self { conv, sides: [pixels, side], .. } = self;
        let [height, width] = conv.seen();
        let across = conv.out_width.div_ceil(*side);
        let (y, x) = (line + patch / across * side, patch % across * side);
        places.fill(OUTSIDE);
        for (i, places) in places.chunks_exact_mut(*pixels).enumerate() {
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
    }
}

/// The larger of the equal parts, whole units, of as few as there are with at most about `most`.
fn share(all: usize, most: usize, unit: usize) -> usize {
    all.div_ceil(all.div_ceil(most)).next_multiple_of(unit).min(all)
}

/// The distances of two points of patches, of taps, and of sums. They are constants, so that a transform has its places
/// without computing them.
struct Distances {
    patches: usize,
    taps: usize,
    sums: usize,
}

impl Distances {
    /// Those of this many patches, and numbers in a lane.
    const fn new(patches: usize, per_lane: usize) -> Self {
        let groups = CHANNELS / per_lane;
        Self {
            patches: apart(patches * groups),
            taps: apart(groups * PANEL),
            sums: apart(patches * PANEL),
        }
    }
}

/// The distance of two points of at most `length` numbers each. Points are written side by side: in the same set of lines
/// of a cache they would drive each other out of it.
const fn apart(length: usize) -> usize {
    ((length / LANES) | 1) * LANES
}

/// The work of one call: some pairs of lines of an image times a panel.
struct Chunk<'a, 't> {
    winograd: &'a Winograd,
    input: &'a Activations<'a>,
    weights: Panels<'a>,
    epilogue: &'a Epilogue<'a>,
    streams: bool,
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
        let words = Words {
            zero: ranges.of(self.output.cell.group * rows).zero as u8,
            weights: &dequantize.sums[self.output.cell.columns.start..],
        };
        if self.winograd.sides == [6, 4] {
            self.compute(isa, LargeWords(words));
        } else {
            self.compute(isa, words);
        }
    }
}

impl Chunk<'_, '_> {
    #[inline(always)]
    fn compute<I: Isa, N: Numbers<I, P, R>, const P: usize, const R: usize>(
        self,
        isa: I,
        numbers: N,
    ) {
        let Self { winograd, input, weights, epilogue, streams, mut output, workspace } = self;
        let conv = &winograd.conv;
        let panel = Panel::of(&weights, output.cell.columns.start / PANEL);
        let width = panel.width;
        let image = output.cell.group;
        let line = output.cell.rows.start / conv.out_width;
        let lines = output.cell.rows.len() / conv.out_width;
        let across = conv.out_width.div_ceil(R);
        // The epilogue counts rows from the first image on.
        let before = image * conv.out_height * conv.out_width;
        output.cell.rows = output.cell.rows.start + before..output.cell.rows.end + before;

        let mut scratch = Scratch::new(workspace);
        let [places, patches, widened, taps, sums, results] = winograd.lengths();
        let places = scratch.take::<u32>(places);
        let [patches, widened, taps, sums, results] =
            [patches, widened, taps, sums, results].map(|length| scratch.take::<f32>(length));
        if winograd.points.len() < P * P {
            // Those that are not multiplied stay zero.
            sums.fill(0.0);
        }

        let all = lines.div_ceil(R) * across;
        let mut finish = Finish { winograd, epilogue, output, streams, width, lines };
        for first in (0..all).step_by(winograd.patches) {
            let count = winograd.patches.min(all - first);
            let places = &mut places[..count * P * P];
            for (patch, places) in (first..).zip(places.chunks_exact_mut(P * P)) {
                winograd.places((image, line), patch, places);
            }
            for span in (0..conv.channels).step_by(winograd.span) {
                let end = conv.channels.min(span + winograd.span);
                for start in (span..end).step_by(winograd.channels) {
                    let channels = start..end.min(start + winograd.channels);
                    let seen =
                        Patches { places, stride: conv.channels, channels: channels.clone() };
                    numbers.input(isa, (input, &seen), patches);
                    transform::weights((isa, numbers), (&panel, channels.clone()), widened, taps);
                    let groups = channels.len() / N::PER_LANE;
                    let factors = (&*patches, &*taps, [count, groups, width]);
                    let to = (&mut *sums, start > span);
                    multiply_points((isa, numbers), winograd.points, factors, to);
                }
                finish.patches((isa, numbers), first..first + count, (sums, results), span..end);
            }
        }
        if streams {
            isa.fence();
        }
    }
}

/// Makes results of sums, and finishes them.
struct Finish<'a, 't> {
    winograd: &'a Winograd,
    epilogue: &'a Epilogue<'a>,
    output: OutputTile<'t>,
    streams: bool,
    /// Lanes of the panel.
    width: usize,
    /// Lines of results.
    lines: usize,
}

impl Finish<'_, '_> {
    /// Transform the sums of some channels of patches, which lie in lines, and finish their results if all channels are in.
    #[inline(always)]
    fn patches<I: Isa, N: Numbers<I, P, R>, const P: usize, const R: usize>(
        &mut self,
        (isa, numbers): (I, N),
        patches: Range<usize>,
        (sums, results): (&[f32], &mut [f32]),
        channels: Range<usize>,
    ) {
        let Self { winograd: Winograd { conv, span, .. }, epilogue, streams, width, .. } = *self;
        let adds = channels.start > 0;
        let is_last = channels.end == conv.channels;
        let is_direct = epilogue.is_linear() && self.output.cell.columns.len() == width;
        let across = conv.out_width.div_ceil(R);
        let mut patch = patches.start;
        while patch < patches.end {
            let (y, x) = (patch / across * R, patch % across * R);
            let together = SPAN.min(across - x / R).min(patches.end - patch);
            let finished = y..self.lines.min(y + R);
            let pixels = x..conv.out_width.min(x + R * together);
            let nearest = patch - patches.start;
            let place = if *span < conv.channels { nearest } else { 0 };
            let results = &mut results[place * R * R * width..];
            for i in 0..together {
                if is_last && is_direct {
                    let start = pixels.start + R * i;
                    for line in finished.clone() {
                        let row = line * conv.out_width;
                        let rows = row + start..row + pixels.end.min(start + R);
                        epilogue.expect_whole(isa, (&mut self.output, streams), (rows, width));
                    }
                }
                let to = (&mut results[R * i * width..], R * together * width, adds);
                transform::output((isa, numbers), sums, (nearest + i, width), to);
            }
            for (i, line) in finished.enumerate().filter(|_| is_last) {
                let row = line * conv.out_width;
                let results = &results[i * R * together * width..][..pixels.len() * width];
                let rows = (row + pixels.start..row + pixels.end, results, width);
                if is_direct {
                    let output = (&mut self.output, streams);
                    epilogue.finish_whole((isa, N::PRODUCT), output, rows);
                } else {
                    epilogue.finish((isa, N::PRODUCT), &mut self.output, rows);
                }
            }
            patch += together;
        }
    }
}

/// The product of each point, `count` patches by `groups` of channels by `width` lanes, or what it adds to sums.
#[inline(always)]
fn multiply_points<I: Isa, N: Numbers<I, P, R>, const P: usize, const R: usize>(
    (isa, _): (I, N),
    points: &[usize],
    (patches, taps, [count, groups, width]): (&[f32], &[f32], [usize; 3]),
    (sums, accumulate): (&mut [f32], bool),
) {
    let distances = const { Distances::new(N::PATCHES, N::PER_LANE) };
    let vectors = width / LANES;
    for &point in points {
        let a = &patches[point * distances.patches..][..count * groups];
        let b = &taps[point * distances.taps..][..groups * width];
        let to = &mut sums[point * distances.sums..][..count * width];
        let mut found: [Rows<'_>; 1] = [[&[]; MAX_ROWS]];
        for rows in tiles(count, N::Product::ROWS) {
            for (row, found) in rows.clone().zip(found.as_flattened_mut()) {
                *found = bytemuck::cast_slice(&a[row * groups..]);
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
                accumulate,
            };
            let values = &mut to[rows.start * width..rows.end * width];
            let to = Sums { values, stride: vectors };
            multiply((isa, N::PRODUCT), &strip, (to, Keep));
        }
    }
}
