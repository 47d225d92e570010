//! A target → the plan that serves it best: measure, choose, compare.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, ensure};
use pipeline::{FirstToken, Model, Plan, Request, pack};
use quant::formats::{self, Formats, Layers, Metric};
use quant::sensitivity::{FLOAT, Sensitivity};
use tensor::{Cpu, LayerFormat, Scheme};

use super::compare::{Compared, compare};
use super::{activations, pace, shares, work};
use crate::args::{Beside, Limit, Quantize, Source, Target};
use crate::commands::calibrate;
use crate::commands::drawing;
use crate::commands::engine;
use crate::commands::evaluate::{self, Models};
use crate::commands::sensitivity::{PicturesOf, Scope, What};
use crate::output;
use crate::report::{self, Unmet};

/// Where the work folder keeps what was measured.
pub(crate) const SCORES: &str = "sensitivity.jsonl";

/// Where the work folder keeps the plans that were compared.
pub(crate) const CANDIDATES: &str = "candidates.json";

/// Where the work folder keeps what layers read.
const RANGES: &str = "ranges.jsonl";

/// Pictures that show what layers read: enough for a chart, and soon drawn.
const RANGED: usize = 8;

/// Where the work folder keeps how long layers take.
const TIMES: &str = "times.json";

/// What units add to the bits of a weight at most.
const UNITS: f64 = 0.3;

/// What works: a model, a CPU, and the flag that stops them.
pub(super) type Engine<'a> = (&'a Model, &'a Cpu, &'a AtomicBool);

/// The plan for this target.
pub(super) fn run(args: &Quantize, target: Target, engine: Engine<'_>) -> Result<Plan> {
    let (model, cpu, cancel) = engine;
    let metric = Metric::from(args.metric);
    let what = What {
        request: drawing::pictures(&args.pictures, 0)?,
        formats: offered(&args.formats, &[8, 4, 2].map(|weights| (weights, target.acts)))?,
        text_formats: offered(&args.text_formats, &text_formats(target))?,
        components: Vec::new(),
        first_token: args.known.first_token.map(Into::into),
        look: if metric == Metric::Ssim { PicturesOf::All } else { PicturesOf::Content },
        scope: Scope::new(args.fast, shares::of(args.time, shares::WEIGHTS)),
        shard: None,
        prefix_cache: true,
    };
    let mut held_out = drawing::pictures(&args.pictures, args.pictures.count as usize)?;
    if args.time.is_some() {
        // In the same time, more plans.
        held_out.pictures = 1;
    }
    // What proves the result is wanted now: hours of work are not to end for want of prompts.
    proof(args)?;
    let work = work(args)?;
    let measured = what.measure(model, cpu, (&work.join(SCORES), cancel))?;
    ensure!(
        metric != Metric::Ssim || measured.records.iter().all(|r| r.effect.ssim.is_some()),
        "pictures of some layers were not compared, so --metric ssim has nothing to go by; leave \
         --fast and --time out and name an empty folder with --work"
    );
    let candidates = match args.budget {
        Some(Limit::Time(time)) => {
            pace::candidates((&what, metric), (time, &work.join(TIMES)), &measured, engine)?
        }
        _ => candidates(args, target, &measured, (model, cpu))?,
    };
    let candidates = (&*candidates, shares::of(args.time, shares::COMPARING));
    let plans = compare(candidates, &measured, (&held_out, &work.join(CANDIDATES)), engine)?;
    let key = |plan: &Compared| (plan.effect.ssim.unwrap_or(0.0), plan.effect.sqnr);
    let best = plans.iter().max_by(|(_, a), (_, b)| {
        let ((a, x), (b, y)) = (key(a), key(b));
        a.total_cmp(&b).then(x.total_cmp(&y))
    });
    let (chosen, best) = best.context("no plan was compared")?;
    report::say(&format!(
        "best of {} plans, on prompts that were not measured: similarity {:.4}, {:.2} dB; {:.1} MB of weights",
        plans.len(),
        key(best).0,
        key(best).1,
        best.bytes as f64 / 1e6
    ));
    // A time decides on activations too, with everything else.
    let is_timed = matches!(args.budget, Some(Limit::Time(_)));
    let plan = if target.acts < 16 && !is_timed {
        let both = (*chosen, best);
        let pictures = (&what, &held_out, &*work);
        plan(&activations::choose((args, target), both, pictures, engine)?.layers, &measured)?
    } else {
        plan(&chosen.layers, &measured)?
    };
    let names = model.components().map(|component| component.name);
    output::save(&work.join("plan.toml"), plan.to_toml(names).as_bytes())?;
    Ok(plan)
}

/// Bits of weights and activations of text encoders. They run once for many steps, so activations of 16 bits cost them little
/// time, and are tried beside those of the target.
fn text_formats(target: Target) -> Vec<(u8, u8)> {
    if target.acts == 16 {
        return vec![(8, 16), (4, 16), (2, 16)];
    }
    vec![(8, 16), (8, target.acts), (4, 16), (4, target.acts), (2, target.acts)]
}

