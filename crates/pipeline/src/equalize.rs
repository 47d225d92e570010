//! Inputs of layers that read a norm, made alike: what a column of their weights is larger than others goes into the norm.
//!
//! `norm(x; γ, β) Wᵀ = norm(x; γ e, β e) (W / e)ᵀ` for any `e` (Nagel et al. 2019; Xiao et al. 2022). With powers of two both
//! sides are equal to the bit. A row of whole numbers has one unit for all its columns, and a few that are forty times as large as
//! the others leave these nothing. Trained text encoders have such columns, so they are treated so. It makes some inputs as much larger
//! than others, which is for activations of 16 bits; norms of the UNet are seen to in [`crate::smooth`].

use std::sync::Arc;

use tensor::graph::{Kind, NodeId};
use tensor::{Cpu, Precision, Recording, Weight};

use crate::{Error, Model, Plan, Request, TextToImage, text};

/// The greatest power of two that a column is multiplied with or divided by.
const MOST: f32 = 8.0;

impl Model {
    /// The same model with equal columns in text encoders. It computes what it did before.
    ///
    /// # Errors
    ///
    /// If a text encoder cannot be read.
    pub fn equalized(mut self, cpu: &Cpu) -> Result<Self, Error> {
        let plan = Plan::float(Precision::F32);
        let pipeline = TextToImage::new(cpu, &self, &plan);
        let mut all = Vec::new();
        for encoder in &self.encoders {
            let mut weights = encoder.component.weights.clone();
            let recording = text::recording(&pipeline, &Request::default(), encoder)?;
            for (norm, readers) in norms(&recording) {
                let columns = columns(&readers)?;
                let factors: Arc<[f32]> = factors(&columns).into();
                let inverse: Arc<[f32]> = factors.iter().map(|factor| 1.0 / factor).collect();
                for weight in norm {
                    weights = weights.with_scale(weight.name(), Arc::clone(&factors))?;
                }
                for weight in readers {
                    weights = weights.with_scale(weight.name(), Arc::clone(&inverse))?;
                }
            }
            all.push(weights);
        }
        for (encoder, weights) in self.encoders.iter_mut().zip(all) {
            encoder.component.weights = weights;
        }
        Ok(self)
    }
}

/// Norms that linear layers read and nothing else does: their weights, and those layers'.
pub(crate) fn norms(recording: &Recording) -> Vec<([Weight; 2], Vec<Weight>)> {
    let norm = |(at, node): (usize, &tensor::graph::Node)| match &node.kind {
        Kind::LayerNorm { gamma, beta, .. } | Kind::GroupNorm { gamma, beta, .. } => {
            let readers = readers(recording, recording.id(at))?;
            (!readers.is_empty()).then(|| ([gamma.clone(), beta.clone()], readers))
        }
        _ => None,
    };
    recording.nodes().iter().enumerate().filter_map(norm).collect()
}

/// The weights of what reads a value, if that is linear layers alone.
fn readers(recording: &Recording, id: NodeId) -> Option<Vec<Weight>> {
    if recording.outputs().iter().any(|(_, node)| *node == id) {
        return None;
    }
    let mut weights = Vec::new();
    for (at, node) in recording.nodes().iter().enumerate() {
        if node.inputs.contains(&id) {
            match &node.kind {
                Kind::Linear { weight, .. } => weights.push(weight.clone()),
                Kind::Reshape => weights.extend(readers(recording, recording.id(at))?),
                _ => return None,
            }
        }
    }
    Some(weights)
}

/// The greatest magnitude of each column over all these weights, as a part of the greatest of its row: rows have units of their
/// own, so that a row that is larger than others says no more of its columns.
pub(crate) fn columns(weights: &[Weight]) -> Result<Vec<f32>, Error> {
    let mut most = Vec::new();
    for weight in weights {
        let view = weight.view()?;
        let numbers = view.to_f32();
        view.drop_pages();
        let width = weight.shape().last().copied().unwrap_or(1);
        most.resize(width, 0.0_f32);
        for row in numbers.chunks_exact(width) {
            let whole = row.iter().fold(f32::MIN_POSITIVE, |most, x| most.max(x.abs()));
            most.iter_mut().zip(row).for_each(|(most, x)| *most = most.max(x.abs() / whole));
        }
    }
    Ok(most)
}

/// The power of two nearest to what each column is of their geometric mean, and all of these as parts of the greatest: weights
/// that are divided by them become larger, which loses nothing in 16 bits.
pub(crate) fn factors(columns: &[f32]) -> Vec<f32> {
    let logs = columns.iter().map(|most| most.log2()).filter(|log| log.is_finite());
    let (sum, count) = logs.fold((0.0, 0), |(sum, count), log| (sum + log, count + 1));
    let mean = sum / count.max(1) as f32;
    let power = |most: &f32| {
        let power = (most.log2() - mean).round_ties_even();
        power.is_finite().then(|| power.clamp(-MOST, MOST))
    };
    let greatest = columns.iter().filter_map(power).fold(-MOST, f32::max);
    let factor = |most: &f32| power(most).map_or(1.0, |power| (power - greatest).exp2());
    columns.iter().map(factor).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::factors;
    use crate::model::Extras;
    use crate::{Model, Plan, Request, TextToImage, Watch};
    use tensor::{Cpu, Precision};

    #[test]
    fn factors_are_powers_of_two_up_to_one() {
        assert_eq!(factors(&[1.0, 4.0, 0.25, 1.1]), [0.25, 1.0, 0.0625, 0.25]);
        assert_eq!(factors(&[0.0, 0.0]), [1.0, 1.0]);
        assert_eq!(factors(&[0.0, 3.0, 3.0]), [1.0, 1.0, 1.0]);
    }

    #[test]
    fn pictures_stay_the_same() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let (cpu, plan) = (Cpu::detect(2), Plan::float(Precision::F32));
        // The bundled model alone was trained, and has columns that need it.
        let bundled = "models/pocket-turbo";
        for name in [bundled, "testdata/pipelines/tiny-sdxl-turbo", "testdata/pipelines/tiny-sd15"]
        {
            let open = || Model::open(&root.join(name), &Extras::default()).unwrap();
            let (model, equal) = (open(), open().equalized(&cpu).unwrap());
            assert_eq!(model.fingerprint().unwrap(), equal.fingerprint().unwrap());
            let names = |model: &Model| {
                let weights = &model.encoders[0].component.weights;
                let is_real = |name: &&str| name.ends_with(".weight");
                let changed = weights.names().filter(is_real).filter(|name| {
                    let [now, before] = [weights.tensor(name), weights.unscaled(name)];
                    now.unwrap().to_f32() != before.unwrap().to_f32()
                });
                changed.count()
            };
            assert!(names(&model) == 0 && (names(&equal) > 4 || name != bundled), "{name}");
            let latents = |model: &Model| {
                let prompts = vec!["a fox".to_owned()];
                let side = Some(64);
                let request = Request {
                    prompts,
                    pictures: 1,
                    steps: Some(1),
                    width: side,
                    height: side,
                    ..Request::default()
                };
                TextToImage::new(&cpu, model, &plan).latents(&request, &Watch::default()).unwrap()
            };
            assert_eq!(latents(&model), latents(&equal), "{name}");
        }
    }
}
