//! Between the passes: one factor and one summand per channel, and the range of the results.

use super::measure::{Extremes, Moments, ROUGH, SQUARES, SUM};
use crate::activation::Activation;
use crate::isa::{Isa, LANES, SimdOp};
use crate::quantize::Range8;

/// What turns moments into one factor and one summand per channel.
pub(super) struct Factors<'a> {
    pub(super) groups: usize,
    pub(super) eps: f32,
    pub(super) gamma: Option<&'a [f32]>,
    pub(super) beta: Option<&'a [f32]>,
}

impl Factors<'_> {
    /// `moments` is `[stretches, groups]`.
    pub(super) fn fill(
        &self,
        moments: &[Moments],
        (pixels, stretch): (usize, usize),
        factors: &mut [f32],
    ) {
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
            let mean =
                parts().map(|(n, moments)| n * moments[ROUGH] + moments[SUM]).sum::<f64>() / count;
            let squares = parts().map(|(n, moments)| {
                // Σ(x − mean)² from sums of x − rough.
                let d = moments[ROUGH] - mean;
                moments[SQUARES] + 2.0 * d * moments[SUM] + n * d * d
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

/// Where `x · sigmoid(x)` is least, and what it is there.
const SILU_LEAST: [f32; 2] = [-1.278_464_5, -0.278_464_6];

/// Finds the range of an image's results.
pub(super) struct Bounds<'a> {
    /// `[stretches, channels]`.
    pub(super) extremes: &'a [Extremes],
    pub(super) factors: (&'a [f32], &'a [f32]),
    pub(super) activation: Activation,
    pub(super) levels: u8,
}

impl SimdOp for Bounds<'_> {
    type Output = Range8;

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> Range8 {
        let has_dip = match self.activation {
            Activation::None => false,
            Activation::Silu => true,
            other => panic!("the range of {other:?} is not known"),
        };
        let (scales, offsets) = self.factors;
        let channels = scales.len();
        let zero = isa.splat(0.0);
        let [dip_at, dip] = SILU_LEAST.map(|x| isa.splat(x));
        let (mut least, mut greatest, mut check) = (zero, zero, zero);
        for start in (0..channels).step_by(LANES) {
            let lanes = start..channels.min(start + LANES);
            let mut interval = [[0.0_f32; LANES]; 2];
            for (lane, channel) in lanes.clone().enumerate() {
                let all = self.extremes[channel..].iter().step_by(channels);
                let [low, high] = all.fold([f32::INFINITY, f32::NEG_INFINITY], |a, b| {
                    [a[0].min(b[0]), a[1].max(b[1])]
                });
                [interval[0][lane], interval[1][lane]] = [low, high];
            }
            let (scale, offset) = (isa.read(&scales[lanes.clone()]), isa.read(&offsets[lanes]));
            let a = isa.fma(isa.load(&interval[0]), scale, offset);
            let b = isa.fma(isa.load(&interval[1]), scale, offset);
            let (low, high) = (isa.min(a, b), isa.max(a, b));
            // Zero times what is not finite is not a number, and stays so in the sum.
            check = isa.fma(a, zero, isa.fma(b, zero, check));
            let (a, b) = (self.activation.apply(isa, low), self.activation.apply(isa, high));
            let mut bottom = isa.min(a, b);
            if has_dip {
                // The interval holds the dip if it begins below and ends above it.
                let ends_above = isa.select_less(dip_at, high, [dip, bottom]);
                bottom = isa.select_less(low, dip_at, [ends_above, bottom]);
            }
            least = isa.min(bottom, least);
            greatest = isa.max(isa.max(a, b), greatest);
        }
        let least = -isa.reduce_max(isa.sub(zero, least));
        let greatest = isa.reduce_max(greatest) + isa.reduce_add(check);
        Range8::new(least, greatest, self.levels)
    }
}
