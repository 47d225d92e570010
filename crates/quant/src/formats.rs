//! The format of each layer when all layers together may take so many bytes.
//!
//! As in [`allocation`](crate::allocation), the groups are optimised apart and share the bytes at a ratio of their
//! average bits; but a layer chooses among formats with the bytes that they really take, scales included, and a group may
//! stay below its share. Beside that, all layers are optimised together, without a ratio.

mod protection;
mod together;

use std::collections::BTreeMap;

use crate::budget::Budget;
use crate::group::Group;
use crate::programme::{self, Candidate};
use crate::sensitivity::{Effect, Record, Sensitivity};

pub use protection::{changed, protect};

/// What is made as great as possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Objective {
    /// In the quality group the sum of decibels, as the paper has it; in the content group that of similarities.
    Decibels,
    /// In the quality group minus the sum of noise powers: what remains of the signal if the layers' errors are
    /// independent; in the content group the sum of similarities.
    Noise,
    /// Minus the sum of noise powers of all layers.
    NoiseOfAll,
    /// The sum of similarities of all layers.
    SimilarityOfAll,
}

/// Which scores formats are chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Each group by its own: what the method is about.
    Decoupled,
    /// All layers by the signal-to-noise ratio of predictions.
    Sqnr,
    /// All layers by the similarity of pictures, which must have been compared for all.
    Ssim,
}

/// The format of each layer, by component and layer.
pub type Layers = BTreeMap<String, BTreeMap<String, String>>;

/// Formats of all layers, and what they take.
#[derive(Clone, Debug, PartialEq)]
pub struct Formats {
    /// The format of each layer of each component.
    pub layers: Layers,
    /// Bytes of all weights.
    pub bytes: u64,
    /// The ratio of average bits between the content group and the quality group: that was asked for or, where all layers
    /// were optimised together, that came of it.
    pub ratio: f64,
    /// What was optimised.
    pub objective: Objective,
}

impl Objective {
    /// Those that share bytes between the groups at a ratio.
    pub const APART: [Self; 2] = [Self::Noise, Self::Decibels];

    /// Those that do not.
    pub const TOGETHER: [Self; 2] = [Self::NoiseOfAll, Self::SimilarityOfAll];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Decibels => "decibels",
            Self::Noise => "noise",
            Self::NoiseOfAll => "noise of all",
            Self::SimilarityOfAll => "similarity of all",
        }
    }

    /// The worth of an effect. What is finer than the floor is worth no more than that.
    fn score(self, group: Group, effect: Effect, floor: Effect) -> f64 {
        if let (Group::Content, Some(ssim)) = (group, effect.ssim) {
            return floor.ssim.map_or(ssim, |floor| ssim.min(floor));
        }
        let decibels = effect.sqnr.min(floor.sqnr);
        match self {
            Self::Decibels => decibels,
            _ => -(10.0_f64).powf(-decibels / 10.0),
        }
    }
}

/// The best formats for these bytes at this ratio; `None` if no formats take so few.
pub fn choose(
    measured: &Sensitivity,
    bytes: f64,
    ratio: f64,
    objective: Objective,
) -> Option<Formats> {
    let weights = |group: Group| -> f64 {
        let own = measured.layers().filter(|(of, _)| *of == group);
        own.map(|(_, records)| records[0].weights as f64).sum()
    };
    let (content, quality) = (weights(Group::Content), weights(Group::Quality));
    let budget = Budget { average: 8.0 * bytes / (content + quality), ratio };
    let share = budget.target(Group::Content, content, quality) * content / 8.0;
    let mut formats = Formats { layers: Layers::new(), bytes: 0, ratio, objective };
    let floor = measured.header.floor();
    let of = |group: Group| measured.layers().filter(move |(of, _)| *of == group).map(|(_, r)| r);
    let score = |record: &Record| objective.score(record.group(), record.effect, floor);
    // The content group may not take what the quality group cannot do without.
    let most = bytes - least(measured, Group::Quality);
    formats.take(&of(Group::Content).collect::<Vec<_>>(), share.min(most), &score)?;
    // What one group leaves goes to the other.
    let left = bytes - formats.bytes as f64;
    formats.take(&of(Group::Quality).collect::<Vec<_>>(), left, &score)?;
    Some(formats)
}

/// The different choices for these bytes, by this metric.
pub fn candidates(measured: &Sensitivity, bytes: f64, metric: Metric) -> Vec<Formats> {
    let one = |objective| together::choose_by_one(measured, bytes, (metric, objective));
    match metric {
        Metric::Decoupled => decoupled(measured, bytes),
        Metric::Sqnr => different(Objective::APART.into_iter().filter_map(one)),
        Metric::Ssim => one(Objective::SimilarityOfAll).into_iter().collect(),
    }
}

