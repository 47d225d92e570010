//! A model → what its layers read, as second moments by which weights are rounded.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use indicatif::HumanDuration;
use pipeline::moments::{Found, Gatherer};
use pipeline::{Model, Plan, Request, TextToImage, Watch};
use tensor::{Cpu, Precision};

use crate::output;
use crate::report::{self, Details, Progress};

/// How long work may be lost if it is interrupted.
const KEEP_EVERY: Duration = Duration::from_secs(30);

/// Draw into a file, or go on where that was interrupted: all pictures of a request, or as many as there is time for.
pub(crate) fn measure(
    (request, time): (&Request, Option<Duration>),
    (path, cancel): (&Path, &AtomicBool),
    (model, cpu): (&Model, &Cpu),
) -> Result<Found> {
    let plan = Plan::float(Precision::F32);
    let pipeline = TextToImage::new(cpu, model, &plan);
    let mut gatherer = Gatherer::new(&pipeline, request)?;
    if path.exists() {
        let there = Found::read(path)?;
        if time.is_some() && there.is_whole() && gatherer.begins_with(&there) {
            // Drawing more would be to measure all anew that was measured with it.
            return Ok(there);
        }
        gatherer = gatherer.after(there);
    }
    let progress = Progress::new(Details::None);
    let observer = |event| progress.tell(event);
    let watch = Watch { cancel: Some(cancel), observer: Some(&observer), ..Watch::default() };
    let (first, total) = (gatherer.found().header.done, request.total());
    let (start, mut kept) = (Instant::now(), Instant::now());
    while !gatherer.found().is_whole() {
        let before = gatherer.found().header.done;
        progress.work("calibrate", before, total);
        let done = gatherer.advance(&watch)?;
        if done < total && time.is_some_and(|time| start.elapsed() > time) {
            gatherer = gatherer.that_is_all();
            report::say(&format!("what layers read: {done} pictures fit the time"));
        } else if before == first && done < total {
            let left = start.elapsed().mul_f64((total - done) as f64 / (done - first) as f64);
            let left = time.map_or(left, |time| left.min(time.saturating_sub(start.elapsed())));
            report::say(&format!(
                "what layers read: {total} pictures, {} to go: about {}",
                total - done,
                HumanDuration(left)
            ));
        }
        if gatherer.found().is_whole() || kept.elapsed() > KEEP_EVERY {
            keep(gatherer.found(), path)?;
            kept = Instant::now();
        }
    }
    progress.finish();
    // From the file, where sums take no memory.
    drop(gatherer);
    os::return_freed();
    Ok(Found::read(path)?)
}

/// Write what was found so far in place of what was there.
fn keep(found: &Found, path: &Path) -> Result<()> {
    let file = output::temporary(path)?;
    let permissions = file.as_file().metadata()?.permissions();
    found.write(file.path()).with_context(|| output::failed(path))?;
    fs::set_permissions(file.path(), permissions)?;
    output::keep(file, path)
}

/// A file of what layers read, if it is of this model and whole.
pub(crate) fn of_model(path: &Path, model: &Model) -> Result<Found> {
    let found = Found::read(path)?;
    ensure!(
        found.header.fingerprint == model.fingerprint()?,
        "{} was found on other weights than those of {}; run `mixdq calibrate --moments` on this \
         model",
        path.display(),
        model.name
    );
    ensure!(
        found.is_whole(),
        "{} has {} of {} pictures; run the command that began it again, to the end",
        path.display(),
        found.header.done,
        found.header.total()
    );
    Ok(found)
}
