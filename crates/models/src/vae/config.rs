//! The configuration of an autoencoder: the fields of its `config.json`.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::Error;
use crate::config::{self, Rest};
use crate::nn::ResnetConfig;

/// Name of the class in error messages.
const MODEL: &str = "AutoencoderKL";

/// Fields of `config.json`, by their names there; absent ones have the defaults of diffusers.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Channels of a picture to encode.
    pub in_channels: usize,
    /// Channels of a decoded picture.
    pub out_channels: usize,
    /// Kind of each level of the encoder.
    pub down_block_types: Vec<String>,
    /// Kind of each level of the decoder.
    pub up_block_types: Vec<String>,
    /// Channels of each level, outermost first.
    pub block_out_channels: Vec<usize>,
    /// Residual layers of each level of the encoder; the decoder has one more.
    pub layers_per_block: usize,
    /// Activation function of the residual layers.
    pub act_fn: String,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Groups of the group normalisations.
    pub norm_num_groups: usize,
    /// Latents are multiplied by this for the UNet.
    pub scaling_factor: f32,
    /// For models whose latents are shifted as well; Stable Diffusion's pipelines do not use it.
    pub shift_factor: Option<f32>,
    /// Mean of each latent channel, for models that normalise them one by one.
    pub latents_mean: Option<Vec<f32>>,
    /// Standard deviation of each latent channel.
    pub latents_std: Option<Vec<f32>>,
    /// Whether the encoder ends with a 1×1 convolution.
    pub use_quant_conv: bool,
    /// Whether the decoder begins with a 1×1 convolution.
    pub use_post_quant_conv: bool,
    /// Whether the middles attend.
    pub mid_block_add_attention: bool,
    #[serde(flatten)]
    rest: Rest,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            down_block_types: vec!["DownEncoderBlock2D".into()],
            up_block_types: vec!["UpDecoderBlock2D".into()],
            block_out_channels: vec![64],
            layers_per_block: 1,
            act_fn: "silu".into(),
            latent_channels: 4,
            norm_num_groups: 32,
            scaling_factor: 0.18215,
            shift_factor: None,
            latents_mean: None,
            latents_std: None,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
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
        let neutral = [("force_upcast", json!(null)), ("sample_size", json!(null))];
        config::refuse(MODEL, &config.rest, &neutral)?;
        let levels = [config.block_out_channels.len()];
        config::within(MODEL, "the length of block_out_channels", levels, config::LEVELS)?;
        let channels = config.block_out_channels.iter().copied().chain([config.latent_channels]);
        config::within(MODEL, "block_out_channels or latent_channels", channels, config::CHANNELS)?;
        config.levels("down_block_types", &config.down_block_types, "DownEncoderBlock2D")?;
        config.levels("up_block_types", &config.up_block_types, "UpDecoderBlock2D")?;
        for list in [&config.latents_mean, &config.latents_std].into_iter().flatten() {
            if list.len() != config.latent_channels {
                let fault = "must have one entry for each latent channel";
                return Err(config::fault(MODEL, "latents_mean or latents_std", fault));
            }
        }
        Ok(config)
    }

    /// Check that every level is of the one kind that there is.
    fn levels(&self, field: &str, kinds: &[String], kind: &str) -> Result<(), Error> {
        let levels = self.block_out_channels.len();
        if kinds.len() != levels || levels == 0 {
            let fault = format!("must have {levels} entries, at least one");
            return Err(config::fault(MODEL, field, &fault));
        }
        match kinds.iter().find(|found| *found != kind) {
            None => Ok(()),
            Some(other) => {
                let advice = format!("implemented is {kind}");
                Err(config::unsupported(MODEL, field, other.as_str(), &advice))
            }
        }
    }

    /// Channels of the latents.
    pub fn latent_channels(&self) -> usize {
        self.latent_channels
    }

    /// Pixels for each latent, in either direction.
    pub fn pixels_per_latent(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }

    /// Latents of the sampler's scale → latents that the decoder reads: `z / scaling_factor`, or
    /// `z · std / scaling_factor + mean` for models that normalise each channel. Channels are last.
    pub fn unscale(&self, latents: &[f32]) -> Vec<f32> {
        match (&self.latents_mean, &self.latents_std) {
            (Some(mean), Some(std)) => {
                let all = latents.iter().zip(mean.iter().zip(std).cycle());
                all.map(|(z, (mean, std))| z * std / self.scaling_factor + mean).collect()
            }
            _ => latents.iter().map(|z| z / self.scaling_factor).collect(),
        }
    }

    /// The inverse of [`Config::unscale`].
    pub fn scale(&self, latents: &[f32]) -> Vec<f32> {
        match (&self.latents_mean, &self.latents_std) {
            (Some(mean), Some(std)) => {
                let all = latents.iter().zip(mean.iter().zip(std).cycle());
                all.map(|(z, (mean, std))| (z - mean) * self.scaling_factor / std).collect()
            }
            _ => latents.iter().map(|z| z * self.scaling_factor).collect(),
        }
    }

    /// The residual layers of both halves.
    pub(super) fn resnet(&self) -> Result<ResnetConfig, Error> {
        Ok(ResnetConfig {
            groups: self.norm_num_groups,
            eps: super::middle::EPS,
            activation: config::activation(MODEL, "act_fn", &self.act_fn)?,
            time: None,
            output_scale: 1.0,
        })
    }

    /// Channels at the innermost level.
    pub(super) fn inner(&self) -> usize {
        self.block_out_channels.last().copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Config;

    #[test]
    fn scales_are_inverse() {
        let json = json!({"latent_channels": 2, "scaling_factor": 0.5, "latents_mean": [1, 2], "latents_std": [2.0, 4.0]});
        let config = Config::read(&json).unwrap();
        assert_eq!(config.unscale(&[1.0, 1.0, 2.0, 2.0]), [5.0, 10.0, 9.0, 18.0]);
        assert_eq!(config.scale(&[5.0, 10.0, 9.0, 18.0]), [1.0, 1.0, 2.0, 2.0]);
    }

    #[test]
    fn other_blocks_are_refused_by_name() {
        let json = json!({"up_block_types": ["AttnUpDecoderBlock2D"]});
        let message = Config::read(&json).unwrap_err().to_string();
        assert!(message.contains("up_block_types is \"AttnUpDecoderBlock2D\""), "{message}");
    }
}
