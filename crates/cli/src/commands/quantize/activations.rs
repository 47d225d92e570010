//! Chosen weights → the layers whose activations keep 16 bits beside them.
//!
//! As in the paper, activations are chosen when the weights are: the most sensitive layers keep theirs if pictures drawn with
//! the chosen weights say that it is worth the time.

use std::path::Path;

use anyhow::Result;
use pipeline::{Request, pack};
use quant::formats::{self, Formats, Metric};
use quant::sensitivity::Sensitivity;

use super::compare::{Compared, compare};
use super::search::{Engine, plan};
use super::shares;
use crate::args::{Limit, Quantize, Target};
use crate::commands::sensitivity::{Scope, What};
use crate::report;

/// Where the work folder keeps what rounding activations alone does.
const SCORES: &str = "activations.jsonl";

/// Where it keeps the plans that were compared.
const CANDIDATES: &str = "activations.json";

/// Shares of each group that are tried.
const SHARES: [f64; 3] = [0.01, 0.02, 0.05];

/// What of the loss of similarity more real numbers must take away: they cost time.
const WORTH: f64 = 0.1;

/// These formats, with activations of 16 bits where that is worth it. They are measured as `weights` were.
pub(super) fn choose(
    (args, target): (&Quantize, Target),
    (chosen, effect): (&Formats, &Compared),
    (weights, held_out, work): (&What, &Request, &Path),
    engine: Engine<'_>,
) -> Result<Formats> {
    let (model, cpu, cancel) = engine;
    let metric = Metric::from(args.metric);
    let texts = |name: &str| model.encoders.iter().any(|encoder| encoder.component.name == name);
    let names = model.components().map(|component| component.name);
    let what = What {
        formats: vec![format!("a{}", target.acts).parse().map_err(anyhow::Error::msg)?],
        text_formats: Vec::new(),
        components: names.filter(|name| !texts(name)).map(str::to_owned).collect(),
        scope: Scope::new(args.fast, shares::of(args.time, shares::ACTIVATIONS)),
        ..weights.clone()
    };
    let measured = what.measure(model, cpu, (&work.join(SCORES), cancel))?;
    let mut all = candidates((chosen, &measured), metric, target);
    if let Some(Limit::Size(budget)) = args.budget {
        let mut within = Vec::new();
        for candidate in all {
            if pack::bytes(model, &plan(&candidate.layers, &measured)?, cpu)? <= budget.as_u64() {
                within.push(candidate);
            }
        }
        all = within;
    }
    let candidates = (&*all, shares::of(args.time, shares::COMPARING));
    let compared = compare(candidates, &measured, (held_out, &work.join(CANDIDATES)), engine)?;
    let similarity = |plan: &Compared| plan.effect.ssim.unwrap_or(0.0);
    let (mut best, mut most) = (chosen, similarity(effect));
    for (candidate, plan) in &compared {
        if 1.0 - similarity(plan) < (1.0 - WORTH) * (1.0 - most) {
            (best, most) = (candidate, similarity(plan));
        }
    }
    report::say(&format!(
        "activations of {} layers keep 16 bits: similarity {:.4}, {:.4} without",
        formats::changed(&best.layers, &chosen.layers),
        most,
        similarity(effect)
    ));
    Ok(best.clone())
}

/// The different choices, from few layers to many.
fn candidates(
    (chosen, measured): (&Formats, &Sensitivity),
    metric: Metric,
    target: Target,
) -> Vec<Formats> {
    let rounded = format!("a{}", target.acts);
    let keep = |format: &str| format.strip_suffix(&rounded).map(|weights| format!("{weights}a16"));
    let mut all: Vec<Formats> = Vec::new();
    for share in SHARES {
        let layers = formats::protect(&chosen.layers, (measured, metric), share, &keep);
        let before = all.last().map_or(&chosen.layers, |last| &last.layers);
        if layers != *before {
            all.push(Formats { layers, ..chosen.clone() });
        }
    }
    all
}
