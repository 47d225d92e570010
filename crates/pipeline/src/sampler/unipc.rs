//! `UniPC`: a predictor and a corrector of the same order, Zhao et al. 2023.
//!
//! Both pass a polynomial in the half log signal-to-noise ratio through the predictions so far; the
//! corrector also through the newest one, at the level that the predictor reached, and with it
//! improves the sample before the next prediction is made. The polynomial's weights solve the small
//! linear system `R rho = b` of section 3.1.

use std::collections::VecDeque;

use super::{
    Call, Noise, Sampler,
    prediction::{Mix, exp_m1, pairs},
};
use crate::schedule::{Limit, Path, Prediction, Settings, Solver, SolverKind, SolverTarget};

/// State of a run of `UniPC`.
pub(super) struct UniPc {
    path: Path,
    prediction: Prediction,
    limit: Limit,
    solver: Solver,
    /// The last predictions, newest first.
    past: VecDeque<Vec<f32>>,
    /// The corrected sample before the last step, and the order of that step.
    last: Option<(Vec<f32>, usize)>,
}

/// One step's numbers: from level `from` to level `from + 1`, with earlier levels below `from`.
struct Stretch {
    /// Places of the earlier predictions and of the end, in units of the step.
    places: Vec<f32>,
    /// Right-hand side of the system.
    b: Vec<f32>,
    /// `exp(∓h) - 1`.
    growth: f32,
    /// `B(h)`.
    scale: f32,
    now: Mix,
    next: Mix,
}

impl UniPc {
    pub(super) fn new(settings: &Settings, path: Path) -> Self {
        Self {
            path,
            prediction: settings.prediction,
            limit: settings.limit,
            solver: settings.solver.clone(),
            past: VecDeque::new(),
            last: None,
        }
    }

    fn convert(&self, call: &Call<'_>) -> Vec<f32> {
        let mix = Mix::of_sigma(self.path.sigmas[call.index]);
        match self.solver.target {
            SolverTarget::Sample => {
                let mut clean = mix.clean(self.prediction, call.output, call.sample);
                self.limit.apply(&mut clean, call.images);
                clean
            }
            SolverTarget::Noise => mix.noise(self.prediction, call.output, call.sample),
        }
    }

    /// Equations 10 to 12 for a step of the given order that starts at level `from`.
    fn stretch(&self, from: usize, order: usize) -> Stretch {
        let mix = |index: usize| Mix::of_sigma(self.path.sigmas[index]);
        let (now, next) = (mix(from), mix(from + 1));
        let h = next.lambda() - now.lambda();
        let place = |i: usize| (mix(from - i).lambda() - now.lambda()) / h;
        let mut places: Vec<f32> = (1..order).map(place).collect();
        places.push(1.0);
        let signed = if self.solver.target == SolverTarget::Sample { -h } else { h };
        let growth = exp_m1(signed);
        let scale = if self.solver.kind == SolverKind::Bh1 { signed } else { growth };
        let (mut phi, mut factorial) = (growth / signed - 1.0, 1.0);
        let b = (1..=order).map(|i| {
            let value = phi * factorial / scale;
            factorial *= (i + 1) as f32;
            phi = phi / signed - 1.0 / factorial;
            value
        });
        Stretch { places, b: b.collect(), growth, scale, now, next }
    }

    /// Moves a sample over the stretch along the prediction at its start and a correction.
    fn advance(&self, stretch: &Stretch, x: &[f32], change: Option<Vec<f32>>) -> Vec<f32> {
        let Stretch { growth, scale, now, next, .. } = stretch;
        let (keep, weight) = match self.solver.target {
            SolverTarget::Sample => (next.noise / now.noise, next.signal),
            SolverTarget::Noise => (next.signal / now.signal, next.noise),
        };
        let (linear, curved) = (weight * growth, weight * scale);
        let moved = pairs(x, &self.past[0], |x, m| keep * x - linear * m);
        match change {
            None => moved,
            Some(change) => pairs(&moved, &change, |x, d| x - curved * d),
        }
    }

