//! A model as one file in the layout in which Stable Diffusion was first published.

use std::path::Path;

use models::single_file::{self, Family, Options, SingleFile, open_vae};

use super::{Component, Encoder, Kind, Model};
use crate::Error;
use crate::prompt::{Padding, Tokenizer};

/// Open a checkpoint that holds all networks.
pub(super) fn open(path: &Path) -> Result<Model, Error> {
    let file = SingleFile::open(path, Options::default())?;
    let names = ["text_encoder", "text_encoder_2"];
    let encoders = names.into_iter().zip(file.text_encoders).enumerate();
    let encoders = encoders.map(|(i, (name, part))| {
        let component = component(name, part);
        Ok(Encoder { component, tokenizer: Tokenizer::clip(padding(file.family, i))? })
    });
    Ok(Model {
        name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        kind: match file.family {
            Family::StableDiffusionXl => Kind::StableDiffusionXl,
            _ => Kind::StableDiffusion,
        },
        encoders: encoders.collect::<Result<_, Error>>()?,
        unet: component("unet", file.unet),
        vae: component("vae", file.vae),
        scheduler: file.scheduler,
        zeros_for_empty: file.family == Family::StableDiffusionXl,
        packed: None,
        calibrated: None,
        assumed: file.assumed,
        unread: file.unread,
    })
}

/// Open a VAE in a file of its own, for a model of this kind.
pub(super) fn vae(path: &Path, kind: Kind) -> Result<Component, Error> {
    let family = match kind {
        Kind::StableDiffusionXl => Family::StableDiffusionXl,
        _ => Family::StableDiffusion1,
    };
    Ok(component("vae", open_vae(path, family)?))
}

fn component(name: &'static str, part: single_file::Component) -> Component {
    Component { name, config: part.config, weights: part.checkpoint }
}

/// What fills up an encoding: the end mark, except for encoders that come from `OpenCLIP`.
fn padding(family: Family, encoder: usize) -> Padding {
    match (family, encoder) {
        (Family::StableDiffusion2, _) | (_, 1) => Padding::ExclamationMark,
        _ => Padding::EndOfText,
    }
}
