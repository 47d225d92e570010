//! Normalisation: mean zero and variance one, then a learned scale and shift for each channel.

use tensor::{Value, Weight};

use crate::{Error, Params};

/// `y = γ (x − mean) / √(variance + ε) + β` over all pixels of each group of channels (Wu & He 2018).
#[derive(Clone, Debug)]
pub struct GroupNorm {
    groups: usize,
    eps: f32,
    gamma: Weight,
    beta: Weight,
}

impl GroupNorm {
    /// The layer at this place.
    ///
    /// # Errors
    ///
    /// If a parameter is missing or its shape is another.
    pub fn load(params: &Params, channels: usize, groups: usize, eps: f32) -> Result<Self, Error> {
        let gamma = params.weight("weight", &[channels])?;
        Ok(Self { groups, eps, gamma, beta: params.weight("bias", &[channels])? })
    }

    /// `[batch, height, width, channels]` or `[batch, tokens, channels]`, shape kept.
    #[track_caller]
    pub fn forward<'g>(&self, x: Value<'g>) -> Value<'g> {
        x.group_norm(self.groups, self.eps, &self.gamma, &self.beta)
    }
}

/// `y = γ (x − mean) / √(variance + ε) + β` over the channels of each row (Ba et al. 2016).
#[derive(Clone, Debug)]
pub struct LayerNorm {
    eps: f32,
    gamma: Weight,
    beta: Weight,
}

impl LayerNorm {
    /// The layer at this place.
    ///
    /// # Errors
    ///
    /// If a parameter is missing or its shape is another.
    pub fn load(params: &Params, channels: usize, eps: f32) -> Result<Self, Error> {
        let gamma = params.weight("weight", &[channels])?;
        Ok(Self { eps, gamma, beta: params.weight("bias", &[channels])? })
    }

    /// `[…, channels]`, shape kept.
    #[track_caller]
    pub fn forward<'g>(&self, x: Value<'g>) -> Value<'g> {
        x.layer_norm(self.eps, &self.gamma, &self.beta)
    }
}
