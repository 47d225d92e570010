//! The half that looks.

use tensor::Value;

use super::Config;
use super::middle::{EPS, Middle};
use crate::nn::{Conv2d, Downsample, GroupNorm, Resnet};
use crate::{Error, Params};

/// `conv_in`, levels of residual layers that halve the size in between, the middle, `conv_out(silu(norm))`.
#[derive(Clone, Debug)]
pub(super) struct Encoder {
    conv_in: Conv2d,
    down_blocks: Vec<Level>,
    mid_block: Middle,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

/// Residual layers of one size, then half the size for all levels but the last.
#[derive(Clone, Debug)]
struct Level {
    resnets: Vec<Resnet>,
    downsampler: Option<Downsample>,
}

impl Encoder {
    /// The encoder at this place.
    pub(super) fn load(params: &Params, config: &Config) -> Result<Self, Error> {
        let (first, inner) = (config.block_out_channels[0], config.inner());
        let mut inputs = first;
        let mut down_blocks = Vec::new();
        for (i, &channels) in config.block_out_channels.iter().enumerate() {
            let last = i + 1 == config.block_out_channels.len();
            let params = params.at("down_blocks").at(i);
            let downsampler = || Downsample::load(&params.at("downsamplers.0"), channels, 0);
            let mut resnets = Vec::new();
            for layer in 0..config.layers_per_block {
                let place = params.at("resnets").at(layer);
                resnets.push(Resnet::load(&place, [inputs, channels], &config.resnet()?)?);
                inputs = channels;
            }
            down_blocks
                .push(Level { resnets, downsampler: (!last).then(downsampler).transpose()? });
        }
        let norm = params.at("conv_norm_out");
        Ok(Self {
            conv_in: Conv2d::load(&params.at("conv_in"), [first, config.in_channels])?,
            down_blocks,
            mid_block: Middle::load(&params.at("mid_block"), config)?,
            conv_norm_out: GroupNorm::load(&norm, inner, config.norm_num_groups, EPS)?,
            conv_out: Conv2d::load(&params.at("conv_out"), [2 * config.latent_channels, inner])?,
        })
    }

    /// `[batch, height, width, in channels]` → `[batch, height / n, width / n, 2 · latent channels]`.
    #[track_caller]
    pub(super) fn forward<'g>(&self, pixels: Value<'g>) -> Value<'g> {
        let mut x = self.conv_in.forward(pixels);
        for level in &self.down_blocks {
            x = level.resnets.iter().fold(x, |x, resnet| resnet.forward(x, None));
            x = level.downsampler.as_ref().map_or(x, |downsampler| downsampler.forward(x));
        }
        let x = self.mid_block.forward(x);
        self.conv_out.forward(self.conv_norm_out.forward(x).silu())
    }
}
