//! Channels of texts made alike, for each layer of the UNet that reads them (Xiao et al. 2022, `SmoothQuant`).
//!
//! `x Wᵀ = (x ⊙ f) (W / f)ᵀ` for any `f`; with powers of two both sides are equal to the bit. What a layer reads elsewhere comes out
//! of a norm that training has made fit for it. A text is what encoders leave in their streams, side by side, and all layers read
//! the same: a channel may be a hundred times as large as others, or say nothing to a layer, which then has small weights for it. In a
//! row with one unit those weights are noise, times a large channel. `f` is the square root of how large a column of the weights
//! is, so that half of the difference goes over to the text, where one range holds a token's channels.
//!
//! Keys and values are computed once for each prompt, so the factors cost no time. The layer's [`FACTORS`] hold them.

use std::sync::Arc;

use models::nn::FACTORS;
use tensor::{Cpu, Precision, Weight};

use crate::equalize::{columns, factors};
use crate::{Error, Model, Plan, Request, TextToImage, denoise, first_token};

impl Model {
    /// The same model with factors for the texts that its UNet reads. It computes what it did before. Ranges of activations that
    /// were found without do not fit it; moments ([`Model::with_moments`]) do, if it has them already.
    ///
    /// # Errors
    ///
    /// If a weight of the UNet cannot be read.
    pub fn smoothed(mut self, cpu: &Cpu) -> Result<Self, Error> {
        let mut weights = self.unet.weights.clone();
        for weight in unsmoothed(&self, cpu)? {
            let roots = columns(std::slice::from_ref(&weight))?.into_iter().map(f32::sqrt);
            let factors: Arc<[f32]> = factors(&roots.collect::<Vec<_>>()).into();
            let inverse = factors.iter().map(|factor| 1.0 / factor).collect();
            let layer = weight.layer();
            weights = weights
                .with_vector(&format!("{layer}.{FACTORS}"), &factors)
                .with_scale(weight.name(), inverse)?
                .with_scaled_moments(layer, &factors);
        }
        self.unet.weights = weights;
        Ok(self)
    }
}

/// The weights of layers that read texts as they are.
fn unsmoothed(model: &Model, cpu: &Cpu) -> Result<Vec<Weight>, Error> {
    let plan = Plan::float(Precision::F32);
    let pipeline = TextToImage::new(cpu, model, &plan);
    let settings = pipeline.settings(&Request::default())?;
    let recording = denoise::recording(&pipeline, &settings)?;
    let readers = first_token::readers(&recording).into_iter();
    let plain = readers.filter(|reader| reader.factors.is_none());
    Ok(plain.map(|reader| reader.weight).collect())
}

#[cfg(test)]
mod tests;
