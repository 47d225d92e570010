//! Mixed formats on the bundled model: what measuring gains over the same bits everywhere.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Options;
use super::readings::Readings;
use crate::command::{build, program, read, root};
use crate::console::say;

/// Targets, and the uniform scheme beside each.
const TARGETS: [(&str, &str); 4] =
    [("w8a8", "w8a8"), ("w5a8", "w4a8"), ("w4a8", "w4a8"), ("w3.66a16", "w4a16")];

/// Prompts that show what layers read, those that `quantize` draws in all, and those that are drawn here.
const CALIBRATED: &str = "76";
const USED: &str = "100";
const DRAWN: &str = "1000";

/// Reads, for `w4a8` over 1,000 prompts that nothing was chosen by: `bytes` (of the uniform plan's file), `ssim` and `sqnr`
/// (gains over the uniform plan, SSIM and dB of latents), `w8a8` and `w4a8` (SSIM), and `minutes` of the slowest `quantize`.
pub(super) fn readings(options: &Options) -> Result<Readings> {
    let binary = build(&["--release"])?;
    let model = root().join("models/pocket-turbo");
    let prompts = model.join("prompts.txt");
    let words = |path: &Path| path.display().to_string();
    let (model, prompts) = (words(&model), words(&prompts));
    // What an earlier run measured would make this one look faster.
    let folder = options.models.join("mixed");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    let mut readings = Readings::default();
    let mut slowest = 0.0_f64;
    for (target, uniform) in TARGETS {
        let packed = words(&folder.join(format!("{target}.mixdq")));
        let start = Instant::now();
        read(&mut program(
            &binary,
            &[
                "quantize",
                "-m",
                &model,
                "--prompts",
                &prompts,
                "--target",
                target,
                "-o",
                &packed,
                "--calibration-prompts",
                CALIBRATED,
                "-t",
                "2",
            ],
        ))?;
        slowest = slowest.max(start.elapsed().as_secs_f64() / 60.0);
        let found = read(&mut program(
            &binary,
            &[
                "evaluate",
                "-m",
                &packed,
                "-r",
                &model,
                "--prompts",
                &prompts,
                "--skip",
                USED,
                "--count",
                DRAWN,
                "-b",
                "1",
                "--beside",
                uniform,
                "--json",
                "-",
                "-t",
                "2",
            ],
        ))?;
        let found: Value = serde_json::from_str(&found).context("evaluate writes JSON")?;
        let of = |contender: usize, field: &str| -> f64 {
            let contender = &found["contenders"][contender];
            let value =
                if field == "bytes" { &contender["bytes"] } else { &contender["mean"][field] };
            value.as_f64().unwrap_or(f64::NAN)
        };
        for (contender, name) in [(1, format!("uniform {uniform}")), (2, target.to_owned())] {
            let [ssim, psnr, sqnr] = ["ssim", "psnr", "sqnr"].map(|field| of(contender, field));
            let mb = of(contender, "bytes") / 1e6;
            say(&format!(
                "  {name:<16} SSIM {ssim:.4}, PSNR {psnr:.2} dB, latents {sqnr:.2} dB, {mb:.2} MB"
            ));
        }
        readings.set(target, of(2, "ssim"));
        if target == "w4a8" {
            readings.set("bytes", of(2, "bytes") / of(1, "bytes"));
            readings.set("ssim", of(2, "ssim") - of(1, "ssim"));
            readings.set("sqnr", of(2, "sqnr") - of(1, "sqnr"));
        }
    }
    readings.set("minutes", slowest);
    Ok(readings)
}
