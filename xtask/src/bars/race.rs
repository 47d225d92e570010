//! Speed against OpenVINO, timed in turn by the scripts in `tools/peers`.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::Options;
use super::readings::Readings;
use crate::command::{build, capture, program, root};
use crate::console::say;

/// Runs the script for one component and precision, on SD-Turbo's shape; reads `ratio`, our time divided by OpenVINO's.
pub(super) fn readings(options: &Options, [script, precision]: [&str; 2]) -> Result<Readings> {
    raced(options, "sd-turbo", [script, precision, precision])
}

/// Runs a UNet step in `w8a8` against OpenVINO in another precision; reads `ratio`.
pub(super) fn against(options: &Options, [family, theirs]: [&str; 2]) -> Result<Readings> {
    raced(options, family, ["unet_step", "w8a8", theirs])
}

fn raced(
    options: &Options,
    family: &str,
    [script, precision, theirs]: [&str; 3],
) -> Result<Readings> {
    let python = root().join("tools/.venv/bin/python");
    ensure!(python.exists(), "the peers are not installed: tools/peers/setup");
    let folder = super::picture::folder(options, family)?;
    let binary = build(&["--release"])?;
    let ours = match precision {
        "w8a8" => format!("-m {}", super::packed::w8a8(options, family)?.display()),
        _ => "-m {model} --precision {precision}".to_owned(),
    };
    let ours = format!(
        "{} bench {{component}} {ours} -t {{threads}} --inputs {{inputs}} --save {{save}} --serve",
        binary.display()
    );
    let mut command = program(python, &[&format!("tools/peers/{script}.py")]);
    command.arg(folder).args(["--precisions", precision, "--against", theirs, "--ours", &ours]);
    if precision == "w8a8" {
        // PyTorch has nothing of the kind.
        command.args(["--peers", "openvino"]);
    }
    let output = capture(&mut command)?;
    let row = output.out.lines().find_map(|line| serde_json::from_str::<Value>(line).ok());
    let Some(row) = row else {
        let last = output.err.lines().last().unwrap_or("no message");
        bail!("{script}.py failed: {last}");
    };
    for line in output.out.lines().filter(|line| !line.starts_with('{')) {
        say(&format!("  {line}"));
    }
    say(&format!("  agreement in dB: {}", row["sqnr"]));
    let faults = row["void"].as_array().cloned().unwrap_or_default();
    ensure!(faults.is_empty(), "the comparison is void: {}", Value::Array(faults));
    let mut readings = Readings::default();
    readings.set("ratio", row["ratio"].as_f64().context("the script gave no ratio")?);
    Ok(readings)
}
