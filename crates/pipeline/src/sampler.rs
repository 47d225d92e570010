//! Samplers: from noise to a clean sample by repeated calls of the model.
//!
//! A sampler holds the numbers of one run and nothing of the model. It says which timestep the
//! model is told at each call, scales the model's input, and turns the model's output into the next
//! sample. All arithmetic is single precision in the order of diffusers, on flat slices: every
//! sampler works value by value, so the layout is free as long as it is the same for the sample,
//! the model's output and the noise.
//!
//! ```
//! use pipeline::{noise::Generator, sampler::Call, schedule::{SamplingMethod, SchedulerConfig}};
//!
//! let mut noise = Generator::new(42);
//! let mut sampler = SchedulerConfig::from_method(SamplingMethod::EulerAncestral)?.sampler(4)?;
//! let mut sample: Vec<f32> =
//!     noise.normal(64).iter().map(|x| x * sampler.init_noise_sigma()).collect();
//! for index in 0..sampler.timesteps().len() {
//!     let input = sampler.scale_input(index, &sample);
//!     let output = input; // model(input, sampler.timesteps()[index])
//!     let call = Call { index, output: &output, sample: &sample, images: 1 };
//!     sample = sampler.step(call, &mut |n| noise.normal(n));
//! }
//! assert!(sample.iter().all(|x| x.is_finite()));
//! # Ok::<(), pipeline::schedule::Error>(())
//! ```

mod ddim;
mod dpm;
mod euler;
mod euler_ancestral;
mod heun;
mod lcm;
mod limit;
mod pndm;
mod prediction;
mod tcd;
mod unipc;

use crate::schedule::{Error, Family, Path, SchedulerConfig, Table};

/// One call of the model, done: what went in and what came out.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Which call of the run, counted from 0 without gaps.
    pub index: usize,
    /// The model's output, after guidance.
    pub output: &'a [f32],
    /// The sample before the call, not scaled.
    pub sample: &'a [f32],
    /// How many pictures of equal size the slices hold, one after the other.
    pub images: usize,
}

/// Draws as many values of fresh standard normal noise as asked for.
///
/// A sampler asks once per step for as many values as the sample has, in the order in which
/// diffusers draws from its generator.
pub type Noise<'a> = dyn FnMut(usize) -> Vec<f32> + 'a;

/// The state of one run.
pub trait Sampler: Send {
    /// Factor on standard normal noise that makes the first sample.
    fn init_noise_sigma(&self) -> f32;

    /// What the model is told at each call, in order. Whole numbers for most samplers.
    ///
    /// Heun calls the model twice per step and PNDM once or four times more than there are steps.
    fn timesteps(&self) -> &[f32];

    /// The model's input for the call, from the sample.
    fn scale_input(&self, _index: usize, sample: &[f32]) -> Vec<f32> {
        sample.to_vec()
    }

    /// The sample after the call. Calls come in order; each exactly once.
    ///
    /// # Panics
    /// When `index` is past the last call.
    fn step(&mut self, call: Call<'_>, noise: &mut Noise<'_>) -> Vec<f32>;
}

impl SchedulerConfig {
    /// A sampler for a run of `steps` steps.
    ///
    /// # Errors
    /// A number of steps that the configuration cannot make.
    pub fn sampler(&self, steps: usize) -> Result<Box<dyn Sampler>, Error> {
        let (family, settings) = (self.family(), self.settings());
        self.check_steps(steps)?;
        let table = Table::new(family, settings);
        Ok(match family {
            Family::Euler => {
                Box::new(euler::Euler::new(settings, Path::of_levels(settings, &table, steps)))
            }
            Family::EulerAncestral => Box::new(euler_ancestral::EulerAncestral::new(
                settings,
                Path::of_levels(settings, &table, steps),
            )),
            Family::Heun => {
                Box::new(heun::Heun::new(settings, &Path::of_levels(settings, &table, steps)))
            }
            Family::Lcm => Box::new(lcm::Lcm::new(settings, &table, steps)),
            Family::Tcd => Box::new(tcd::Tcd::new(self, table, steps)),
            Family::Ddim => Box::new(ddim::Ddim::new(self, &table, steps)),
            Family::Pndm => Box::new(pndm::Pndm::new(settings, &table, steps)),
            Family::DpmMultistep => {
                let path = Path::of_solver(family, settings, &table, steps)?;
                Box::new(dpm::Dpm::new(settings, path))
            }
            Family::UniPc => {
                let path = Path::of_solver(family, settings, &table, steps)?;
                Box::new(unipc::UniPc::new(settings, path))
            }
        })
    }

    fn check_steps(&self, steps: usize) -> Result<(), Error> {
        let settings = self.settings();
        let bad = |reason: String| Error::BadSteps { steps, method: self.family().name(), reason };
        let train = settings.train_steps;
        if steps == 0 || steps > train {
            return Err(bad(format!("use 1 to {train}, the timesteps of training")));
        }
        match self.family() {
            Family::Lcm | Family::Tcd if settings.original_steps > train => {
                Err(bad(format!("original_inference_steps must be at most {train}")))
            }
            Family::Lcm | Family::Tcd if steps > settings.original_steps => {
                let most = settings.original_steps;
                Err(bad(format!("the model was distilled from {most} steps; use at most {most}")))
            }
            Family::Pndm => pndm::check_steps(settings, steps).map_err(bad),
            Family::Ddim => ddim::check_steps(settings, steps).map_err(bad),
            _ => Ok(()),
        }
    }
}
