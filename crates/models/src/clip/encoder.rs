//! The layers that both towers are made of.

use tensor::Value;
use tensor::graph::{Activation, Mask};

use super::config::TowerConfig;
use crate::nn::{Attention, AttentionConfig, Bias, LayerNorm, Linear};
use crate::{Error, Params};

/// A tower of layers.
#[derive(Clone, Debug)]
pub(super) struct Encoder {
    layers: Vec<Layer>,
    mask: Mask,
}

impl Encoder {
    /// The tower at this place, whose tokens see those that the mask lets them.
    pub(super) fn load(params: &Params, config: &TowerConfig, mask: Mask) -> Result<Self, Error> {
        let layer = |i| Layer::load(&params.at("layers").at(i), config);
        Ok(Self { layers: (0..config.layers).map(layer).collect::<Result<_, _>>()?, mask })
    }

    /// The embeddings `[batch, tokens, channels]`, then the result of each layer.
    #[track_caller]
    pub(super) fn forward<'g>(&self, embeddings: Value<'g>) -> Vec<Value<'g>> {
        let mut states = vec![embeddings];
        let mut x = embeddings;
        for layer in &self.layers {
            x = layer.forward(x, self.mask);
            states.push(x);
        }
        states
    }
}

/// `x += attention(norm1(x))`, `x += fc2(f(fc1(norm2(x))))`
#[derive(Clone, Debug)]
struct Layer {
    norm1: LayerNorm,
    self_attn: Attention,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    activation: Activation,
}

impl Layer {
    fn load(params: &Params, config: &TowerConfig) -> Result<Self, Error> {
        let (channels, hidden) = (config.hidden_size, config.intermediate_size);
        let norm = |name| LayerNorm::load(&params.at(name), channels, config.eps);
        let linear = |name, shape| Linear::load(&params.at(name), shape, Bias::Learned);
        let (heads, bias) = (config.heads, Bias::Learned);
        let sizes = AttentionConfig { channels, context: channels, inner: channels, heads, bias };
        Ok(Self {
            norm1: norm("layer_norm1")?,
            self_attn: Attention::load(&params.at("self_attn"), Attention::CLIP, sizes)?,
            norm2: norm("layer_norm2")?,
            fc1: linear("mlp.fc1", [hidden, channels])?,
            fc2: linear("mlp.fc2", [channels, hidden])?,
            activation: config.activation,
        })
    }

    fn forward<'g>(&self, x: Value<'g>, mask: Mask) -> Value<'g> {
        let h = self.norm1.forward(x);
        let x = self.self_attn.forward(h, h, mask) + x;
        let h = self.fc1.forward(self.norm2.forward(x)).activate(self.activation);
        self.fc2.forward(h) + x
    }
}
