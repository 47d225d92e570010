//! What a single file's sampler should be: no file says, so it is the family's usual one, unless
//! the file's notes or its name tell of a distilled or differently trained model.

use super::{Family, Options};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tensor::file::Checkpoint;

/// What a network was trained to predict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prediction {
    /// The noise.
    Epsilon,
    /// The velocity between noise and picture.
    Velocity,
}

/// What is told about a file beside its tensors.
pub(super) struct Notes<'a> {
    pub(super) file_name: &'a str,
    pub(super) metadata: &'a BTreeMap<String, String>,
}

/// As in `scheduler_config.json`.
pub(super) fn config(
    stored: &Checkpoint,
    family: Family,
    notes: &Notes<'_>,
    options: Options,
    assumed: &mut Vec<String>,
) -> Value {
    let few_steps = notes.turbo();
    let class = class(family, few_steps);
    let prediction = options.prediction.or_else(|| notes.prediction(stored)).unwrap_or_else(|| {
        let usual = match family {
            Family::StableDiffusion2 if !few_steps => Prediction::Velocity,
            _ => Prediction::Epsilon,
        };
        assumed.push(format!("that the network predicts {}", usual.described()));
        usual
    });
    let spacing = if few_steps { "trailing" } else { "leading" };
    assumed.push(format!("the {class} sampler with {spacing} steps"));
    json!({
        "_class_name": class,
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "trained_betas": null,
        "clip_sample": false,
        "set_alpha_to_one": false,
        "skip_prk_steps": true,
        "steps_offset": 1,
        "interpolation_type": "linear",
        "timestep_spacing": spacing,
        "rescale_betas_zero_snr": stored.contains("ztsnr"),
        "prediction_type": prediction.name(),
    })
}

/// The side of the latents that the network was trained on, by family and scheduler.
pub(super) fn sample_size(family: Family, scheduler: &Value) -> usize {
    let few_steps = scheduler["timestep_spacing"] == "trailing";
    match family {
        Family::StableDiffusionXl if !few_steps => 128,
        Family::StableDiffusion2 if scheduler["prediction_type"] == "v_prediction" => 96,
        _ => 64,
    }
}

fn class(family: Family, few_steps: bool) -> &'static str {
    match (family, few_steps) {
        (Family::StableDiffusion1, false) => "PNDMScheduler",
        (Family::StableDiffusion2, false) => "DDIMScheduler",
        (Family::StableDiffusionXl, true) => "EulerAncestralDiscreteScheduler",
        _ => "EulerDiscreteScheduler",
    }
}

impl Prediction {
    fn name(self) -> &'static str {
        match self {
            Self::Epsilon => "epsilon",
            Self::Velocity => "v_prediction",
        }
    }

    fn described(self) -> &'static str {
        match self {
            Self::Epsilon => "the noise",
            Self::Velocity => "the velocity (v-prediction)",
        }
    }
}

impl Notes<'_> {
    /// Whether the file calls itself a turbo model.
    fn turbo(&self) -> bool {
        let title = self.metadata.get("modelspec.title").map_or("", String::as_str);
        [title, self.file_name].iter().any(|text| text.to_lowercase().contains("turbo"))
    }

    /// What the file says of its prediction: by note, or by a tensor that is there for its name.
    fn prediction(&self, stored: &Checkpoint) -> Option<Prediction> {
        let note = self.metadata.get("modelspec.prediction_type").map(|note| note.to_lowercase());
        match note.as_deref() {
            Some("epsilon") => Some(Prediction::Epsilon),
            Some("v" | "v_prediction" | "v-prediction") => Some(Prediction::Velocity),
            _ => stored.contains("v_pred").then_some(Prediction::Velocity),
        }
    }
}
