//! What the whole is for: SDXL's shape in 4 and 8 bits beside our own bf16.

use std::fs;
use std::path::Path;

use anyhow::Result;

use super::readings::{Readings, median};
use super::{Options, packed, picture};
use crate::command::build;
use crate::console::say;

const RUNS: usize = 3;

/// Weights of 4 bits in all components. A plan of `quantize --target w4a8` has as many on average; which layers get them
/// changes pictures, not what they cost.
const PLAN: &str = "version = 1\n\
    [text_encoder]\ndefault = \"w4a8\"\n[text_encoder_2]\ndefault = \"w4a8\"\n\
    [unet]\ndefault = \"w4a8\"\nattention = \"a8\"\n[vae]\ndefault = \"w4a8\"\n";

/// Components whose weights are counted in the original's folder.
const COMPONENTS: [&str; 4] = ["unet", "text_encoder", "text_encoder_2", "vae"];

/// SDXL's shape, a picture of 512×512 in one step. Reads of `w4a8` how many times it is smaller than the folder in f16
/// (`smaller`), takes less memory (`leaner`) and less time (`faster`) than the folder in bf16, in turn; and of `w8a8` how
/// many times it is smaller (`smaller_w8`).
pub(super) fn readings(options: &Options) -> Result<Readings> {
    let folder = picture::folder(options, "sdxl-turbo")?;
    let binary = build(&["--release"])?;
    let plan = options.models.join("w4a8-everywhere.toml");
    fs::write(&plan, PLAN)?;
    let plan = plan.display().to_string();
    let w4 = packed::pack(options, &binary, (&folder, "sdxl-turbo"), ("w4", &["--plan", &plan]))?.0;
    let w8 = packed::w8a8(options, "sdxl-turbo")?;
    let image = options.models.join("mission.png");
    let mut runs = [Vec::new(), Vec::new()];
    for turn in 0..=RUNS {
        for (model, runs) in [&folder, &w4].into_iter().zip(&mut runs) {
            let run = picture::draw(&binary, model, &image)?;
            // The first ones bring the files into the page cache.
            if turn > 0 {
                runs.push(run);
            }
        }
    }
    let of = |read: fn(&picture::Run) -> f64| {
        runs.each_ref().map(|r| median(r.iter().map(read).collect()))
    };
    let ([wall, wall_w4], [peak, peak_w4]) = (of(|run| run.wall), of(|run| run.peak));
    let original: u64 =
        COMPONENTS.iter().map(|name| picture::weights(&folder.join(name))).sum::<Result<u64>>()?;
    let bytes = |path: &Path| -> Result<f64> { Ok(fs::metadata(path)?.len() as f64) };
    let (original, w4, w8) = (original as f64, bytes(&w4)?, bytes(&w8)?);
    say(&format!(
        "  f16 folder {:.0} MB, w4a8 {:.0} MB, w8a8 {:.0} MB",
        original / 1e6,
        w4 / 1e6,
        w8 / 1e6
    ));
    say(&format!("  bf16 {wall:.2} s, {peak:.0} MB; w4a8 {wall_w4:.2} s, {peak_w4:.0} MB"));
    let mut readings = Readings::default();
    readings.set("smaller", original / w4);
    readings.set("smaller_w8", original / w8);
    readings.set("leaner", peak / peak_w4);
    readings.set("faster", wall / wall_w4);
    Ok(readings)
}
