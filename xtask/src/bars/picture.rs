//! Drawing with a full-size model: the picture, the memory and the time of the whole process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::Options;
use super::readings::{Readings, median};
use crate::command::{build, program};
use crate::console::say;
use crate::{model, picture::Picture};

const RUNS: usize = 3;

/// Draws at 512×512 in bf16 and reads `deviation` of the picture (of 255), `over_largest` (peak
/// memory less the largest component's f16 bytes, MB) and `overhead` (seconds of the process beyond 1.1 times those of
/// its phases).
pub(super) fn readings(options: &Options, family: &str) -> Result<Readings> {
    let folder = folder(options, family)?;
    let binary = build(&["--release"])?;
    let picture = options.models.join(format!("{family}.png"));
    // The first run brings the files into the page cache.
    draw(&binary, &folder, &picture)?;
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        runs.push(draw(&binary, &folder, &picture)?);
    }
    let peak = runs.iter().map(|run| run.peak).fold(0.0, f64::max);
    let largest = largest_component(&folder)?;
    let wall = median(runs.iter().map(|run| run.wall).collect());
    let phases = median(runs.iter().map(|run| run.phases).collect());
    say(&format!(
        "  {family}: {wall:.2} s, phases {phases:.2} s, peak {peak:.0} MB, largest {largest:.0} MB"
    ));
    let mut readings = Readings::default();
    readings.set("deviation", Picture::open(&picture)?.deviation());
    readings.set("over_largest", peak - largest);
    readings.set("overhead", median(runs.iter().map(|run| run.wall - 1.1 * run.phases).collect()));
    Ok(readings)
}

/// The model's folder; the model is written if it is not there.
pub(super) fn folder(options: &Options, family: &str) -> Result<PathBuf> {
    let folder = options.models.join(family);
    if !folder.join("model_index.json").exists() {
        model::write(family, &folder)?;
    }
    Ok(folder)
}

/// One run of the program: seconds in all, seconds of its phases, peak memory in MB.
pub(super) struct Run {
    pub(super) wall: f64,
    phases: f64,
    pub(super) peak: f64,
}

/// Draw with a folder or a packed file.
pub(super) fn draw(binary: &Path, folder: &Path, picture: &Path) -> Result<Run> {
    let mut command = program(binary, &["generate", "-p", "a lighthouse at dawn", "-v"]);
    command.args(["-W", "512", "-H", "512", "--steps", "1", "-s", "0", "-t", "2"]);
    command.args(["--precision", "bf16", "-m"]).arg(folder).arg("-o").arg(picture);
    let start = Instant::now();
    let child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let seen = watch(&child);
    let output = child.wait_with_output()?;
    let wall = start.elapsed().as_secs_f64();
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("mixdq generate failed: {}", text.lines().last().unwrap_or("no message"));
    }
    let phases = phases(&text);
    ensure!(phases.len() >= 3, "mixdq generate -v printed no seconds for text, step and vae");
    // Its own word counts where the last look came too early.
    let peak = own_peak(&text).unwrap_or_default().max(seen);
    Ok(Run { wall, phases: phases.iter().sum(), peak })
}

/// Looks at the process until it ends; the highest `VmHWM` in MB.
pub(super) fn watch(child: &Child) -> f64 {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0.0;
    while let Some(kib) = fs::read_to_string(&status).ok().as_deref().and_then(high_water) {
        peak = kib * 1024.0 / 1e6;
        std::thread::sleep(Duration::from_millis(20));
    }
    peak
}

/// `VmHWM` in KiB; a process that has ended has none.
fn high_water(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Seconds of the text encoders, of each step and of the VAE.
fn phases(text: &str) -> Vec<f64> {
    let counts = |line: &&str| ["text ", "step ", "vae "].iter().any(|name| line.starts_with(name));
    text.lines().filter(counts).filter_map(|line| before(line, "s")).collect()
}

fn own_peak(text: &str) -> Option<f64> {
    text.lines().filter_map(|line| before(line, "MB")).reduce(f64::max)
}

/// The number in front of the word `unit`.
fn before(line: &str, unit: &str) -> Option<f64> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let place = words.iter().position(|word| *word == unit)?;
    words.get(place.checked_sub(1)?)?.parse().ok()
}

/// Bytes of the largest component's weights, in MB; they are f16 in these models.
fn largest_component(folder: &Path) -> Result<f64> {
    let mut largest = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            largest = largest.max(weights(&entry.path())?);
        }
    }
    ensure!(largest > 0, "{} holds no weights", folder.display());
    Ok(largest as f64 / 1e6)
}

/// Bytes of the weights in a folder.
pub(super) fn weights(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "safetensors") {
            let data = fs::metadata(&path);
            sum += data.with_context(|| format!("cannot read {}", path.display()))?.len();
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "text      0.41 s   peak 812 MB\nstep 1/1  2.03 s\n\
        denoise   2.30 s   peak 1712 MB\nvae       5.10 s   peak 1203 MB\n\
        total     8.00 s   peak 1712 MB\n";

    #[test]
    fn seconds_and_memory_are_read_from_what_is_said() {
        assert_eq!(phases(SAID), [0.41, 2.03, 5.10]);
        assert_eq!(own_peak(SAID), Some(1712.0));
        assert_eq!(high_water("Name:\tx\nVmHWM:\t  2048 kB\n"), Some(2048.0));
    }
}
