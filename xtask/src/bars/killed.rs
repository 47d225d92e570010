//! `quantize` on the bundled model, from nothing to its report; and the same killed again and again.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Options;
use super::readings::Readings;
use crate::command::{build, program};
use crate::console::say;

/// How often it is killed.
const KILLS: usize = 10;

/// The longest that a run may live before that, as a part of what the whole takes.
const LIFE: f64 = 0.16;

/// Reads `minutes` of `quantize --target w4a8`, and `differ`: whether its file is another one after kills at random moments.
pub(super) fn readings(options: &Options) -> Result<Readings> {
    let binary = build(&["--release"])?;
    let folder = options.models.join("killed");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let [once, again] = ["once.mixdq", "again.mixdq"].map(|name| folder.join(name));
    let quantize = |packed: &Path| -> Command {
        let mut command = program(&binary, &["quantize", "--target", "w4a8", "-t", "2", "-o"]);
        command.arg(packed).stdin(Stdio::null()).stderr(Stdio::null());
        command
    };
    let finish = |packed: &Path| -> Result<()> {
        let status = quantize(packed).status().context("cannot start mixdq")?;
        ensure!(status.success(), "mixdq quantize failed");
        let report = packed.with_extension("work").join("report.html");
        ensure!(report.exists(), "{} was not written", report.display());
        Ok(())
    };
    let start = Instant::now();
    finish(&once)?;
    let whole = start.elapsed();
    let differs = || -> Result<bool> { Ok(fs::read(&once)? != fs::read(&again)?) };
    let (mut kills, mut differ) = (0, false);
    while kills < KILLS {
        let life = whole.mul_f64(LIFE * random());
        if killed_after(&mut quantize(&again), life)? {
            say(&format!("  killed after {:.1} s", life.as_secs_f64()));
            kills += 1;
        } else {
            // The machine is faster by now: it ended, and starts from nothing.
            differ |= differs()?;
            fs::remove_file(&again)?;
            fs::remove_dir_all(again.with_extension("work"))?;
        }
    }
    finish(&again)?;
    differ |= differs()?;
    let mut readings = Readings::default();
    readings.set("minutes", whole.as_secs_f64() / 60.0);
    readings.set("differ", f64::from(differ));
    Ok(readings)
}

/// Let it run for a while: whether it had to be killed.
fn killed_after(command: &mut Command, life: Duration) -> Result<bool> {
    let mut child = command.spawn().context("cannot start mixdq")?;
    thread::sleep(life);
    let ended = child.try_wait()?;
    ensure!(ended.is_none_or(|status| status.success()), "mixdq quantize failed");
    if ended.is_some() {
        return Ok(false);
    }
    child.kill()?;
    child.wait()?;
    Ok(true)
}

/// From zero to one, another one each time.
fn random() -> f64 {
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}
