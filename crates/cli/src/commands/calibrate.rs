//! A model → the ranges of what its layers read.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use indicatif::HumanDuration;
use pipeline::calibrate::Calibrator;
use pipeline::{Model, Plan, Request, TextToImage, Watch};
use quant::calibration::{Calibration, Header};
use tensor::{Cpu, Precision};

use super::{drawing, engine, moments};
use crate::args;
use crate::output::{self, Target};
use crate::report::{self, Details, Progress};

/// How long work may be lost if it is interrupted.
const KEEP_EVERY: Duration = Duration::from_secs(5);

/// Set by Ctrl-C; looked at before every operation.
static CANCEL: AtomicBool = AtomicBool::new(false);

/// Find the ranges of what was named.
pub(crate) fn run(args: &args::Calibrate) -> Result<()> {
    let target = Target::new(&args.output);
    ensure!(target != Target::Stdout, "-o must name a file, so that interrupted work can go on");
    target.check()?;
    ctrlc::set_handler(|| CANCEL.store(true, Ordering::Relaxed)).context("cannot catch Ctrl-C")?;
    let cpu = engine::cpu(args.threads)?;
    let request = drawing::pictures(&args.pictures(), 0)?;
    if args.moments {
        let model = engine::original(&args.source, &cpu)?;
        let found = moments::measure((&request, None), (&args.output, &CANCEL), (&model, &cpu))?;
        report::say(&format!("what layers read in {} pictures", found.header.done));
        return Ok(());
    }
    let model = engine::model(&args.source)?;
    let negative = args.negative_prompt.clone();
    let request = Request { negative, ..request };
    let found = measure(&request, (&args.output, &CANCEL), (&model, &cpu))?;
    report::say(&summary(&found));
    Ok(())
}

/// Draw and look into a file, or go on where that was interrupted.
pub(crate) fn measure(
    request: &Request,
    (path, cancel): (&Path, &AtomicBool),
    (model, cpu): (&Model, &Cpu),
) -> Result<Calibration> {
    let progress = Progress::new(Details::None);
    let observer = |event| progress.tell(event);
    let watch = Watch { cancel: Some(cancel), observer: Some(&observer), ..Watch::default() };
    let plan = Plan::float(Precision::F32);
    let pipeline = TextToImage::new(cpu, model, &plan);
    let mut calibrator = Calibrator::new(&pipeline, request, &watch)?;
    let header = calibrator.header(&pipeline)?;
    if let Some(done) = Calibration::read(path).ok().filter(|done| done.header.goes_with(&header)) {
        return Ok(done);
    }
    let unfinished = unfinished(path);
    if let Some(before) = found(&unfinished, &header) {
        calibrator.resume(&before);
    }
    let total = request.total();
    let (mut last, start) = (Instant::now(), Instant::now());
    let first = calibrator.found(&header).header.done;
    let mut done = first;
    while done < total {
        progress.work("calibrate", done, total);
        done = calibrator.advance()?;
        if done == first + 1 {
            let left = start.elapsed() * (total - done) as u32;
            report::say(&format!(
                "{total} pictures, {} to go: about {}",
                total - done,
                HumanDuration(left)
            ));
        }
        if last.elapsed() > KEEP_EVERY && done < total {
            output::save(&unfinished, calibrator.found(&header).to_text().as_bytes())?;
            last = Instant::now();
        }
    }
    progress.finish();
    let found = calibrator.found(&header);
    output::save(path, found.to_text().as_bytes())?;
    // What is finished needs it no more; that it may never have been there is no fault.
    let _ = std::fs::remove_file(&unfinished);
    Ok(found)
}

/// A file of ranges, if it is of this model.
pub(crate) fn of_model(path: &Path, model: &Model) -> Result<Calibration> {
    let found = Calibration::read(path)?;
    ensure!(
        found.header.fingerprint == model.fingerprint()?,
        "{} was found on other weights than those of {}; run `mixdq calibrate` on this model",
        path.display(),
        model.name
    );
    Ok(found)
}

/// What was found, on one line.
fn summary(found: &Calibration) -> String {
    let layers = found.seen.iter().map(|seen| seen.reads.split(':').next());
    let layers: std::collections::BTreeSet<_> = layers.collect();
    let first = found.first_token_ratio().map_or(String::new(), |ratio| {
        format!("; the first token of texts is {ratio:.1} times as large as all others")
    });
    format!("{} layers over {} pictures{first}", layers.len(), found.header.done)
}

/// Where unfinished work is kept.
fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    path.with_file_name(name)
}

/// Unfinished work on the same pictures.
fn found(path: &Path, header: &Header) -> Option<Calibration> {
    let found = Calibration::from_text(&std::fs::read_to_string(path).ok()?).ok()?;
    found.header.goes_with(header).then_some(found)
}
