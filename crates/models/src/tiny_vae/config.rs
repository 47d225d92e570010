//! The configuration of a tiny autoencoder: the fields of its `config.json`.

use serde::Deserialize;
use serde_json::{Value, json};
use tensor::graph::Activation;

use crate::Error;
use crate::config::{self, Rest};

/// Name of the class in error messages.
const MODEL: &str = "AutoencoderTiny";

/// Fields of `config.json`, by their names there; absent ones have the defaults of diffusers.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Channels of a picture to encode.
    pub in_channels: usize,
    /// Channels of a decoded picture.
    pub out_channels: usize,
    /// Channels of each level of the encoder, outermost first.
    pub encoder_block_out_channels: Vec<usize>,
    /// Channels of each level of the decoder, innermost first.
    pub decoder_block_out_channels: Vec<usize>,
    /// Activation function between convolutions.
    pub act_fn: String,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// How much wider each level of the decoder is than the one before.
    pub upsampling_scaling_factor: usize,
    /// Blocks of each level of the encoder.
    pub num_encoder_blocks: Vec<usize>,
    /// Blocks of each level of the decoder.
    pub num_decoder_blocks: Vec<usize>,
    /// Latents are multiplied by this for the UNet.
    pub scaling_factor: f32,
    /// For models whose latents are shifted as well; Stable Diffusion's pipelines do not use it.
    pub shift_factor: f32,
    #[serde(flatten)]
    rest: Rest,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            encoder_block_out_channels: vec![64; 4],
            decoder_block_out_channels: vec![64; 4],
            act_fn: "relu".into(),
            latent_channels: 4,
            upsampling_scaling_factor: 2,
            num_encoder_blocks: vec![1, 3, 3, 3],
            num_decoder_blocks: vec![3, 3, 3, 1],
            scaling_factor: 1.0,
            shift_factor: 0.0,
            rest: Rest::new(),
        }
    }
}

impl Config {
    /// Read `config.json`.
    ///
    /// # Errors
    ///
    /// If a field cannot be read, or is set to something that is not implemented.
    pub fn read(json: &Value) -> Result<Self, Error> {
        let config: Self = config::read(MODEL, json)?;
        let neutral = [
            ("block_out_channels", json!(null)),
            ("force_upcast", json!(null)),
            ("latent_magnitude", json!(null)),
            ("latent_shift", json!(null)),
            ("upsample_fn", json!("nearest")),
        ];
        config::refuse(MODEL, &config.rest, &neutral)?;
        let levels = [config.num_encoder_blocks.len(), config.num_decoder_blocks.len()];
        config::within(MODEL, "the number of levels", levels, config::LEVELS)?;
        let factor = [config.upsampling_scaling_factor];
        config::within(MODEL, "upsampling_scaling_factor", factor, 1..=8)?;
        let halves = [
            ("num_encoder_blocks", &config.num_encoder_blocks, &config.encoder_block_out_channels),
            ("num_decoder_blocks", &config.num_decoder_blocks, &config.decoder_block_out_channels),
        ];
        for (field, blocks, channels) in halves {
            if blocks.len() != channels.len() || blocks.is_empty() {
                let fault = format!("must have {} entries, at least one", channels.len());
                return Err(config::fault(MODEL, field, &fault));
            }
        }
        Ok(config)
    }

    /// Channels of the latents.
    pub fn latent_channels(&self) -> usize {
        self.latent_channels
    }

    /// Pixels for each latent, in either direction.
    pub fn pixels_per_latent(&self) -> usize {
        let levels = self.decoder_block_out_channels.len() as u32;
        self.upsampling_scaling_factor.pow(levels - 1)
    }

    /// Latents of the sampler's scale → latents that the decoder reads: `z / scaling_factor`.
    pub fn unscale(&self, latents: &[f32]) -> Vec<f32> {
        latents.iter().map(|z| z / self.scaling_factor).collect()
    }

    /// The inverse of [`Config::unscale`].
    pub fn scale(&self, latents: &[f32]) -> Vec<f32> {
        latents.iter().map(|z| z * self.scaling_factor).collect()
    }

    /// The activation function between convolutions.
    pub(super) fn activation(&self) -> Result<Activation, Error> {
        config::activation(MODEL, "act_fn", &self.act_fn)
    }
}
