//! All sets of deviations from what the layers prefer whose loss is within a limit.
//!
//! A state is a whole selection: some of the layers visited so far deviate, all others have what they
//! prefer. Deviating costs regret and never gives any back, so a state beyond the limit has no successor
//! within it. Layers are visited by their least regret: once that is beyond what a state may still
//! lose, the state is finished.

use super::Limits;
use super::relaxation::{Deviation, End, Layer, Relaxation};

/// What was found.
pub(super) struct Outcome {
    /// The best selection within the limit.
    pub(super) best: Option<Vec<usize>>,
    /// Whether there is no better one.
    pub(super) complete: bool,
}

/// A selection.
#[derive(Clone, Copy)]
struct State {
    cost: i64,
    regret: i128,
    /// The place of its last deviation in the trace, from one; zero for none.
    trace: u32,
}

/// A deviation, and the place of the one before.
#[derive(Clone, Copy)]
struct Made {
    before: u32,
    place: u32,
    choice: u32,
}

/// Which states are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// Those that no cheaper one matches.
    Front,
    /// One of each cost.
    Sums,
}

struct Pass<'a> {
    relaxation: &'a Relaxation,
    limits: Limits,
    keep: Keep,
    /// The layers that can deviate within the limit.
    layers: &'a [Layer],
    /// What the layers from each on can take off the costs and add to them.
    reach: Vec<(i64, i64)>,
    /// The greatest loss that is of interest.
    limit: i128,
    best: Option<(i128, State)>,
    trace: Vec<Made>,
}

/// Find the best selection whose loss is at most `limit`.
pub(super) fn search(relaxation: &Relaxation, limit: i128, limits: Limits) -> Outcome {
    if limit < 0 {
        return Outcome { best: None, complete: true };
    }
    // Within this loss, no selection costs less than `low`: the window has one end.
    let one_end = relaxation.left(relaxation.low);
    if relaxation.price > 0 {
        let outcome = Pass::new(relaxation, limit.min(one_end), Keep::Front, limits).run();
        if outcome.best.is_some() || !outcome.complete || limit <= one_end {
            return outcome;
        }
    }
    Pass::new(relaxation, limit, Keep::Sums, limits).run()
}

impl<'a> Pass<'a> {
    fn new(relaxation: &'a Relaxation, limit: i128, keep: Keep, limits: Limits) -> Self {
        let layers = &relaxation.layers;
        let within = layers.partition_point(|layer| layer.others[0].regret <= limit);
        let layers = &layers[..within];
        let mut reach = vec![(0, 0)];
        for layer in layers.iter().rev() {
            let within = layer.others.iter().filter(|other| other.regret <= limit);
            let (mut off, mut on) = (0, 0);
            for other in within {
                (off, on) = (off.min(other.cost), on.max(other.cost));
            }
            let (all_off, all_on) = reach[reach.len() - 1];
            reach.push((all_off + off, all_on + on));
        }
        reach.reverse();
        Self { relaxation, limits, keep, layers, reach, limit, best: None, trace: Vec::new() }
    }

    fn run(mut self) -> Outcome {
        let start = State { cost: self.relaxation.cost, regret: 0, trace: 0 };
        self.record(start);
        let mut states = vec![start];
        let mut complete = true;
        for number in 0..self.layers.len() {
            states.retain(|state| self.has_successors(*state, number));
            if states.is_empty() {
                break;
            }
            states = self.extended(&states, number);
            if states.len() > self.limits.ties
                && let Some((loss, _)) = self.best
            {
                self.limit = self.limit.min(loss - self.relaxation.one_grain());
            }
            if states.len() > self.limits.states {
                complete = false;
                self.thin(&mut states);
            }
            if self.trace.len() > self.limits.trace {
                complete = false;
                break;
            }
        }
        let closed = |(loss, _): (i128, State)| loss < self.relaxation.one_grain();
        let complete = complete || self.best.is_some_and(closed);
        let best = self.best.map(|(_, state)| self.selection(state));
        Outcome { best, complete }
    }

