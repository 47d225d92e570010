//! The half that draws.

use tensor::Value;

use super::Config;
use super::middle::{EPS, Middle};
use crate::nn::{Conv2d, GroupNorm, Resnet, Upsample};
use crate::{Error, Params};

/// `conv_in`, the middle, levels of residual layers that double the size in between, `conv_out(silu(norm))`.
#[derive(Clone, Debug)]
pub(super) struct Decoder {
    conv_in: Conv2d,
    mid_block: Middle,
    up_blocks: Vec<Level>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

/// Residual layers of one size, then twice the size for all levels but the last.
#[derive(Clone, Debug)]
struct Level {
    resnets: Vec<Resnet>,
    upsampler: Option<Upsample>,
}

impl Decoder {
    /// The decoder at this place.
    pub(super) fn load(params: &Params, config: &Config) -> Result<Self, Error> {
        let first = config.block_out_channels[0];
        let mut inputs = config.inner();
        let mut up_blocks = Vec::new();
        for (i, &channels) in config.block_out_channels.iter().rev().enumerate() {
            let last = i + 1 == config.block_out_channels.len();
            let params = params.at("up_blocks").at(i);
            let upsampler = || Upsample::load(&params.at("upsamplers.0"), channels);
            let mut resnets = Vec::new();
            for layer in 0..=config.layers_per_block {
                let place = params.at("resnets").at(layer);
                resnets.push(Resnet::load(&place, [inputs, channels], &config.resnet()?)?);
                inputs = channels;
            }
            up_blocks.push(Level { resnets, upsampler: (!last).then(upsampler).transpose()? });
        }
        Ok(Self {
            conv_in: Conv2d::load(&params.at("conv_in"), [config.inner(), config.latent_channels])?,
            mid_block: Middle::load(&params.at("mid_block"), config)?,
            up_blocks,
            conv_norm_out: GroupNorm::load(
                &params.at("conv_norm_out"),
                first,
                config.norm_num_groups,
                EPS,
            )?,
            conv_out: Conv2d::load(&params.at("conv_out"), [config.out_channels, first])?,
        })
    }

    /// `[batch, height, width, latent channels]` → `[batch, n height, n width, out channels]`.
    #[track_caller]
    pub(super) fn forward<'g>(&self, z: Value<'g>) -> Value<'g> {
        let mut x = self.mid_block.forward(self.conv_in.forward(z));
        for level in &self.up_blocks {
            x = level.resnets.iter().fold(x, |x, resnet| resnet.forward(x, None));
            x = level.upsampler.as_ref().map_or(x, |upsampler| upsampler.forward(x));
        }
        self.conv_out.forward(self.conv_norm_out.forward(x).silu())
    }
}
