//! Numbers → embeddings: sines and cosines on the host, then two linear layers.

use tensor::Value;
use tensor::graph::Activation;

use super::Config;
use crate::nn::{Bias, Linear};
use crate::{Error, Params};

/// `y = W₂ f(W₁ (x + C c) + b₁) + b₂`, with a second activation where the model has one.
#[derive(Clone, Debug)]
pub(super) struct TimeEmbedding {
    linear_1: Linear,
    cond_proj: Option<Linear>,
    linear_2: Linear,
    activation: Activation,
    post_activation: Option<Activation>,
}

impl TimeEmbedding {
    /// The layer at this place, from `inputs` to `outputs` channels, with a condition of this many channels.
    pub(super) fn load(
        params: &Params,
        [inputs, outputs]: [usize; 2],
        condition: Option<usize>,
        config: &Config,
    ) -> Result<Self, Error> {
        let cond_proj = |n| Linear::load(&params.at("cond_proj"), [inputs, n], Bias::None);
        // The embedding of text and size has neither a condition nor the options of the embedding of time.
        let main = inputs == config.block_out_channels[0] && !params.is_at("add_embedding");
        Ok(Self {
            linear_1: Linear::load(&params.at("linear_1"), [outputs, inputs], Bias::Learned)?,
            cond_proj: condition.map(cond_proj).transpose()?,
            linear_2: Linear::load(&params.at("linear_2"), [outputs, outputs], Bias::Learned)?,
            activation: if main { config.activation()? } else { Activation::Silu },
            post_activation: if main { config.timestep_post_activation()? } else { None },
        })
    }

    /// `[batch, inputs]` and `[batch, condition channels]` → `[batch, outputs]`.
    #[track_caller]
    pub(super) fn forward<'g>(&self, x: Value<'g>, condition: Option<Value<'g>>) -> Value<'g> {
        let x = match (&self.cond_proj, condition) {
            (Some(proj), Some(condition)) => proj.forward(condition) + x,
            _ => x,
        };
        let y = self.linear_2.forward(self.linear_1.forward(x).activate(self.activation));
        self.post_activation.map_or(y, |function| y.activate(function))
    }
}
