//! Packed models: bytes, memory and steps of each scheme, timed in turn.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::readings::{Readings, median};
use super::server::Server;
use super::{Options, inputs, picture};
use crate::command::{build, capture, program};
use crate::console::say;

const RUNS: usize = 5;

/// Schemes by the flags of `mixdq quantize`.
const SCHEMES: [(&str, [&str; 4]); 4] = [
    ("w8a8", ["--weights", "8", "--acts", "8"]),
    ("w4a8", ["--weights", "4", "--acts", "8"]),
    ("w2a8", ["--weights", "2", "--acts", "8"]),
    ("w4a16", ["--weights", "4", "--acts", "16"]),
];

/// SD-Turbo's shape. Reads times of steps as ratios (`w4a8_of_w8a8`, `w2a8_of_w8a8`, `w4a16_of_bf16`, `w8a8_of_bf16`),
/// `step_over` (peak memory of a step beyond the stored UNet, MB), `dirty_over` (private dirty memory of a second
/// process beyond its arena, MB), `first_step` (seconds that the first step takes beyond a later one) and
/// `quantize_peak` (MB).
pub(super) fn readings(options: &Options) -> Result<Readings> {
    let folder = picture::folder(options, "sd-turbo")?;
    let inputs = options.models.join("sd-turbo-step.safetensors");
    inputs::write(&inputs)?;
    let binary = build(&["--release"])?;
    let (mut steps, mut readings) = (Vec::new(), Readings::default());
    let (mut peak, mut over, mut first) = (0.0_f64, f64::NEG_INFINITY, f64::NEG_INFINITY);
    let mut files = Vec::new();
    for (name, words) in SCHEMES {
        let (file, most) = pack(options, &binary, (&folder, "sd-turbo"), (name, &words))?;
        peak = peak.max(most);
        files.push((name, file));
    }
    let models = files.iter().map(|(name, file)| (*name, file)).chain([("bf16", &folder)]);
    for (name, model) in models {
        let mut server = Server::start(&binary, model, &inputs, 2)?;
        let cold = server.step()?;
        let seconds: Vec<f64> = (0..RUNS).map(|_| server.step()).collect::<Result<_>>()?;
        if name != "bf16" {
            first = first.max(cold - median(seconds));
        }
        steps.push((name, server, Vec::new()));
    }
    for _ in 0..RUNS {
        for (_, server, seconds) in &mut steps {
            seconds.push(server.step()?);
        }
    }
    for ((name, file), (_, server, ..)) in files.iter().zip(&steps) {
        let stored = stored(file, "unet")?;
        let most = server.memory("status", "VmHWM:")?;
        say(&format!("  {name}: stored {stored:.0} MB, peak of a step {most:.0} MB"));
        over = over.max(most - stored);
    }
    let second = {
        let mut server = Server::start(&binary, &files[0].1, &inputs, 2)?;
        server.step()?;
        server.memory("smaps_rollup", "Private_Dirty:")?
    };
    let time = |wanted: &str| {
        let found = steps.iter().find(|(name, ..)| *name == wanted);
        found.map_or(f64::NAN, |(.., seconds)| median(seconds.clone()))
    };
    for (name, ..) in &steps {
        say(&format!("  {name}: {:.3} s", time(name)));
    }
    readings.set("w8a8_of_bf16", time("w8a8") / time("bf16"));
    readings.set("w4a8_of_w8a8", time("w4a8") / time("w8a8"));
    readings.set("w2a8_of_w8a8", time("w2a8") / time("w8a8"));
    readings.set("w4a16_of_bf16", time("w4a16") / time("bf16"));
    readings.set("step_over", over);
    readings.set("dirty_over", second - arena(&binary, &files[0].1)?);
    readings.set("first_step", first);
    readings.set("quantize_peak", peak);
    Ok(readings)
}

/// SDXL's shape. Reads `w8` and `w4`, the stored UNet in MiB, and `quantize_peak` in MB.
pub(super) fn sdxl(options: &Options) -> Result<Readings> {
    let folder = picture::folder(options, "sdxl-turbo")?;
    let binary = build(&["--release"])?;
    let mut readings = Readings::default();
    let mut peak = 0.0_f64;
    for (reading, (name, words)) in [("w8", SCHEMES[0]), ("w4", SCHEMES[1])] {
        let (file, most) = pack(options, &binary, (&folder, "sdxl-turbo"), (name, &words))?;
        peak = peak.max(most);
        readings.set(reading, stored(&file, "unet")? * 1e6 / f64::from(1 << 20));
    }
    readings.set("quantize_peak", peak);
    Ok(readings)
}

/// A packed model of this family in `w8a8`.
pub(super) fn w8a8(options: &Options, family: &str) -> Result<PathBuf> {
    uniform(options, family, 0)
}

/// A packed model of this family in `w4a8`.
pub(super) fn w4a8(options: &Options, family: &str) -> Result<PathBuf> {
    uniform(options, family, 1)
}

fn uniform(options: &Options, family: &str, scheme: usize) -> Result<PathBuf> {
    let folder = picture::folder(options, family)?;
    let binary = build(&["--release"])?;
    let (name, words) = SCHEMES[scheme];
    Ok(pack(options, &binary, (&folder, family), (name, &words))?.0)
}

/// Pack a model beside its folder; the file, and the peak memory of packing in MB.
pub(super) fn pack(
    options: &Options,
    binary: &Path,
    (folder, family): (&Path, &str),
    (name, words): (&str, &[&str]),
) -> Result<(PathBuf, f64)> {
    let file = options.models.join(format!("{family}-{name}.mixdq"));
    let mut command = program(binary, &["quantize"]);
    command.args(words).args(["-t", "2", "-m"]).arg(folder).arg("-o").arg(&file);
    let child = command.stderr(Stdio::null()).spawn()?;
    let peak = picture::watch(&child);
    let status = child.wait_with_output()?.status;
    ensure!(status.success(), "mixdq quantize failed on {}", folder.display());
    Ok((file, peak))
}

/// Bytes of a component in a packed file, in MB.
fn stored(file: &Path, component: &str) -> Result<f64> {
    use std::io::Read;
    let mut input = std::fs::File::open(file)?;
    let mut length = [0; 8];
    input.read_exact(&mut length)?;
    let mut header = vec![0; usize::try_from(u64::from_le_bytes(length))?];
    input.read_exact(&mut header)?;
    let header: serde_json::Map<String, Value> = serde_json::from_slice(&header)?;
    let prefix = format!("{component}/");
    let bytes = |entry: &Value| -> Option<f64> {
        let [from, to] = entry["data_offsets"].as_array()?.as_slice() else { return None };
        Some(to.as_f64()? - from.as_f64()?)
    };
    let own = header.iter().filter(|(name, _)| name.starts_with(&prefix));
    Ok(own.filter_map(|(_, entry)| bytes(entry)).sum::<f64>() / 1e6)
}

/// The arena of a UNet step as `mixdq inspect` plans it, in MB.
fn arena(binary: &Path, model: &Path) -> Result<f64> {
    let output = capture(program(binary, &["inspect", "-t", "2"]).arg(model))?;
    // The second table that names the UNet is the memory plan: weights, arena, peak in MiB.
    let mut rows = output.out.lines().filter(|line| line.starts_with("unet "));
    let plan = rows.next_back().context("mixdq inspect printed no plan")?;
    let words: Vec<&str> = plan.split_whitespace().collect();
    let mib: f64 = words.get(2).context("the plan has no arena")?.parse()?;
    Ok(mib * f64::from(1 << 20) / 1e6)
}
