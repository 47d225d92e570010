//! A matrix and a vector.

use tensor::{Value, Weight};

use crate::{Error, Params};

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

/// `y = x Wᵀ + b`
#[derive(Clone, Debug)]
pub struct Linear {
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
        Ok(Self { weight, bias: bias.load(params, shape[0])? })
    }

    /// `[…, inputs]` → `[…, outputs]`.
    #[track_caller]
    pub fn forward<'g>(&self, x: Value<'g>) -> Value<'g> {
        x.linear(&self.weight, self.bias.as_ref())
    }
}
