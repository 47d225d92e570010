//! Activations to codes of 8 bits, and how well whole numbers stand for weights.
//!
//! `code = clamp(round(x / scale) + zero, 0, levels)`, where `scale` and the whole number `zero` are
//! such that the range of a group of rows, zero included, meets the codes from 0 to `levels`
//! (asymmetric, min-max). The ranges are *dynamic*: found from the numbers themselves, for each
//! row of a linear layer and for each image of a convolution, so that nothing in a batch depends on
//! its neighbours; or *static*: known before, and what lies outside is cut off.

mod carry;
mod fit;
mod improve;

pub use carry::Carry;
pub use fit::{Codes, Encode as EncodeWeights, Fit, Fitted};
pub use improve::{Improve, Times};

use std::ops::Range;

use crate::{
    Cpu,
    format::Activations,
    isa::{Isa, LANES, SimdOp},
    math,
    scratch::{self, Scratch},
};

/// What codes stand for: `x = scale · (code − zero)`.
///
/// Where the numbers were not finite, `scale` is not a number, and whatever is computed with it.
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Range8 {
    /// The distance of neighbouring codes.
    pub scale: f32,
    /// The code of zero, a whole number.
    pub zero: f32,
}

impl Range8 {
    /// The range from `least` to `greatest`, and zero, in `levels` steps.
    pub fn new(least: f32, greatest: f32, levels: u8) -> Self {
        if !(greatest - least).is_finite() {
            return Self { scale: f32::NAN, zero: 0.0 };
        }
        let (least, greatest) = (least.min(0.0), greatest.max(0.0));
        let scale = (greatest - least) / f32::from(levels);
        // Nothing but zeros, or numbers so small that their quotients would not be finite.
        let scale = if scale < f32::MIN_POSITIVE { 1.0 } else { scale };
        Self { scale, zero: (-least / scale).round_ties_even() }
    }

    /// Itself, or not a number where `check`, zero times all numbers, is not zero.
    pub(crate) fn checked(self, check: f32) -> Self {
        Self { scale: self.scale + check, ..self }
    }

    /// The code of `x`.
    pub fn code(self, x: f32, levels: u8) -> u8 {
        ((x * (1.0 / self.scale)).round_ties_even() + self.zero).clamp(0.0, f32::from(levels)) as u8
    }
}

/// Rows of numbers to codes, one range for each group of rows.
#[derive(Debug)]
pub struct Quantize<'a> {
    /// `[rows, channels]`, `f32` or bf16.
    pub input: Activations<'a>,
    /// Number of rows.
    pub rows: usize,
    /// Elements of a row.
    pub channels: usize,
    /// Rows that share a range.
    pub rows_per_range: usize,
    /// The greatest code: 255, or 15 for 4 bits.
    pub levels: u8,
    /// The range of all rows, where it is known; else each group's own is found.
    pub known: Option<Range8>,
    /// `[rows, channels]`, channels made a multiple of four; what is added gets the code of zero.
    pub codes: &'a mut [u8],
    /// One for each group of rows. What is not finite makes it not a number, known or not.
    pub ranges: &'a mut [Range8],
    /// At least [`scratch_bytes`] bytes of any content.
    pub scratch: &'a mut [u8],
}

/// Rows that a thread takes at a time, by their elements.
const CHUNK: usize = 1 << 14;

/// Bytes of scratch that a [`Quantize`] of these sizes needs.
pub fn scratch_bytes([rows, channels, rows_per_range]: [usize; 3]) -> usize {
    if rows_per_range == 1 {
        return 0;
    }
    let chunks =
        rows_per_range.div_ceil(chunk_rows(channels)) * rows.div_ceil(rows_per_range.max(1));
    scratch::bytes(&[chunks * size_of::<Extent>()])
}

fn chunk_rows(channels: usize) -> usize {
    (CHUNK / channels.max(1)).max(1)
}

impl Quantize<'_> {
    /// Find all ranges and write all codes.
    ///
    /// # Panics
    ///
    /// Panics if an operand is smaller than its shape says, or if the input is codes.
    pub fn run(self, cpu: &Cpu) {
        let Self { input, rows, channels, rows_per_range, levels, known, .. } = self;
        if rows * channels == 0 {
            return;
        }
        assert!(!matches!(input, Activations::U8(_)), "codes are not quantized again");
        assert!(input.len() >= rows * channels, "input of {} elements", input.len());
        let stride = channels.next_multiple_of(4);
        let codes = &mut self.codes[..rows * stride];
        let ranges = &mut self.ranges[..rows.div_ceil(rows_per_range)];
        let step = chunk_rows(channels);
        let source = Source { input, channels, levels };
        if rows_per_range == 1 {
            // Each row is encoded while it is near.
            let (codes, ranges) = ((codes, step * stride), (ranges, step));
            cpu.threads.run_pairs(codes, ranges, |index, codes, ranges| {
                let rows = codes.chunks_exact_mut(stride).zip(ranges).enumerate();
                for (row, (codes, range)) in rows {
                    let row = index * step + row;
                    *range = match known {
                        Some(known) => known,
                        None => cpu.eval(Extremes { source, rows: row..row + 1 }).range(levels),
                    };
                    let check = cpu.eval(Encode { source, row, range: *range, codes });
                    *range = range.checked(check);
                }
            });
            return;
        }
        let parts = rows_per_range.div_ceil(step);
        let extents = Scratch::new(self.scratch).take::<Extent>(parts * ranges.len());
        if known.is_none() {
            cpu.threads.run_pieces(extents, 1, |index, extent| {
                let (range, part) = (index / parts, index % parts);
                let end = rows.min((range + 1) * rows_per_range);
                let first = end.min(range * rows_per_range + part * step);
                extent[0] = cpu.eval(Extremes { source, rows: first..end.min(first + step) });
            });
        }
        let groups = codes.chunks_mut(rows_per_range * stride).zip(extents.chunks_mut(parts));
        for (group, (range, (codes, extents))) in ranges.iter_mut().zip(groups).enumerate() {
            let found = || extents.iter().fold(Extent::EMPTY, Extent::with).range(levels);
            *range = known.unwrap_or_else(found);
            let (range_now, first) = (*range, group * rows_per_range);
            // The last group may have fewer rows, and so fewer parts.
            let parts = codes.len().div_ceil(step * stride);
            let pieces = ((codes, step * stride), (&mut extents[..parts], 1));
            cpu.threads.run_pairs(pieces.0, pieces.1, |index, codes, extent| {
                let rows = (first + index * step..).zip(codes.chunks_exact_mut(stride));
                let checks = rows
                    .map(|(row, codes)| cpu.eval(Encode { source, row, range: range_now, codes }));
                extent[0].check = checks.sum();
            });
            *range = range.checked(extents[..parts].iter().map(|extent| extent.check).sum());
        }
    }
}

