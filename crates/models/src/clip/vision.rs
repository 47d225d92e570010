//! The vision tower: `CLIPVisionModel` and `CLIPVisionModelWithProjection`.

use tensor::graph::{Mask, Padding};
use tensor::{Graph, Value, Weight};

use super::VisionConfig;
use super::encoder::Encoder;
use crate::nn::{Bias, Conv2d, LayerNorm, Linear, Window};
use crate::{Error, Params};

/// Patches of a picture as tokens, behind one that stands for the whole.
#[derive(Clone, Debug)]
pub struct VisionModel {
    class_embedding: Weight,
    patch_embedding: Conv2d,
    position_embedding: Weight,
    /// Its name in checkpoints is `pre_layrnorm`.
    pre_layer_norm: LayerNorm,
    encoder: Encoder,
    post_layernorm: LayerNorm,
    visual_projection: Option<Linear>,
    config: VisionConfig,
}

/// What a picture is encoded as.
#[derive(Clone, Copy, Debug)]
pub struct VisionOutput<'g> {
    /// Result of the last layer `[batch, tokens, channels]`; the first token stands for the picture.
    pub last_hidden_state: Value<'g>,
    /// The normalised first token `[batch, channels]`.
    pub pooled: Value<'g>,
    /// The projected summary `[batch, projection_dim]`, where the model has a projection.
    pub image_embeds: Option<Value<'g>>,
}

impl VisionModel {
    /// The tower at this place; names may begin with `vision_model`. It has a projection if the checkpoint has one.
    ///
    /// # Errors
    ///
    /// If a parameter is missing or its shape is another than the configuration says.
    pub fn load(params: &Params, config: &VisionConfig) -> Result<Self, Error> {
        let projects = params.contains("visual_projection.weight");
        Self::with_projection(params, config, projects.then_some(config.projection_dim))
    }

    /// The tower with a projection to this many channels, or without one.
    pub(super) fn with_projection(
        params: &Params,
        config: &VisionConfig,
        projection: Option<usize>,
    ) -> Result<Self, Error> {
        let channels = config.hidden_size;
        let tower = config.tower()?;
        let visual_projection = |outputs| {
            Linear::load(&params.at("visual_projection"), [outputs, channels], Bias::None)
        };
        let prefixed = params.contains("vision_model.embeddings.class_embedding");
        let root = if prefixed { &params.at("vision_model") } else { params };
        let embeddings = root.at("embeddings");
        let patches = Window {
            kernel: config.patch_size,
            stride: config.patch_size,
            padding: Padding::all(0),
        };
        let norm = |name| LayerNorm::load(&root.at(name), channels, tower.eps);
        Ok(Self {
            class_embedding: embeddings.weight("class_embedding", &[channels])?,
            patch_embedding: Conv2d::with_window(
                &embeddings.at("patch_embedding"),
                [channels, config.num_channels],
                patches,
                Bias::None,
            )?,
            position_embedding: embeddings
                .weight("position_embedding.weight", &[config.tokens(), channels])?,
            pre_layer_norm: norm("pre_layrnorm")?,
            encoder: Encoder::load(&root.at("encoder"), &tower, Mask::None)?,
            post_layernorm: norm("post_layernorm")?,
            visual_projection: projection.map(visual_projection).transpose()?,
            config: config.clone(),
        })
    }

    /// Declare the input `pixels` for pictures of the size that the model reads: `[batch, size, size, channels]`.
    #[track_caller]
    pub fn input<'g>(&self, graph: &'g Graph, batch: usize) -> Value<'g> {
        let VisionConfig { image_size, num_channels, .. } = self.config;
        graph.input("pixels", [batch, image_size, image_size, num_channels])
    }

    /// Encode normalised pictures `[batch, size, size, channels]`.
    #[track_caller]
    pub fn forward<'g>(&self, pixels: Value<'g>) -> VisionOutput<'g> {
        let patches = self.patch_embedding.forward(pixels);
        let [batch, channels] = [patches.shape().batch(), patches.shape().channels()];
        let patches = patches.reshape([batch, patches.shape().rows() / batch, channels]);
        let tokens = patches.repeat(&self.class_embedding).concat_tokens(patches);
        let x = self.pre_layer_norm.forward(tokens.add_table(&self.position_embedding));
        let last_hidden_state = self.encoder.forward(x).pop().unwrap_or(x);
        // The first token is the head of each batch element's numbers.
        let row = [batch, last_hidden_state.shape()[1] * channels];
        let first = last_hidden_state.reshape(row).channels(0, channels);
        let pooled = self.post_layernorm.forward(first);
        let image_embeds = self.visual_projection.as_ref().map(|layer| layer.forward(pooled));
        VisionOutput { last_hidden_state, pooled, image_embeds }
    }
}
