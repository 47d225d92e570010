//! Plans are compared by what becomes of pictures that were not measured.

use std::fs;
use std::path::Path;

use anyhow::Result;
use pipeline::probe::Probe;
use pipeline::{Plan, Request, TextToImage, Watch};
use quant::formats::{Formats, Layers};
use quant::sensitivity::{Effect, Sensitivity};
use serde::{Deserialize, Serialize};
use tensor::Precision;

use super::search::{Engine, plan};
use crate::output;
use crate::report::{Details, Progress};

/// Plans that were compared, as they are kept in the work folder.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Comparison {
    prompts: Vec<String>,
    seed: u64,
    /// Checksum of what was measured, by which the plans were chosen.
    measured: u32,
    pub(crate) plans: Vec<Compared>,
}

/// A plan, and what becomes of pictures that were not measured.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Compared {
    pub(crate) ratio: f64,
    pub(crate) objective: String,
    pub(crate) bytes: u64,
    pub(crate) effect: Effect,
    layers: Layers,
}

/// Draw with every plan, or go on where that was interrupted.
pub(super) fn compare(
    candidates: &[Formats],
    measured: &Sensitivity,
    (request, path): (&Request, &Path),
    (model, cpu, cancel): Engine<'_>,
) -> Result<Vec<Compared>> {
    let mut all = Comparison {
        prompts: request.prompts.clone(),
        seed: request.seed,
        measured: crc32fast::hash(measured.to_text().as_bytes()),
        plans: Vec::new(),
    };
    let there = fs::read(path).ok();
    let there = there.and_then(|bytes| serde_json::from_slice::<Comparison>(&bytes).ok());
    let there = there.filter(|there| {
        (&there.prompts, there.seed, there.measured) == (&all.prompts, all.seed, all.measured)
    });
    let known = there.map(|there| there.plans).unwrap_or_default();
    let progress = Progress::new(Details::None);
    let observer = |event| progress.tell(event);
    let watch = Watch { cancel: Some(cancel), observer: Some(&observer), ..Watch::default() };
    let real = Plan::float(Precision::F32);
    let pipeline = TextToImage::new(cpu, model, &real);
    let mut probe = None;
    for (i, candidate) in candidates.iter().enumerate() {
        progress.work("compare", i, candidates.len());
        let known = known.iter().find(|plan| plan.layers == candidate.layers);
        let effect = if let Some(plan) = known {
            plan.effect
        } else {
            let probe = match &mut probe {
                Some(probe) => probe,
                None => probe.insert(Probe::new(&pipeline, request, &watch)?),
            };
            probe.compare(&plan(&candidate.layers)?)?
        };
        all.plans.push(Compared {
            ratio: candidate.ratio,
            objective: candidate.objective.name().to_owned(),
            bytes: candidate.bytes,
            effect,
            layers: candidate.layers.clone(),
        });
        output::save(path, &serde_json::to_vec_pretty(&all)?)?;
    }
    progress.finish();
    Ok(all.plans)
}
