//! The feed-forward layer of a UNet's transformer.

use tensor::Value;

use super::{Bias, Linear};
use crate::{Error, Params};

/// `y = (h · gelu(g)) W₂ + b₂` with `(h, g) = x W₁ + b₁` (GEGLU, Shazeer 2020).
#[derive(Clone, Debug)]
pub struct FeedForward {
    proj: Linear,
    out: Linear,
}

impl FeedForward {
    /// The layer at this place; its hidden layer is four times as wide as its input.
    ///
    /// # Errors
    ///
    /// If a parameter is missing or its shape is another.
    pub fn load(params: &Params, channels: usize) -> Result<Self, Error> {
        let hidden = 4 * channels;
        Ok(Self {
            proj: Linear::load(&params.at("net.0.proj"), [2 * hidden, channels], Bias::Learned)?,
            out: Linear::load(&params.at("net.2"), [channels, hidden], Bias::Learned)?,
        })
    }

    /// `[batch, tokens, channels]`, shape kept.
    #[track_caller]
    pub fn forward<'g>(&self, x: Value<'g>) -> Value<'g> {
        self.out.forward(self.proj.forward(x).geglu())
    }
}
