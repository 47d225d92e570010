//! What uniform formats keep of the bundled model's latents.

use anyhow::{Context, Result};
use serde_json::Value;

use super::Options;
use super::readings::{Readings, median};
use crate::command::{build, program, read, root};
use crate::console::say;

/// Prompts that are drawn, after all by which weights are rounded.
const SKIPPED: &str = "600";
const DRAWN: &str = "500";

/// Reads `w8a8` and `w4a8`: the median of the latents' signal-to-noise ratio after one step, in decibels, packed with
/// calibrated rounding; beside them with rounding to the nearest. What is real is computed in `f32`.
pub(super) fn readings(options: &Options) -> Result<Readings> {
    let binary = build(&["--release"])?;
    let model = root().join("models/pocket-turbo");
    let prompts = model.join("prompts.txt").display().to_string();
    let (model, folder) = (model.display().to_string(), options.models.join("quality"));
    std::fs::create_dir_all(&folder)?;
    let at = |name: &str| folder.join(name).display().to_string();
    let (work, mut readings) = (at("work"), Readings::default());
    for (name, bits, rounding) in [
        ("w8a8", "8", "calibrated"),
        ("w4a8", "4", "calibrated"),
        ("nearest w8a8", "8", "nearest"),
        ("nearest w4a8", "4", "nearest"),
    ] {
        let packed = at(&format!("{name}.mixdq"));
        let common = ["-t", "2", "--prompts", &prompts];
        let words = ["quantize", "--rounding", rounding, "--weights", bits, "-m", &model];
        let mut more = vec!["-o", &packed];
        if rounding == "calibrated" {
            more.extend(["--work", &work]);
        }
        read(&mut program(&binary, &[&words[..], &common, &more].concat()))?;
        let words = ["evaluate", "-m", &packed, "-r", &model, "--precision", "f32", "-b", "1"];
        let more = ["--skip", SKIPPED, "--count", DRAWN, "--json", "-"];
        let found = read(&mut program(&binary, &[&words[..], &common, &more].concat()))?;
        let found: Value = serde_json::from_str(&found).context("evaluate writes JSON")?;
        let pictures = found["contenders"][1]["pictures"].as_array().context("pictures")?;
        let sqnr = median(pictures.iter().filter_map(|picture| picture["sqnr"].as_f64()).collect());
        say(&format!("  {name}: {sqnr:.2} dB"));
        readings.set(name, sqnr);
    }
    Ok(readings)
}