/// The different choices over ratios and objectives.
fn decoupled(measured: &Sensitivity, bytes: f64) -> Vec<Formats> {
    /// Even steps of the ratio's logarithm, from a half to four: text encoders may need many bits.
    const STEPS: [i32; 2] = [-4, 8];
    let ratios = (STEPS[0]..=STEPS[1]).map(|step| 2.0_f64.powf(f64::from(step) / 4.0));
    let apart = Objective::APART.into_iter().flat_map(|objective| {
        ratios.clone().filter_map(move |ratio| choose(measured, bytes, ratio, objective))
    });
    let together = Objective::TOGETHER.into_iter();
    let together = together.filter_map(|objective| together::choose(measured, bytes, objective));
    different(together.chain(apart))
}

/// Each of these once.
fn different(all: impl Iterator<Item = Formats>) -> Vec<Formats> {
    let mut found: Vec<Formats> = Vec::new();
    for formats in all {
        if found.iter().all(|other| other.layers != formats.layers) {
            found.push(formats);
        }
    }
    found
}

/// The fewest bytes of all layers.
pub fn least_bytes(measured: &Sensitivity) -> f64 {
    Group::ALL.into_iter().map(|group| least(measured, group)).sum()
}

fn least(measured: &Sensitivity, group: Group) -> f64 {
    let own = measured.layers().filter(|(of, _)| *of == group);
    own.map(|(_, records)| records.iter().map(|r| r.bytes).min().unwrap_or(0) as f64).sum()
}

impl Formats {
    /// Choose the formats of some layers.
    fn take(
        &mut self,
        layers: &[&[Record]],
        bytes: f64,
        score: &dyn Fn(&Record) -> f64,
    ) -> Option<()> {
        let candidate =
            |record: &Record| Candidate { cost: record.bytes as f64, score: score(record) };
        let offers: Vec<Vec<Candidate>> =
            layers.iter().map(|records| records.iter().map(candidate).collect()).collect();
        let chosen = programme::solve(&offers, 0.0..=bytes.max(0.0))?;
        for (records, choice) in layers.iter().zip(chosen) {
            let record = coarsest(records, choice, &candidate);
            self.bytes += record.bytes;
            let component = self.layers.entry(record.component.clone()).or_default();
            component.insert(record.layer.clone(), record.format.clone());
        }
        Some(())
    }
}

/// The coarsest format of a layer that costs and scores what the chosen one does: activations of fewer bits take no fewer
/// bytes, but less time.
fn coarsest<'r>(
    records: &'r [Record],
    choice: usize,
    candidate: &dyn Fn(&Record) -> Candidate,
) -> &'r Record {
    let chosen = candidate(&records[choice]);
    let alike = records[choice..].iter().rev().find(|record| candidate(record) == chosen);
    alike.unwrap_or(&records[choice])
}

#[cfg(test)]
mod tests {
    use super::{Metric, Objective, candidates, choose, least_bytes};
    use crate::group::Group;
    use crate::sensitivity::tests::header_of;
    use crate::sensitivity::{Effect, FLOAT, Header, Record, Sensitivity};

    /// Layers of 100 weights; `sqnr` and `ssim` at 4 bits, all the same at 8 and as real numbers.
    fn measured(layers: &[(&str, f64, f64)]) -> Sensitivity {
        let formats = [(FLOAT, 200, 60.0, 1.0), ("w8a8", 100, 45.0, 0.99), ("w4a8", 50, 0.0, 0.0)];
        let mut records = Vec::new();
        for (place, &(layer, sqnr, ssim)) in layers.iter().enumerate() {
            for (format, bytes, fine, alike) in formats {
                let effect = match format {
                    "w4a8" => Effect { sqnr, ssim: Some(ssim) },
                    _ => Effect { sqnr: fine, ssim: Some(alike) },
                };
                let content = Group::of(layer) == Group::Content;
                let effect = Effect { ssim: effect.ssim.filter(|_| content), ..effect };
                let (layer, format) = (layer.to_owned(), format.to_owned());
                records.push(Record {
                    component: "unet".into(),
                    layer,
                    place,
                    format,
                    bytes,
                    weights: 100,
                    effect,
                    inferred: false,
                });
            }
        }
        let layers = layers.iter().map(|(name, ..)| *name).collect::<Vec<_>>();
        let rounding = Effect { sqnr: 34.0, ssim: Some(0.98) };
        let header = Header { rounding, ..header_of(&formats.map(|(name, ..)| name), &layers) };
        Sensitivity { header, records }
    }

