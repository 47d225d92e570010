//! Layers whose activations keep 16 bits when those of all others are rounded.
//!
//! The paper's rule: of each group the most sensitive share, rounded up, by the scores of rounded activations alone.

use std::collections::BTreeSet;

use super::{Layers, Metric};
use crate::group::Group;
use crate::sensitivity::{FLOAT, Record, Sensitivity};

/// These formats, those of the most sensitive layers changed by `keep`.
///
/// `activations` has one score of each layer beside that of real numbers. The share is counted among the layers that `keep`
/// has an answer for: others keep their activations anyhow.
pub fn protect(
    layers: &Layers,
    (activations, metric): (&Sensitivity, Metric),
    share: f64,
    keep: &dyn Fn(&str) -> Option<String>,
) -> Layers {
    let mut found = layers.clone();
    let format = |record: &Record| layers.get(&record.component)?.get(&record.layer);
    let rounded = activations.records.iter().filter(|record| record.format != FLOAT);
    let due: Vec<(&Record, String)> =
        rounded.filter_map(|record| Some((record, keep(format(record)?)?))).collect();
    for group in Group::ALL {
        let mut own: Vec<_> = due.iter().filter(|(record, _)| record.group() == group).collect();
        own.sort_by(|(a, _), (b, _)| score(a, metric).total_cmp(&score(b, metric)));
        let count = (share * own.len() as f64).ceil() as usize;
        for (record, kept) in own.into_iter().take(count) {
            let component = found.entry(record.component.clone()).or_default();
            component.insert(record.layer.clone(), kept.clone());
        }
    }
    found
}

/// How near the network stays. Within a group all have the same score.
fn score(record: &Record, metric: Metric) -> f64 {
    let by_pictures = match metric {
        Metric::Decoupled => record.group() == Group::Content,
        Metric::Sqnr => false,
        Metric::Ssim => true,
    };
    record.effect.ssim.filter(|_| by_pictures).unwrap_or(record.effect.sqnr)
}

/// How many layers have other formats.
pub fn changed(a: &Layers, b: &Layers) -> usize {
    let flat = |layers: &Layers| -> BTreeSet<(String, String, String)> {
        let of = layers.iter().flat_map(|(component, layers)| {
            layers.iter().map(|(layer, format)| (component.clone(), layer.clone(), format.clone()))
        });
        of.collect()
    };
    flat(a).difference(&flat(b)).count()
}

#[cfg(test)]
mod tests {
    use super::{changed, protect};
    use crate::formats::{Layers, Metric};
    use crate::sensitivity::tests::header_of;
    use crate::sensitivity::{Effect, FLOAT, Record, Sensitivity};

    /// Scores of rounded activations: the prediction's in decibels, and the pictures' where a layer is of the content group.
    fn measured(layers: &[(&str, f64, Option<f64>)]) -> Sensitivity {
        let mut records = Vec::new();
        for (place, &(layer, sqnr, ssim)) in layers.iter().enumerate() {
            for format in [FLOAT, "a8"] {
                records.push(Record {
                    component: "unet".into(),
                    layer: layer.into(),
                    place,
                    format: format.into(),
                    bytes: 200,
                    weights: 100,
                    effect: Effect { sqnr, ssim },
                    inferred: false,
                });
            }
        }
        let names: Vec<&str> = layers.iter().map(|(name, ..)| *name).collect();
        Sensitivity { header: header_of(&[FLOAT, "a8"], &names), records }
    }

    #[test]
    fn the_most_sensitive_of_each_group_keep_their_activations() {
        let scores = [
            ("conv_in", 20.0, None),
            ("mid", 30.0, None),
            ("mid.attn1.to_q", 25.0, None),
            ("a.attn2.to_k", 50.0, Some(0.9)),
            ("b.attn2.to_k", 10.0, Some(0.95)),
        ];
        let measured = measured(&scores);
        let formats = ["w4a8", "w4a8", FLOAT, "w8a8", "w4a8"];
        let of =
            scores.iter().zip(formats).map(|((name, ..), f)| ((*name).to_owned(), f.to_owned()));
        let layers = Layers::from([("unet".to_owned(), of.collect())]);
        let keep = |format: &str| format.strip_suffix("a8").map(|weights| format!("{weights}a16"));
        let found = |share, metric| {
            let found = protect(&layers, (&measured, metric), share, &keep);
            let count = changed(&found, &layers);
            (scores.map(|(name, ..)| found["unet"][name].clone()), count)
        };
        assert_eq!(found(0.0, Metric::Decoupled).1, 0);
        // One of two in each group; real numbers are not counted.
        let some = (["w4a16", "w4a8", FLOAT, "w8a16", "w4a8"].map(str::to_owned), 2);
        assert_eq!(found(0.01, Metric::Decoupled), some);
        assert_eq!(found(0.5, Metric::Decoupled), some);
        let other = ["w4a16", "w4a8", FLOAT, "w8a8", "w4a16"].map(str::to_owned);
        assert_eq!(found(0.5, Metric::Sqnr), (other, 2));
        assert_eq!(found(0.51, Metric::Decoupled).1, 4);
    }
}
