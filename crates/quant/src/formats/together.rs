//! All layers in one programme: no ratio between the groups is asked for, because their scores are brought to one unit.
//!
//! Small errors are felt in similarity in proportion to their power. How much is found from the layers that have both scores:
//! those whose pictures were compared.

use super::{Formats, Layers, Metric, Objective};
use crate::group::Group;
use crate::sensitivity::{Effect, Record, Sensitivity};

/// The component whose error is in pictures alone.
const DECODER: &str = "vae";

/// Less than this is lost in the rounding of pictures to levels.
const LEAST_LOSS: f64 = 1e-6;

/// The best formats of all layers for these bytes; `None` if no formats take so few.
pub(super) fn choose(measured: &Sensitivity, bytes: f64, objective: Objective) -> Option<Formats> {
    let scores = Scores { floor: measured.header.floor(), exchange: exchange(measured) };
    let score = |record: &Record| match objective {
        Objective::SimilarityOfAll => -scores.loss(record),
        _ => -scores.noise(record),
    };
    take_all(measured, bytes, (objective, &score))
}

/// The same by one of both scores, whatever a layer does: for comparison.
pub(super) fn choose_by_one(
    measured: &Sensitivity,
    bytes: f64,
    (metric, objective): (Metric, Objective),
) -> Option<Formats> {
    let floor = measured.header.floor();
    let score = |record: &Record| {
        // A group's score is that of its metric.
        let group = if metric == Metric::Ssim { Group::Content } else { Group::Quality };
        objective.score(group, record.effect, floor)
    };
    take_all(measured, bytes, (objective, &score))
}

/// The formats of all layers whose sum of scores is the greatest.
fn take_all(
    measured: &Sensitivity,
    bytes: f64,
    (objective, score): (Objective, &dyn Fn(&Record) -> f64),
) -> Option<Formats> {
    let layers: Vec<&[Record]> = measured.layers().map(|(_, records)| records).collect();
    let mut formats = Formats { layers: Layers::new(), bytes: 0, ratio: 1.0, objective };
    formats.take(&layers, bytes, score)?;
    formats.ratio = ratio(measured, &formats);
    Some(formats)
}

/// Both scores in one unit.
#[derive(Clone, Copy)]
struct Scores {
    floor: Effect,
    exchange: f64,
}

impl Scores {
    /// The power of a layer's noise in the prediction, relative to that. Of the decoder, of that noise which would do the same
    /// to the pictures.
    fn noise(self, record: &Record) -> f64 {
        match record.effect.ssim {
            Some(ssim) if record.component == DECODER => self.lost(ssim) / self.exchange,
            _ => power(record.effect.sqnr.min(self.floor.sqnr)),
        }
    }

    /// What is lost of similarity.
    fn loss(self, record: &Record) -> f64 {
        match record.effect.ssim {
            Some(ssim) => self.lost(ssim),
            None => self.exchange * power(record.effect.sqnr.min(self.floor.sqnr)),
        }
    }

    fn lost(self, ssim: f64) -> f64 {
        1.0 - self.floor.ssim.map_or(ssim, |floor| ssim.min(floor))
    }
}

/// The similarity that is lost for noise of the power of the signal, as small noise tells; 1 where nothing tells.
fn exchange(measured: &Sensitivity) -> f64 {
    let both = measured.records.iter().filter(|record| record.component != DECODER);
    let rates = both.filter_map(|record| {
        let loss = 1.0 - record.effect.ssim?;
        (loss > LEAST_LOSS).then(|| loss / power(record.effect.sqnr))
    });
    let mut rates: Vec<f64> = rates.collect();
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or(1.0)
}

/// The ratio of the groups' average bits.
fn ratio(measured: &Sensitivity, formats: &Formats) -> f64 {
    let average = |group: Group| {
        let (mut bytes, mut weights) = (0.0, 0.0);
        for (_, records) in measured.layers().filter(|(of, _)| *of == group) {
            let first = &records[0];
            let chosen = &formats.layers[&first.component][&first.layer];
            let chosen = records.iter().find(|record| record.format == *chosen);
            bytes += chosen.map_or(0.0, |record| record.bytes as f64);
            weights += first.weights as f64;
        }
        bytes / weights
    };
    let ratio = average(Group::Content) / average(Group::Quality);
    if ratio.is_finite() { ratio } else { 1.0 }
}

/// The relative power of noise at these decibels.
fn power(decibels: f64) -> f64 {
    (10.0_f64).powf(-decibels / 10.0)
}
