//! A model in the layout of diffusers: a folder, or the same inside a packed file.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tensor::file::Checkpoint;
use tensor::file::packed::PackedFile;

use super::{Component, Encoder, Kind, Model, Packed};
use crate::files::Files;
use crate::prompt::Tokenizer;
use crate::schedule::json_with_infinities;
use crate::{Error, Plan};

/// Open the folder that holds `model_index.json`.
pub(super) fn open(folder: &Path) -> Result<Model, Error> {
    let name = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let name = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let weights = |name: &str| Ok(Checkpoint::open(folder.join(name))?);
    read(name, &Files::folder(folder), &weights)
}

/// Open a packed file.
pub(super) fn packed(file: PackedFile) -> Result<Model, Error> {
    let name = file.path().file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let file = Arc::new(file);
    let weights = |name: &str| Ok(file.component(name)?);
    let mut model = read(name, &Files::packed(&file), &weights)?;
    let plan = Plan::from_toml(file.plan());
    let plan = plan.and_then(|plan| plan.check(&model).map(|()| plan)).map_err(|fault| {
        let fault = format!("its plan is damaged: {fault}; pack the model again");
        Error::Folder { path: file.path().to_owned(), fault }
    })?;
    model.packed = Some(Packed { file, plan });
    Ok(model)
}

/// Open a folder that holds a VAE alone.
pub(super) fn vae(folder: &Path) -> Result<Component, Error> {
    component(&Files::folder(folder), "vae", Checkpoint::open(folder)?)
}

/// Where the weights of a component are.
type Weights<'a> = &'a dyn Fn(&str) -> Result<Checkpoint, Error>;

fn read(name: String, files: &Files, weights: Weights<'_>) -> Result<Model, Error> {
    let index = json(files, "model_index.json")?;
    let kind = kind(&index)?;
    let component = |name| component(&files.at(name), name, weights(name)?);
    let encoder = |name, tokenizer| {
        let tokenizer = Tokenizer::read(&files.at(tokenizer))?;
        Ok::<_, Error>(Encoder { component: component(name)?, tokenizer })
    };
    let mut encoders = vec![encoder("text_encoder", "tokenizer")?];
    if kind == Kind::StableDiffusionXl {
        encoders.push(encoder("text_encoder_2", "tokenizer_2")?);
    }
    Ok(Model {
        name,
        kind,
        encoders,
        unet: component("unet")?,
        vae: component("vae")?,
        scheduler: json(&files.at("scheduler"), "scheduler_config.json")?,
        zeros_for_empty: index["force_zeros_for_empty_prompt"].as_bool().unwrap_or(true)
            && kind == Kind::StableDiffusionXl,
        packed: None,
        calibrated: None,
        assumed: Vec::new(),
        unread: Vec::new(),
    })
}

fn kind(index: &Value) -> Result<Kind, Error> {
    let class = index["_class_name"].as_str().unwrap_or("a folder without _class_name");
    Kind::of_class(class).ok_or_else(|| Error::Pipeline { class: class.to_owned() })
}

fn component(files: &Files, name: &'static str, weights: Checkpoint) -> Result<Component, Error> {
    Ok(Component { name, config: json(files, "config.json")?, weights })
}

/// A JSON file of a model.
pub(crate) fn json(files: &Files, name: &str) -> Result<Value, Error> {
    let fault = |fault: String| Error::Folder { path: files.path(name), fault };
    let again = "the model is incomplete, download or pack it again";
    let bytes = files.read(name).map_err(|e| fault(format!("{e}; {again}")))?;
    let bytes = bytes.ok_or_else(|| fault(format!("it is not there; {again}")))?;
    let text = String::from_utf8_lossy(&bytes);
    let value: Value = json_with_infinities(&text)
        .map_err(|e| fault(format!("not JSON ({e}), download or pack it again")))?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(fault("not a JSON object, download or pack it again".into()))
    }
}
