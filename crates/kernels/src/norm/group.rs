//! Normalisation of groups of channels over all pixels of an image.
//!
//! Two passes over the image. The first cuts the pixels into stretches that stay in cache; for
//! each stretch and group it finds the mean, nearly, and then the sums of the differences from it
//! and of their squares. The stretches are combined in order, in double precision. The second pass
//! applies one factor and one summand per channel, and the activation.

use std::ops::Range;

use crate::{
    Cpu,
    activation::Activation,
    isa::{Isa, LANES, SimdOp},
    scratch::{self, Scratch},
    threads::{Grid, Output, OutputTile},
};

/// `y = act((x − mean) / √(var + eps) · gamma + beta)`, mean and variance over each group.
///
/// The channels may come from two images of the same size, one after the other, so that their
/// concatenation need not be made.
#[derive(Debug)]
pub struct GroupNorm<'a> {
    /// `[batch, pixels, channels]`.
    pub input: &'a [f32],
    /// Channels of `input`.
    pub channels: usize,
    /// The channels that follow those of `input`, `[batch, pixels, channels]`, and how many.
    pub second: Option<(&'a [f32], usize)>,
    /// Number of images.
    pub batch: usize,
    /// Pixels of an image.
    pub pixels: usize,
    /// Number of groups; divides the number of all channels.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f32,
    /// One factor per channel; ones if absent.
    pub gamma: Option<&'a [f32]>,
    /// One summand per channel; zeros if absent.
    pub beta: Option<&'a [f32]>,
    /// Applied last.
    pub activation: Activation,
    /// `[batch, pixels, all channels]`.
    pub output: Output<'a>,
    /// At least [`scratch_bytes`] bytes of any content.
    pub scratch: &'a mut [u8],
}

/// Elements of a stretch of pixels.
const STRETCH: usize = 1 << 15;

/// What is known of one group in one stretch: the sums of the differences from a rough mean and of
/// their squares, and that mean.
type Moments = [f64; 3];

const SUM: usize = 0;
const SQUARES: usize = 1;
const ROUGH: usize = 2;

/// Bytes of scratch that a [`GroupNorm`] of this shape needs; `channels` counts all.
pub fn scratch_bytes([batch, pixels, channels, groups]: [usize; 4]) -> usize {
    let stretches = batch.saturating_mul(pixels.div_ceil(stretch(channels)));
    scratch::bytes(&[
        stretches.saturating_mul(groups).saturating_mul(size_of::<Moments>()),
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
    /// Panics if an operand is smaller than its shape says, or if the groups do not divide the
    /// channels.
    pub fn run(self, cpu: &Cpu) {
        let Self { channels, batch, pixels, groups, output, activation, .. } = self;
        let images = Images { first: (self.input, channels), second: self.second };
        let all = images.channels();
        assert!(groups > 0 && all.is_multiple_of(groups), "{groups} groups of {all} channels");
        let mut scratch = Scratch::new(self.scratch);
        let stretches = pixels.div_ceil(stretch(all));
        let moments = scratch.take::<Moments>(batch * stretches * groups);
        let factors = scratch.take::<f32>(batch * 2 * all);
        cpu.threads.run_pieces(moments, groups, |index, moments| {
            let (image, part) = (index / stretches, index % stretches);
            let start = part * stretch(all);
            let rows = image * pixels + start..image * pixels + pixels.min(start + stretch(all));
            cpu.eval(Measure { images: &images, rows, moments });
        });
        let affine = Factors { groups, eps: self.eps, gamma: self.gamma, beta: self.beta };
        for (image, factors) in factors.chunks_exact_mut((2 * all).max(1)).enumerate() {
            let moments = &moments[image * stretches * groups..][..stretches * groups];
            affine.fill(moments, (pixels, stretch(all)), factors);
        }
        let factors = &*factors;
        let grid = Grid { groups: batch, ..Grid::by_rows(pixels, all, stretch(all)) };
        cpu.threads.run_tiles((output, grid), &mut [], |tile, _| {
            let (scale, offset) = factors[tile.cell.group * 2 * all..][..2 * all].split_at(all);
            let first_row = tile.cell.group * pixels + tile.cell.rows.start;
            let factors = [scale, offset];
            cpu.eval(Apply { images: &images, factors, activation, first_row, tile });
        });
    }
}

/// One or two images side by side in their channels.
struct Images<'a> {
    first: (&'a [f32], usize),
    second: Option<(&'a [f32], usize)>,
}

impl<'a> Images<'a> {
    fn channels(&self) -> usize {
        self.first.1 + self.second.map_or(0, |(_, channels)| channels)
    }

    /// Each image with its first channel and its number of channels.
    fn parts(&self) -> impl Iterator<Item = (&'a [f32], usize, usize)> + use<'a> {
        let (first, channels) = self.first;
        let second = self.second.map(|(second, count)| (second, channels, count));
        std::iter::once((first, 0, channels)).chain(second)
    }
}

/// Finds the moments of each group over some rows of pixels.
struct Measure<'a> {
    images: &'a Images<'a>,
    rows: Range<usize>,
    moments: &'a mut [Moments],
}

impl SimdOp for Measure<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { images, rows, moments } = self;
        let size = images.channels() / moments.len();
        let count = (rows.len() * size) as f64;
        moments.fill([0.0; 3]);
        for (values, first, channels) in images.parts() {
            let part = Part { values, channels, rows: rows.clone() };
            part.for_each_block(|block| {
                let [sums, _] = part.sums(isa, &block, &[[0.0; LANES]; VECTORS]);
                for (channel, sum) in block.zip(sums.as_flattened()) {
                    moments[(first + channel) / size][SUM] += f64::from(*sum);
                }
            });
        }
        for moment in moments.iter_mut() {
            // In single precision, since that is what is subtracted below.
            *moment = [0.0, 0.0, f64::from((moment[SUM] / count) as f32)];
        }
        for (values, first, channels) in images.parts() {
            let part = Part { values, channels, rows: rows.clone() };
            part.for_each_block(|block| {
                let mut means = [[0.0; LANES]; VECTORS];
                for (channel, mean) in block.clone().zip(means.as_flattened_mut()) {
                    *mean = moments[(first + channel) / size][ROUGH] as f32;
                }
                let [sums, squares] = part.sums(isa, &block, &means);
                let lanes = sums.as_flattened().iter().zip(squares.as_flattened());
                for (channel, (sum, square)) in block.zip(lanes) {
                    let moment = &mut moments[(first + channel) / size];
                    moment[SUM] += f64::from(*sum);
                    moment[SQUARES] += f64::from(*square);
                }
            });
        }
    }
}

/// Vectors of channels that are summed at a time.
const VECTORS: usize = 4;

/// Some rows of one image.
struct Part<'a> {
    values: &'a [f32],
    channels: usize,
    rows: Range<usize>,
}

