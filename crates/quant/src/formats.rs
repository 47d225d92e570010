//! The format of each layer when all layers together may take so many bytes.
//!
//! As in [`allocation`](crate::allocation), the groups are optimised apart and share the bytes at a ratio of their
//! average bits; but a layer chooses among formats with the bytes that they really take, scales included, and a group may
//! stay below its share.

use std::collections::BTreeMap;

use crate::budget::Budget;
use crate::group::Group;
use crate::programme::{self, Candidate};
use crate::sensitivity::{Effect, Record, Sensitivity};

/// What is made as great as possible in the quality group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Objective {
    /// The sum of decibels, as the paper has it.
    Decibels,
    /// Minus the sum of noise powers: what remains of the signal if the layers' errors are independent.
    Noise,
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
    /// The ratio of average bits between the content group and the quality group that was asked for.
    pub ratio: f64,
    /// What was optimised.
    pub objective: Objective,
}

impl Objective {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Noise, Self::Decibels];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Decibels => "decibels",
            Self::Noise => "noise",
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
            Self::Noise => -(10.0_f64).powf(-decibels / 10.0),
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
    // The content group may not take what the quality group cannot do without.
    let most = bytes - least(measured, Group::Quality);
    formats.take(measured, Group::Content, share.min(most))?;
    // What one group leaves goes to the other.
    formats.take(measured, Group::Quality, bytes - formats.bytes as f64)?;
    Some(formats)
}

/// The different choices for these bytes over ratios and objectives.
pub fn candidates(measured: &Sensitivity, bytes: f64) -> Vec<Formats> {
    /// Even steps of the ratio's logarithm, from a half to two.
    const STEPS: i32 = 6;
    let mut found: Vec<Formats> = Vec::new();
    for objective in Objective::ALL {
        for step in -STEPS..=STEPS {
            let ratio = 2.0_f64.powf(f64::from(step) / f64::from(STEPS));
            let Some(formats) = choose(measured, bytes, ratio, objective) else { continue };
            if found.iter().all(|other| other.layers != formats.layers) {
                found.push(formats);
            }
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
    /// Choose the formats of a group.
    fn take(&mut self, measured: &Sensitivity, group: Group, bytes: f64) -> Option<()> {
        let layers: Vec<&[Record]> =
            measured.layers().filter(|(of, _)| *of == group).map(|(_, records)| records).collect();
        let floor = measured.header.floor();
        let candidate = |record: &Record| Candidate {
            cost: record.bytes as f64,
            score: self.objective.score(group, record.effect, floor),
        };
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
    use super::{Objective, candidates, choose, least_bytes};
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
        let of = |formats: &super::Formats| LAYERS.map(|(name, ..)| formats.layers["unet"][name].clone());
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
        let formats: Vec<&str> = LAYERS.map(|(name, ..)| chosen.layers["unet"][name].as_str()).to_vec();
        assert_eq!(formats, ["w8a8", "w8a8", FLOAT, FLOAT]);
    }

    #[test]
    fn candidates_differ_and_keep_the_budget() {
        let measured = measured(&LAYERS);
        let found = candidates(&measured, 330.0);
        assert!(found.len() > 1);
        for (i, a) in found.iter().enumerate() {
            assert!(a.bytes <= 330);
            assert!(found[..i].iter().all(|b| b.layers != a.layers));
        }
    }
}
