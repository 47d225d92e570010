//! The three published pipelines whose shapes are imitated.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::clip::{Clip, Pooling};
use super::unet::{Projection, Unet};
use super::vae::Vae;

/// A pipeline: its components and how a picture is drawn with them.
#[derive(Debug)]
pub(crate) struct Family {
    /// Class in `model_index.json`.
    pub(crate) pipeline: &'static str,
    /// The UNet.
    pub(crate) unet: Unet,
    /// Text encoders in order, each with the padding token of its tokenizer.
    pub(crate) text: Vec<(Clip, &'static str)>,
    /// The VAE.
    pub(crate) vae: Vae,
    /// `scheduler_config.json`.
    pub(crate) scheduler: Value,
}

const CLIP_L: Clip = Clip {
    hidden: 768,
    layers: 12,
    heads: 12,
    activation: "quick_gelu",
    projection: 768,
    pooling: Pooling::Plain,
};
/// `OpenCLIP` ViT-H without its last layer.
const CLIP_H: Clip = Clip {
    hidden: 1024,
    layers: 23,
    heads: 16,
    activation: "gelu",
    projection: 512,
    pooling: Pooling::Plain,
};
const CLIP_BIG_G: Clip = Clip {
    hidden: 1280,
    layers: 32,
    heads: 20,
    activation: "gelu",
    projection: 1280,
    pooling: Pooling::Projected,
};
const SD_CHANNELS: &[usize] = &[320, 640, 1280, 1280];
const SD_DEPTH: &[usize] = &[1, 1, 1, 0];

/// The pipeline called `name` on the command line.
pub(crate) fn find(name: &str) -> Result<Family> {
    match name {
        "sd-turbo" => Ok(sd_turbo()),
        "sdxl-turbo" => Ok(sdxl_turbo()),
        "lcm" => Ok(lcm()),
        _ => bail!("unknown model `{name}`; take sd-turbo, sdxl-turbo or lcm"),
    }
}

fn sd_turbo() -> Family {
    Family {
        pipeline: "StableDiffusionPipeline",
        unet: Unet {
            channels: SD_CHANNELS,
            depth: SD_DEPTH,
            heads: &[5, 10, 20, 20],
            cross: 1024,
            projection: Projection::Linear,
            added: None,
            guidance: None,
            sample_size: 64,
        },
        text: vec![(CLIP_H, "!")],
        vae: Vae { sample_size: 768, scaling_factor: 0.18215 },
        scheduler: euler("EulerDiscreteScheduler"),
    }
}

fn sdxl_turbo() -> Family {
    Family {
        pipeline: "StableDiffusionXLPipeline",
        unet: Unet {
            channels: &[320, 640, 1280],
            depth: &[0, 2, 10],
            heads: &[5, 10, 20],
            cross: 2048,
            projection: Projection::Linear,
            added: Some(2816),
            guidance: None,
            sample_size: 64,
        },
        text: vec![(CLIP_L, "<|endoftext|>"), (CLIP_BIG_G, "!")],
        vae: Vae { sample_size: 1024, scaling_factor: 0.13025 },
        scheduler: euler("EulerAncestralDiscreteScheduler"),
    }
}

fn lcm() -> Family {
    Family {
        pipeline: "LatentConsistencyModelPipeline",
        unet: Unet {
            channels: SD_CHANNELS,
            depth: SD_DEPTH,
            heads: &[8, 8, 8, 8],
            cross: 768,
            projection: Projection::Convolution,
            added: None,
            guidance: Some(256),
            sample_size: 96,
        },
        text: vec![(CLIP_L, "<|endoftext|>")],
        vae: Vae { sample_size: 768, scaling_factor: 0.18215 },
        scheduler: lcm_scheduler(),
    }
}

fn euler(class: &str) -> Value {
    json!({
        "_class_name": class,
        "_diffusers_version": "0.24.0",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "clip_sample": false,
        "interpolation_type": "linear",
        "num_train_timesteps": 1000,
        "prediction_type": "epsilon",
        "sample_max_value": 1.0,
        "set_alpha_to_one": false,
        "skip_prk_steps": true,
        "steps_offset": 1,
        "timestep_spacing": "trailing",
        "trained_betas": null,
        "use_karras_sigmas": false,
    })
}

fn lcm_scheduler() -> Value {
    json!({
        "_class_name": "LCMScheduler",
        "_diffusers_version": "0.22.0",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "clip_sample": false,
        "clip_sample_range": 1.0,
        "dynamic_thresholding_ratio": 0.995,
        "num_train_timesteps": 1000,
        "original_inference_steps": 50,
        "prediction_type": "epsilon",
        "rescale_betas_zero_snr": false,
        "sample_max_value": 1.0,
        "set_alpha_to_one": true,
        "steps_offset": 0,
        "thresholding": false,
        "timestep_scaling": 10.0,
        "timestep_spacing": "leading",
        "trained_betas": null,
    })
}
