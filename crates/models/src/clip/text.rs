//! The text tower: `CLIPTextModel` and `CLIPTextModelWithProjection`.

use tensor::graph::Mask;
use tensor::{Value, Weight};

use super::TextConfig;
use super::encoder::Encoder;
use crate::nn::{Bias, LayerNorm, Linear};
use crate::{Error, Params};

/// Token and position embeddings, layers that see only what came before, and a last normalisation.
#[derive(Clone, Debug)]
pub struct TextModel {
    token_embedding: Weight,
    position_embedding: Weight,
    encoder: Encoder,
    final_layer_norm: LayerNorm,
    text_projection: Option<Linear>,
}

impl TextModel {
    /// The tower at this place; names may begin with `text_model`.
    ///
    /// It has a projection if the configuration's `architectures` says so or, where that is silent, the checkpoint.
    ///
    /// # Errors
    ///
    /// If a parameter is missing or its shape is another than the configuration says.
    pub fn load(params: &Params, config: &TextConfig) -> Result<Self, Error> {
        let projects = match config.architectures.first() {
            Some(class) => class != "CLIPTextModel",
            None => params.contains("text_projection.weight"),
        };
        let projection = projects.then_some(config.projection_dim);
        Self::with_projection(params, config, projection)
    }

    /// The tower with a projection to this many channels, or without one.
    pub(super) fn with_projection(
        params: &Params,
        config: &TextConfig,
        projection: Option<usize>,
    ) -> Result<Self, Error> {
        let channels = config.hidden_size;
        let tower = config.tower()?;
        let text_projection =
            |outputs| Linear::load(&params.at("text_projection"), [outputs, channels], Bias::None);
        let prefixed = params.contains("text_model.embeddings.token_embedding.weight");
        let root = if prefixed { &params.at("text_model") } else { params };
        let table = |name, rows| root.at("embeddings").at(name).weight("weight", &[rows, channels]);
        Ok(Self {
            token_embedding: table("token_embedding", config.vocab_size)?,
            position_embedding: table("position_embedding", config.max_position_embeddings)?,
            encoder: Encoder::load(&root.at("encoder"), &tower, Mask::Causal)?,
            final_layer_norm: LayerNorm::load(&root.at("final_layer_norm"), channels, tower.eps)?,
            text_projection: projection.map(text_projection).transpose()?,
        })
    }

    /// Whether it projects its summary.
    pub fn has_projection(&self) -> bool {
        self.text_projection.is_some()
    }

    /// Encode indices `ids [batch, tokens]`; `eos [batch]` are their [`TextConfig::eos_position`]s.
    #[track_caller]
    pub fn forward<'g>(&self, ids: Value<'g>, eos: Value<'g>) -> TextOutput<'g, '_> {
        let embeddings = ids.embed(&self.token_embedding).add_table(&self.position_embedding);
        TextOutput { model: self, states: self.encoder.forward(embeddings), eos }
    }
}

/// What can be read from an encoded text. Only what is asked for is recorded.
#[derive(Clone, Debug)]
pub struct TextOutput<'g, 'm> {
    model: &'m TextModel,
    /// The embeddings, then the result of each layer.
    states: Vec<Value<'g>>,
    eos: Value<'g>,
}

impl<'g> TextOutput<'g, '_> {
    /// The result of the last layer but `skipped`, as it is: `[batch, tokens, channels]`.
    ///
    /// # Errors
    ///
    /// If there are not so many layers.
    pub fn hidden(&self, skipped: usize) -> Result<Value<'g>, Error> {
        let layers = self.states.len() - 1;
        let at = layers.checked_sub(skipped);
        at.map(|at| self.states[at]).ok_or(Error::Skip { asked: skipped, layers })
    }

    /// The result of the last layer but `skipped` through the last normalisation: `[batch, tokens, channels]`.
    ///
    /// # Errors
    ///
    /// If there are not so many layers.
    pub fn normalized(&self, skipped: usize) -> Result<Value<'g>, Error> {
        Ok(self.model.final_layer_norm.forward(self.hidden(skipped)?))
    }

    /// The summary: the normalised last state of the token that ends the text, `[batch, channels]`.
    pub fn pooled(&self) -> Value<'g> {
        let last = self.states[self.states.len() - 1];
        self.model.final_layer_norm.forward(last.select_token(self.eos))
    }

    /// The projected summary `[batch, projection_dim]`, where the model has a projection.
    pub fn projected(&self) -> Option<Value<'g>> {
        self.model.text_projection.as_ref().map(|projection| projection.forward(self.pooled()))
    }
}
