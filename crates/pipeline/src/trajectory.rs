//! One picture on its way from noise to latents.

use crate::Error;
use crate::noise::Generator;
use crate::sampler::{Call, Sampler};
use crate::text_to_image::Settings;

/// A sample under a sampler, which a network's predictions move on.
pub(crate) struct Trajectory {
    noise: Generator,
    sampler: Box<dyn Sampler>,
    sample: Vec<f32>,
}

impl Trajectory {
    /// The first noise of a seed: this many numbers.
    pub(crate) fn new(settings: &Settings, seed: u64, count: usize) -> Result<Self, Error> {
        let mut noise = Generator::new(seed);
        let sampler = settings.scheduler.sampler(settings.steps)?;
        let first = noise.normal(count);
        let sample = first.iter().map(|x| x * sampler.init_noise_sigma()).collect();
        Ok(Self { noise, sampler, sample })
    }

    /// How often the network is called.
    pub(crate) fn calls(&self) -> usize {
        self.sampler.timesteps().len()
    }

    /// What the network sees in a call.
    pub(crate) fn input(&self, call: usize) -> Vec<f32> {
        self.sampler.scale_input(call, &self.sample)
    }

    /// Go on with what the network predicts in a call.
    pub(crate) fn advance(&mut self, call: usize, prediction: &[f32]) {
        let (noise, sample) = (&mut self.noise, &self.sample);
        let call = Call { index: call, output: prediction, sample, images: 1 };
        self.sample = self.sampler.step(call, &mut |n| noise.normal(n));
    }

    /// The latents after the last call.
    pub(crate) fn finish(self) -> Vec<f32> {
        self.sample
    }
}
