//! How many bits each group may have, and which budgets are worth a try.
//!
//! With sizes `W` of the groups and a ratio `k` between their averages, an average of `a` bits over all
//! layers leaves
//!
//! ```text
//! m_quality = a (1 + r) / (k r + 1),   m_content = k m_quality,   r = W_content / W_quality
//! ```
//!
//! to each of them.

use std::ops::RangeInclusive;

use crate::group::Group;
use crate::kind::Kind;

/// How far the average of a group may be from its target.
pub const TOLERANCE: f64 = 0.02;

/// What is off by no more than this has been rounded.
const ROUNDED: f64 = 1e-9;

/// Average bits of all layers, and how they are shared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Bits, averaged over all layers by size.
    pub average: f64,
    /// The average of the content group, divided by that of the quality group.
    pub ratio: f64,
}

impl Budget {
    /// The average that is left to a group, where the groups have these sizes.
    pub fn target(self, group: Group, content: f64, quality: f64) -> f64 {
        // The formula above with both sides of the fraction multiplied by the size of the quality group, which may be 0.
        let shared = self.ratio * content + quality;
        let of_quality = self.average * (content + quality) / shared;
        match group {
            Group::Quality => of_quality,
            Group::Content => self.ratio * of_quality,
        }
    }

    /// The budgets of the published search: ten averages up to this one, with ratios around an even split.
    pub fn sweep(kind: Kind, average: f64) -> Vec<Self> {
        let (from, to, count) = match kind {
            Kind::Weight => (0.46, 1.36, 10),
            Kind::Act => (0.94, 1.09, 20),
        };
        let ratios = evenly(from, to, count);
        let averages = evenly(average - 0.3, average, 10).into_iter();
        averages
            .flat_map(|average| ratios.iter().map(move |&ratio| Self { average, ratio }))
            .collect()
    }
}

/// The averages that may be asked of a group at all.
pub fn sensible(group: Group) -> RangeInclusive<f64> {
    match group {
        Group::Content => 2.0..=8.0,
        Group::Quality => 4.0..=8.0,
    }
}

/// Whether an average may be asked of a group.
pub(crate) fn is_sensible(group: Group, average: f64) -> bool {
    let range = sensible(group);
    (range.start() - ROUNDED..=range.end() + ROUNDED).contains(&average)
}

/// Numbers at equal distances, with both ends.
fn evenly(from: f64, to: f64, count: u32) -> Vec<f64> {
    let step = (to - from) / f64::from(count - 1);
    (0..count).map(|i| if i + 1 == count { to } else { from + f64::from(i) * step }).collect()
}

#[cfg(test)]
mod tests {
    use super::{Budget, is_sensible};
    use crate::group::Group::{Content, Quality};
    use crate::kind::Kind;

    #[test]
    fn targets_average_to_the_budget() {
        let (content, quality) = (154.0, 68.7);
        for budget in Budget::sweep(Kind::Weight, 5.0) {
            let of_content = budget.target(Content, content, quality);
            let of_quality = budget.target(Quality, content, quality);
            let all = (of_content * content + of_quality * quality) / (content + quality);
            assert!((all - budget.average).abs() < 1e-12);
            assert!((of_content / of_quality - budget.ratio).abs() < 1e-12);
        }
        let even = Budget { average: 8.0, ratio: 1.0 };
        assert_eq!(even.target(Content, content, quality), 8.0);
        assert!(is_sensible(Quality, even.target(Quality, content, quality)));
        assert!(!is_sensible(Quality, 3.99) && is_sensible(Content, 3.99));
        assert_eq!(even.target(Quality, 0.0, 1.0), 8.0);
        assert_eq!(even.target(Content, 1.0, 0.0), 8.0);
    }

    #[test]
    fn the_sweep_has_both_ends() {
        let weights = Budget::sweep(Kind::Weight, 5.0);
        assert_eq!(weights.len(), 100);
        assert_eq!(weights[0], Budget { average: 4.7, ratio: 0.46 });
        assert_eq!(weights[99], Budget { average: 5.0, ratio: 1.36 });
        let acts = Budget::sweep(Kind::Act, 7.7);
        assert_eq!(acts.len(), 200);
        assert_eq!(acts[199], Budget { average: 7.7, ratio: 1.09 });
    }
}