    /// Weighted sum of the slopes from the newest prediction to the earlier ones.
    fn slopes(&self, stretch: &Stretch, weights: &[f32]) -> Option<Vec<f32>> {
        let mut sum: Option<Vec<f32>> = None;
        for (i, weight) in weights.iter().enumerate() {
            let place = stretch.places[i];
            let slope = pairs(&self.past[i + 1], &self.past[0], |old, new| (old - new) / place);
            sum = Some(match sum {
                None => slope.iter().map(|d| weight * d).collect(),
                Some(sum) => pairs(&sum, &slope, |sum, d| sum + weight * d),
            });
        }
        sum
    }

    /// `UniC`: the sample at the level of this call again, now that its prediction is known.
    fn correct(&self, from: usize, prediction: &[f32]) -> Option<Vec<f32>> {
        let (x, order) = self.last.as_ref()?;
        let stretch = self.stretch(from, *order);
        let weights = match order {
            1 => vec![0.5],
            _ => solve(&stretch.places, &stretch.b),
        };
        let (newest, earlier) = weights.split_last()?;
        let ahead = pairs(prediction, &self.past[0], |new, old| newest * (new - old));
        let change = match self.slopes(&stretch, earlier) {
            None => ahead,
            Some(slopes) => pairs(&slopes, &ahead, |a, b| a + b),
        };
        Some(self.advance(&stretch, x, Some(change)))
    }

    /// `UniP`: the sample at the next level.
    fn predict(&self, from: usize, order: usize, x: &[f32]) -> Vec<f32> {
        let stretch = self.stretch(from, order);
        let earlier = order - 1;
        let weights = match order {
            1 => Vec::new(),
            2 => vec![0.5],
            _ => solve(&stretch.places[..earlier], &stretch.b[..earlier]),
        };
        self.advance(&stretch, x, self.slopes(&stretch, &weights))
    }
}

impl Sampler for UniPc {
    fn init_noise_sigma(&self) -> f32 {
        1.0
    }

    fn timesteps(&self) -> &[f32] {
        &self.path.timesteps
    }

    fn step(&mut self, call: Call<'_>, _noise: &mut Noise<'_>) -> Vec<f32> {
        let index = call.index;
        let prediction = self.convert(&call);
        let corrected = match index.checked_sub(1) {
            Some(from) if !self.solver.uncorrected.contains(&from) => {
                self.correct(from, &prediction)
            }
            _ => None,
        };
        let x = corrected.unwrap_or_else(|| call.sample.to_vec());
        self.past.truncate(self.solver.order - 1);
        self.past.push_front(prediction);
        let left = self.path.timesteps.len() - index;
        let most = if self.solver.lower_order_final { left } else { self.solver.order };
        let order = most.min(self.past.len());
        let moved = self.predict(index, order, &x);
        self.last = Some((x, order));
        moved
    }
}

/// Solves `sum_k places[k]^i rho[k] = b[i]` by elimination with row pivoting.
fn solve(places: &[f32], b: &[f32]) -> Vec<f32> {
    let n = places.len();
    // Each row holds one power of the places and its right-hand side.
    let row = |i: usize| {
        let powers = places.iter().map(move |r| r.powi(i as i32));
        powers.chain([b[i]]).collect::<Vec<f32>>()
    };
    let mut rows: Vec<Vec<f32>> = (0..n).map(row).collect();
    for column in 0..n {
        let largest =
            |a: &usize, b: &usize| rows[*a][column].abs().total_cmp(&rows[*b][column].abs());
        let pivot = (column..n).rev().max_by(largest).unwrap_or(column);
        rows.swap(column, pivot);
        let (done, rest) = rows.split_at_mut(column + 1);
        let top = &done[column];
        for row in rest {
            let factor = row[column] / top[column];
            row.iter_mut().zip(top).for_each(|(x, t)| *x -= factor * t);
        }
    }
    let mut solution = vec![0.0; n];
    for i in (0..n).rev() {
        let known: f32 = (i + 1..n).map(|k| rows[i][k] * solution[k]).sum();
        solution[i] = (rows[i][n] - known) / rows[i][i];
    }
    solution
}

#[cfg(test)]
mod tests {
    use super::solve;

    #[test]
    fn weights_satisfy_the_system() {
        let (places, b) = ([-2.0, -1.0, 1.0], [0.5, 0.25, 0.125]);
        let rho = solve(&places, &b);
        for (i, b) in b.iter().enumerate() {
            let sum: f32 = places.iter().zip(&rho).map(|(r, w)| r.powi(i as i32) * w).sum();
            assert!((sum - b).abs() < 1e-6);
        }
    }
}
