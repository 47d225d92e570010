//! Euler's method on the probability flow, Karras et al. 2022 without churn.
//!
//! `d = (x - D(x; sigma)) / sigma`, `x' = x + (sigma' - sigma) d`

use super::{
    Call, Noise, Sampler,
    prediction::{clean_at_sigma, scaled},
};
use crate::schedule::{Path, Prediction, Settings, Spacing};

/// State of a run of Euler's method.
pub(super) struct Euler {
    path: Path,
    prediction: Prediction,
    init: f32,
}

impl Euler {
    pub(super) fn new(settings: &Settings, path: Path) -> Self {
        Self { prediction: settings.prediction, init: init_noise_sigma(settings, &path), path }
    }
}

impl Sampler for Euler {
    fn init_noise_sigma(&self) -> f32 {
        self.init
    }

    fn timesteps(&self) -> &[f32] {
        &self.path.timesteps
    }

    fn scale_input(&self, index: usize, sample: &[f32]) -> Vec<f32> {
        scaled(self.path.sigmas[index], sample)
    }

    fn step(&mut self, call: Call<'_>, _noise: &mut Noise<'_>) -> Vec<f32> {
        let (sigma, next) = (self.path.sigmas[call.index], self.path.sigmas[call.index + 1]);
        let clean = clean_at_sigma(self.prediction, sigma, call.output, call.sample);
        advance(call.sample, &clean, sigma, next - sigma)
    }
}

/// `x + (x - clean) / sigma * dt`.
pub(super) fn advance(x: &[f32], clean: &[f32], sigma: f32, dt: f32) -> Vec<f32> {
    super::prediction::pairs(x, clean, |x, clean| x + (x - clean) / sigma * dt)
}

/// Standard deviation of the first sample: the largest level, and with leading timesteps the
/// variance of the data on top.
pub(super) fn init_noise_sigma(settings: &Settings, path: &Path) -> f32 {
    let max = path.sigmas.iter().copied().fold(0.0, f32::max);
    match settings.spacing {
        Spacing::Leading => (max * max + 1.0).sqrt(),
        Spacing::Trailing | Spacing::Linspace => max,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{SamplingMethod, SchedulerConfig};

    #[test]
    fn one_step_to_zero_subtracts_sigma_times_the_noise() {
        let mut sampler =
            SchedulerConfig::from_method(SamplingMethod::Euler).unwrap().sampler(1).unwrap();
        let sigma = (sampler.init_noise_sigma().powi(2) - 1.0).sqrt();
        let (x, e) = ([2.0, -1.0], [0.5, 0.25]);
        let call = Call { index: 0, output: &e, sample: &x, images: 1 };
        let clean = sampler.step(call, &mut |_| Vec::new());
        for i in 0..2 {
            assert!((clean[i] - (x[i] - sigma * e[i])).abs() < 1e-5);
        }
    }
}
