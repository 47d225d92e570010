//! The price of a unit of cost, and what each choice is behind by at that price.
//!
//! The relaxed problem lets a layer be torn between two choices. It is solved by the steps of each
//! layer's upper hull (its choices by cost, without those that lie below a line between two others), taken
//! in the order of score gained per unit of cost until the next one does not fit: the ratio of that step
//! is the price (Sinha and Zoltners, The multiple-choice knapsack problem, Operations Research 27, 1979).
//!
//! The price is a fraction p/q of whole numbers. Regrets and losses are multiplied by q, which makes
//! them whole too: at most 2⁵⁰ · 2⁶¹ + 2⁶⁰ · 2⁵² each, far within 127 bits.

use super::Choice;

/// A loss that is greater than any.
pub(super) const UNBOUNDED: i128 = i128::MAX >> 4;

/// What the relaxed problem says.
pub(super) enum Relaxed {
    /// Nothing lies in the window.
    Empty,
    /// The best choice of each layer.
    Solved(Vec<usize>),
    /// A bound.
    Bound(Relaxation),
}

/// A price, with what every layer prefers at it.
pub(super) struct Relaxation {
    /// p: what q units of cost are worth.
    pub(super) price: i128,
    /// q.
    quantity: i128,
    /// Which end of the window is scarce.
    pub(super) scarce: End,
    /// The window, with costs counted from the end that is not scarce.
    pub(super) low: i64,
    pub(super) high: i64,
    /// What each layer prefers.
    pub(super) preferred: Vec<usize>,
    /// The cost of all that is preferred, at most `high`.
    pub(super) cost: i64,
    score: i64,
    /// Of which all differences of scores are multiples.
    grain: i64,
    /// What each layer's preference is worth at the price.
    worth: Vec<i128>,
    /// What other choices there are, by their least regret.
    pub(super) layers: Vec<Layer>,
}

/// Which end of the window keeps layers from what they would like best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// They would cost too much.
    High,
    /// They would cost too little: costs are counted with the opposite sign.
    Low,
}

/// The choices of a layer other than the one that it prefers.
pub(super) struct Layer {
    /// Its place among the layers that were given.
    pub(super) place: usize,
    /// By their regrets.
    pub(super) others: Vec<Deviation>,
}

/// A choice other than the one that its layer prefers.
#[derive(Clone, Copy)]
pub(super) struct Deviation {
    pub(super) choice: usize,
    /// What it costs more.
    pub(super) cost: i64,
    /// What it is behind by.
    pub(super) regret: i128,
}

/// A step along the hull of a layer.
struct Step {
    place: usize,
    to: usize,
    cost: i64,
    score: i64,
}

impl End {
    fn sign(self) -> i64 {
        match self {
            Self::High => 1,
            Self::Low => -1,
        }
    }
}

impl Relaxation {
    /// Relax the problem of these layers.
    pub(super) fn of(layers: &[&[Choice]], low: i64, high: i64) -> Relaxed {
        let Some((low, high)) = reachable(layers, low, high) else { return Relaxed::Empty };
        // The greatest score, at the least cost.
        let favourites = layers.iter().map(|layer| {
            let best = (0..layer.len()).min_by_key(|&j| (-layer[j].score, layer[j].cost));
            best.unwrap_or(0)
        });
        let favourites: Vec<usize> = favourites.collect();
        let cost: i64 = favourites.iter().zip(layers).map(|(&j, layer)| layer[j].cost).sum();
        if (low..=high).contains(&cost) {
            return Relaxed::Solved(favourites);
        }
        Relaxed::Bound(if cost > high {
            Self::priced(layers, End::High, (low, high))
        } else {
            Self::priced(layers, End::Low, (-high, -low))
        })
    }

    fn priced(layers: &[&[Choice]], scarce: End, (low, high): (i64, i64)) -> Self {
        let sign = scarce.sign();
        let mut preferred = Vec::new();
        let mut steps = Vec::new();
        for (place, layer) in layers.iter().enumerate() {
            let hull = hull(layer, sign);
            preferred.push(hull[0]);
            steps.extend(hull.windows(2).map(|pair| Step {
                place,
                to: pair[1],
                cost: sign * (layer[pair[1]].cost - layer[pair[0]].cost),
                score: layer[pair[1]].score - layer[pair[0]].score,
            }));
        }
        let product = |score: i64, cost: i64| i128::from(score) * i128::from(cost);
        steps.sort_by(|a, b| product(b.score, a.cost).cmp(&product(a.score, b.cost)));
        let costs = preferred.iter().zip(layers).map(|(&j, layer)| sign * layer[j].cost);
        let mut cost: i64 = costs.sum();
        // All steps together do not fit, because the favourites cost more than `high`.
        let mut reached = 0;
        let (mut price, mut quantity) = (0, 1);
        for step in &steps {
            if cost + step.cost > high {
                let divisor = gcd(step.score, step.cost);
                (price, quantity) = (step.score / divisor, step.cost / divisor);
                break;
            }
            cost += step.cost;
            preferred[step.place] = step.to;
            reached += 1;
        }
        let mut distance = vec![usize::MAX; layers.len()];
        for (number, step) in steps.iter().enumerate() {
            distance[step.place] = distance[step.place].min(number.abs_diff(reached));
        }
        let score = preferred.iter().zip(layers).map(|(&j, layer)| layer[j].score).sum();
        let mut relaxation = Self {
            price: i128::from(price),
            quantity: i128::from(quantity),
            scarce,
            low,
            high,
            preferred,
            cost,
            score,
            grain: grain(layers),
            worth: Vec::new(),
            layers: Vec::new(),
        };
        relaxation.compare(layers, &distance);
        relaxation
    }

