//! A model → one packed file.

use std::collections::HashSet;
use std::io::Write;

use serde_json::{Value, json};
use tensor::file::packed::{Contents, Writer};
use tensor::packed::{Form, Kind};
use tensor::program::Slot;
use tensor::{Control, Cpu, Precision};

use crate::model::Component;
use crate::plan::FirstToken;
use crate::{Error, Model, Plan, Request, TextToImage, Watch, denoise, first_token, memory, text};

/// Write `model` with each layer in the format that `plan` says. Layers of real numbers keep two bytes each: those of an
/// `f16` model as they are, others rounded to `bf16`.
///
/// The bytes depend on the model, what its weights are rounded by, and the plan alone.
///
/// # Errors
///
/// If the plan does not fit the model, a weight cannot be read or is not finite, nothing can be written, or the
/// control says to stop.
pub fn pack<W: Write>(
    model: &Model,
    plan: &Plan,
    cpu: &Cpu,
    (out, control): (W, &Control<'_>),
) -> Result<W, Error> {
    let (contents, slots) = contents(model, plan, cpu, Rows::Computed)?;
    let mut writer = Writer::new(out, &contents).map_err(Error::Write)?;
    let total = slots.len();
    for (i, slot) in slots.iter().enumerate() {
        control.check(i, total)?;
        writer.weight(&cpu.packed(slot)?).map_err(Error::Write)?;
    }
    control.check(total, total)?;
    writer.finish().map_err(Error::Write)
}

/// Bytes of the file that [`pack`] writes.
///
/// # Errors
///
/// If the plan does not fit the model.
pub fn bytes(model: &Model, plan: &Plan, cpu: &Cpu) -> Result<u64, Error> {
    contents(model, plan, cpu, Rows::Blank)?.0.bytes().map_err(Error::Write)
}

/// What stands in the rows of first tokens.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rows {
    /// What belongs there.
    Computed,
    /// Anything as long as that.
    Blank,
}

/// What the file will hold, and its weights in order.
fn contents(
    model: &Model,
    plan: &Plan,
    cpu: &Cpu,
    rows: Rows,
) -> Result<(Contents, Vec<Slot>), Error> {
    let plan = plan.clone().with_precision(Precision::Bf16);
    plan.check(model).map_err(|fault| Error::Request(format!("the plan does not fit: {fault}")))?;
    let components = slots(model, &plan, cpu)?;
    let mut contents = Contents {
        plan: plan.to_toml(model.components().map(|component| component.name)),
        files: files(model)?,
        ..Contents::default()
    };
    if plan.first_token() == FirstToken::Float {
        contents.files.extend(first_tokens(model, &plan, cpu, rows)?);
    }
    let writer = concat!("mixdq ", env!("CARGO_PKG_VERSION"));
    contents.metadata.insert("mixdq.writer".into(), writer.into());
    contents.metadata.insert("mixdq.model".into(), model.name.clone());
    if let Some(checksum) = model.calibrated {
        contents.metadata.insert("mixdq.calibrated".into(), format!("{checksum:08x}"));
    }
    for (component, slots) in &components {
        contents.weights.extend(listed(component, slots, model, cpu)?);
    }
    Ok((contents, components.into_iter().flat_map(|(_, slots)| slots).collect()))
}

/// The rows of first tokens, from what the plan's own encoders make of two texts. In single precision they are the same on
/// every machine.
fn first_tokens(
    model: &Model,
    plan: &Plan,
    cpu: &Cpu,
    rows: Rows,
) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let plan = plan.clone().with_precision(Precision::F32);
    let pipeline = TextToImage::new(cpu, model, &plan);
    let prompts = ["", "a picture"].map(str::to_owned).into();
    let request = Request { prompts, pictures: 1, guidance: Some(1.0), ..Request::default() };
    let settings = pipeline.settings(&request)?;
    let recording = denoise::recording(&pipeline, &settings)?;
    if rows == Rows::Blank {
        return Ok(first_token::blank(&recording));
    }
    let texts = text::encode(&pipeline, &request, &settings, &Watch::default())?.prompts;
    let first =
        |text: &text::Conditioning| text.context[..text.context.len() / text.tokens].to_vec();
    let embeddings: Vec<Vec<f32>> = texts.iter().map(first).collect();
    let embeddings: Vec<&[f32]> = embeddings.iter().map(Vec::as_slice).collect();
    first_token::files(cpu, &recording, &embeddings)
}

/// The weights that a picture needs, in the order in which it needs them.
fn slots<'a>(
    model: &'a Model,
    plan: &'a Plan,
    cpu: &'a Cpu,
) -> Result<Vec<(&'a Component, Vec<Slot>)>, Error> {
    let pipeline = TextToImage::new(cpu, model, plan);
    let request = Request::default();
    let parts = pipeline.parts(&request, &pipeline.settings(&request)?)?;
    let mut all: Vec<(&Component, Vec<Slot>)> = Vec::new();
    for part in parts {
        match all.last_mut().filter(|(component, _)| component.name == part.component.name) {
            Some((_, slots)) => slots.extend(part.program.slots),
            None => all.push((part.component, part.program.slots)),
        }
    }
    Ok(all)
}

/// A component's weights for the list of contents: those that are stored, then those that no picture reads.
fn listed(
    component: &Component,
    slots: &[Slot],
    model: &Model,
    cpu: &Cpu,
) -> Result<Vec<(String, String, Form)>, Error> {
    let entry = |name: &str, form| (component.name.to_owned(), name.to_owned(), form);
    let mut list: Vec<_> =
        slots.iter().map(|slot| entry(slot.weight.name(), cpu.packed_form(slot))).collect();
    let mut known: HashSet<String> = memory::unread(model, component)?.into_iter().collect();
    for slot in slots {
        let first = known.insert(slot.weight.name().to_owned());
        assert!(first, "{} is needed in one form only", slot.weight.name());
    }
    for name in component.weights.names().filter(|name| !known.contains(*name)) {
        let shape = component.weights.shape(name).unwrap_or_default().to_vec();
        list.push(entry(name, Form { shape, kind: Kind::Absent }));
    }
    Ok(list)
}

/// The small files, by their path in the layout of diffusers.
fn files(model: &Model) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let text = |path: String, value: &Value| (path, value.to_string().into_bytes());
    let index = json!({
        "_class_name": model.kind.class(),
        "force_zeros_for_empty_prompt": model.zeros_for_empty,
    });
    let mut files = vec![
        text("model_index.json".into(), &index),
        text("scheduler/scheduler_config.json".into(), &model.scheduler),
    ];
    for component in model.components() {
        files.push(text(format!("{}/config.json", component.name), &component.config));
    }
    for (encoder, folder) in model.encoders.iter().zip(["tokenizer", "tokenizer_2"]) {
        let own = encoder.tokenizer.files()?.into_iter();
        files.extend(own.map(|(name, bytes)| (format!("{folder}/{name}"), bytes)));
    }
    Ok(files)
}
