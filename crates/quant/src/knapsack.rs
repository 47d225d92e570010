//! The multiple-choice knapsack problem with a window, solved exactly in whole numbers.
//!
//! Every layer `i` takes one of its choices `j`, which has a cost `cᵢⱼ` and a score `sᵢⱼ`:
//!
//! ```text
//! maximise Σᵢ s(i, xᵢ)   subject to   low ≤ Σᵢ c(i, xᵢ) ≤ high
//! ```
//!
//! and among equal sums of scores the one that costs least. The plain algorithm tries all `x`. What
//! makes it fast, each step exact, because sums of whole numbers are:
//!
//! 1. **A price.** Let a unit of cost have the price λ = p/q at which the relaxed problem, in which a
//!    layer may be torn between two choices, spends all that it may (`relaxation`). Each layer alone then
//!    prefers the choice with the greatest `s − λc`, and `B = Σ max (s − λc) + λ·high` bounds every
//!    solution from above. Another choice has a *regret*, what it is behind by. The sum of scores of any
//!    `x` is `B` less its *loss*: its regrets plus λ times what it leaves of `high`.
//! 2. **Few deviations.** Where the loss is small, few layers deviate from their preference, and only
//!    those with small regrets do. Layers are visited by their least regret; all sets of deviations
//!    whose regrets stay within the least loss seen so far are listed, and no other can be better
//!    (`deviations`). This is the core of Pisinger's algorithm (A minimal algorithm for the
//!    multiple-choice knapsack problem, European Journal of Operational Research 83, 1995).
//! 3. **Few states.** Of two sets of deviations with equal costs, the one with less regret is kept. Where
//!    a small loss already implies `low`, one that costs less and scores no less is kept too. Equal
//!    layers therefore take as many states as they have distinct sums, not as they have subsets.
//! 4. **Both ends.** If the choices with the greatest scores cost less than `low`, costs are counted
//!    from the other end, and `low` takes the part of `high`.
//! 5. **Branching.** If the states of one list outgrow memory all the same, the layer whose choices
//!    are furthest apart in cost is decided first, one choice after the other, each with its own price.
//!    This ends in any case, takes little memory, and skips what cannot beat the best known.
//!
//! Networks of hundreds of layers take less than a millisecond. The problem is hard in general all the same
//! (it holds the sums of subsets): where costs have no unit in common and scores are proportional to them, or
//! where the window is far narrower than the steps of the layers, the fifth step may take very long.

mod deviations;
mod relaxation;

use std::ops::RangeInclusive;

use relaxation::{Relaxation, Relaxed};

/// The greatest sum of magnitudes of costs.
pub const MOST_COST: i64 = 1 << 50;

/// The greatest sum of magnitudes of scores.
pub const MOST_SCORE: i64 = 1 << 60;

/// What a layer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What it takes of the budget.
    pub cost: i64,
    /// What it is worth.
    pub score: i64,
}

/// How much memory the search may take.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// States in a list, beyond which equal sums of scores are no longer told apart by their costs.
    ties: usize,
    /// States in a list, beyond which layers are decided one by one.
    states: usize,
    /// States that are followed further then, to find a good solution.
    thinned: usize,
    /// Deviations that are remembered.
    trace: usize,
}

const LIMITS: Limits = Limits { ties: 1 << 13, states: 1 << 18, thinned: 1 << 11, trace: 1 << 23 };

/// The choice of every layer whose costs lie in the window together and whose scores are greatest together;
/// `None` if nothing lies in the window.
///
/// Among equal scores the least cost is taken, except where very many selections have equal scores: then
/// one of them.
///
/// # Panics
///
/// If magnitudes of costs or scores sum to more than [`MOST_COST`] and [`MOST_SCORE`].
pub fn solve(layers: &[Vec<Choice>], window: RangeInclusive<i64>) -> Option<Vec<usize>> {
    solve_within(layers, window, LIMITS)
}

