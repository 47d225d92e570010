//! Real costs and scores as whole numbers, whose sums are exact.
//!
//! Costs are often numbers of parameters divided by something: then all are multiples of one unit, found
//! from their ratios by continued fractions, and nothing is rounded but the noise of the division. Other costs are
//! rounded to 2⁻⁴⁸ of their sum. Scores are rounded to at most 2⁻⁵⁸ of the sum of their ranges.

/// Costs beyond this many units in sum are too many for the solver.
const MOST_UNITS: f64 = (1_u64 << 49) as f64;

/// Units of a cost that are no multiples of anything.
const FINE: f64 = (1_u64 << 48) as f64;

/// The greatest denominator of a ratio of two costs.
const MOST_PARTS: u64 = 1 << 20;

/// What rounding may have done to a ratio, relative to it.
const NOISE: f64 = 1e-14;

/// The unit of costs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unit(f64);

impl Unit {
    /// The unit of the costs of each layer's choices, all finite and none negative.
    pub(crate) fn of<'a>(layers: impl Iterator<Item = &'a [f64]> + Clone) -> Self {
        let total: f64 =
            layers.clone().map(|costs| costs.iter().copied().fold(0.0, f64::max)).sum();
        if total == 0.0 {
            return Self(1.0);
        }
        let costs = layers.flatten().copied().filter(|cost| *cost > 0.0);
        let unit = common(costs).filter(|unit| total / unit <= MOST_UNITS);
        Self(unit.unwrap_or(total / FINE))
    }

    /// A cost in units.
    pub(crate) fn whole(self, cost: f64) -> i64 {
        (cost / self.0).round() as i64
    }

    /// The least and the greatest number of units between two costs. What is off by no more than rounding does is
    /// inside.
    pub(crate) fn between(self, low: f64, high: f64) -> (i64, i64) {
        let (low, high) = (low / self.0, high / self.0);
        ((low - low.abs() * 1e-12).ceil() as i64, (high + high.abs() * 1e-12).floor() as i64)
    }
}

/// The greatest number of which all these are multiples, if there is one.
fn common(costs: impl Iterator<Item = f64> + Clone) -> Option<f64> {
    let least = costs.clone().fold(f64::INFINITY, f64::min);
    let mut parts = 1_u64;
    for cost in costs {
        let new = denominator(cost / least)?;
        parts = parts / gcd(parts, new) * new;
        if parts > MOST_PARTS {
            return None;
        }
    }
    Some(least / parts as f64)
}

/// The least denominator of a fraction that equals a ratio of at least one.
fn denominator(ratio: f64) -> Option<u64> {
    // Denominators of the convergents of its continued fraction.
    let (mut before, mut parts) = (0_u64, 1_u64);
    let mut rest = ratio;
    loop {
        let whole = ratio * parts as f64;
        if (whole - whole.round()).abs() <= whole * NOISE {
            return Some(parts);
        }
        rest = 1.0 / (rest - rest.floor());
        let next = (rest.floor() as u64).checked_mul(parts)?.checked_add(before)?;
        if next > MOST_PARTS {
            return None;
        }
        (before, parts) = (parts, next);
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The scores of each layer's choices above the layer's least.
pub(crate) fn whole_scores(layers: &[Vec<f64>]) -> Vec<Vec<i64>> {
    let least = |scores: &[f64]| scores.iter().copied().fold(f64::INFINITY, f64::min);
    let above = layers.iter().map(|scores| {
        let least = least(scores);
        scores.iter().map(|score| score - least).collect::<Vec<f64>>()
    });
    let above: Vec<Vec<f64>> = above.collect();
    let range: f64 = above.iter().map(|scores| scores.iter().copied().fold(0.0, f64::max)).sum();
    // A power of two, so that nothing is rounded that need not be.
    let scale = if range > 0.0 { (58.0 - range.log2().ceil()).clamp(-1000.0, 1000.0) } else { 0.0 };
    let scale = scale.exp2();
    let whole = |scores: &Vec<f64>| scores.iter().map(|s| (s * scale).round() as i64).collect();
    above.iter().map(whole).collect()
}

#[cfg(test)]
mod tests {
    use super::{Unit, whole_scores};

    fn whole(costs: &[f64]) -> Vec<i64> {
        let unit = Unit::of(std::iter::once(costs));
        costs.iter().map(|&cost| unit.whole(cost)).collect()
    }

    #[test]
    fn multiples_of_a_unit_are_found() {
        assert_eq!(
            whole(&[1.0, 80.0, 142.222_222_222_222_23, 312.888_888_888_888_9]),
            [9, 720, 1280, 2816]
        );
        assert_eq!(whole(&[8.8, 4.0, 51.2, 4096.0, 492.8]), [11, 5, 64, 5120, 616]);
        assert_eq!(whole(&[0.3, 0.1, 0.2, 0.7]), [3, 1, 2, 7]);
        assert_eq!(whole(&[0.0, 3e-9, 0.0]), [0, 1, 0]);
        assert_eq!(whole(&[0.0]), [0]);
        assert_eq!(whole(&[1e30, 5e29]), [2, 1]);
    }

    #[test]
    fn other_costs_keep_all_their_digits() {
        let costs =
            [1.0, std::f64::consts::PI, std::f64::consts::E, 1e4_f64.sqrt() + 0.1_f64.sqrt()];
        let whole = whole(&costs);
        for (cost, whole) in costs.iter().zip(&whole) {
            let back = *whole as f64 / whole_of_one(&costs);
            assert!((back - cost).abs() < 1e-11, "{cost} {back}");
        }
    }

    fn whole_of_one(costs: &[f64]) -> f64 {
        Unit::of(std::iter::once(costs)).whole(1.0) as f64
    }

    #[test]
    fn edges_of_a_window_are_inside() {
        let unit = Unit::of(std::iter::once(&[0.1, 0.3][..]));
        assert_eq!(unit.between(0.1 + 0.2, 0.7 - 1e-17), (3, 7));
        assert_eq!(unit.between(0.31, 0.69), (4, 6));
        assert_eq!(unit.between(-0.1, 0.0), (-1, 0));
    }

    #[test]
    fn scores_keep_their_order_and_their_ties() {
        let scores = whole_scores(&[vec![0.999_1, 0.999_95, 0.999_95], vec![-3.0, 84.0]]);
        assert_eq!((scores[0][0], scores[1][0]), (0, 0));
        assert_eq!(scores[0][1], scores[0][2]);
        assert_eq!(scores[1][1], 87 << 51);
        assert_eq!(whole_scores(&[vec![1.0, 1.0], vec![]]), [vec![0, 0], vec![]]);
    }
}