    /// Find the regrets of all choices. Layers with equal ones come by how far they are from the step that does not fit,
    /// so that those that can cost more and those that can cost less take turns.
    fn compare(&mut self, layers: &[&[Choice]], distance: &[usize]) {
        let preferred = self.preferred.iter().zip(layers);
        self.worth = preferred.map(|(&j, layer)| self.worth(layer[j])).collect();
        let sign = self.scarce.sign();
        let others = layers.iter().enumerate().map(|(place, layer)| {
            let own = self.preferred[place];
            let others = layer.iter().enumerate().filter(|(choice, _)| *choice != own);
            let others = others.map(|(choice, other)| Deviation {
                choice,
                cost: sign * (other.cost - layer[own].cost),
                regret: self.regret(place, *other),
            });
            let mut others: Vec<Deviation> = others.collect();
            others.sort_by_key(|other| other.regret);
            Layer { place, others }
        });
        let mut others: Vec<Layer> = others.filter(|layer| !layer.others.is_empty()).collect();
        others.sort_by_key(|layer| (layer.others[0].regret, distance[layer.place]));
        self.layers = others;
    }

    /// What a choice is worth at the price, times q.
    fn worth(&self, choice: Choice) -> i128 {
        let cost = self.scarce.sign() * choice.cost;
        self.quantity * i128::from(choice.score) - self.price * i128::from(cost)
    }

    /// What a choice of a layer is behind by, times q.
    pub(super) fn regret(&self, place: usize, choice: Choice) -> i128 {
        self.worth[place] - self.worth(choice)
    }

    /// What a selection with this sum of scores is below the bound, times q.
    pub(super) fn loss(&self, score: i64) -> i128 {
        self.left(self.cost) + self.quantity * i128::from(self.score - score)
    }

    /// What a difference of one in the sum of scores is in losses.
    pub(super) fn one_score(&self) -> i128 {
        self.quantity
    }

    /// The least difference of two selections of these layers with different sums of scores, in losses.
    pub(super) fn one_grain(&self) -> i128 {
        if self.grain == 0 { UNBOUNDED } else { self.quantity * i128::from(self.grain) }
    }

    /// The price of what a selection leaves of the budget.
    pub(super) fn left(&self, cost: i64) -> i128 {
        self.price * i128::from(self.high - cost)
    }
}

/// The part of a window that sums of costs can meet: between the least and the greatest, on the grid of their
/// differences.
fn reachable(layers: &[&[Choice]], low: i64, high: i64) -> Option<(i64, i64)> {
    let (mut least, mut most, mut grid) = (0, 0, 0);
    for layer in layers {
        let first = layer.first()?.cost;
        least += layer.iter().map(|choice| choice.cost).min()?;
        most += layer.iter().map(|choice| choice.cost).max()?;
        grid = layer.iter().fold(grid, |grid, choice| gcd(grid, choice.cost - first));
    }
    let (low, high) = (low.max(least), high.min(most));
    if low > high {
        return None;
    }
    // Without differences there is one sum.
    let grid = grid.max(1);
    let low = least + (low - least + grid - 1).div_euclid(grid) * grid;
    let high = least + (high - least).div_euclid(grid) * grid;
    (low <= high).then_some((low, high))
}

/// The greatest number of which all differences of scores within layers are multiples.
fn grain(layers: &[&[Choice]]) -> i64 {
    let pairs = layers.iter().flat_map(|layer| layer.windows(2));
    pairs.fold(0, |grain, pair| gcd(grain, pair[1].score - pair[0].score))
}

/// The choices on the upper hull, from the least cost to the greatest score.
fn hull(layer: &[Choice], sign: i64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..layer.len()).collect();
    order.sort_by_key(|&j| (sign * layer[j].cost, -layer[j].score));
    let mut hull: Vec<usize> = Vec::new();
    for j in order {
        let step = |from: usize| {
            let cost = sign * (layer[j].cost - layer[from].cost);
            (i128::from(cost), i128::from(layer[j].score - layer[from].score))
        };
        let Some(&last) = hull.last() else {
            hull.push(j);
            continue;
        };
        // Nothing is gained by a greater cost.
        let (cost, score) = step(last);
        if cost == 0 || score < 0 {
            continue;
        }
        while let [.., before, last] = hull[..] {
            let ((long, gain), (short, late)) = (step(before), step(last));
            // The last one is below the line from the one before to the new one, or on it.
            if late * long < gain * short {
                break;
            }
            hull.pop();
        }
        hull.push(j);
    }
    hull
}

fn gcd(a: i64, b: i64) -> i64 {
    let (mut a, mut b) = (a.abs(), b.abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
