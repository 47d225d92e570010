//! Normalisation of groups of channels over all pixels of an image.
//!
//! Two passes over the image. The first cuts the pixels into stretches that stay in cache; for
//! each stretch and group it finds the mean, nearly, and then the sums of the differences from it
//! and of their squares. The stretches are combined in order, in double precision. The second pass
//! applies one factor and one summand per channel, and the activation.
//!
//! Codes can be written instead of numbers. Their range is known before the second pass: the first
//! also finds the extremes of each channel, an affine function keeps them, and what the activation
//! makes of an interval follows from its shape.

mod factors;
mod measure;

use crate::{
    Cpu,
    activation::Activation,
    format::Activations,
    isa::{Isa, LANES, SimdOp},
    quantize::{Encoder, Range8},
    scratch::{self, Scratch},
    threads::{Grid, Output, OutputTile},
};
use factors::{Bounds, Factors};
use measure::{Extremes, Measure, Moments, Stored};

/// `y = act((x − mean) / √(var + eps) · gamma + beta)`, mean and variance over each group.
#[derive(Debug)]
pub struct GroupNorm<'a> {
    /// `[batch, pixels, channels]`, `f32` or bf16.
    pub input: Activations<'a>,
    /// Number of channels.
    pub channels: usize,
    /// Number of images.
    pub batch: usize,
    /// Pixels of an image.
    pub pixels: usize,
    /// Number of groups; divides the number of channels.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f32,
    /// One factor per channel; ones if absent.
    pub gamma: Option<&'a [f32]>,
    /// One summand per channel; zeros if absent.
    pub beta: Option<&'a [f32]>,
    /// Applied last.
    pub activation: Activation,
    /// `[batch, pixels, channels]`.
    pub output: Normed<'a>,
    /// At least [`scratch_bytes`] bytes of any content.
    pub scratch: &'a mut [u8],
}

/// What a [`GroupNorm`] writes.
#[derive(Debug)]
pub enum Normed<'a> {
    /// Numbers.
    Real(Output<'a>),
    /// Codes, as of [`crate::quantize`]. Where it is not known, the range of an image is that of the activation over
    /// the interval of each channel, and so may be a little wider than what occurs.
    Codes {
        /// `[batch, pixels, channels]`, channels made a multiple of four; what is added gets the code of zero.
        codes: &'a mut [u8],
        /// One for each image.
        ranges: &'a mut [Range8],
        /// The greatest code.
        levels: u8,
        /// The range of all images, where it is known.
        known: Option<Range8>,
    },
}

/// Elements of a stretch of pixels.
const STRETCH: usize = 1 << 15;

/// Bytes of scratch that a [`GroupNorm`] of this shape needs.
pub fn scratch_bytes([batch, pixels, channels, groups]: [usize; 4]) -> usize {
    let stretches = batch.saturating_mul(pixels.div_ceil(stretch(channels)));
    scratch::bytes(&[
        stretches.saturating_mul(groups).saturating_mul(size_of::<Moments>()),
        stretches.saturating_mul(channels).saturating_mul(size_of::<Extremes>()),
        batch.saturating_mul(channels).saturating_mul(8),
    ])
}

/// Pixels of a stretch.
fn stretch(channels: usize) -> usize {
    (STRETCH / channels.max(1)).max(1)
}