    /// Whether deviations of the layers from `number` on can lead to something better.
    fn has_successors(&self, state: State, number: usize) -> bool {
        let least = self.layers.get(number).map(|layer| layer.others[0].regret);
        let (off, on) = self.reach[number];
        let (low, high) = (self.relaxation.low, self.relaxation.high);
        let dearest = high.min(state.cost + on);
        least.is_some_and(|least| state.regret + least <= self.limit)
            && state.cost + off <= high
            && dearest >= low
            && state.regret + self.relaxation.left(dearest) <= self.limit
    }

    /// Keep a few states that are close to the bound: what they lead to makes the limit of later passes
    /// small, and where the bound is reached there are none.
    fn thin(&self, states: &mut Vec<State>) {
        let relaxation = self.relaxation;
        let distance = |state: &State| state.regret + relaxation.left(state.cost).abs();
        let kept = states.len().min(self.limits.thinned);
        states.select_nth_unstable_by_key(kept - 1, distance);
        states.truncate(kept);
        states.sort_unstable_by_key(|state| (state.cost, state.regret));
    }

    /// These states and their successors by the deviations of one layer, by cost.
    fn extended(&mut self, states: &[State], number: usize) -> Vec<State> {
        let layer = &self.layers[number];
        let within = layer.others.iter().filter(|other| other.regret <= self.limit);
        let moves: Vec<Deviation> = within.copied().collect();
        // Each move keeps the order of costs: the lists of successors are merged.
        let mut heads = vec![0; moves.len() + 1];
        let mut extended: Vec<State> = Vec::with_capacity(states.len() * 2);
        let mut front = None;
        loop {
            let mut next: Option<(usize, State)> = None;
            for (head, place) in heads.iter().enumerate() {
                let Some(&state) = states.get(*place) else { continue };
                let (cost, regret) = match head {
                    0 => (state.cost, state.regret),
                    _ => (state.cost + moves[head - 1].cost, state.regret + moves[head - 1].regret),
                };
                let first = next.is_none_or(|(_, n)| (cost, regret) < (n.cost, n.regret));
                if first {
                    next = Some((head, State { cost, regret, trace: state.trace }));
                }
            }
            let Some((head, mut state)) = next else { break };
            heads[head] += 1;
            if extended.last().is_some_and(|last| last.cost == state.cost)
                || self.is_matched(state, &mut front)
            {
                continue;
            }
            if head > 0 {
                if state.regret > self.limit {
                    continue;
                }
                let (place, choice) = (layer.place as u32, moves[head - 1].choice as u32);
                self.trace.push(Made { before: state.trace, place, choice });
                state.trace = self.trace.len() as u32;
                self.record(state);
            }
            extended.push(state);
        }
        extended
    }

    /// Whether a cheaper state scores no less; `front` is the best of these.
    fn is_matched(&self, state: State, front: &mut Option<i128>) -> bool {
        if self.keep == Keep::Sums {
            return false;
        }
        // Up to a constant, what the score is below the bound.
        let behind = state.regret + self.relaxation.left(state.cost);
        let matched = front.is_some_and(|front| match self.relaxation.scarce {
            End::High => behind >= front,
            // With costs counted from the other end, what seems dearer is cheaper: equals stay.
            End::Low => behind > front,
        });
        if !matched {
            *front = Some(behind);
        }
        matched
    }

    /// Keep a state that lies in the window and loses least.
    fn record(&mut self, state: State) {
        if !(self.relaxation.low..=self.relaxation.high).contains(&state.cost) {
            return;
        }
        let loss = state.regret + self.relaxation.left(state.cost);
        let cheaper = |other: State| match self.relaxation.scarce {
            End::High => state.cost < other.cost,
            End::Low => state.cost > other.cost,
        };
        let better = self
            .best
            .is_none_or(|(least, other)| loss < least || (loss == least && cheaper(other)));
        if loss <= self.limit && better {
            self.best = Some((loss, state));
            self.limit = loss;
        }
    }

    /// The choice of every layer.
    fn selection(&self, state: State) -> Vec<usize> {
        let mut chosen = self.relaxation.preferred.clone();
        let mut next = state.trace;
        while next > 0 {
            let made = self.trace[next as usize - 1];
            chosen[made.place as usize] = made.choice as usize;
            next = made.before;
        }
        chosen
    }
}