/// The formats that were typed, or else those of these bits of weights and activations.
fn offered(typed: &[Scheme], bits: &[(u8, u8)]) -> Result<Vec<LayerFormat>> {
    if !typed.is_empty() {
        return Ok(typed.iter().copied().map(LayerFormat::Integer).collect());
    }
    let scheme = |(weights, acts): &(u8, u8)| format!("w{weights}a{acts}").parse();
    bits.iter().map(scheme).collect::<Result<_, String>>().map_err(anyhow::Error::msg)
}

/// Draw with the packed model prompts that nothing was chosen by, and write down how near they are to the original's.
pub(super) fn report(args: &Quantize, target: Target, engine: Engine<'_>) -> Result<()> {
    let (reference, cpu, cancel) = engine;
    let source = Source { model: Some(args.output.clone()), ..Source::default() };
    let model = engine::model(&source)?;
    let request = proof(args)?;
    let naive = format!("w{}a{}", if target.weights < 6.0 { 4 } else { 8 }, target.acts);
    let naive: Scheme = naive.parse().map_err(anyhow::Error::msg)?;
    let models = Models {
        reference,
        model: &model,
        beside: &[Beside::Scheme(naive)],
        everywhere: &[naive],
        precision: engine::faster(cpu),
    };
    let folder = work(args)?;
    let few = drawing::pictures(&args.pictures, 0)?;
    let prompts = few.prompts.iter().take(RANGED).cloned().collect();
    let few = Request { prompts, pictures: 1, ..few };
    let ranges = calibrate::measure(&few, (&folder.join(RANGES), cancel), (reference, cpu))?;
    evaluate::write_report(&models, (&request, &ranges), (&folder, cpu, cancel))?;
    report::say(&format!("report: {}", folder.join("report.html").display()));
    Ok(())
}

/// Pictures of prompts that nothing is chosen by; one of each where time is short.
pub(super) fn proof(args: &Quantize) -> Result<Request> {
    let request = drawing::pictures(&args.pictures, 2 * args.pictures.count as usize)?;
    Ok(if args.time.is_some() { Request { pictures: 1, ..request } } else { request })
}

/// These formats of all components, with first tokens as they were measured.
pub(super) fn plan(layers: &Layers, measured: &Sensitivity) -> Result<Plan> {
    let scheme = |format: &String| match format.as_str() {
        FLOAT => Ok(None),
        scheme => scheme.parse::<Scheme>().map(Some).map_err(anyhow::Error::msg),
    };
    let mut plan = Plan::default();
    for (component, layers) in layers {
        let layers = layers.iter().map(|(name, format)| Ok((name.clone(), scheme(format)?)));
        let layers: BTreeMap<String, Option<Scheme>> = layers.collect::<Result<_>>()?;
        plan = plan.with_layers(component, layers);
    }
    Ok(match first_token(measured) {
        FirstToken::Float => plan.with_first_token(FirstToken::Float),
        FirstToken::AsOthers => plan,
    })
}

/// How first tokens were treated while this was measured.
pub(super) fn first_token(measured: &Sensitivity) -> FirstToken {
    if measured.header.real_first_token { FirstToken::Float } else { FirstToken::AsOthers }
}

/// The choices that keep to the target, or to the budget where there is one.
fn candidates(
    args: &Quantize,
    target: Target,
    measured: &Sensitivity,
    (model, cpu): (&Model, &Cpu),
) -> Result<Vec<Formats>> {
    let (least, metric) = (formats::least_bytes(measured), args.metric.into());
    let Some(Limit::Size(budget)) = args.budget else {
        let weights: u64 = measured.layers().map(|(_, records)| records[0].weights).sum();
        let bytes = weights as f64 * (target.weights + UNITS) / 8.0;
        let found = formats::candidates(measured, bytes, metric);
        return unless_none(found, ("the weights", bytes, least));
    };
    let file = |layers: &Layers| -> Result<f64> {
        Ok(pack::bytes(model, &plan(layers, measured)?, cpu)? as f64)
    };
    let mut smallest = Layers::new();
    for record in measured.layers().filter_map(|(_, r)| r.iter().min_by_key(|r| r.bytes)) {
        let component = smallest.entry(record.component.clone()).or_default();
        component.insert(record.layer.clone(), record.format.clone());
    }
    let (limit, least_file) = (budget.as_u64() as f64, file(&smallest)?);
    // Weights begin at pages, so what the file takes beside them depends on their formats a little.
    let mut bytes = limit - (least_file - least);
    loop {
        let found = formats::candidates(measured, bytes, metric);
        let sizes: Vec<f64> =
            found.iter().map(|formats| file(&formats.layers)).collect::<Result<_>>()?;
        let most = sizes.into_iter().fold(0.0, f64::max);
        if most <= limit {
            return unless_none(found, ("the file", limit, least_file));
        }
        bytes -= most - limit;
    }
}

/// The choices, or what is asked too much.
fn unless_none(found: Vec<Formats>, (what, most, least): (&str, f64, f64)) -> Result<Vec<Formats>> {
    if found.is_empty() {
        let (most, least) = (most / 1e6, least / 1e6);
        let fault =
            format!("no formats keep {what} within {most:.3} MB; the least is {least:.3} MB");
        return Err(Unmet(fault).into());
    }
    Ok(found)
}
