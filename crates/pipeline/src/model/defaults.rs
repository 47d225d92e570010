//! What a model wants when the caller does not say: steps, guidance, size and sampler, and where that comes from.

use serde_json::Value;

use super::{Kind, Model};
use crate::schedule::{NoiseSchedule, SamplingMethod};

/// A value and the reason for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Default<T> {
    /// The value.
    pub value: T,
    /// Where it comes from, as a report says it.
    pub from: &'static str,
}

/// What a model wants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Defaults {
    /// Sampling steps.
    pub steps: Default<usize>,
    /// Guidance scale; 1 is none.
    pub guidance: Default<f32>,
    /// Height and width in pixels.
    pub size: Default<[usize; 2]>,
    /// The sampling method, where it is not that of the scheduler's configuration.
    pub method: Default<Option<SamplingMethod>>,
    /// The spacing of the noise levels for that method, where it is not that of the configuration.
    pub schedule: Option<NoiseSchedule>,
}

impl Model {
    /// What this model wants.
    pub fn defaults(&self) -> Defaults {
        if let Some(run) = self.packed.as_ref().and_then(|packed| packed.plan.run()) {
            return run.defaults();
        }
        Defaults {
            steps: self.steps(),
            guidance: self.guidance(),
            size: self.size(),
            method: Default { value: None, from: "the model's scheduler" },
            schedule: None,
        }
    }

    /// Pixels on a side of one latent.
    pub fn pixels_per_latent(&self) -> usize {
        let channels =
            if self.has_tiny_vae() { "decoder_block_out_channels" } else { "block_out_channels" };
        let levels = self.vae.config[channels].as_array().map_or(4, Vec::len);
        1 << (levels.clamp(1, 16) - 1)
    }

    fn steps(&self) -> Default<usize> {
        match self.speed() {
            Speed::Consistency => Default { value: 4, from: "a consistency scheduler" },
            Speed::Trailing => Default { value: 1, from: "trailing timesteps" },
            Speed::Full => Default { value: 25, from: "a scheduler for many steps" },
        }
    }

    fn guidance(&self) -> Default<f32> {
        if !self.unet.config["time_cond_proj_dim"].is_null() {
            return Default { value: 8.5, from: "the guidance embedding" };
        }
        match (self.speed(), self.kind) {
            (Speed::Full, Kind::StableDiffusionXl) => {
                Default { value: 5.0, from: "an SDXL base model" }
            }
            (Speed::Full, _) => Default { value: 7.5, from: "a Stable Diffusion base model" },
            _ => Default { value: 1.0, from: "a few-step model" },
        }
    }

    fn size(&self) -> Default<[usize; 2]> {
        let sample = &self.unet.config["sample_size"];
        let side =
            |value: &Value| value.as_u64().map(|n| n as usize).filter(|n| (1..=4096).contains(n));
        let latents = match sample.as_array().map(Vec::as_slice) {
            Some([height, width]) => side(height).zip(side(width)),
            _ => side(sample).map(|n| (n, n)),
        };
        let scale = self.pixels_per_latent();
        match latents {
            Some((h, w)) => {
                Default { value: [h * scale, w * scale], from: "the UNet's sample_size" }
            }
            None => Default { value: [512, 512], from: "the usual size" },
        }
    }

    /// How many steps the scheduler's configuration is made for.
    fn speed(&self) -> Speed {
        let class = self.scheduler["_class_name"].as_str().unwrap_or("");
        if matches!(class, "LCMScheduler" | "TCDScheduler") {
            Speed::Consistency
        } else if self.scheduler["timestep_spacing"] == "trailing"
            && matches!(class, "EulerDiscreteScheduler" | "EulerAncestralDiscreteScheduler")
        {
            Speed::Trailing
        } else {
            Speed::Full
        }
    }
}

/// How many steps a scheduler's configuration is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speed {
    /// A few, towards a consistent end.
    Consistency,
    /// One or a few, from the very last timestep.
    Trailing,
    /// Many.
    Full,
}
