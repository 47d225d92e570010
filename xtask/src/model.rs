//! `cargo xtask model`: a full-size pipeline with random weights.
//!
//! Speed and memory depend on shapes, not on what a model has learnt. This writes a folder in diffusers' layout
//! with the shapes, configurations and file names of a published pipeline and reproducible random f16 weights,
//! one tensor in memory at a time.

mod clip;
mod family;
mod list;
mod random;
mod resnet;
mod unet;
mod vae;
mod vocabulary;

use std::borrow::Cow;
use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use safetensors::tensor::{Dtype, View, serialize_to_file};
use serde_json::{Map, Value, json};

use family::Family;
use list::Tensor;
use vae::Vae;

/// Writes the pipeline called `name` into the new folder `out`.
pub(crate) fn write(name: &str, out: &Path) -> Result<()> {
    let family = family::find(name)?;
    ensure!(!out.exists(), "{} exists already; name a new folder", out.display());
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    write_json(&out.join("model_index.json"), &index(&family))?;
    fs::create_dir_all(out.join("scheduler"))?;
    write_json(&out.join("scheduler/scheduler_config.json"), &family.scheduler)?;
    for (number, (clip, pad)) in family.text.iter().enumerate() {
        vocabulary::write(&out.join(numbered("tokenizer", number)), pad)?;
        let component = (clip.config(), clip.tensors());
        write_component(&out.join(numbered("text_encoder", number)), "model", component)?;
    }
    let unet = (family.unet.config(), family.unet.tensors());
    write_component(&out.join("unet"), "diffusion_pytorch_model", unet)?;
    let vae = (family.vae.config(), Vae::tensors());
    write_component(&out.join("vae"), "diffusion_pytorch_model", vae)
}

/// Prints the tensors of each component as JSON, for comparison with the reference.
pub(crate) fn list(name: &str) -> Result<()> {
    let family = family::find(name)?;
    let mut all = Map::new();
    let shapes = |tensors: Vec<Tensor>| -> Value {
        tensors.into_iter().map(|tensor| (tensor.name, json!(tensor.shape))).collect()
    };
    let mut add = |name: String, config: Value, tensors: Vec<Tensor>| {
        all.insert(name, json!({ "config": config, "tensors": shapes(tensors) }));
    };
    for (number, (clip, _)) in family.text.iter().enumerate() {
        add(numbered("text_encoder", number), clip.config(), clip.tensors());
    }
    add("unet".to_owned(), family.unet.config(), family.unet.tensors());
    add("vae".to_owned(), family.vae.config(), Vae::tensors());
    crate::console::say(&Value::Object(all).to_string());
    Ok(())
}

/// Standard normal numbers as little-endian f32.
pub(crate) fn noise(name: &str, shape: Vec<usize>) -> Vec<u8> {
    let tensor = Tensor { name: name.to_owned(), shape, mean: 0.0, deviation: 1.0 };
    let bytes = random::values(&tensor);
    let values = bytes.chunks_exact(2).map(|pair| half::f16::from_le_bytes([pair[0], pair[1]]));
    values.flat_map(|value| value.to_f32().to_le_bytes()).collect()
}

fn index(family: &Family) -> Value {
    let mut index = json!({
        "_class_name": family.pipeline,
        "_diffusers_version": "0.24.0",
        "feature_extractor": [null, null],
        "image_encoder": [null, null],
        "scheduler": ["diffusers", family.scheduler["_class_name"]],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    });
    for (number, (clip, _)) in family.text.iter().enumerate() {
        index[numbered("text_encoder", number)] = json!(["transformers", clip.pooling.class()]);
        index[numbered("tokenizer", number)] = json!(["transformers", "CLIPTokenizer"]);
    }
    if family.text.len() > 1 {
        index["force_zeros_for_empty_prompt"] = json!(true);
    } else {
        index["requires_safety_checker"] = json!(false);
        index["safety_checker"] = json!([null, null]);
    }
    index
}

/// diffusers calls the second of a kind `…_2` and the first by the bare name.
fn numbered(name: &str, number: usize) -> String {
    if number == 0 { name.to_owned() } else { format!("{name}_{}", number + 1) }
}

fn write_component(
    folder: &Path,
    stem: &str,
    (config, tensors): (Value, Vec<Tensor>),
) -> Result<()> {
    let start = Instant::now();
    fs::create_dir_all(folder)?;
    write_json(&folder.join("config.json"), &config)?;
    let parameters: usize = tensors.iter().map(Tensor::count).sum();
    let file = folder.join(format!("{stem}.safetensors"));
    let views = tensors.into_iter().map(|tensor| (tensor.name.clone(), Drawn(tensor)));
    // Loaders look for this entry to learn how matrices are laid out.
    let format = std::iter::once(("format".to_owned(), "pt".to_owned())).collect();
    serialize_to_file(views, Some(format), &file)
        .with_context(|| format!("cannot write {}", file.display()))?;
    let (millions, seconds) = (parameters as f64 / 1e6, start.elapsed().as_secs_f64());
    let name = file.display();
    crate::console::say(&format!("{name}: {millions:.1} M parameters, {seconds:.1} s"));
    Ok(())
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value)? + "\n";
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// A tensor whose values are drawn at the moment they are written.
struct Drawn(Tensor);

impl View for Drawn {
    fn dtype(&self) -> Dtype {
        Dtype::F16
    }

    fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(random::values(&self.0))
    }

    fn data_len(&self) -> usize {
        2 * self.0.count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millions(tensors: &[Tensor]) -> usize {
        tensors.iter().map(Tensor::count).sum::<usize>() / 1_000_000
    }

    #[test]
    fn sizes_are_those_of_the_published_models() {
        let count = |name| millions(&family::find(name).unwrap().unet.tensors());
        assert_eq!([count("sd-turbo"), count("sdxl-turbo"), count("lcm")], [865, 2567, 859]);
        let text = &family::find("sdxl-turbo").unwrap().text;
        assert_eq!([millions(&text[0].0.tensors()), millions(&text[1].0.tensors())], [123, 694]);
        assert_eq!(millions(&Vae::tensors()), 83);
    }

    #[test]
    fn names_are_given_once() {
        let tensors = family::find("sdxl-turbo").unwrap().unet.tensors();
        let names: std::collections::HashSet<_> = tensors.iter().map(|t| &t.name).collect();
        assert_eq!(names.len(), tensors.len());
    }
}
