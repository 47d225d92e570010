//! Ranges that are known before → a plan.

use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, ensure};
use pipeline::{FirstToken, Known, Model, Plan, Run};
use quant::calibration::{self, Header};
use tensor::{Cpu, Precision, Scheme, Span};

use crate::args::{FirstTokenArg, Quantize};
use crate::commands::{calibrate, drawing, engine};
use crate::output;
use crate::report;

/// Where the work folder keeps what was found.
const RANGES: &str = "ranges.jsonl";

/// The component whose ranges are known.
const UNET: &str = "unet";

/// The plan with the ranges that were named, or that are found now.
pub(super) fn plan(
    args: &Quantize,
    (model, cpu, cancel): (&Model, &Cpu, &AtomicBool),
) -> Result<Plan> {
    ensure!(args.acts == 8, "--static rounds activations to 8 bits; leave --acts out");
    let known = &args.known;
    // Before the folder is made, which a bad file would leave empty.
    let named = known.ranges.as_deref().map(|path| calibrate::of_model(path, model)).transpose()?;
    let work = super::work(args)?;
    let found = if let Some(found) = named {
        found
    } else {
        let request = drawing::pictures(&args.pictures, 0)?;
        calibrate::measure(&request, (&work.join(RANGES), cancel), (model, cpu))?
    };
    if let Some(ratio) = found.first_token_ratio() {
        report::say(&format!(
            "the first token of texts is {ratio:.1} times as large as all others"
        ));
    }
    let first = known.first_token != Some(FirstTokenArg::AsOthers);
    let wanted =
        if first { calibration::FirstToken::Apart } else { calibration::FirstToken::AsOthers };
    let ranges = found.ranges(known.rule, wanted).into_iter().map(|(reads, [low, high])| {
        let span = Span::new(low, high);
        Ok((reads.clone(), span.with_context(|| format!("the range of {reads} is not finite"))?))
    });
    let scheme = |acts: &str| -> Result<Scheme> {
        format!("w{}a{acts}", args.weights).parse().map_err(anyhow::Error::msg)
    };
    let plan = if known.unet_only {
        Plan::float(Precision::Bf16)
    } else {
        engine::uniform_unet(scheme("8")?, known.shortcuts.into(), Precision::Bf16)
    };
    let plan = plan.with_component(UNET, scheme("8s")?).with_known(
        UNET,
        Known {
            ranges: ranges.collect::<Result<_>>()?,
            first_token: if first { FirstToken::Float } else { FirstToken::AsOthers },
            halves: known.shortcuts.into(),
        },
    );
    let plan = plan.with_run(run(&found.header)?);
    let names = model.components().map(|component| component.name);
    output::save(&work.join("plan.toml"), plan.to_toml(names).as_bytes())?;
    Ok(plan)
}

/// What was drawn while ranges were found: the run for which the model is made.
fn run(header: &Header) -> Result<Run> {
    let Header { steps, guidance, width, height, .. } = *header;
    let method = header.method.as_deref().map(str::parse).transpose()?;
    let schedule = header.schedule.as_deref().map(str::parse).transpose()?;
    Ok(Run { steps, guidance, width, height, method, schedule })
}