fn solve_within(
    layers: &[Vec<Choice>],
    window: RangeInclusive<i64>,
    limits: Limits,
) -> Option<Vec<usize>> {
    let most = |of: fn(&Choice) -> i64| {
        let layers = layers.iter();
        let most =
            layers.map(|layer| layer.iter().map(|c| of(c).unsigned_abs()).max().unwrap_or(0));
        most.map(u128::from).sum::<u128>()
    };
    assert!(most(|choice| choice.cost) <= MOST_COST as u128, "costs are at most 2^50 together");
    assert!(most(|choice| choice.score) <= MOST_SCORE as u128, "scores are at most 2^60 together");
    // Beyond the sums there is nothing, and differences of what remains are free of overflow.
    let low = (*window.start()).clamp(-2 * MOST_COST, 2 * MOST_COST);
    let high = (*window.end()).clamp(-2 * MOST_COST, 2 * MOST_COST);
    let mut search = Search { layers, low, high, limits, best: None };
    let free = (0..layers.len()).collect();
    search.explore(&Node { free, chosen: vec![0; layers.len()], cost: 0, score: 0 });
    search.best.map(|best| best.chosen)
}

/// What is known so far.
struct Search<'a> {
    layers: &'a [Vec<Choice>],
    low: i64,
    high: i64,
    limits: Limits,
    best: Option<Best>,
}

struct Best {
    score: i64,
    cost: i64,
    chosen: Vec<usize>,
}

/// The problem with some layers decided.
#[derive(Clone)]
struct Node {
    /// Layers that are not decided yet.
    free: Vec<usize>,
    /// The choice of every layer that is.
    chosen: Vec<usize>,
    /// What these cost.
    cost: i64,
    /// What these are worth.
    score: i64,
}

impl Search<'_> {
    fn explore(&mut self, node: &Node) {
        let free: Vec<&[Choice]> = node.free.iter().map(|&i| &self.layers[i][..]).collect();
        let relaxed = Relaxation::of(&free, self.low - node.cost, self.high - node.cost);
        let relaxation = match relaxed {
            Relaxed::Empty => return,
            Relaxed::Solved(chosen) => return self.offer(node, &chosen),
            Relaxed::Bound(relaxation) => relaxation,
        };
        // What was found before is beaten by a greater score only.
        let limit = self.best.as_ref().map_or(relaxation::UNBOUNDED, |best| {
            relaxation.loss(best.score - node.score) - relaxation.one_score()
        });
        let outcome = deviations::search(&relaxation, limit, self.limits);
        if let Some(chosen) = &outcome.best {
            self.offer(node, chosen);
        }
        if !outcome.complete {
            self.branch(node, &relaxation);
        }
    }

    /// Keep what is better than the best: choices of the layers that are free in a node.
    fn offer(&mut self, node: &Node, choices: &[usize]) {
        let (mut cost, mut score, mut chosen) = (node.cost, node.score, node.chosen.clone());
        for (&layer, &choice) in node.free.iter().zip(choices) {
            cost += self.layers[layer][choice].cost;
            score += self.layers[layer][choice].score;
            chosen[layer] = choice;
        }
        debug_assert!((self.low..=self.high).contains(&cost), "offers lie in the window");
        let better = |best: &Best| score > best.score || (score == best.score && cost < best.cost);
        if self.best.as_ref().is_none_or(better) {
            self.best = Some(Best { score, cost, chosen });
        }
    }

    /// Decide the layer whose choices are furthest apart, beginning with what it prefers.
    fn branch(&mut self, node: &Node, relaxation: &Relaxation) {
        let span = |place: &usize| {
            let costs = self.layers[node.free[*place]].iter().map(|choice| choice.cost);
            costs.clone().max().unwrap_or(0) - costs.min().unwrap_or(0)
        };
        // Of equal ones the first: what the computer does depends on the problem alone.
        let widest = (0..node.free.len()).rev().max_by_key(span);
        let Some(place) = widest else { return };
        let layer = node.free[place];
        let mut order: Vec<usize> = (0..self.layers[layer].len()).collect();
        order.sort_by_key(|&choice| relaxation.regret(place, self.layers[layer][choice]));
        for choice in order {
            let mut child = node.clone();
            child.free.remove(place);
            child.chosen[layer] = choice;
            child.cost += self.layers[layer][choice].cost;
            child.score += self.layers[layer][choice].score;
            self.explore(&child);
        }
    }
}

#[cfg(test)]
mod tests;
