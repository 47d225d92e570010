//! A component's weights under every name that a correction may call them by.
//!
//! Names are compared with dots and underscores made the same, because kohya's names have only
//! underscores and those cannot be undone without knowing the model.

use super::Part;
use crate::single_file::original_places;
use std::collections::HashMap;
use tensor::file::Checkpoint;

/// Flattened layer name → weight's name.
pub(super) struct Table {
    part: Part,
    weights: HashMap<String, String>,
}

/// What the first files called the matrices of a text encoder's attention.
const OLD_ATTENTION: [(&str, &str); 4] =
    [("_to_q", "_q_proj"), ("_to_k", "_k_proj"), ("_to_v", "_v_proj"), ("_to_out", "_out_proj")];

impl Table {
    /// The weights of `checkpoint`, which is `part` under diffusers names.
    pub(super) fn of(part: Part, checkpoint: &Checkpoint) -> Self {
        let places = if part == Part::Unet { original_places(checkpoint) } else { Vec::new() };
        let mut weights = HashMap::new();
        for name in checkpoint.names() {
            let Some(module) = name.strip_suffix(".weight") else { continue };
            for (place, original) in &places {
                let rest = module.strip_prefix(place.as_str());
                if let Some(rest) = rest.filter(|rest| rest.is_empty() || rest.starts_with('.')) {
                    weights.insert(flat(&format!("{original}{rest}")), name.to_owned());
                }
            }
            weights.insert(plain(part, &flat(module)).to_owned(), name.to_owned());
        }
        Self { part, weights }
    }

    /// The weight of the layer that a file calls `module`.
    pub(super) fn weight(&self, module: &str) -> Option<&str> {
        let flattened = flat(module).replace("_processor_", "_");
        let name = plain(self.part, &flattened);
        let found = self.weights.get(name).or_else(|| self.weights.get(&format!("{name}_0")));
        let found = found.or_else(|| {
            let (old, new) = OLD_ATTENTION.iter().find(|(old, _)| name.ends_with(old))?;
            self.weights.get(&format!("{}{new}", name.strip_suffix(old)?))
        });
        found.map(String::as_str)
    }
}

fn flat(name: &str) -> String {
    name.replace('.', "_")
}

/// Text encoders are stored with and without a leading `text_model`.
fn plain(part: Part, flattened: &str) -> &str {
    match part {
        Part::Unet => flattened,
        _ => flattened.strip_prefix("text_model_").unwrap_or(flattened),
    }
}