    const LAYERS: [(&str, f64, f64); 4] = [
        ("conv_in", 10.0, 0.9),
        ("mid", 30.0, 0.9),
        ("a.ff.b", 20.0, 0.5),
        ("a.attn2.to_k", 20.0, 0.9),
    ];

    #[test]
    fn bytes_go_where_they_are_felt() {
        let measured = measured(&LAYERS);
        let of = |formats: &super::Formats| {
            LAYERS.map(|(name, ..)| formats.layers["unet"][name].clone())
        };
        let chosen = choose(&measured, 300.0, 1.0, Objective::Noise).unwrap();
        assert_eq!(of(&chosen), ["w8a8", "w4a8", "w8a8", "w4a8"]);
        assert_eq!(chosen.bytes, 300);
        // Content leaves nothing but what quality needs.
        let chosen = choose(&measured, 250.0, 8.0, Objective::Noise).unwrap();
        assert_eq!(of(&chosen), ["w4a8", "w4a8", "w8a8", "w4a8"]);
        assert_eq!(choose(&measured, 199.0, 1.0, Objective::Noise), None);
        assert_eq!(least_bytes(&measured), 200.0);
    }

    #[test]
    fn what_cannot_be_told_from_real_numbers_costs_less() {
        let chosen = choose(&measured(&LAYERS), 1e9, 1.0, Objective::Decibels).unwrap();
        // 45 dB are beyond the floor, a similarity of 0.99 is not.
        let formats: Vec<&str> =
            LAYERS.map(|(name, ..)| chosen.layers["unet"][name].as_str()).to_vec();
        assert_eq!(formats, ["w8a8", "w8a8", FLOAT, FLOAT]);
    }

    #[test]
    fn all_layers_are_chosen_together_in_one_unit() {
        // 20 dB cost a similarity of 0.1 in the content group, so 10 dB in the other would cost 1.0.
        let mut measured = measured(&[
            ("conv_in", 10.0, 0.0),
            ("mid", 26.0, 0.0),
            ("a.ff.b", 20.0, 0.9),
            ("a.attn2.to_k", 20.0, 0.9),
        ]);
        for effect in measured.records.iter_mut().map(|record| &mut record.effect) {
            effect.ssim = effect.ssim.map(|_| 1.0 - 10.0 * (10.0_f64).powf(-effect.sqnr / 10.0));
        }
        for objective in Objective::TOGETHER {
            let chosen = super::together::choose(&measured, 350.0, objective).unwrap();
            let of = |layer: &str| chosen.layers["unet"][layer].as_str();
            assert_eq!(["conv_in", "mid"].map(of), ["w8a8", "w4a8"], "{objective:?}");
            assert_eq!(chosen.bytes, 350);
            assert!((chosen.ratio - 200.0 / 150.0).abs() < 1e-12);
        }
    }

    #[test]
    fn one_metric_sees_nothing_of_the_other() {
        // By decibels the first layers need the bytes, by similarity the last ones.
        let layers = [
            ("conv_in", 10.0, 0.98),
            ("mid", 12.0, 0.98),
            ("a.ff.b", 40.0, 0.5),
            ("a.attn2.to_k", 40.0, 0.6),
        ];
        let mut measured = measured(&layers);
        for record in &mut measured.records {
            let (_, _, ssim) = layers[record.place];
            let is_coarse = record.format == "w4a8";
            record.effect.ssim = Some(if is_coarse { ssim } else { 0.99 });
        }
        let of = |metric| {
            let found = candidates(&measured, 300.0, metric);
            assert!(!found.is_empty() && found.iter().all(|formats| formats.bytes == 300));
            layers.map(|(name, ..)| found[0].layers["unet"][name].clone())
        };
        assert_eq!(of(Metric::Sqnr), ["w8a8", "w8a8", "w4a8", "w4a8"]);
        assert_eq!(of(Metric::Ssim), ["w4a8", "w4a8", "w8a8", "w8a8"]);
    }

    #[test]
    fn candidates_differ_and_keep_the_budget() {
        let measured = measured(&LAYERS);
        let found = candidates(&measured, 330.0, Metric::Decoupled);
        assert!(found.len() > 1);
        for (i, a) in found.iter().enumerate() {
            assert!(a.bytes <= 330);
            assert!(found[..i].iter().all(|b| b.layers != a.layers));
        }
    }
}
