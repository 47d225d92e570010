//! The integer programme of a group of layers, in real numbers.
//!
//! ```text
//! maximise Σᵢⱼ sᵢⱼ xᵢⱼ   subject to   Σⱼ xᵢⱼ = 1 for each i,   low ≤ Σᵢⱼ cᵢⱼ xᵢⱼ ≤ high,   x ∈ {0, 1}
//! ```
//!
//! Costs may be bits times sizes, bytes or milliseconds.

use std::ops::RangeInclusive;

use crate::grid::{self, Unit};
use crate::knapsack::{self, Choice};

/// A format that a layer may have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// What it takes of the budget: finite, and not negative.
    pub cost: f64,
    /// What it is worth: finite.
    pub score: f64,
}

/// The candidate of every layer that makes the sum of scores greatest while the sum of costs lies in the window; of equal
/// sums of scores, the one that costs less. `None` if no selection lies in the window.
///
/// Exact: the window holds to 10⁻¹² of its ends, which is what rounding does to sums.
///
/// # Panics
///
/// If a cost is negative, or anything is not finite.
pub fn solve(layers: &[Vec<Candidate>], window: RangeInclusive<f64>) -> Option<Vec<usize>> {
    let valid = |c: &Candidate| c.cost.is_finite() && c.cost >= 0.0 && c.score.is_finite();
    assert!(layers.iter().flatten().all(valid), "costs and scores are finite, costs not negative");
    let costs: Vec<Vec<f64>> =
        layers.iter().map(|layer| layer.iter().map(|c| c.cost).collect()).collect();
    let scores: Vec<Vec<f64>> =
        layers.iter().map(|layer| layer.iter().map(|c| c.score).collect()).collect();
    let unit = Unit::of(costs.iter().map(Vec::as_slice));
    let scores = grid::whole_scores(&scores);
    let choices = costs.iter().zip(&scores).map(|(costs, scores)| {
        let pairs = costs.iter().zip(scores);
        pairs.map(|(&cost, &score)| Choice { cost: unit.whole(cost), score }).collect()
    });
    let choices: Vec<Vec<Choice>> = choices.collect();
    let (low, high) = unit.between(*window.start(), *window.end());
    knapsack::solve(&choices, low..=high)
}

#[cfg(test)]
mod tests {
    use super::{Candidate, solve};

    fn layer(size: f64, scores: [f64; 2]) -> Vec<Candidate> {
        let candidate = |(bits, score)| Candidate { cost: bits * size, score };
        [4.0, 8.0].into_iter().zip(scores).map(candidate).collect()
    }

    #[test]
    fn bits_go_where_they_gain_most() {
        let layers = [layer(0.1, [1.0, 1.5]), layer(0.1, [1.0, 1.7]), layer(0.1, [1.0, 1.6])];
        assert_eq!(solve(&layers, 0.0..=2.0), Some(vec![0, 1, 1]));
        assert_eq!(solve(&layers, 0.0..=1.6), Some(vec![0, 1, 0]));
        assert_eq!(solve(&layers, 0.0..=1.1), None);
        assert_eq!(solve(&layers, 2.3..=9.0), Some(vec![1, 1, 1]));
    }

    #[test]
    fn a_lower_end_is_kept_at_a_loss() {
        let layers = [layer(1.0, [1.0, 0.5]), layer(1.0, [1.0, 0.7]), layer(1.0, [1.0, 0.6])];
        assert_eq!(solve(&layers, 0.0..=24.0), Some(vec![0, 0, 0]));
        assert_eq!(solve(&layers, 13.0..=24.0), Some(vec![0, 1, 0]));
    }

    #[test]
    fn layers_without_a_cost_take_the_best() {
        let layers = [layer(0.0, [1.0, 2.0]), layer(0.0, [2.0, 1.0]), layer(0.0, [1.0, 1.0])];
        assert_eq!(solve(&layers, 0.0..=0.0), Some(vec![1, 0, 0]));
        assert_eq!(solve(&layers, 0.1..=1.0), None);
    }
}
