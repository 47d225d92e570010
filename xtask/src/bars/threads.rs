//! What a second thread brings, and what a busy neighbour costs.

use anyhow::Result;

use super::neighbour::Neighbour;
use super::readings::{Readings, median};
use super::server::Server;
use super::{Options, inputs, picture};
use crate::command::build;
use crate::console::say;

const WARM_UPS: usize = 2;
const RUNS: usize = 7;

/// Reads `two_of_one`, the time of a step on two threads divided by that on one, and `spinning`,
/// the time on two threads beside a spinning process divided by that without.
pub(super) fn readings(options: &Options) -> Result<Readings> {
    let folder = picture::folder(options, "sd-turbo")?;
    let inputs = options.models.join("sd-turbo-step.safetensors");
    inputs::write(&inputs)?;
    let binary = build(&["--release"])?;
    let mut two = Server::start(&binary, &folder, &inputs, 2)?;
    let mut one = Server::start(&binary, &folder, &inputs, 1)?;
    let mut seconds: [Vec<f64>; 3] = Default::default();
    for turn in 0..WARM_UPS + RUNS {
        let idle = two.step()?;
        let single = one.step()?;
        let beside = {
            let _neighbour = Neighbour::start()?;
            two.step()?
        };
        if turn >= WARM_UPS {
            for (all, value) in seconds.iter_mut().zip([idle, single, beside]) {
                all.push(value);
            }
        }
    }
    let [idle, single, beside] = seconds.map(median);
    say(&format!(
        "  two threads {idle:.3} s, one {single:.3} s, two beside a spinner {beside:.3} s"
    ));
    let mut readings = Readings::default();
    readings.set("two_of_one", idle / single);
    readings.set("spinning", beside / idle);
    Ok(readings)
}
