//! Scores of all layers and formats from those of some.
//!
//! A layer's own error is cheap to measure in every format. What it does to the network is that error times a gain, which
//! depends on the layer and hardly on the format: errors are small, and small errors go through a network linearly. So one
//! format of a layer tells of its others, and layers tell of those with the same role.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::group::Group;
use crate::metrics::{SAME, rank_correlation};
use crate::sensitivity::{Component, Effect, FLOAT, Header, Record, Sensitivity};

/// What a layer's own error becomes: added to its decibels.
#[derive(Clone, Copy, Debug)]
struct Gain {
    /// To the network's decibels.
    sqnr: f64,
    /// To `−10 log₁₀ (1 − SSIM)`.
    ssim: Option<f64>,
}

impl Gain {
    fn between(own: f64, effect: Effect) -> Self {
        let ssim = effect.ssim.map(|ssim| -10.0 * (1.0 - ssim).max(1e-15).log10() - own);
        Self { sqnr: effect.sqnr - own, ssim }
    }

    fn effect(self, own: f64) -> Effect {
        let ssim = self.ssim.map(|gain| 1.0 - (10.0_f64).powf(-(own + gain) / 10.0));
        Effect { sqnr: (own + self.sqnr).min(SAME), ssim: ssim.map(|ssim| ssim.max(-1.0)) }
    }
}

/// The scores that a measurement of all layers and formats would have given, as far as the `measured` ones tell; `own` has
/// all layers' own errors.
///
/// # Panics
///
/// If `own` lacks a layer or format that was measured: a fault of the caller.
pub fn infer(own: &Sensitivity, measured: &Sensitivity) -> Sensitivity {
    let errors = errors(own);
    let gain = |record: &Record| {
        Gain::between(errors[&(record.place, record.format.as_str())], record.effect)
    };
    let gains: Vec<(&Record, Gain)> =
        measured.records.iter().filter(|r| r.format != FLOAT).map(|r| (r, gain(r))).collect();
    let header = Header {
        components: own.header.components.clone(),
        places: None,
        ..measured.header.clone()
    };
    let known = |record: &Record| {
        let same = |r: &&Record| (r.place, &r.format) == (record.place, &record.format);
        measured.records.iter().find(same)
    };
    let records = own.records.iter().map(|record| {
        if record.format == FLOAT {
            return Record { effect: header.floor(), ..record.clone() };
        }
        if let Some(known) = known(record) {
            return known.clone();
        }
        let near = nearest(&gains, record);
        let effect = median(&near).effect(record.effect.sqnr);
        Record { effect, inferred: true, ..record.clone() }
    });
    let records = records.collect();
    Sensitivity { header, records }
}

/// How well the order of scores is that of what was measured, for each group: Spearman's rank correlation over all layers
/// and formats of whole numbers that both have.
pub fn agreement(scores: &Sensitivity, measured: &Sensitivity) -> [(Group, f64); 2] {
    let known = |record: &Record| (record.place, record.format.clone());
    let effects: BTreeMap<(usize, String), Effect> =
        scores.records.iter().map(|record| (known(record), record.effect)).collect();
    Group::ALL.map(|group| {
        let records = measured.records.iter().filter(|r| r.format != FLOAT && r.group() == group);
        let pairs: Vec<(f64, f64)> = records
            .filter_map(|record| {
                let (score, effect) = (effects.get(&known(record))?, record.effect);
                // Own errors have no similarity.
                Some(match (group, effect.ssim) {
                    (Group::Content, Some(ssim)) => (score.ssim.unwrap_or(score.sqnr), ssim),
                    _ => (score.sqnr, effect.sqnr),
                })
            })
            .collect();
        (group, rank_correlation(&pairs))
    })
}

/// The components with one format of each: that in the middle, whose errors are neither lost in noise nor so large that
/// they saturate.
pub fn middle(components: &[Component]) -> Vec<Component> {
    let middle = |component: &Component| {
        let formats = &component.formats;
        let format = formats.get(formats.len().div_ceil(2)).or(formats.last());
        Component { formats: format.cloned().into_iter().collect(), ..component.clone() }
    };
    components.iter().map(middle).collect()
}

/// Places of layers, those first that tell most of all by their errors in the middle format: the first of each role, then
/// the second, and within that those with the greatest product of own error and size.
pub fn most_telling(own: &Sensitivity) -> Vec<usize> {
    let middle = middle(&own.header.components);
    let in_middle = |record: &&Record| {
        let of = middle.iter().find(|component| component.name == record.component);
        of.is_some_and(|component| component.formats.contains(&record.format))
    };
    let mut roles: BTreeMap<(&str, String), Vec<&Record>> = BTreeMap::new();
    for record in own.records.iter().filter(in_middle) {
        roles.entry((&record.component, role(&record.layer))).or_default().push(record);
    }
    let weight =
        |record: &Record| record.weights as f64 * (10.0_f64).powf(-record.effect.sqnr / 10.0);
    let heavier = |a: &&Record, b: &&Record| weight(b).total_cmp(&weight(a));
    let mut order: Vec<(usize, &Record)> = Vec::new();
    for records in roles.values_mut() {
        records.sort_by(heavier);
        order.extend(records.iter().copied().enumerate());
    }
    order.sort_by(|(i, a), (j, b)| match i.cmp(j) {
        Ordering::Equal => heavier(a, b),
        other => other,
    });
    order.into_iter().map(|(_, record)| record.place).collect()
}

fn errors(own: &Sensitivity) -> BTreeMap<(usize, &str), f64> {
    own.records.iter().map(|r| ((r.place, r.format.as_str()), r.effect.sqnr)).collect()
}

