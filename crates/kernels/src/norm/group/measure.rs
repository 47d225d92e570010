//! The first pass: what is to be known of a stretch of pixels.

use std::ops::Range;

use super::Image;
use crate::isa::{Isa, LANES, SimdOp};

/// What is known of one group in one stretch: the sums of the differences from a rough mean and of
/// their squares, and that mean.
pub(super) type Moments = [f64; 3];

pub(super) const SUM: usize = 0;
pub(super) const SQUARES: usize = 1;
pub(super) const ROUGH: usize = 2;

/// The least and the greatest number of a channel in a stretch.
pub(super) type Extremes = [f32; 2];

/// How the numbers of an image are stored.
pub(super) trait Stored: Copy + Sync {
    /// As many numbers as there are, up to a vector; zeros follow.
    fn read<I: Isa>(isa: I, from: &[Self]) -> I::V;
}

impl Stored for f32 {
    #[inline(always)]
    fn read<I: Isa>(isa: I, from: &[Self]) -> I::V {
        isa.read(from)
    }
}

/// The bits of bf16.
impl Stored for u16 {
    #[inline(always)]
    fn read<I: Isa>(isa: I, from: &[Self]) -> I::V {
        isa.read_bf16(from)
    }
}

/// Finds the moments of each group over some rows of pixels and, if asked to, the extremes of each channel.
pub(super) struct Measure<'a, T> {
    pub(super) image: Image<'a, T>,
    pub(super) rows: Range<usize>,
    pub(super) moments: &'a mut [Moments],
    pub(super) extremes: Option<&'a mut [Extremes]>,
}

impl<T: Stored> SimdOp for Measure<'_, T> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { image, rows, moments, mut extremes } = self;
        let size = image.channels / moments.len();
        let count = (rows.len() * size) as f64;
        moments.fill([0.0; 3]);
        let blocks = || {
            let starts = (0..image.channels).step_by(VECTORS * LANES);
            starts.map(|start| start..image.channels.min(start + VECTORS * LANES))
        };
        let part = Part { image, rows };
        for block in blocks() {
            let [sums, _] = part.sums(isa, &block, &[[0.0; LANES]; VECTORS]);
            for (channel, sum) in block.zip(sums.as_flattened()) {
                moments[channel / size][SUM] += f64::from(*sum);
            }
        }
        for moment in moments.iter_mut() {
            // In single precision, since that is what is subtracted below.
            *moment = [0.0, 0.0, f64::from((moment[SUM] / count) as f32)];
        }
        for block in blocks() {
            let mut means = [[0.0; LANES]; VECTORS];
            for (channel, mean) in block.clone().zip(means.as_flattened_mut()) {
                *mean = moments[channel / size][ROUGH] as f32;
            }
            let [sums, squares] = part.sums(isa, &block, &means);
            let lanes = sums.as_flattened().iter().zip(squares.as_flattened());
            for (channel, (sum, square)) in block.clone().zip(lanes) {
                let moment = &mut moments[channel / size];
                moment[SUM] += f64::from(*sum);
                moment[SQUARES] += f64::from(*square);
            }
            if let Some(extremes) = &mut extremes {
                let [least, greatest] = part.extremes(isa, &block);
                let lanes = least.as_flattened().iter().zip(greatest.as_flattened());
                for (to, (least, greatest)) in extremes[block].iter_mut().zip(lanes) {
                    *to = [*least, *greatest];
                }
            }
        }
    }
}

/// Vectors of channels that are summed at a time.
const VECTORS: usize = 4;

/// Some rows of an image.
struct Part<'a, T> {
    image: Image<'a, T>,
    rows: Range<usize>,
}

impl<T: Stored> Part<'_, T> {
    /// Sums of `x − mean` and of `(x − mean)²` over the rows, for each channel of a block.
    #[inline(always)]
    fn sums<I: Isa>(
        &self,
        isa: I,
        block: &Range<usize>,
        means: &[[f32; LANES]; VECTORS],
    ) -> [[[f32; LANES]; VECTORS]; 2] {
        let mut mean = [isa.splat(0.0); VECTORS];
        for (to, from) in mean.iter_mut().zip(means) {
            *to = isa.load(from);
        }
        let mut sums = [isa.splat(0.0); VECTORS];
        let mut squares = sums;
        for row in self.rows.clone() {
            let row = &self.image.row(row)[block.clone()];
            if row.len() == VECTORS * LANES {
                for i in 0..VECTORS {
                    let d = isa.sub(T::read(isa, &row[i * LANES..][..LANES]), mean[i]);
                    sums[i] = isa.add(sums[i], d);
                    squares[i] = isa.fma(d, d, squares[i]);
                }
            } else {
                for (i, x) in row.chunks(LANES).enumerate() {
                    let d = isa.sub(T::read(isa, x), mean[i]);
                    sums[i] = isa.add(sums[i], d);
                    squares[i] = isa.fma(d, d, squares[i]);
                }
            }
        }
        [arrays(isa, &sums), arrays(isa, &squares)]
    }

    /// The least and the greatest number of each channel of a block; what is not a number is not seen.
    #[inline(always)]
    fn extremes<I: Isa>(&self, isa: I, block: &Range<usize>) -> [[[f32; LANES]; VECTORS]; 2] {
        let mut least = [isa.splat(f32::INFINITY); VECTORS];
        let mut greatest = [isa.splat(f32::NEG_INFINITY); VECTORS];
        for row in self.rows.clone() {
            let row = &self.image.row(row)[block.clone()];
            for (i, x) in row.chunks(LANES).enumerate().take(VECTORS) {
                let x = T::read(isa, x);
                least[i] = isa.min(x, least[i]);
                greatest[i] = isa.max(x, greatest[i]);
            }
        }
        [arrays(isa, &least), arrays(isa, &greatest)]
    }
}

#[inline(always)]
fn arrays<I: Isa>(isa: I, vectors: &[I::V; VECTORS]) -> [[f32; LANES]; VECTORS] {
    let mut arrays = [[0.0; LANES]; VECTORS];
    for (to, from) in arrays.iter_mut().zip(vectors) {
        isa.store(*from, to);
    }
    arrays
}
