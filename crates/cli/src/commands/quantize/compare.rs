//! Plans are compared by what becomes of pictures that were not measured.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use pipeline::probe::Probe;
use pipeline::{Plan, Request, TextToImage, Watch};
use quant::formats::{Formats, Layers};
use quant::sensitivity::{Effect, Sensitivity};
use serde::{Deserialize, Serialize};
use tensor::Precision;

use super::search::{Engine, first_token, plan};
use crate::output;
use crate::report::{self, Details, Progress};

/// Plans that were compared, as they are kept in the work folder.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Comparison {
    prompts: Vec<String>,
    seed: u64,
    /// Checksum of what was measured, by which the plans were chosen.
    measured: u32,
    /// Whether there was no time for others.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    cut: bool,
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

/// Draw with every plan, or with as many as there is time for; or go on where that was interrupted.
pub(super) fn compare<'a>(
    (candidates, time): (&'a [Formats], Option<Duration>),
    measured: &Sensitivity,
    (request, path): (&Request, &Path),
    (model, cpu, cancel): Engine<'_>,
) -> Result<Vec<(&'a Formats, Compared)>> {
    let start = Instant::now();
    let mut all = Comparison {
        prompts: request.prompts.clone(),
        seed: request.seed,
        measured: crc32fast::hash(measured.to_text().as_bytes()),
        cut: false,
        plans: Vec::new(),
    };
    let there = fs::read(path).ok();
    let there = there.and_then(|bytes| serde_json::from_slice::<Comparison>(&bytes).ok());
    let there = there.filter(|there| {
        (&there.prompts, there.seed, there.measured) == (&all.prompts, all.seed, all.measured)
    });
    // What was cut once stays so: more plans might end with another one.
    let was_cut = time.is_some() && there.as_ref().is_some_and(|there| there.cut);
    let known = there.map(|there| there.plans).unwrap_or_default();
    let progress = Progress::new(Details::None);
    let observer = |event| progress.tell(event);
    let watch = Watch { cancel: Some(cancel), observer: Some(&observer), ..Watch::default() };
    let real = Plan::float(Precision::F32).with_first_token(first_token(measured));
    let pipeline = TextToImage::new(cpu, model, &real);
    // The weights of a whole network are wanted next.
    os::return_freed();
    let mut probe = None;
    let mut compared = Vec::new();
    for candidate in halving(candidates) {
        let known = known.iter().find(|plan| plan.layers == candidate.layers);
        let is_late = !all.plans.is_empty() && time.is_some_and(|time| start.elapsed() > time);
        if known.is_none() && (is_late || was_cut) {
            all.cut = true;
            output::save(path, &serde_json::to_vec_pretty(&all)?)?;
            let (few, many) = (all.plans.len(), candidates.len());
            report::say(&format!("{few} of {many} plans fit the time"));
            break;
        }
        progress.work("compare", all.plans.len(), candidates.len());
        let effect = if let Some(plan) = known {
            plan.effect
        } else {
            let probe = match &mut probe {
                Some(probe) => probe,
                None => probe.insert(Probe::new(&pipeline, request, &watch)?),
            };
            probe.compare(&plan(&candidate.layers, measured)?)?
        };
        all.plans.push(Compared {
            ratio: candidate.ratio,
            objective: candidate.objective.name().to_owned(),
            bytes: candidate.bytes,
            effect,
            layers: candidate.layers.clone(),
        });
        compared.push(candidate);
        output::save(path, &serde_json::to_vec_pretty(&all)?)?;
    }
    progress.finish();
    Ok(compared.into_iter().zip(all.plans).collect())
}

/// All of a list, in an order that halves its gaps: whenever one stops, what was seen is spread over the whole.
fn halving<T>(list: &[T]) -> impl Iterator<Item = &T> {
    let bits = list.len().next_power_of_two().trailing_zeros();
    let reversed = move |i: usize| i.reverse_bits().checked_shr(usize::BITS - bits).unwrap_or(0);
    (0..1 << bits).filter_map(move |i| list.get(reversed(i)))
}

#[cfg(test)]
mod tests {
    use super::halving;

    #[test]
    fn lists_are_spread_and_whole() {
        let order = |count: usize| -> Vec<usize> {
            let list: Vec<usize> = (0..count).collect();
            halving(&list).copied().collect()
        };
        assert_eq!(order(0), [0; 0]);
        assert_eq!(order(1), [0]);
        assert_eq!(order(5), [0, 4, 2, 1, 3]);
        assert_eq!(order(8), [0, 4, 2, 6, 1, 5, 3, 7]);
    }
}
