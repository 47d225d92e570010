//! Ancestral Euler: a step to a lower level than the next, then noise up to the next.
//!
//! With `up² = sigma'² (sigma² - sigma'²) / sigma²` and `down² = sigma'² - up²`:
//! `x' = x + (down - sigma) (x - D(x; sigma)) / sigma + up z`

use super::{
    Call, Noise, Sampler,
    euler::{advance, init_noise_sigma},
    prediction::{clean_at_sigma, pairs, scaled},
};
use crate::schedule::{Path, Prediction, Settings};

/// State of a run of ancestral Euler.
pub(super) struct EulerAncestral {
    path: Path,
    prediction: Prediction,
    init: f32,
}

impl EulerAncestral {
    pub(super) fn new(settings: &Settings, path: Path) -> Self {
        Self { prediction: settings.prediction, init: init_noise_sigma(settings, &path), path }
    }
}

impl Sampler for EulerAncestral {
    fn init_noise_sigma(&self) -> f32 {
        self.init
    }

    fn timesteps(&self) -> &[f32] {
        &self.path.timesteps
    }

    fn scale_input(&self, index: usize, sample: &[f32]) -> Vec<f32> {
        scaled(self.path.sigmas[index], sample)
    }

    /// Noise is drawn at the last step too, with factor 0, so that the generator moves on as in
    /// diffusers.
    fn step(&mut self, call: Call<'_>, noise: &mut Noise<'_>) -> Vec<f32> {
        let (sigma, next) = (self.path.sigmas[call.index], self.path.sigmas[call.index + 1]);
        let square = next * next;
        let up = (square * (sigma * sigma - square) / (sigma * sigma)).sqrt();
        // At very high levels the difference may round to just below zero.
        let down = (square - up * up).max(0.0).sqrt();
        let clean = clean_at_sigma(self.prediction, sigma, call.output, call.sample);
        let moved = advance(call.sample, &clean, sigma, down - sigma);
        pairs(&moved, &noise(moved.len()), |x, z| x + z * up)
    }
}
