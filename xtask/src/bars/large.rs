//! SDXL's shape, measured and quantized: what it takes, and whether parts of the work come to the same as the whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::hard_limit::HardLimit;
use super::readings::Readings;
use super::{Options, picture};
use crate::command::{build, program};
use crate::console::say;

/// Memory of all kinds that `quantize` may take.
const LIMIT: u64 = 6_500_000_000;

/// Layers of the UNet that are measured, on a picture of so many pixels a side, and in how many parts. Of larger pictures the
/// decoder takes most of the time, which nothing can be kept of.
const LAYERS: &str = "40";
const SIDE: &str = "256";
const SHARDS: usize = 4;

/// `quantize --target w4a8 --time 2h` from nothing to the packed file and its report, under a limit from outside: `hours`, and
/// `peak` (GB).
pub(super) fn target(options: &Options) -> Result<Readings> {
    let folder = picture::folder(options, "sdxl-turbo")?;
    let binary = build(&["--release"])?;
    let packed = options.models.join("sdxl-target.mixdq");
    let work = packed.with_extension("work");
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    let limit = HardLimit::new(LIMIT);
    say(&format!("  under a {} of {LIMIT} bytes", limit.name()));
    let mut command = limit.program(&binary);
    command.args(["quantize", "--target", "w4a8", "--time", "2h", "-t", "2", "-m"]).arg(&folder);
    let start = Instant::now();
    let mut child = command.arg("-o").arg(&packed).stdin(Stdio::null()).spawn()?;
    let peak = picture::watch(&child);
    ensure!(child.wait()?.success(), "mixdq quantize failed");
    let hours = start.elapsed().as_secs_f64() / 3600.0;
    for file in [&packed, &work.join("report.html"), &work.join("report.json")] {
        ensure!(file.exists(), "{} was not written", file.display());
    }
    let mut readings = Readings::default();
    readings.set("hours", hours);
    readings.set("peak", peak / 1000.0);
    Ok(readings)
}

/// Some layers' effects on one picture: `differ`, how many of the files that should be the same are not (shards that were put
/// together, and a measurement that keeps nothing of what comes before a layer), and `faster`, how many times the time that
/// takes keeping saves.
pub(super) fn layers(options: &Options) -> Result<Readings> {
    let folder = picture::folder(options, "sdxl-turbo")?;
    let binary = build(&["--release"])?;
    let place = options.models.join("sdxl-layers");
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    fs::create_dir_all(&place)?;
    let run = Sensitivity { binary: &binary, folder: &folder, place: &place };
    let (whole, kept) = run.measure("whole", &[])?;
    let (anew, computed) = run.measure("anew", &["--no-prefix-cache"])?;
    let shards = (1..=SHARDS).map(|number| {
        let shard = format!("{number}/{SHARDS}");
        Ok(run.measure(&number.to_string(), &["--shard", &shard])?.0)
    });
    let shards = shards.collect::<Result<Vec<PathBuf>>>()?;
    let merged = place.join("merged.jsonl");
    let mut command = program(&binary, &["sensitivity", "-o"]);
    command.arg(&merged).arg("--merge").args(&shards);
    ensure!(command.status()?.success(), "mixdq sensitivity --merge failed");
    let whole = fs::read(whole)?;
    let mut differ = 0;
    for other in [anew, merged] {
        differ += u8::from(fs::read(other)? != whole);
    }
    say(&format!("  {LAYERS} layers: {kept:.1} s, anew {computed:.1} s"));
    let mut readings = Readings::default();
    readings.set("differ", f64::from(differ));
    readings.set("faster", computed / kept);
    Ok(readings)
}

/// How layers are measured.
struct Sensitivity<'a> {
    binary: &'a Path,
    folder: &'a Path,
    place: &'a Path,
}

impl Sensitivity<'_> {
    /// The file of scores, and the seconds that measuring them took.
    fn measure(&self, name: &str, more: &[&str]) -> Result<(PathBuf, f64)> {
        let file = self.place.join(format!("{name}.jsonl"));
        let words = ["--components", "unet", "--layers", LAYERS, "--formats", "w4a8"];
        let words = [&words[..], &["-W", SIDE, "-H", SIDE]].concat();
        let mut command = program(self.binary, &["sensitivity", "--count", "1", "-b", "1"]);
        command.args(words).args(more).args(["-t", "2", "-m"]).arg(self.folder);
        let output = command.arg("-o").arg(&file).stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "mixdq sensitivity failed: {said}");
        Ok((file, seconds(&said).context("mixdq sensitivity said no seconds")?))
    }
}

/// The seconds in `measured in 12.3 s`.
fn seconds(said: &str) -> Option<f64> {
    let line = said.lines().find_map(|line| line.strip_prefix("measured in "))?;
    line.strip_suffix(" s")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_read_from_what_is_said() {
        assert_eq!(seconds("4 layers\nmeasured in 12.3 s\nmore\n"), Some(12.3));
        assert_eq!(seconds("measured in a while\n"), None);
    }
}
