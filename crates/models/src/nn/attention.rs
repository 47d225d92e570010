//! Attention of one sequence to another, or to itself.

use tensor::Value;
use tensor::graph::Mask;

use super::{Bias, Linear};
use crate::{Error, Params};

/// `y = softmax(q kᵀ / √d) v Wₒ + bₒ` with `q = x W_q`, `k = c W_k`, `v = c W_v`, head by head (Vaswani et al. 2017).
#[derive(Clone, Debug)]
pub struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: usize,
}

/// Sizes of an attention layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionConfig {
    /// Channels of `x` and `y`.
    pub(crate) channels: usize,
    /// Channels of the context.
    pub(crate) context: usize,
    /// Channels of all heads together.
    pub(crate) inner: usize,
    /// Number of heads.
    pub(crate) heads: usize,
    /// Of the projections to queries, keys and values.
    pub(crate) bias: Bias,
}

/// Names of the four projections in a checkpoint.
pub(crate) type Names = [&'static str; 4];

impl Attention {
    /// Names in a UNet or a VAE.
    pub(crate) const DIFFUSERS: Names = ["to_q", "to_k", "to_v", "to_out.0"];
    /// Names in a VAE that was saved by an early version.
    pub(crate) const EARLY: Names = ["query", "key", "value", "proj_attn"];
    /// Names in CLIP.
    pub(crate) const CLIP: Names = ["q_proj", "k_proj", "v_proj", "out_proj"];

    /// The layer at this place.
    ///
    /// # Errors
    ///
    /// If a parameter is missing or its shape is another.
    pub(crate) fn load(
        params: &Params,
        [q, k, v, out]: Names,
        config: AttentionConfig,
    ) -> Result<Self, Error> {
        let AttentionConfig { channels, context, inner, heads, bias } = config;
        Ok(Self {
            to_q: Linear::load(&params.at(q), [inner, channels], bias)?,
            to_k: Linear::load(&params.at(k), [inner, context], bias)?,
            to_v: Linear::load(&params.at(v), [inner, context], bias)?,
            to_out: Linear::load(&params.at(out), [channels, inner], Bias::Learned)?,
            heads,
        })
    }

    /// Attend to `context`: `[batch, tokens, channels]`, `[batch, context tokens, context channels]` → shape of `x`.
    #[track_caller]
    pub fn forward<'g>(&self, x: Value<'g>, context: Value<'g>, mask: Mask) -> Value<'g> {
        let q = self.to_q.forward(x);
        let (k, v) = self.keys_and_values(context);
        self.to_out.forward(q.attention(k, v, self.heads, mask))
    }

    /// What the context contributes; for a text, it is the same at every sampling step.
    fn keys_and_values<'g>(&self, context: Value<'g>) -> (Value<'g>, Value<'g>) {
        (self.to_k.forward(context), self.to_v.forward(context))
    }
}
