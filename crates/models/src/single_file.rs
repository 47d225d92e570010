//! Checkpoints in one file, in the layout in which Stable Diffusion was first published.
//!
//! Such a file holds the UNet, the autoencoder and the text encoders under the names of their
//! first implementation and no configuration at all. Opening one gives what a diffusers folder
//! would: for each component a [`Checkpoint`] under diffusers names and a configuration under
//! diffusers field names, so that everything after this module sees one kind of model. The
//! configuration is read off names and shapes. What those cannot tell (how many heads share a
//! layer's channels, what the network predicts) follows the family's usage and is listed in
//! [`SingleFile::assumed`], for the user to see.

mod clip;
mod places;
mod scheduler;
mod unet;
mod vae;
mod walk;

pub(crate) use places::original_places;
pub use scheduler::Prediction;
pub use vae::open_vae;

use serde_json::{Value, json};
use std::path::Path;
use tensor::file::{Checkpoint, SafeTensors};
use walk::Walk;

/// What can be wrong with a single-file checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file itself.
    #[error(transparent)]
    File(#[from] tensor::file::Error),
    /// Names that belong to no known layout.
    #[error(
        "{place} is not a Stable Diffusion checkpoint in the original layout; give a diffusers \
         folder or a single .safetensors file of SD 1, SD 2 or SDXL"
    )]
    Unknown {
        /// The file.
        place: String,
    },
    /// A model that is known and not drawn with.
    #[error("{place} is {kind}, which is not supported; use an SD 1, SD 2 or SDXL checkpoint")]
    Unsupported {
        /// The file.
        place: String,
        /// What it is.
        kind: &'static str,
    },
    /// A component that is missing.
    #[error("{place} has no {part}; use a checkpoint that holds the whole model")]
    Incomplete {
        /// The file.
        place: String,
        /// What is missing.
        part: &'static str,
    },
}

/// The family that a checkpoint belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// One CLIP text encoder, convolutional projections.
    StableDiffusion1,
    /// One `OpenCLIP` text encoder, read before its last layer.
    StableDiffusion2,
    /// Both text encoders.
    StableDiffusionXl,
}

/// What a user may know that the file does not say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// What the network predicts; by family if `None`.
    pub prediction: Option<Prediction>,
}

/// A model's tensors under diffusers names, and its configuration.
#[derive(Clone, Debug)]
pub struct Component {
    /// As in `config.json` of a diffusers folder.
    pub config: Value,
    /// The tensors.
    pub checkpoint: Checkpoint,
}

/// A checkpoint, taken apart into what a diffusers folder holds.
#[derive(Clone, Debug)]
pub struct SingleFile {
    /// The family.
    pub family: Family,
    /// `unet/`.
    pub unet: Component,
    /// `vae/`.
    pub vae: Component,
    /// `text_encoder/` and, for SDXL, `text_encoder_2/`.
    pub text_encoders: Vec<Component>,
    /// `scheduler/scheduler_config.json`.
    pub scheduler: Value,
    /// `model_index.json`, without the classes of the components.
    pub index: Value,
    /// What was not in the file and was taken to be so, as clauses for the user.
    pub assumed: Vec<String>,
    /// Stored names that no component uses.
    pub unread: Vec<String>,
}

impl SingleFile {
    /// Opens the file at `path` and takes it apart. Nothing is read but the header.
    ///
    /// # Errors
    ///
    /// A file that cannot be used, or that is not a whole model of a known family; see [`Error`].
    pub fn open(path: &Path, options: Options) -> Result<Self, Error> {
        let file = SafeTensors::open(path)?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let notes = scheduler::Notes { file_name: &stem, metadata: file.metadata() };
        Self::take_apart(&Checkpoint::from_file(&file), &notes, options)
    }

    fn take_apart(
        stored: &Checkpoint,
        notes: &scheduler::Notes<'_>,
        options: Options,
    ) -> Result<Self, Error> {
        let family = family(stored)?;
        let (mut used, mut assumed) = (Vec::new(), Vec::new());
        let mut component = |(walk, config): (Walk<'_>, Value)| -> Result<Component, Error> {
            let (checkpoint, names) = walk.finish()?;
            used.extend(names);
            Ok(Component { config, checkpoint })
        };
        let text_encoders = clip::text_encoders(stored, family)?
            .into_iter()
            .map(&mut component)
            .collect::<Result<_, _>>()?;
        let mut unet = component(unet::translate(stored, family, &mut assumed)?)?;
        let vae = component(vae::translate(stored, family)?)?;
        let scheduler = scheduler::config(stored, family, notes, options, &mut assumed);
        let side = scheduler::sample_size(family, &scheduler);
        unet.config["sample_size"] = json!(side);
        assumed.push(format!("pictures of {} pixels", 8 * side));
        used.sort_unstable();
        let unused = |name: &&str| used.binary_search_by(|used| used.as_str().cmp(name)).is_err();
        let unread = stored.names().filter(unused).map(str::to_owned).collect();
        let index = index(family);
        Ok(Self { family, unet, vae, text_encoders, scheduler, index, assumed, unread })
    }
}

/// The family, from the names that only it has.
fn family(stored: &Checkpoint) -> Result<Family, Error> {
    let place = || stored.place().to_owned();
    let under = |prefix: &str| stored.names().any(|name| name.starts_with(prefix));
    let unsupported = |kind| Err(Error::Unsupported { place: place(), kind });
    let diffusion = |part: &str| under(&format!("model.diffusion_model.{part}")) || under(part);
    if diffusion("double_blocks.") {
        return unsupported("a Flux model");
    }
    if diffusion("joint_blocks.") {
        return unsupported("a Stable Diffusion 3 model");
    }
    if under("control_model.") {
        return unsupported("a ControlNet");
    }
    if stored.contains("edm_mean") {
        return unsupported("a Playground 2.5 model");
    }
    if !under("model.diffusion_model.input_blocks.") {
        return Err(Error::Unknown { place: place() });
    }
    let (first, second) = (under("conditioner.embedders.0."), under("conditioner.embedders.1."));
    match (first, second) {
        (true, true) => Ok(Family::StableDiffusionXl),
        (true, false) => unsupported("an SDXL refiner or has only one of SDXL's text encoders"),
        _ if under("cond_stage_model.transformer.") => Ok(Family::StableDiffusion1),
        _ if under("cond_stage_model.model.") => Ok(Family::StableDiffusion2),
        _ => Err(Error::Incomplete { place: place(), part: "text encoder" }),
    }
}

/// What `model_index.json` says beside the components' classes.
fn index(family: Family) -> Value {
    match family {
        Family::StableDiffusionXl => json!({
            "_class_name": "StableDiffusionXLPipeline",
            "force_zeros_for_empty_prompt": true,
        }),
        _ => json!({ "_class_name": "StableDiffusionPipeline" }),
    }
}

/// The usual width of an attention head, or for narrow layers the largest smaller power of two
/// that divides all of `channels`.
fn head_width(channels: &[usize]) -> usize {
    largest_dividing(64, channels)
}

/// The usual number of groups of a normalisation, or for narrow layers the largest smaller power
/// of two that divides all of `channels`.
fn groups(channels: &[usize]) -> usize {
    largest_dividing(32, channels)
}

fn largest_dividing(mut power: usize, channels: &[usize]) -> usize {
    while power > 1 && channels.iter().any(|channels| channels % power != 0) {
        power /= 2;
    }
    power
}

#[cfg(test)]
mod tests;
