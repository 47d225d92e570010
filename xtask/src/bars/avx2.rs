//! What whole numbers bring where the instruction set is AVX2, as on most laptops.

use anyhow::Result;

use super::readings::{Readings, median};
use super::server::Server;
use super::{Options, inputs, packed, picture};
use crate::command::build;
use crate::console::say;

const WARM_UPS: usize = 2;
const RUNS: usize = 7;

/// SD-Turbo's shape, the instruction set forced to AVX2. Reads times of a step divided by that in `f32`: `w8a8` and
/// `w4a8`.
pub(super) fn readings(options: &Options) -> Result<Readings> {
    let folder = picture::folder(options, "sd-turbo")?;
    let inputs = options.models.join("sd-turbo-step.safetensors");
    inputs::write(&inputs)?;
    let binary = build(&["--release"])?;
    let models = [folder, packed::w8a8(options, "sd-turbo")?, packed::w4a8(options, "sd-turbo")?];
    let mut servers = Vec::new();
    for model in &models {
        servers.push((Server::at_level(&binary, model, &inputs, "avx2")?, Vec::new()));
    }
    for turn in 0..WARM_UPS + RUNS {
        for (server, seconds) in &mut servers {
            let step = server.step()?;
            if turn >= WARM_UPS {
                seconds.push(step);
            }
        }
    }
    let times: Vec<f64> = servers.into_iter().map(|(_, seconds)| median(seconds)).collect();
    let [f32, w8a8, w4a8] = times[..] else { unreachable!("a time for each model") };
    say(&format!("  avx2: f32 {f32:.3} s, w8a8 {w8a8:.3} s, w4a8 {w4a8:.3} s"));
    let mut readings = Readings::default();
    readings.set("w8a8", w8a8 / f32);
    readings.set("w4a8", w4a8 / f32);
    Ok(readings)
}
