//! Strategic stochastic sampling of trajectory consistency, Algorithm 4 of Zheng et al. 2024.
//!
//! The model jumps from `t` to `s = (1 - gamma) t'`, below the next timestep `t'`, and noise brings
//! the sample up to `t'`: `x' = sqrt(a' / a_s) x_s + sqrt(1 - a' / a_s) z`.

use super::{
    Call, Noise, Sampler,
    prediction::{Mix, pairs},
};
use crate::schedule::{Prediction, SchedulerConfig, Table, distilled};

/// State of a run of trajectory consistency sampling.
pub(super) struct Tcd {
    timesteps: Vec<f32>,
    alphas_cumprod: Vec<f32>,
    prediction: Prediction,
    /// Share of fresh noise, 0 to 1.
    gamma: f32,
    /// `1 - gamma`, subtracted before it was rounded.
    kept: f32,
}

impl Tcd {
    pub(super) fn new(config: &SchedulerConfig, table: Table, steps: usize) -> Self {
        let settings = config.settings();
        let places = distilled(settings.train_steps, settings.original_steps, steps);
        Self {
            timesteps: places.iter().map(|&t| t as f32).collect(),
            alphas_cumprod: table.alphas_cumprod,
            prediction: settings.prediction,
            gamma: config.eta() as f32,
            kept: (1.0 - config.eta()) as f32,
        }
    }

    fn alpha(&self, timestep: f32) -> f32 {
        self.alphas_cumprod[timestep as usize]
    }
}

impl Sampler for Tcd {
    fn init_noise_sigma(&self) -> f32 {
        1.0
    }

    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn step(&mut self, call: Call<'_>, noise: &mut Noise<'_>) -> Vec<f32> {
        let next = self.timesteps.get(call.index + 1).copied();
        let s = (self.kept * next.unwrap_or(0.0)).floor();
        let now = Mix::of_alpha(self.alpha(self.timesteps[call.index]));
        let target = Mix::of_alpha(self.alpha(s));
        let clean = now.clean(self.prediction, call.output, call.sample);
        let epsilon = now.noise(self.prediction, call.output, call.sample);
        let jumped = pairs(&clean, &epsilon, |x, e| target.signal * x + target.noise * e);
        let Some(next) = next.filter(|_| self.gamma > 0.0) else { return jumped };
        let ratio = self.alpha(next) / self.alpha(s);
        let (signal, fresh) = (ratio.sqrt(), (1.0 - ratio).sqrt());
        pairs(&jumped, &noise(jumped.len()), |x, z| signal * x + fresh * z)
    }
}
