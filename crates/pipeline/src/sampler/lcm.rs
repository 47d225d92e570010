//! Multistep consistency sampling, Algorithm 3 of Luo et al. 2023.
//!
//! `f(x, t) = c_skip(t) x + c_out(t) x_0(x, t)`, then noise up to the next timestep:
//! `x' = sqrt(a') f + sqrt(1 - a') z`. The last step keeps `f`.

use super::{
    Call, Noise, Sampler,
    prediction::{Mix, pairs},
};
use crate::schedule::{Limit, Prediction, Settings, Table, distilled};

/// State of a run of latent consistency sampling.
pub(super) struct Lcm {
    timesteps: Vec<f32>,
    /// Factors of signal and noise at each timestep.
    mixes: Vec<Mix>,
    prediction: Prediction,
    limit: Limit,
    scaling: f32,
}

impl Lcm {
    pub(super) fn new(settings: &Settings, table: &Table, steps: usize) -> Self {
        let places = distilled(settings.train_steps, settings.original_steps, steps);
        let alpha = |&t: &i64| table.alphas_cumprod[t as usize];
        Self {
            mixes: places.iter().map(|t| Mix::of_alpha(alpha(t))).collect(),
            timesteps: places.iter().map(|&t| t as f32).collect(),
            prediction: settings.prediction,
            limit: settings.limit,
            scaling: settings.timestep_scaling as f32,
        }
    }

    /// `c_skip` and `c_out` for data of standard deviation 1/2; `f(x, 0) = x`.
    fn boundary(&self, t: f32) -> (f32, f32) {
        let (t, data) = (t * self.scaling, 0.25);
        (data / (t * t + data), t / (t * t + data).sqrt())
    }
}

impl Sampler for Lcm {
    fn init_noise_sigma(&self) -> f32 {
        1.0
    }

    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn step(&mut self, call: Call<'_>, noise: &mut Noise<'_>) -> Vec<f32> {
        let mut clean = self.mixes[call.index].clean(self.prediction, call.output, call.sample);
        self.limit.apply(&mut clean, call.images);
        let (skip, out) = self.boundary(self.timesteps[call.index]);
        let denoised = pairs(&clean, call.sample, |clean, x| out * clean + skip * x);
        match self.mixes.get(call.index + 1) {
            None => denoised,
            Some(next) => {
                pairs(&denoised, &noise(denoised.len()), |f, z| next.signal * f + next.noise * z)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::schedule::{SamplingMethod, SchedulerConfig};

    use super::*;

    #[test]
    fn boundary_condition_holds_at_time_zero() {
        let config = SchedulerConfig::from_method(SamplingMethod::Lcm).unwrap();
        let table = Table::new(config.family(), config.settings());
        assert_eq!(Lcm::new(config.settings(), &table, 1).boundary(0.0), (1.0, 0.0));
    }
}