/// What is quantized, and to how many levels.
#[derive(Clone, Copy)]
struct Source<'a> {
    input: Activations<'a>,
    channels: usize,
    levels: u8,
}

impl Source<'_> {
    /// Elements `range` as a vector, of which there may be fewer than its lanes.
    #[inline(always)]
    fn read<I: Isa>(&self, isa: I, range: Range<usize>) -> I::V {
        match self.input {
            Activations::F32(values) => isa.read(&values[range]),
            Activations::Bf16(bits) => isa.read_bf16(&bits[range]),
            Activations::U8(_) => isa.splat(f32::NAN),
        }
    }
}

/// The extremes of some numbers and zero; `check` is zero if all were finite.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Extent {
    least: f32,
    greatest: f32,
    check: f32,
}

impl Extent {
    const EMPTY: Self = Self { least: 0.0, greatest: 0.0, check: 0.0 };

    fn with(self, other: &Self) -> Self {
        Self {
            least: self.least.min(other.least),
            greatest: self.greatest.max(other.greatest),
            check: self.check + other.check,
        }
    }

    fn range(self, levels: u8) -> Range8 {
        Range8::new(self.least, self.greatest + self.check, levels)
    }
}

/// Looks through some rows.
struct Extremes<'a> {
    source: Source<'a>,
    rows: Range<usize>,
}

impl SimdOp for Extremes<'_> {
    type Output = Extent;

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> Extent {
        let channels = self.source.channels;
        let numbers = self.rows.start * channels..self.rows.end * channels;
        let zero = isa.splat(0.0);
        let (mut least, mut greatest, mut check) = ([zero; 2], [zero; 2], [zero; 2]);
        for (i, start) in numbers.clone().step_by(LANES).enumerate() {
            let x = self.source.read(isa, start..numbers.end.min(start + LANES));
            let i = i % 2;
            least[i] = isa.min(x, least[i]);
            greatest[i] = isa.max(x, greatest[i]);
            // Zero times what is not finite is not a number, and stays so in the sum.
            check[i] = isa.fma(x, zero, check[i]);
        }
        Extent {
            least: -isa.reduce_max(isa.sub(zero, isa.min(least[0], least[1]))),
            greatest: isa.reduce_max(isa.max(greatest[0], greatest[1])),
            check: isa.reduce_add(isa.add(check[0], check[1])),
        }
    }
}

/// Writes the codes of a row. What comes out is zero if all its numbers were finite.
struct Encode<'a, 't> {
    source: Source<'a>,
    row: usize,
    range: Range8,
    codes: &'t mut [u8],
}

impl SimdOp for Encode<'_, '_> {
    type Output = f32;

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> f32 {
        let Self { source, row, range, codes } = self;
        let start = row * source.channels;
        let encoder = Encoder::new(isa, range, source.levels);
        let (codes, padding) = codes.split_at_mut(source.channels);
        padding.fill(range.zero as u8);
        let zero = isa.splat(0.0);
        let mut check = zero;
        for (codes, at) in codes.chunks_mut(LANES).zip((start..).step_by(LANES)) {
            let x = source.read(isa, at..at + codes.len());
            encoder.write(isa, x, codes);
            // Zero times what is not finite is not a number, and stays so in the sum.
            check = isa.fma(x, zero, check);
        }
        isa.reduce_add(check)
    }
}

/// A range, ready to turn vectors of numbers into codes.
#[derive(Clone, Copy)]
pub(crate) struct Encoder<I: Isa> {
    inverse: I::V,
    zero: I::V,
    highest: I::V,
}

impl<I: Isa> Encoder<I> {
    #[inline(always)]
    pub(crate) fn new(isa: I, range: Range8, levels: u8) -> Self {
        let splat = |x| isa.splat(x);
        Self {
            inverse: splat(1.0 / range.scale),
            zero: splat(range.zero),
            highest: splat(f32::from(levels)),
        }
    }

    /// Write as many codes as `codes` has room for.
    #[inline(always)]
    pub(crate) fn write(&self, isa: I, x: I::V, codes: &mut [u8]) {
        let round = isa.splat(math::ROUND);
        let steps = isa.sub(isa.add(isa.mul(x, self.inverse), round), round);
        let code = isa.min(self.highest, isa.add(steps, self.zero));
        let code = isa.max(isa.splat(0.0), code);
        if let Some(codes) = codes.first_chunk_mut() {
            isa.narrow_u8(code, codes);
        } else {
            let mut lanes = [0; LANES];
            isa.narrow_u8(code, &mut lanes);
            codes.copy_from_slice(&lanes[..codes.len()]);
        }
    }
}
