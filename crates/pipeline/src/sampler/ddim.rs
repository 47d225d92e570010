//! Denoising diffusion implicit models, equations 12 and 16 of Song et al. 2021.
//!
//! `x' = sqrt(a') x_0 + sqrt(1 - a' - s²) e + s z` with
//! `s = eta sqrt((1 - a') / (1 - a)) sqrt(1 - a / a')`

use super::{
    Call, Noise, Sampler,
    prediction::{Mix, pairs},
};
use crate::schedule::{FinalAlpha, Limit, Prediction, SchedulerConfig, Settings, Table, integer};

/// State of a run of implicit sampling.
pub(super) struct Ddim {
    timesteps: Vec<f32>,
    /// Cumulative alphas before and after each step.
    alphas: Vec<(f32, f32)>,
    prediction: Prediction,
    limit: Limit,
    eta: f32,
}

impl Ddim {
    /// Steps must have passed [`check_steps`].
    pub(super) fn new(config: &SchedulerConfig, table: &Table, steps: usize) -> Self {
        let settings = config.settings();
        let places = places(settings, steps);
        let ratio = (settings.train_steps / steps) as i64;
        let alphas = places
            .iter()
            .map(|&t| (table.alphas_cumprod[t as usize], alpha_at(settings, table, t - ratio)));
        Self {
            alphas: alphas.collect(),
            timesteps: places.iter().map(|&t| t as f32).collect(),
            prediction: settings.prediction,
            limit: settings.limit,
            eta: config.eta() as f32,
        }
    }
}

impl Sampler for Ddim {
    fn init_noise_sigma(&self) -> f32 {
        1.0
    }

    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn step(&mut self, call: Call<'_>, noise: &mut Noise<'_>) -> Vec<f32> {
        let (now, next) = self.alphas[call.index];
        let mix = Mix::of_alpha(now);
        let mut clean = mix.clean(self.prediction, call.output, call.sample);
        let epsilon = mix.noise(self.prediction, call.output, call.sample);
        self.limit.apply(&mut clean, call.images);
        let variance = (1.0 - next) / (1.0 - now) * (1.0 - now / next);
        let deviation = self.eta * variance.sqrt();
        let direction = (1.0 - next - deviation * deviation).sqrt();
        let signal = next.sqrt();
        let moved = pairs(&clean, &epsilon, |x, e| signal * x + direction * e);
        if self.eta == 0.0 {
            return moved;
        }
        pairs(&moved, &noise(moved.len()), |x, z| x + deviation * z)
    }
}

/// Whether every timestep is in the table.
pub(super) fn check_steps(settings: &Settings, steps: usize) -> Result<(), String> {
    let largest = places(settings, steps).into_iter().max().unwrap_or(0);
    if largest < settings.train_steps as i64 {
        return Ok(());
    }
    Err(format!("steps_offset moves the first timestep to {largest}; use fewer steps"))
}

/// Leading timesteps alone are shifted by the offset.
pub(super) fn places(settings: &Settings, steps: usize) -> Vec<i64> {
    integer(settings.spacing, settings.train_steps, steps, settings.steps_offset)
}

/// The cumulative alpha at a timestep that may lie before the first.
pub(super) fn alpha_at(settings: &Settings, table: &Table, timestep: i64) -> f32 {
    match settings.final_alpha {
        _ if timestep >= 0 => table.alphas_cumprod[timestep as usize],
        FinalAlpha::One => 1.0,
        FinalAlpha::First => table.alphas_cumprod[0],
    }
}
