//! Heun's method: Algorithm 1 of Karras et al. 2022 without churn.
//!
//! Each step but the last calls the model twice: at the old level, giving the slope `d`, and at the
//! new one, giving `d'`; then `x' = x + (sigma' - sigma) (d + d') / 2`. The last step is Euler's.

use super::{
    Call, Noise, Sampler,
    euler::init_noise_sigma,
    prediction::{clean_at_sigma, pairs, scaled},
};
use crate::schedule::{Limit, Path, Prediction, Settings};

/// State of a run of Heun's method.
pub(super) struct Heun {
    /// Timesteps and levels per call: all but the first and the last level come twice.
    path: Path,
    prediction: Prediction,
    limit: Limit,
    init: f32,
    /// Between the two calls of a step: the sample and the slope at its start.
    start: Option<(Vec<f32>, Vec<f32>)>,
}

impl Heun {
    pub(super) fn new(settings: &Settings, path: &Path) -> Self {
        let twice = |x: &f32| [*x, *x];
        let inner = &path.sigmas[1..path.sigmas.len() - 1];
        let mut sigmas = vec![path.sigmas[0]];
        sigmas.extend(inner.iter().flat_map(twice));
        sigmas.extend(path.sigmas.last());
        let mut timesteps = vec![path.timesteps[0]];
        timesteps.extend(path.timesteps[1..].iter().flat_map(twice));
        Self {
            prediction: settings.prediction,
            limit: settings.limit,
            init: init_noise_sigma(settings, path),
            path: Path { timesteps, sigmas },
            start: None,
        }
    }

    /// The slope `(x - D(x; sigma)) / sigma`.
    fn slope(&self, call: &Call<'_>, sigma: f32) -> Vec<f32> {
        let mut clean = clean_at_sigma(self.prediction, sigma, call.output, call.sample);
        self.limit.apply(&mut clean, call.images);
        pairs(call.sample, &clean, |x, clean| (x - clean) / sigma)
    }
}

impl Sampler for Heun {
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
        let sigmas = &self.path.sigmas;
        if let Some((start, first)) = self.start.take() {
            let (sigma, next) = (sigmas[call.index - 1], sigmas[call.index]);
            let second = self.slope(&call, next);
            let slope = pairs(&first, &second, |a, b| 0.5 * (a + b));
            return pairs(&start, &slope, |x, d| x + d * (next - sigma));
        }
        let (sigma, next) = (sigmas[call.index], sigmas[call.index + 1]);
        let slope = self.slope(&call, sigma);
        let moved = pairs(call.sample, &slope, |x, d| x + d * (next - sigma));
        self.start = Some((call.sample.to_vec(), slope));
        moved
    }
}
