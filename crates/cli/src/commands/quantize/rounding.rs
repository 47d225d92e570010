//! What layers read → the model whose weights are rounded for that.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::HumanDuration;
use pipeline::moments::{Found, Gatherer};
use pipeline::{Model, Plan, TextToImage, Watch};
use tensor::{Cpu, Precision};

use super::{search, work};
use crate::args::Quantize;
use crate::commands::drawing;
use crate::output;
use crate::report::{self, Details, Progress};

/// Where the work folder keeps what was found.
const MOMENTS: &str = "moments.safetensors";

/// How long work may be lost if it is interrupted.
const KEEP_EVERY: Duration = Duration::from_secs(30);

/// The model as it was, or with weights that are rounded by what its layers read.
pub(super) fn calibrated(
    args: &Quantize,
    model: Model,
    engine: (&Cpu, &AtomicBool),
) -> Result<Model> {
    if !args.is_calibrated() {
        return Ok(model);
    }
    let mut measured = 0;
    if args.target.is_some() {
        // What proves the result is wanted now, and is drawn by nothing else.
        measured = 3 * args.pictures.count as usize;
        search::proof(args)?;
    }
    let path = work(args)?.join(MOMENTS);
    let found = gather(args, (&model, measured), &path, engine)?;
    Ok(model.with_moments(found))
}

/// Draw into a file, or go on where that was interrupted.
fn gather(
    args: &Quantize,
    (model, measured): (&Model, usize),
    path: &Path,
    (cpu, cancel): (&Cpu, &AtomicBool),
) -> Result<Found> {
    let request = drawing::others(&args.pictures, measured, args.calibration_prompts as usize)?;
    let plan = Plan::float(Precision::F32);
    let pipeline = TextToImage::new(cpu, model, &plan);
    let mut gatherer = Gatherer::new(&pipeline, &request)?;
    if path.exists() {
        gatherer = gatherer.after(Found::read(path)?);
    }
    let progress = Progress::new(Details::None);
    let observer = |event| progress.tell(event);
    let watch = Watch { cancel: Some(cancel), observer: Some(&observer), ..Watch::default() };
    let (first, total) = (gatherer.found().header.done, request.total());
    let (start, mut kept, mut done) = (Instant::now(), Instant::now(), first);
    while done < total {
        progress.work("calibrate", done, total);
        let before = done;
        done = gatherer.advance(&watch)?;
        if before == first && done < total {
            let left = start.elapsed().mul_f64((total - done) as f64 / (done - first) as f64);
            report::say(&format!(
                "what layers read: {total} pictures, {} to go: about {}",
                total - done,
                HumanDuration(left)
            ));
        }
        if done == total || kept.elapsed() > KEEP_EVERY {
            let file = output::temporary(path)?;
            let permissions = file.as_file().metadata()?.permissions();
            gatherer.found().write(file.path()).with_context(|| output::failed(path))?;
            fs::set_permissions(file.path(), permissions)?;
            output::keep(file, path)?;
            kept = Instant::now();
        }
    }
    progress.finish();
    Ok(gatherer.into_found())
}
