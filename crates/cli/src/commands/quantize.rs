//! A model → one packed file.

mod activations;
pub(crate) mod compare;
mod known;
mod pace;
mod rounding;
pub(crate) mod search;
mod shares;

use std::fs;
use std::io::BufWriter;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use pipeline::Plan;
use tensor::{Control, Precision};

use super::engine;
use crate::args::Quantize;
use crate::output;
use crate::report::{self, Details, Progress};

/// Set by Ctrl-C; looked at before every layer.
static CANCEL: AtomicBool = AtomicBool::new(false);

/// Pack what was asked for.
pub(crate) fn run(args: &Quantize) -> Result<()> {
    let start = Instant::now();
    let path = &args.output;
    ensure!(!path.is_dir(), "{} is a folder; name a file", path.display());
    ensure!(
        args.work.is_none()
            || args.target.is_some()
            || args.known.is_static
            || args.is_calibrated(),
        "--work keeps what is measured; use it with --target, --static or --rounding calibrated"
    );
    ensure!(
        args.moments.is_none() || args.is_calibrated(),
        "--moments is for --rounding calibrated; leave one of them out"
    );
    let cpu = engine::cpu(args.threads)?;
    let model = engine::original(&args.source, &cpu)?;
    ctrlc::set_handler(|| CANCEL.store(true, Ordering::Relaxed)).context("cannot catch Ctrl-C")?;
    let given = args.plan.as_ref().map(|path| engine::plan_of(path, &model)).transpose()?;
    let model = rounding::calibrated(args, model, (&cpu, &CANCEL))?;
    // Ranges that are known are those of texts as they are.
    let is_static = args.known.is_static || given.as_ref().is_some_and(Plan::has_ranges);
    let model = if is_static { model } else { model.smoothed(&cpu)? };
    let plan = match (args.target, given) {
        (Some(target), _) => search::run(args, target, (&model, &cpu, &CANCEL))?,
        (None, Some(given)) => given,
        (None, None) if args.known.is_static => known::plan(args, (&model, &cpu, &CANCEL))?,
        (None, None) => uniform(args)?,
    };
    let file = output::temporary(path)?;
    let progress = Progress::new(Details::None);
    let show = |done, total| progress.work("quantize", done, total);
    let control = Control { cancel: Some(&CANCEL), progress: Some(&show) };
    let out = BufWriter::with_capacity(1 << 20, file);
    let written = pipeline::pack::pack(&model, &plan, &cpu, (out, &control))?;
    let file = written.into_inner().map_err(|error| pipeline::Error::Write(error.into_error()))?;
    let bytes = file.as_file().metadata()?.len();
    output::keep(file, path)?;
    progress.total(start.elapsed());
    report::say(&format!("{}: {:.1} MiB", path.display(), bytes as f64 / f64::from(1 << 20)));
    if let Some(target) = args.target {
        let original = engine::model(&args.source)?;
        search::report(args, target, (&original, &cpu, &CANCEL))?;
    }
    Ok(())
}

/// The folder for what was measured: the one that was named, or one beside the output.
fn work(args: &Quantize) -> Result<PathBuf> {
    let work = args.work.clone().unwrap_or_else(|| args.output.with_extension("work"));
    fs::create_dir_all(&work).with_context(|| {
        format!("cannot make the folder {}; choose another with --work", work.display())
    })?;
    Ok(work)
}

/// One scheme for the UNet and one for the rest.
fn uniform(args: &Quantize) -> Result<Plan> {
    if let Some(scheme) = args.scheme {
        ensure!(
            !scheme.is_static(),
            "{scheme} needs ranges; use --static, or a --plan that has them"
        );
        return Ok(Plan::uniform(scheme, Precision::Bf16));
    }
    let scheme = format!("w{}a{}", args.weights, args.acts).parse().map_err(anyhow::Error::msg)?;
    let halves = args.known.shortcuts.into();
    let plan = engine::uniform_unet(scheme, halves, Precision::Bf16);
    Ok(match args.known.first_token {
        Some(typed) => plan.with_first_token(typed.into()),
        None => plan,
    })
}