impl GroupNorm<'_> {
    /// Normalise all images.
    ///
    /// # Panics
    ///
    /// Panics if an operand is smaller than its shape says, if the groups do not divide the channels, if the input is
    /// codes, or if codes are wanted of an activation whose range is not known.
    pub fn run(self, cpu: &Cpu) {
        match self.input {
            Activations::F32(values) => self.run_on(values, cpu),
            Activations::Bf16(bits) => self.run_on(bits, cpu),
            Activations::U8(_) => panic!("codes are not normalised"),
        }
    }

    fn run_on<T: Stored>(self, values: &[T], cpu: &Cpu) {
        let Self { channels, batch, pixels, groups, activation, .. } = self;
        assert!(groups > 0 && channels.is_multiple_of(groups), "{groups} groups of {channels}");
        let image = Image { values, channels };
        let mut scratch = Scratch::new(self.scratch);
        let step = stretch(channels);
        let stretches = pixels.div_ceil(step);
        let moments = scratch.take::<Moments>(batch * stretches * groups);
        let extremes = scratch.take::<Extremes>(batch * stretches * channels);
        let factors = scratch.take::<f32>(batch * 2 * channels);
        let wants_extremes = matches!(self.output, Normed::Codes { known: None, .. });
        let (moments_of, extremes_of) = ((&mut *moments, groups), (&mut *extremes, channels));
        cpu.threads.run_pairs(moments_of, extremes_of, |index, moments, extremes| {
            let (of, part) = (index / stretches, index % stretches);
            let rows = of * pixels + part * step..of * pixels + pixels.min((part + 1) * step);
            let extremes = wants_extremes.then_some(extremes);
            cpu.eval(Measure { image, rows, moments, extremes });
        });
        let affine = Factors { groups, eps: self.eps, gamma: self.gamma, beta: self.beta };
        for (of, factors) in factors.chunks_exact_mut((2 * channels).max(1)).enumerate() {
            let moments = &moments[of * stretches * groups..][..stretches * groups];
            affine.fill(moments, (pixels, step), factors);
        }
        let factors = &*factors;
        let of_image = |of: usize| factors[of * 2 * channels..][..2 * channels].split_at(channels);
        match self.output {
            Normed::Real(output) => {
                let grid = Grid { groups: batch, ..Grid::by_rows(pixels, channels, step) };
                cpu.threads.run_tiles((output, grid), &mut [], |tile, _| {
                    let first_row = tile.cell.group * pixels + tile.cell.rows.start;
                    let apply = Apply { image, factors: of_image(tile.cell.group), activation };
                    cpu.eval(Real { apply, first_row, tile });
                });
            }
            Normed::Codes { codes, ranges, levels, known } => {
                let of_images = extremes.chunks((stretches * channels).max(1));
                for (of, (range, extremes)) in ranges[..batch].iter_mut().zip(of_images).enumerate()
                {
                    let factors = of_image(of);
                    *range = match known {
                        // Moments of what is not finite are not, either.
                        Some(known) => known.checked(factors.1.iter().map(|x| 0.0 * x).sum()),
                        None => cpu.eval(Bounds { extremes, factors, activation, levels }),
                    };
                }
                let (ranges, stride) = (&*ranges, channels.next_multiple_of(4));
                let codes = &mut codes[..batch * pixels * stride];
                cpu.threads.run_pieces(codes, step * stride, |index, codes| {
                    for (row, codes) in (index * step..).zip(codes.chunks_exact_mut(stride)) {
                        let of = row / pixels;
                        let apply = Apply { image, factors: of_image(of), activation };
                        cpu.eval(Coded { apply, row, range: ranges[of], levels, codes });
                    }
                });
            }
        }
    }
}

/// Rows of pixels.
#[derive(Clone, Copy)]
struct Image<'a, T> {
    values: &'a [T],
    channels: usize,
}

impl<T> Image<'_, T> {
    #[inline(always)]
    fn row(&self, row: usize) -> &[T] {
        &self.values[row * self.channels..][..self.channels]
    }
}

/// Factors, summands and the activation of an image.
struct Apply<'a, T> {
    image: Image<'a, T>,
    factors: (&'a [f32], &'a [f32]),
    activation: Activation,
}

impl<T: Stored> Apply<'_, T> {
    /// The results of a row from channel `start` on.
    #[inline(always)]
    fn vector<I: Isa>(&self, isa: I, (start, x): (usize, &[T])) -> I::V {
        let lanes = start..start + x.len();
        let (scale, offset) = self.factors;
        let (scale, offset) = (isa.read(&scale[lanes.clone()]), isa.read(&offset[lanes]));
        self.activation.apply(isa, isa.fma(T::read(isa, x), scale, offset))
    }
}

/// Writes a block of pixels.
struct Real<'a, 't, T> {
    apply: Apply<'a, T>,
    first_row: usize,
    tile: OutputTile<'t>,
}

impl<T: Stored> SimdOp for Real<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(mut self, isa: I) {
        for index in 0..self.tile.cell.rows.len() {
            let row = self.apply.image.row(self.first_row + index);
            for (start, x) in (0..).step_by(LANES).zip(row.chunks(LANES)) {
                let y = self.apply.vector(isa, (start, x));
                self.tile.write(isa, (index, start), y);
            }
        }
    }
}

/// Writes the codes of a pixel.
struct Coded<'a, 't, T> {
    apply: Apply<'a, T>,
    row: usize,
    range: Range8,
    levels: u8,
    codes: &'t mut [u8],
}

impl<T: Stored> SimdOp for Coded<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let row = self.apply.image.row(self.row);
        let encoder = Encoder::new(isa, self.range, self.levels);
        let (codes, padding) = self.codes.split_at_mut(row.len());
        padding.fill(self.range.zero as u8);
        let vectors = row.chunks(LANES).zip(codes.chunks_mut(LANES));
        for (start, (x, codes)) in (0..).step_by(LANES).zip(vectors) {
            let y = self.apply.vector(isa, (start, x));
            encoder.write(isa, y, codes);
        }
    }
}