/// The gains of the layer itself, else of its role, else of its component's part in its group, else of its group, else of
/// all.
fn nearest(gains: &[(&Record, Gain)], layer: &Record) -> Vec<Gain> {
    let beside = |other: &Record| other.component == layer.component;
    let in_group = |other: &Record| other.group() == layer.group();
    let rules: [&dyn Fn(&Record) -> bool; 5] = [
        &|other| other.place == layer.place,
        &|other| beside(other) && role(&other.layer) == role(&layer.layer),
        &|other| beside(other) && in_group(other),
        &in_group,
        &|_| true,
    ];
    let of = |rule: &dyn Fn(&Record) -> bool| -> Vec<Gain> {
        gains.iter().filter(|(record, _)| rule(record)).map(|(_, gain)| *gain).collect()
    };
    rules.into_iter().map(of).find(|gains| !gains.is_empty()).unwrap_or_default()
}

/// The median of each number; none is no gain.
fn median(gains: &[Gain]) -> Gain {
    let middle = |mut numbers: Vec<f64>| {
        numbers.sort_by(f64::total_cmp);
        numbers.get(numbers.len() / 2).copied()
    };
    Gain {
        sqnr: middle(gains.iter().map(|gain| gain.sqnr).collect()).unwrap_or(0.0),
        ssim: middle(gains.iter().filter_map(|gain| gain.ssim).collect()),
    }
}

/// A layer's name without the numbers that count blocks: layers of one role do the same in different places.
fn role(layer: &str) -> String {
    let parts = layer.split('.').filter(|part| part.parse::<usize>().is_err());
    parts
        .skip_while(|part| part.ends_with("blocks") || part.ends_with("block"))
        .collect::<Vec<_>>()
        .join(".")
}

#[cfg(test)]
mod tests {
    use super::{agreement, infer, middle, most_telling, role};
    use crate::metrics::SAME;
    use crate::sensitivity::tests::header_of;
    use crate::sensitivity::{Effect, FLOAT, Header, Of, Record, Sensitivity};

    const LAYERS: [&str; 4] = [
        "down_blocks.0.resnets.0.conv1",
        "down_blocks.1.resnets.0.conv1",
        "conv_out",
        "mid_block.ff",
    ];
    const OWN: [f64; 4] = [20.0, 22.0, 25.0, 18.0];

    /// Own errors of each layer at 4 bits, 24 dB more at 8.
    fn own() -> Sensitivity {
        const FORMATS: [&str; 3] = [FLOAT, "w8a8", "w4a8"];
        let mut records = Vec::new();
        for (place, layer) in LAYERS.iter().enumerate() {
            for (format, sqnr) in FORMATS.into_iter().zip([SAME, OWN[place] + 24.0, OWN[place]]) {
                records.push(Record {
                    component: "unet".into(),
                    layer: (*layer).to_owned(),
                    place,
                    format: format.to_owned(),
                    bytes: 1,
                    weights: 100,
                    effect: Effect { sqnr, ssim: None },
                    inferred: false,
                });
            }
        }
        let rounding = Effect { sqnr: 40.0, ssim: Some(0.99) };
        let header = Header { of: Of::Output, rounding, ..header_of(&FORMATS, &LAYERS) };
        Sensitivity { header, records }
    }

    /// Some layers at 4 bits, each 10 dB better in the network than by itself.
    fn measured(places: &[usize]) -> Sensitivity {
        let all = own();
        assert_eq!(middle(&all.header.components)[0].formats, ["w4a8"]);
        let records =
            all.records.iter().filter(|r| r.format == "w4a8" && places.contains(&r.place));
        let records = records.map(|r| {
            let ssim = LAYERS[r.place].ends_with("ff").then_some(0.9);
            Record { effect: Effect { sqnr: r.effect.sqnr + 10.0, ssim }, ..r.clone() }
        });
        let header = Header {
            of: Of::Network,
            components: middle(&all.header.components),
            places: Some(places.to_vec()),
            ..all.header.clone()
        };
        Sensitivity { records: records.collect(), header }
    }

    #[test]
    fn formats_and_roles_tell_of_each_other() {
        let found = infer(&own(), &measured(&[0, 3]));
        assert!(found.is_complete());
        let of = |layer: &str, format: &str| {
            let same = |r: &&Record| r.layer == layer && r.format == format;
            found.records.iter().find(same).unwrap().clone()
        };
        let measured = of(LAYERS[0], "w4a8");
        assert_eq!((measured.effect.sqnr, measured.inferred), (30.0, false));
        let finer = of(LAYERS[0], "w8a8");
        assert_eq!((finer.effect.sqnr, finer.inferred), (54.0, true));
        assert_eq!(of(LAYERS[1], "w4a8").effect.sqnr, 32.0);
        // A tenth of the error's power at 10 dB more.
        let ssim = of(LAYERS[3], "w8a8").effect.ssim.unwrap();
        assert!((1.0 - ssim - 0.1 * (10.0_f64).powf(-2.4)).abs() < 1e-9);
        assert_eq!(of(LAYERS[2], FLOAT).effect, found.header.floor());
    }

    #[test]
    fn each_role_comes_first_by_its_greatest_error() {
        assert_eq!(most_telling(&own()), [3, 0, 2, 1]);
        assert_eq!(
            role("up_blocks.1.attentions.0.transformer_blocks.9.attn2.to_k"),
            "attentions.transformer_blocks.attn2.to_k"
        );
        assert_eq!(role("mid_block.resnets.0.conv1"), role("down_blocks.2.resnets.1.conv1"));
    }

    #[test]
    fn agreement_is_that_of_ranks() {
        let found = agreement(&own(), &measured(&[0, 1, 2, 3]));
        assert!((found[1].1 - 1.0).abs() < 1e-12);
    }
}
