//! An opened model: configurations, tokenizers and named tensors, nothing loaded yet.
//!
//! A diffusers folder and a single-file checkpoint look the same from here on.

mod defaults;
mod folder;
mod single;

pub use defaults::{Default, Defaults};
pub(crate) use folder::json;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use models::lora::{Lora, Part};
use models::nn::FACTORS;
use serde_json::Value;
use tensor::file::packed::PackedFile;
use tensor::file::{Checkpoint, SafeTensors};

use crate::prompt::Tokenizer;
use crate::schedule::SchedulerConfig;
use crate::{Error, Plan};

/// Which pipeline of diffusers a model belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `StableDiffusionPipeline`: one text encoder.
    StableDiffusion,
    /// `StableDiffusionXLPipeline`: two text encoders, sizes as conditions.
    StableDiffusionXl,
    /// `LatentConsistencyModelPipeline`: guidance as an embedding.
    LatentConsistency,
}

impl Kind {
    const CLASSES: [(Self, &'static str); 3] = [
        (Self::StableDiffusion, "StableDiffusionPipeline"),
        (Self::StableDiffusionXl, "StableDiffusionXLPipeline"),
        (Self::LatentConsistency, "LatentConsistencyModelPipeline"),
    ];

    /// The kind that `model_index.json` names so.
    fn of_class(class: &str) -> Option<Self> {
        Self::CLASSES.into_iter().find(|(_, name)| *name == class).map(|(kind, _)| kind)
    }

    /// Its name in `model_index.json`.
    pub fn class(self) -> &'static str {
        let found = Self::CLASSES.into_iter().find(|(kind, _)| *kind == self);
        found.map_or("", |(_, name)| name)
    }
}

/// One network: its configuration and its tensors, by the names of diffusers.
#[derive(Clone, Debug)]
pub struct Component {
    /// Its folder in a diffusers model: `unet`, `vae`, `text_encoder`, `text_encoder_2`.
    pub name: &'static str,
    /// `config.json`.
    pub config: Value,
    /// Its tensors.
    pub weights: Checkpoint,
}

/// A text encoder and the tokenizer that feeds it.
#[derive(Debug)]
pub struct Encoder {
    /// The network.
    pub component: Component,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
}

/// An opened model.
#[derive(Debug)]
pub struct Model {
    /// Name for reports and picture metadata: that of the folder or file.
    pub name: String,
    /// Which pipeline it belongs to.
    pub kind: Kind,
    /// One or two.
    pub encoders: Vec<Encoder>,
    /// `UNet2DConditionModel`.
    pub unet: Component,
    /// `AutoencoderKL` or `AutoencoderTiny`.
    pub vae: Component,
    /// `scheduler_config.json`.
    pub scheduler: Value,
    /// Whether a negative prompt that was not given is a zero embedding (`force_zeros_for_empty_prompt`).
    pub zeros_for_empty: bool,
    /// Where the model is a packed file, that and its plan.
    pub packed: Option<Packed>,
    /// Where weights are rounded by what layers read, a checksum of what was drawn to see that.
    pub calibrated: Option<u32>,
    /// What the files do not say and was taken to be so, as clauses for the user.
    pub assumed: Vec<String>,
    /// Tensors of the files that belong to no network.
    pub unread: Vec<String>,
}

/// A packed file.
#[derive(Clone, Debug)]
pub struct Packed {
    /// The file.
    pub file: Arc<PackedFile>,
    /// Which format each layer was packed in.
    pub plan: Plan,
}

/// What to open beside the model itself.
#[derive(Clone, Debug, std::default::Default)]
pub struct Extras {
    /// A VAE instead of the model's: a folder or a file.
    pub vae: Option<PathBuf>,
    /// LoRA files to merge and their scales.
    pub loras: Vec<(PathBuf, f32)>,
}

impl Model {
    /// Open a diffusers folder, a single-file checkpoint or a packed file.
    ///
    /// # Errors
    ///
    /// If it is not there, is of another kind, or a file of it is unsound.
    pub fn open(path: &Path, extras: &Extras) -> Result<Self, Error> {
        let mut model = if path.is_dir() {
            folder::open(path)?
        } else if path.is_file() {
            file(path)?
        } else {
            return Err(Error::NoModel { path: path.to_owned() });
        };
        if let Some(vae) = &extras.vae {
            model.vae =
                if vae.is_dir() { folder::vae(vae)? } else { single::vae(vae, model.kind)? };
        }
        for (file, scale) in &extras.loras {
            model.merge(&Lora::open(file)?, *scale)?;
        }
        Ok(model)
    }

    /// Add a LoRA to the weights, `scale`-fold. Each corrected weight is computed when it is read.
    fn merge(&mut self, lora: &Lora, scale: f32) -> Result<(), Error> {
        let encoders = self.encoders.iter_mut().map(|encoder| &mut encoder.component);
        let parts = [Part::TextEncoder, Part::SecondTextEncoder].into_iter().zip(encoders);
        let mut parts: Vec<(Part, &mut Component)> = parts.collect();
        parts.push((Part::Unet, &mut self.unet));
        lora.check(&parts.iter().map(|(part, _)| *part).collect::<Vec<_>>())?;
        for (part, component) in parts {
            component.weights = lora.merge(part, component.weights.clone(), scale)?;
        }
        Ok(())
    }

    /// All networks, in the order in which a picture needs them.
    pub fn components(&self) -> impl Iterator<Item = &Component> {
        let encoders = self.encoders.iter().map(|encoder| &encoder.component);
        encoders.chain([&self.unet, &self.vae])
    }

    pub(crate) fn components_mut(&mut self) -> impl Iterator<Item = &mut Component> {
        let encoders = self.encoders.iter_mut().map(|encoder| &mut encoder.component);
        encoders.chain([&mut self.unet, &mut self.vae])
    }

    /// A checksum of some weights of each component, by which two versions of a model are told apart.
    ///
    /// # Errors
    ///
    /// If a file cannot be read.
    pub fn fingerprint(&self) -> Result<u32, Error> {
        /// Training changes all tensors, so these tell.
        const TENSORS: usize = 8;
        let mut sum = crc32fast::Hasher::new();
        for component in self.components() {
            // What was put beside the weights since is not theirs.
            let names = component.weights.names().filter(|name| !name.ends_with(FACTORS));
            let names: Vec<&str> = names.collect();
            for name in names.iter().step_by(names.len().div_ceil(TENSORS).max(1)) {
                sum.update(name.as_bytes());
                sum.update(component.weights.unscaled(name)?.bytes());
            }
        }
        Ok(sum.finalize())
    }

    /// The scheduler's configuration, read.
    ///
    /// # Errors
    ///
    /// If it names an unknown scheduler or option.
    pub fn scheduler(&self) -> Result<SchedulerConfig, Error> {
        Ok(SchedulerConfig::from_config(&self.scheduler)?)
    }

    /// Whether the decoder is an `AutoencoderTiny`.
    pub fn has_tiny_vae(&self) -> bool {
        self.vae.config["_class_name"] == "AutoencoderTiny"
    }
}

/// Open a file that holds all of a model.
fn file(path: &Path) -> Result<Model, Error> {
    // What cannot be read as safetensors is reported by the more general of the two ways.
    match SafeTensors::open(path) {
        Ok(file) if PackedFile::is_packed(&file) => folder::packed(PackedFile::new(file)?),
        _ => single::open(path),
    }
}