impl Part<'_> {
    #[inline(always)]
    fn for_each_block(&self, mut f: impl FnMut(Range<usize>)) {
        for start in (0..self.channels).step_by(VECTORS * LANES) {
            f(start..self.channels.min(start + VECTORS * LANES));
        }
    }

    /// Sums of `x − mean` and of `(x − mean)²` over the rows, for each channel of a block.
    #[inline(always)]
    fn sums<I: Isa>(
        &self,
        isa: I,
        block: &Range<usize>,
        means: &[[f32; LANES]; VECTORS],
    ) -> [[[f32; LANES]; VECTORS]; 2] {
        let means: [I::V; VECTORS] = std::array::from_fn(|i| isa.load(&means[i]));
        let mut sums = [isa.splat(0.0); VECTORS];
        let mut squares = sums;
        for row in self.rows.clone() {
            let row = &self.values[row * self.channels..][block.clone()];
            if let Some(full) = row.first_chunk::<{ VECTORS * LANES }>() {
                for (i, x) in full.as_chunks().0.iter().enumerate() {
                    let d = isa.sub(isa.load(x), means[i]);
                    sums[i] = isa.add(sums[i], d);
                    squares[i] = isa.fma(d, d, squares[i]);
                }
            } else {
                for (i, x) in row.chunks(LANES).enumerate() {
                    let d = isa.sub(isa.read(x), means[i]);
                    sums[i] = isa.add(sums[i], d);
                    squares[i] = isa.fma(d, d, squares[i]);
                }
            }
        }
        [sums, squares].map(|vectors| vectors.map(|v| isa.to_array(v)))
    }
}

/// What turns moments into one factor and one summand per channel.
struct Factors<'a> {
    groups: usize,
    eps: f32,
    gamma: Option<&'a [f32]>,
    beta: Option<&'a [f32]>,
}

impl Factors<'_> {
    /// `moments` is `[stretches, groups]`.
    fn fill(&self, moments: &[Moments], (pixels, stretch): (usize, usize), factors: &mut [f32]) {
        let (scales, offsets) = factors.split_at_mut(factors.len() / 2);
        let size = scales.len() / self.groups;
        for group in 0..self.groups {
            let parts = || {
                let moments = moments.iter().skip(group).step_by(self.groups);
                moments.enumerate().map(|(part, moments)| {
                    (stretch.min(pixels - part * stretch) as f64 * size as f64, moments)
                })
            };
            let count = pixels as f64 * size as f64;
            let mean = parts().map(|(n, [sum, _, rough])| n * rough + sum).sum::<f64>() / count;
            let squares = parts().map(|(n, [sum, squares, rough])| {
                // Σ(x − mean)² from sums of x − rough.
                let d = rough - mean;
                squares + 2.0 * d * sum + n * d * d
            });
            let squares: f64 = squares.sum();
            let scale = 1.0 / (squares / count + f64::from(self.eps)).sqrt();
            for channel in group * size..(group + 1) * size {
                let gamma = self.gamma.map_or(1.0, |gamma| f64::from(gamma[channel]));
                let beta = self.beta.map_or(0.0, |beta| f64::from(beta[channel]));
                scales[channel] = (gamma * scale) as f32;
                offsets[channel] = (beta - mean * gamma * scale) as f32;
            }
        }
    }
}

/// Applies factors, summands and the activation to a block of pixels.
struct Apply<'a, 't> {
    images: &'a Images<'a>,
    factors: [&'a [f32]; 2],
    activation: Activation,
    first_row: usize,
    tile: OutputTile<'t>,
}

impl SimdOp for Apply<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(mut self, isa: I) {
        let [scale, offset] = self.factors;
        for index in 0..self.tile.cell.rows.len() {
            let row = self.first_row + index;
            for (values, first, channels) in self.images.parts() {
                let values = &values[row * channels..][..channels];
                for (start, x) in (first..).step_by(LANES).zip(values.chunks(LANES)) {
                    let lanes = start..start + x.len();
                    let (a, b) = (isa.read(&scale[lanes.clone()]), isa.read(&offset[lanes]));
                    let y = isa.fma(isa.read(x), a, b);
                    let y = self.activation.apply(isa, y);
                    self.tile.write(isa, (index, start), y);
                }
            }
        }
    }
}
