//! The list of stages, and the one function that builds it.

use tensor::Value;

use super::Config;
use super::config::MODEL;
use super::layers::{Layers, Level};
use super::transformer::{Transformer, TransformerConfig};
use crate::config::{fault, unsupported};
use crate::nn::{Downsample, Resnet, ResnetConfig, Upsample};
use crate::{Error, Params};

/// One step of the network.
#[derive(Clone, Debug)]
pub(super) enum Stage {
    Resnet(Resnet),
    Transformer(Transformer),
    Downsample(Downsample),
    /// To the size of the value that is on top of the stack: odd sizes come back as they were.
    Upsample(Upsample),
    Push,
    /// Puts the value that is on top of the stack beside its input.
    Pop,
}

impl Stage {
    /// `x [batch, height, width, channels]`, `f(t) [batch, time channels]`, `context [batch, tokens, channels]`.
    #[track_caller]
    pub(super) fn forward<'g>(
        &self,
        x: Value<'g>,
        skips: &mut Vec<Value<'g>>,
        time: Value<'g>,
        context: Value<'g>,
    ) -> Value<'g> {
        match self {
            Self::Resnet(layer) => layer.forward(x, Some(time)),
            Self::Transformer(layer) => layer.forward(x, context),
            Self::Downsample(layer) => layer.forward(x),
            Self::Upsample(layer) => match skips.last() {
                Some(skip) => layer.to_size(x, [skip.shape()[1], skip.shape()[2]]),
                None => layer.forward(x),
            },
            Self::Push => {
                skips.push(x);
                x
            }
            Self::Pop => skips.pop().map_or(x, |skip| x.concat_channels(skip)),
        }
    }
}

/// All stages between the first and the last convolution.
pub(super) fn stages(
    params: &Params,
    config: &Config,
    layers: &Layers,
) -> Result<Vec<Stage>, Error> {
    let mut build = Builder {
        config,
        resnet: ResnetConfig {
            groups: config.norm_num_groups,
            eps: config.norm_eps,
            activation: config.activation()?,
            time: Some(config.time_channels()),
            output_scale: 1.0,
        },
        stages: Vec::new(),
        channels: config.block_out_channels[0],
        skips: vec![config.block_out_channels[0]],
    };
    for (i, level) in layers.down.iter().enumerate() {
        let params = params.at("down_blocks").at(i);
        build.down(&params, level)?;
        if i + 1 < layers.down.len() {
            let place = params.at("downsamplers.0");
            let layer = Downsample::load(&place, level.channels, config.downsample_padding)?;
            build.stages.push(Stage::Downsample(layer));
            build.push();
        }
    }
    if let Some(level) = &layers.middle {
        build.middle(&params.at("mid_block"), level)?;
    }
    for (i, level) in layers.up.iter().enumerate() {
        let params = params.at("up_blocks").at(i);
        build.up(&params, level)?;
        if i + 1 < layers.up.len() {
            let layer = Upsample::load(&params.at("upsamplers.0"), level.channels)?;
            build.stages.push(Stage::Upsample(layer));
        }
    }
    Ok(build.stages)
}

/// The list so far, the channels of the current value, and those of the values on the stack.
struct Builder<'a> {
    config: &'a Config,
    resnet: ResnetConfig,
    stages: Vec<Stage>,
    channels: usize,
    skips: Vec<usize>,
}

impl Builder<'_> {
    fn down(&mut self, params: &Params, level: &Level) -> Result<(), Error> {
        let attends = attends(level, ["DownBlock2D", "CrossAttnDownBlock2D"])?;
        for (i, &depth) in level.depths.iter().enumerate() {
            self.resnet(params, i, level.channels)?;
            if attends {
                self.transformer(params, i, (level, depth))?;
            }
            self.push();
        }
        Ok(())
    }

    /// A residual layer; then, with attention, a transformer and another residual layer.
    fn middle(&mut self, params: &Params, level: &Level) -> Result<(), Error> {
        let attends = attends(level, ["UNetMidBlock2D", "UNetMidBlock2DCrossAttn"])?;
        self.resnet.output_scale = self.config.mid_block_scale_factor;
        self.resnet(params, 0, level.channels)?;
        if attends {
            let level = Level { only_cross: false, ..level.clone() };
            self.transformer(params, 0, (&level, level.depths[0]))?;
            self.resnet(params, 1, level.channels)?;
        }
        self.resnet.output_scale = 1.0;
        Ok(())
    }

    fn up(&mut self, params: &Params, level: &Level) -> Result<(), Error> {
        let attends = attends(level, ["UpBlock2D", "CrossAttnUpBlock2D"])?;
        for (i, &depth) in level.depths.iter().enumerate() {
            let Some(skip) = self.skips.pop() else {
                return Err(fault(
                    MODEL,
                    "layers_per_block",
                    "leaves nothing for the way up to read",
                ));
            };
            self.stages.push(Stage::Pop);
            self.channels += skip;
            self.resnet(params, i, level.channels)?;
            if attends {
                self.transformer(params, i, (level, depth))?;
            }
        }
        Ok(())
    }

    fn resnet(&mut self, params: &Params, index: usize, channels: usize) -> Result<(), Error> {
        let place = params.at("resnets").at(index);
        let layer = Resnet::load(&place, [self.channels, channels], &self.resnet)?;
        self.stages.push(Stage::Resnet(layer));
        self.channels = channels;
        Ok(())
    }

    fn transformer(
        &mut self,
        params: &Params,
        index: usize,
        (level, depth): (&Level, usize),
    ) -> Result<(), Error> {
        let config = TransformerConfig {
            channels: level.channels,
            heads: level.heads,
            context: level.context,
            only_cross: level.only_cross,
            depth,
            groups: self.config.norm_num_groups,
        };
        let layer = Transformer::load(&params.at("attentions").at(index), &config)?;
        self.stages.push(Stage::Transformer(layer));
        Ok(())
    }

    fn push(&mut self) {
        self.stages.push(Stage::Push);
        self.skips.push(self.channels);
    }
}

/// Whether a level has transformers, given the classes without and with them.
fn attends(level: &Level, [plain, cross]: [&str; 2]) -> Result<bool, Error> {
    match level.kind.as_str() {
        kind if kind == plain => Ok(false),
        kind if kind == cross => Ok(true),
        other => {
            let advice = format!("implemented are {plain} and {cross}");
            Err(unsupported(MODEL, level.field, other, &advice))
        }
    }
}
