//! `UNet2DConditionModel`: the network that predicts what is noise in a picture, given a time and a text.
//!
//! A UNet is a list of stages and a stack. On the way down each result is pushed; on the way up each residual layer
//! takes one back and reads it beside its input:
//!
//! ```text
//! conv_in ▸ push ▸ (resnet ▸ transformer ▸ push)… ▸ downsample ▸ push ▸ … ▸ middle ▸ … (pop ▸ resnet ▸ transformer)… ▸ upsample ▸ … ▸ conv_out
//! ```
//!
//! The module `stage` builds the list from the configuration; nothing else knows the shape of the network.

mod config;
mod layers;
mod stage;
mod time;
mod transformer;

use tensor::graph::Activation;
use tensor::{Graph, Value};

pub use config::{Config, Depth};
pub use time::{Sinusoid, guidance_scale_embedding, timestep_projection};

use self::layers::Layers;
use self::stage::Stage;
use self::time::{TimeEmbedding, TimeEmbeddingConfig};
use crate::nn::{Bias, Conv2d, GroupNorm, Window};
use crate::{Error, Params};

/// The whole network.
#[derive(Clone, Debug)]
pub struct UNet {
    time_embedding: TimeEmbedding,
    add_embedding: Option<TimeEmbedding>,
    time_embed_act: Option<Activation>,
    conv_in: Conv2d,
    stages: Vec<Stage>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    activation: Activation,
    config: Config,
}

/// What a UNet reads. The names are those of the graph's inputs in [`UNet::inputs`].
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'g> {
    /// Noisy latents `[batch, height, width, in channels]`.
    pub sample: Value<'g>,
    /// [`Config::time_projection`] `[batch, channels of the first level]`.
    pub time: Value<'g>,
    /// Embedding of the text `[batch, tokens, cross attention channels]`.
    pub encoder_hidden_states: Value<'g>,
    /// [`Config::guidance_embedding`] `[batch, time_cond_proj_dim]`, where the model has `time_cond_proj_dim`.
    pub timestep_cond: Option<Value<'g>>,
    /// Summary of the text and [`Config::time_ids`], where the model has `addition_embed_type: text_time`.
    pub text_time: Option<TextTime<'g>>,
}

/// What SDXL is told beside the text.
#[derive(Clone, Copy, Debug)]
pub struct TextTime<'g> {
    /// Pooled and projected embedding of the text `[batch, channels]`.
    pub text_embeds: Value<'g>,
    /// [`Config::time_ids`] `[batch, 6 · addition_time_embed_dim]`.
    pub time_ids: Value<'g>,
}

impl UNet {
    /// The network at this place.
    ///
    /// # Errors
    ///
    /// If a parameter is missing or its shape is another than the configuration says.
    pub fn load(params: &Params, config: &Config) -> Result<Self, Error> {
        let layers = Layers::new(config)?;
        let first = config.block_out_channels[0];
        let time = config.time_channels();
        let options = TimeEmbeddingConfig {
            condition: config.time_cond_proj_dim,
            activation: config.activation()?,
            post_activation: config.optional_activation("timestep_post_act")?,
        };
        let plain = TimeEmbeddingConfig {
            condition: None,
            activation: Activation::Silu,
            post_activation: None,
        };
        let embedding =
            |name, inputs, options| TimeEmbedding::load(&params.at(name), [time, inputs], options);
        let conv = |name, shape, kernel| {
            Conv2d::with_window(&params.at(name), shape, Window::same(kernel), Bias::Learned)
        };
        let text_time = config.text_time_channels();
        Ok(Self {
            time_embedding: embedding("time_embedding", first, options)?,
            add_embedding: text_time.map(|n| embedding("add_embedding", n, plain)).transpose()?,
            time_embed_act: config.optional_activation("time_embedding_act_fn")?,
            conv_in: conv("conv_in", [first, config.in_channels], config.conv_in_kernel)?,
            stages: stage::stages(params, config, &layers)?,
            conv_norm_out: GroupNorm::load(
                &params.at("conv_norm_out"),
                first,
                config.norm_num_groups,
                config.norm_eps,
            )?,
            conv_out: conv("conv_out", [config.out_channels, first], config.conv_out_kernel)?,
            activation: config.activation()?,
            config: config.clone(),
        })
    }

    /// Declare all inputs for pictures of this `[batch, height, width]` (in latents) and texts of this many tokens.
    #[track_caller]
    pub fn inputs<'g>(
        &self,
        graph: &'g Graph,
        [batch, height, width]: [usize; 3],
        tokens: usize,
    ) -> Inputs<'g> {
        let config = &self.config;
        let text_time = config.text_embed_channels().map(|text| TextTime {
            text_embeds: graph.input("text_embeds", [batch, text]),
            time_ids: graph.input("time_ids", [batch, config.time_ids_channels()]),
        });
        let condition = config.time_cond_proj_dim;
        Inputs {
            sample: graph.input("sample", [batch, height, width, config.in_channels]),
            time: graph.input("time", [batch, config.block_out_channels[0]]),
            encoder_hidden_states: graph
                .input("encoder_hidden_states", [batch, tokens, config.context_channels()]),
            timestep_cond: condition.map(|n| graph.input("timestep_cond", [batch, n])),
            text_time,
        }
    }

    /// The prediction `[batch, height, width, out channels]`: noise, velocity or sample, as the model was trained.
    #[track_caller]
    pub fn forward<'g>(&self, inputs: &Inputs<'g>) -> Value<'g> {
        let time = self.time(inputs).activate(self.activation);
        let sample = inputs.sample;
        let sample =
            if self.config.center_input_sample { sample.scale(2.0).offset(-1.0) } else { sample };
        let mut x = self.conv_in.forward(sample);
        let mut skips = vec![x];
        for stage in &self.stages {
            x = stage.forward(x, &mut skips, time, inputs.encoder_hidden_states);
        }
        self.conv_out.forward(self.conv_norm_out.forward(x).activate(self.activation))
    }

    /// `emb(time, guidance) + add_emb(text, size)`: `[batch, time channels]`.
    fn time<'g>(&self, inputs: &Inputs<'g>) -> Value<'g> {
        let mut time = self.time_embedding.forward(inputs.time, inputs.timestep_cond);
        if let (Some(embedding), Some(text_time)) = (&self.add_embedding, inputs.text_time) {
            let both = text_time.text_embeds.concat_channels(text_time.time_ids);
            time = time + embedding.forward(both, None);
        }
        self.time_embed_act.map_or(time, |function| time.activate(function))
    }
}
