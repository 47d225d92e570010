//! `AutoencoderKL`: pictures ↔ latents an eighth as high and wide.

mod config;
mod decoder;
mod encoder;
mod middle;

use tensor::Value;

pub use config::Config;

use crate::nn::{Bias, Conv2d, Window};
use crate::{Error, Params};

/// Latents → pictures.
#[derive(Clone, Debug)]
pub struct Decoder {
    post_quant_conv: Option<Conv2d>,
    layers: decoder::Decoder,
}

impl Decoder {
    /// The decoder of the autoencoder at this place.
    ///
    /// # Errors
    ///
    /// If a parameter is missing or its shape is another than the configuration says.
    pub fn load(params: &Params, config: &Config) -> Result<Self, Error> {
        let channels = config.latent_channels;
        let post_quant_conv = || pointwise(&params.at("post_quant_conv"), channels);
        Ok(Self {
            post_quant_conv: config.use_post_quant_conv.then(post_quant_conv).transpose()?,
            layers: decoder::Decoder::load(&params.at("decoder"), config)?,
        })
    }

    /// `decoder(post_quant_conv(z))`: latents ([`Config::unscale`]) `[batch, height, width, latent channels]` → pixels
    /// of about −1…1, `[batch, 8 height, 8 width, 3]` where there are four levels.
    #[track_caller]
    pub fn forward<'g>(&self, latents: Value<'g>) -> Value<'g> {
        let z = self.post_quant_conv.as_ref().map_or(latents, |conv| conv.forward(latents));
        self.layers.forward(z)
    }
}

/// Pictures → latents.
#[derive(Clone, Debug)]
pub struct Encoder {
    layers: encoder::Encoder,
    quant_conv: Option<Conv2d>,
    channels: usize,
}

impl Encoder {
    /// The encoder of the autoencoder at this place.
    ///
    /// # Errors
    ///
    /// If a parameter is missing or its shape is another than the configuration says.
    pub fn load(params: &Params, config: &Config) -> Result<Self, Error> {
        let channels = config.latent_channels;
        let quant_conv = || pointwise(&params.at("quant_conv"), 2 * channels);
        Ok(Self {
            layers: encoder::Encoder::load(&params.at("encoder"), config)?,
            quant_conv: config.use_quant_conv.then(quant_conv).transpose()?,
            channels,
        })
    }

    /// `quant_conv(encoder(x))`: pixels of −1…1 `[batch, height, width, 3]` → mean and logarithm of the variance of the
    /// latents side by side, `[batch, height / 8, width / 8, 2 · latent channels]` where there are four levels.
    #[track_caller]
    pub fn moments<'g>(&self, pixels: Value<'g>) -> Value<'g> {
        let h = self.layers.forward(pixels);
        self.quant_conv.as_ref().map_or(h, |conv| conv.forward(h))
    }

    /// The mean of the latents, `[batch, height / 8, width / 8, latent channels]` where there are four levels.
    #[track_caller]
    pub fn forward<'g>(&self, pixels: Value<'g>) -> Value<'g> {
        self.moments(pixels).channels(0, self.channels)
    }
}

fn pointwise(params: &Params, channels: usize) -> Result<Conv2d, Error> {
    Conv2d::with_window(params, [channels, channels], Window::same(1), Bias::Learned)
}
