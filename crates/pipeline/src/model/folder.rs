//! A model as a folder in the layout of diffusers.

use std::path::Path;

use serde_json::Value;
use tensor::file::Checkpoint;

use super::{Component, Encoder, Kind, Model};
use crate::Error;
use crate::prompt::Tokenizer;
use crate::schedule::json_with_infinities;

/// Open the folder that holds `model_index.json`.
pub(super) fn open(folder: &Path) -> Result<Model, Error> {
    let index = json(&folder.join("model_index.json"))?;
    let kind = kind(&index)?;
    let mut encoders = vec![encoder(folder, "text_encoder", "tokenizer")?];
    if kind == Kind::StableDiffusionXl {
        encoders.push(encoder(folder, "text_encoder_2", "tokenizer_2")?);
    }
    let name = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    Ok(Model {
        name: name.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        kind,
        encoders,
        unet: component(&folder.join("unet"), "unet")?,
        vae: component(&folder.join("vae"), "vae")?,
        scheduler: json(&folder.join("scheduler/scheduler_config.json"))?,
        zeros_for_empty: index["force_zeros_for_empty_prompt"].as_bool().unwrap_or(true)
            && kind == Kind::StableDiffusionXl,
        assumed: Vec::new(),
        unread: Vec::new(),
    })
}

/// Open a folder that holds a VAE alone.
pub(super) fn vae(folder: &Path) -> Result<Component, Error> {
    component(folder, "vae")
}

fn kind(index: &Value) -> Result<Kind, Error> {
    let class = index["_class_name"].as_str().unwrap_or("a folder without _class_name");
    match class {
        "StableDiffusionPipeline" => Ok(Kind::StableDiffusion),
        "StableDiffusionXLPipeline" => Ok(Kind::StableDiffusionXl),
        "LatentConsistencyModelPipeline" => Ok(Kind::LatentConsistency),
        _ => Err(Error::Pipeline { class: class.to_owned() }),
    }
}

fn encoder(folder: &Path, name: &'static str, tokenizer: &str) -> Result<Encoder, Error> {
    Ok(Encoder {
        component: component(&folder.join(name), name)?,
        tokenizer: Tokenizer::open(&folder.join(tokenizer))?,
    })
}

fn component(folder: &Path, name: &'static str) -> Result<Component, Error> {
    let config = json(&folder.join("config.json"))?;
    Ok(Component { name, config, weights: Checkpoint::open(folder)? })
}

fn json(path: &Path) -> Result<Value, Error> {
    let fault = |fault: String| Error::Folder { path: path.to_owned(), fault };
    let text = std::fs::read_to_string(path)
        .map_err(|e| fault(format!("{e}; the folder is incomplete, download it again")))?;
    let value: Value = json_with_infinities(&text)
        .map_err(|e| fault(format!("not JSON ({e}), download it again")))?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(fault("not a JSON object, download it again".into()))
    }
}
