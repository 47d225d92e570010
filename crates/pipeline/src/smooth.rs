//! Channels of what layers read made alike, for each layer (Xiao et al. 2022, `SmoothQuant`).
//!
//! `x Wᵀ = (x ⊙ f) (W / f)ᵀ` for any `f`; with powers of two both sides are equal to the bit. Two things are read so.
//!
//! *Texts.* A text is what encoders leave in their streams, side by side, and all layers read the same: a channel may be a hundred
//! times as large as others, or say nothing to a layer, which then has small weights for it. In a row with one unit those weights are
//! noise, times a large channel. Keys and values are computed once for each prompt, so the factors cost no time. The layer's
//! [`FACTORS`] hold them.
//!
//! *Norms,* where it is known what layers read ([`tensor::moments`]). Their own factors take these in, so they cost nothing at all.
//!
//! `f` is the square root of how large a column of the weights is, so that half of the difference goes over to what is read, where one
//! range holds a row's channels; and, where that is known, less by the fourth root of how large the channel is already. On the
//! bundled model both powers were found to keep most, with weights of 8 bits and of 4.

use std::sync::Arc;

use models::nn::FACTORS;
use tensor::file::Checkpoint;
use tensor::{Cpu, Precision, Recording, Weight};

use crate::equalize::{columns, factors, norms};
use crate::{Error, Model, Plan, Request, TextToImage, denoise, first_token};

impl Model {
    /// The same model with factors for what its UNet reads. It computes what it did before. Ranges of activations that
    /// were found without do not fit it; moments ([`Model::with_moments`]) do, if it has them already.
    ///
    /// # Errors
    ///
    /// If a weight of the UNet cannot be read.
    pub fn smoothed(mut self, cpu: &Cpu) -> Result<Self, Error> {
        let mut weights = self.unet.weights.clone();
        let recording = recording(&self, cpu)?;
        for (norm, readers) in norms(&recording) {
            if weights.moments(readers[0].layer()).is_some() {
                let factors = balance(&weights, &readers)?;
                for weight in norm {
                    weights = weights.with_scale(weight.name(), Arc::clone(&factors))?;
                }
                for weight in readers {
                    weights = divided(weights, &weight, &factors)?;
                }
            }
        }
        for weight in unsmoothed(&recording) {
            let factors = balance(&weights, std::slice::from_ref(&weight))?;
            let name = format!("{}.{FACTORS}", weight.layer());
            weights = divided(weights.with_vector(&name, &factors), &weight, &factors)?;
        }
        self.unet.weights = weights;
        Ok(self)
    }
}

/// What inputs of these layers are multiplied by, who all read the same.
fn balance(weights: &Checkpoint, readers: &[Weight]) -> Result<Arc<[f32]>, Error> {
    let shares: Vec<f32> = columns(readers)?.into_iter().map(f32::sqrt).collect();
    let Some(seen) = weights.moments(readers[0].layer()) else {
        return Ok(factors(&shares).into());
    };
    let sizes = seen.energies().into_iter().map(|energy| energy.sqrt().sqrt().sqrt());
    let shares: Vec<f32> = shares.iter().zip(sizes).map(|(share, size)| share / size).collect();
    Ok(factors(&shares).into())
}

/// With the columns of a weight divided by factors, with which its inputs are multiplied.
fn divided(
    weights: Checkpoint,
    weight: &Weight,
    factors: &Arc<[f32]>,
) -> Result<Checkpoint, Error> {
    let inverse = factors.iter().map(|factor| 1.0 / factor).collect();
    let weights = weights.with_scale(weight.name(), inverse)?;
    Ok(weights.with_scaled_moments(weight.layer(), factors))
}

/// What the UNet computes.
fn recording(model: &Model, cpu: &Cpu) -> Result<Recording, Error> {
    let plan = Plan::float(Precision::F32);
    let pipeline = TextToImage::new(cpu, model, &plan);
    let settings = pipeline.settings(&Request::default())?;
    denoise::recording(&pipeline, &settings)
}

/// The weights of layers that read texts as they are.
fn unsmoothed(recording: &Recording) -> Vec<Weight> {
    let readers = first_token::readers(recording).into_iter();
    let plain = readers.filter(|reader| reader.factors.is_none());
    plain.map(|reader| reader.weight).collect()
}

#[cfg(test)]
mod tests;
