//! A matrix and a vector.

use tensor::{Value, Weight};

use crate::{Error, Params};

/// The name of the factors of a layer's inputs, beside its weight.
pub const FACTORS: &str = "pre_quant_scale";

/// Whether a layer has a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    /// Stored in the checkpoint.
    Learned,
    /// Zero.
    None,
}

impl Bias {
    pub(super) fn load(self, params: &Params, outputs: usize) -> Result<Option<Weight>, Error> {
        match self {
            Self::Learned => params.weight("bias", &[outputs]).map(Some),
            Self::None => Ok(None),
        }
    }
}

/// `y = (x ⊙ f) Wᵀ + b`
#[derive(Clone, Debug)]
pub struct Linear {
    /// `f [inputs]`: what inputs were made alike by before the weights were rounded (Xiao et al. 2022); mostly there is none.
    factors: Option<Weight>,
    /// `[outputs, inputs]`.
    weight: Weight,
    /// `[outputs]`.
    bias: Option<Weight>,
}

impl Linear {
    /// The layer at this place, of shape `[outputs, inputs]`. A 1×1 convolution is one, too.
    ///
    /// # Errors
    ///
    /// If a parameter is missing or its shape is another.
    pub fn load(params: &Params, shape: [usize; 2], bias: Bias) -> Result<Self, Error> {
        let weight = params.weight("weight", &shape)?;
        let has_factors = params.contains(FACTORS);
        let factors = has_factors.then(|| params.weight(FACTORS, &shape[1..])).transpose()?;
        Ok(Self { factors, weight, bias: bias.load(params, shape[0])? })
    }

    /// `[…, inputs]` → `[…, outputs]`.
    #[track_caller]
    pub fn forward<'g>(&self, x: Value<'g>) -> Value<'g> {
        let x = self.factors.as_ref().map_or(x, |factors| x.scale_channels(factors));
        x.linear(&self.weight, self.bias.as_ref())
    }
}
