//! A model's components, layers, bytes and memory plan.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, Result, bail};
use pipeline::memory::{Layer, Resident};
use pipeline::model::{Component, Model};
use pipeline::{Request, TextToImage};

use super::engine;
use super::memory::{self, mib};
use crate::args::Inspect;
use crate::report::{self, Details, Progress};

/// Print it.
pub(crate) fn run(args: &Inspect) -> Result<()> {
    let mut typed = args.engine.clone();
    typed.source.model = typed.source.model.or_else(|| args.path.clone());
    let model = engine::model(&typed.source)?;
    if args.verify {
        verify(&model)?;
    }
    let cpu = engine::cpu(typed.threads)?;
    let plan = engine::plan(&typed, &model, &cpu)?;
    let request =
        Request { width: args.width, height: args.height, pictures: 1, ..Request::default() };
    let pipeline = TextToImage::new(&cpu, &model, &plan);
    let settings = pipeline.settings(&request)?;
    let (_, memory) = memory::Plan::fit(pipeline, (&request, &settings), args.memory.max_ram)?;

    let mut out = String::new();
    writeln!(out, "model      {} ({:?})", model.name, model.kind)?;
    writeln!(out, "scheduler  {}", settings.scheduler.family().name())?;
    writeln!(
        out,
        "defaults   {} steps, guidance {}, {}x{}",
        settings.defaults.steps.value,
        settings.defaults.guidance.value,
        settings.defaults.size.value[1],
        settings.defaults.size.value[0],
    )?;
    for assumed in &model.assumed {
        writeln!(out, "assumed    {assumed}")?;
    }
    files(&mut out, &model)?;
    if !model.unread.is_empty() {
        writeln!(
            out,
            "{} tensors of the file belong to no component: {}",
            model.unread.len(),
            first(&model.unread)
        )?;
    }
    let size = format!("{}x{}", settings.width, settings.height);
    write!(out, "\n{}", memory.table(&format!("memory at {size} in {}", plan.precision))?)?;
    if args.verbose {
        layers(&mut out, &memory.parts)?;
    }
    report::print(&out);
    Ok(())
}

/// Compare a packed model with its checksums.
fn verify(model: &Model) -> Result<()> {
    let Some(packed) = &model.packed else {
        bail!("--verify: {} has no checksums; only packed models do", model.name)
    };
    let progress = Progress::new(Details::None);
    packed.file.verify(&|done, total| progress.work("verify", done, total))?;
    progress.finish();
    report::say(&format!("{}: all checksums agree", model.name));
    Ok(())
}

/// Tensors, parameters and bytes of each component as stored.
fn files(out: &mut String, model: &Model) -> Result<()> {
    writeln!(
        out,
        "\n{:<16}{:>8}{:>16}{:>12}  stored as",
        "component", "tensors", "parameters", "MiB"
    )?;
    for component in model.components() {
        let stored = Stored::of(component);
        let formats: Vec<String> =
            stored.formats.iter().map(|(name, count)| format!("{name} ({count})")).collect();
        writeln!(
            out,
            "{:<16}{:>8}{:>16}{:>12.1}  {}",
            component.name,
            component.weights.names().count(),
            stored.parameters,
            mib(stored.bytes),
            formats.join(", ")
        )?;
    }
    for component in model.components() {
        let unread = pipeline::memory::unread(model, component)
            .with_context(|| format!("{} does not fit its configuration", component.name))?;
        if !unread.is_empty() {
            let (name, count) = (component.name, unread.len());
            writeln!(out, "{name}: {count} tensors are never read: {}", first(&unread))?;
        }
    }
    Ok(())
}

/// The first few names.
fn first(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(4).map(String::as_str).collect();
    let more = if names.len() > shown.len() { ", …" } else { "" };
    shown.join(", ") + more
}

struct Stored {
    parameters: usize,
    bytes: usize,
    formats: BTreeMap<String, usize>,
}

impl Stored {
    fn of(component: &Component) -> Self {
        let mut stored = Self { parameters: 0, bytes: 0, formats: BTreeMap::new() };
        for name in component.weights.names() {
            stored.parameters +=
                component.weights.shape(name).map_or(0, |shape| shape.iter().product());
            stored.bytes += component.weights.size(name).unwrap_or(0);
            let format = component.weights.format(name).unwrap_or_else(|| "unknown".into());
            *stored.formats.entry(format).or_default() += 1;
        }
        stored
    }
}

fn layers(out: &mut String, memory: &[Resident]) -> Result<()> {
    for part in memory {
        writeln!(out, "\n{}: {} layers", part.name, part.layers.len())?;
        for layer in &part.layers {
            let Layer { name, format, bytes, kernel } = layer;
            writeln!(
                out,
                "  {name:<64} {format:<6} {bytes:>10} bytes  {kernel}",
                format = format.to_string()
            )?;
        }
    }
    Ok(())
}
