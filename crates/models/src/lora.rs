//! Low-rank corrections (`LoRA`) from a file, merged into a model's weights.
//!
//! A file holds for each corrected layer two thin matrices and perhaps a number α; the layer's
//! weight becomes `W + strength · α / rank · up · down`. Three families of names are in use for
//! the same thing (diffusers and peft; kohya; kohya on the original layout); all are understood
//! by looking the layer up in the model under each of its names. Whatever a file holds that would
//! change the picture and is not understood is an error: a correction is never left out silently.

mod names;
mod table;

pub use names::Part;

use names::Role;
use std::collections::BTreeMap;
use std::path::Path;
use table::Table;
use tensor::file::{Checkpoint, Delta, SafeTensors};

/// What can be wrong with a file of corrections.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file itself.
    #[error(transparent)]
    File(#[from] tensor::file::Error),
    /// A kind of correction that is not computed.
    #[error("{place} corrects `{name}` by {kind}, which is not supported; use a plain LoRA")]
    Unsupported {
        /// The file.
        place: String,
        /// The tensor.
        name: String,
        /// What it would take.
        kind: &'static str,
    },
    /// Half of a pair.
    #[error("{place} has no {missing} for `{name}`; download it again")]
    Incomplete {
        /// The file.
        place: String,
        /// The layer.
        name: String,
        /// Which half is missing.
        missing: &'static str,
    },
    /// No corrections at all.
    #[error("{place} holds no corrections; check that it is a LoRA for Stable Diffusion")]
    Empty {
        /// The file.
        place: String,
    },
    /// Layers that the model does not have.
    #[error(
        "{place} corrects {count} layers that the {part} does not have, such as `{name}`; use a \
         LoRA made for this model"
    )]
    Unmatched {
        /// The file.
        place: String,
        /// The component.
        part: Part,
        /// The first such layer, as the file calls it.
        name: String,
        /// How many there are.
        count: usize,
    },
    /// A component that the model does not have.
    #[error("{place} corrects a {part}, which this model does not have; use a LoRA made for it")]
    Absent {
        /// The file.
        place: String,
        /// The component.
        part: Part,
    },
    /// A strength that is no number.
    #[error("{place} gives `{name}` the strength {value}; download it again")]
    Strength {
        /// The file.
        place: String,
        /// The layer.
        name: String,
        /// Alpha over rank.
        value: f32,
    },
}

/// A file of corrections, read but not yet applied.
#[derive(Debug)]
pub struct Lora {
    stored: Checkpoint,
    layers: BTreeMap<(Part, String), Layer>,
    notes: names::Notes,
}

/// What a file holds for one layer: names of tensors.
#[derive(Debug, Default)]
struct Layer {
    up: Option<String>,
    down: Option<String>,
    alpha: Option<String>,
}

impl Lora {
    /// Opens the file at `path` and sorts its names.
    ///
    /// # Errors
    ///
    /// A file that cannot be used, is incomplete, or holds other kinds of corrections.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = SafeTensors::open(path)?;
        Self::sort(Checkpoint::from_file(&file), names::Notes::read(file.metadata()))
    }

    fn sort(stored: Checkpoint, notes: names::Notes) -> Result<Self, Error> {
        let place = || stored.place().to_owned();
        let mut layers: BTreeMap<(Part, String), Layer> = BTreeMap::new();
        for name in stored.names() {
            let (part, module, role) = names::parse(name).map_err(|kind| Error::Unsupported {
                place: place(),
                name: name.to_owned(),
                kind,
            })?;
            let layer = layers.entry((part, module)).or_default();
            let slot = match role {
                Role::Up => &mut layer.up,
                Role::Down => &mut layer.down,
                Role::Alpha => &mut layer.alpha,
            };
            *slot = Some(name.to_owned());
        }
        if layers.is_empty() {
            return Err(Error::Empty { place: place() });
        }
        Ok(Self { stored, layers, notes })
    }

    /// The components that the file corrects.
    pub fn parts(&self) -> Vec<Part> {
        let mut parts: Vec<Part> = self.layers.keys().map(|(part, _)| *part).collect();
        parts.dedup();
        parts
    }

    /// That the model has all components which the file corrects.
    ///
    /// # Errors
    ///
    /// [`Error::Absent`] naming one that it does not.
    pub fn check(&self, present: &[Part]) -> Result<(), Error> {
        match self.parts().into_iter().find(|part| !present.contains(part)) {
            Some(part) => Err(Error::Absent { place: self.stored.place().to_owned(), part }),
            None => Ok(()),
        }
    }

    /// `checkpoint`, the tensors of `part` under diffusers names, with the corrections of that
    /// part added `strength`-fold. Each is computed when its weight is read.
    ///
    /// # Errors
    ///
    /// Layers that the model does not have, or has in another shape.
    pub fn merge(
        &self,
        part: Part,
        mut checkpoint: Checkpoint,
        strength: f32,
    ) -> Result<Checkpoint, Error> {
        let table = Table::of(part, &checkpoint);
        let layers = self.layers.iter().filter(|((of, _), _)| *of == part);
        let mut unmatched = Vec::new();
        for ((_, module), layer) in layers {
            match table.weight(module) {
                Some(weight) => {
                    let delta = self.delta(part, module, layer, strength)?;
                    checkpoint = checkpoint.with_delta(weight, delta)?;
                }
                None => unmatched.push(module),
            }
        }
        match unmatched.first() {
            None => Ok(checkpoint),
            Some(name) => Err(Error::Unmatched {
                place: self.stored.place().to_owned(),
                part,
                name: (*name).clone(),
                count: unmatched.len(),
            }),
        }
    }

    fn delta(
        &self,
        part: Part,
        module: &str,
        layer: &Layer,
        strength: f32,
    ) -> Result<Delta, Error> {
        let place = || self.stored.place().to_owned();
        let half = |name: &Option<String>, missing| match name {
            Some(name) => Ok(self.stored.tensor(name)?),
            None => Err(Error::Incomplete { place: place(), name: module.to_owned(), missing }),
        };
        let (up, down) = (half(&layer.up, "up matrix")?, half(&layer.down, "down matrix")?);
        let rank = down.shape.first().copied().unwrap_or(0) as f32;
        let own = match &layer.alpha {
            Some(name) => self.stored.tensor(name)?.to_f32().first().map(|alpha| alpha / rank),
            None => None,
        };
        let scale = own.or_else(|| self.notes.scale(part, module, rank)).unwrap_or(1.0);
        if !scale.is_finite() {
            return Err(Error::Strength { place: place(), name: module.to_owned(), value: scale });
        }
        Ok(Delta { up, down, scale: strength * scale })
    }
}

#[cfg(test)]
mod tests;
