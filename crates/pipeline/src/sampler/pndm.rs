//! Pseudo numerical methods on manifolds, Liu et al. 2022.
//!
//! The transfer of equation 11 moves a sample between two timesteps along a noise estimate; the
//! estimate is a linear multistep combination of the last four outputs (equation 12). The first
//! outputs come from pseudo Runge–Kutta steps of four calls each (equation 13), or, as Stable
//! Diffusion is used, from lower order combinations after one repeated timestep.

use super::{
    Call, Noise, Sampler,
    ddim::{alpha_at, places},
    prediction::pairs,
};
use crate::schedule::{Prediction, Settings, Table, WarmUp};

/// Timesteps that the Runge–Kutta start covers.
const STARTED: usize = 4;

/// State of a run of pseudo linear multistep sampling.
pub(super) struct Pndm {
    timesteps: Vec<f32>,
    moves: Vec<Move>,
    /// Calls that belong to Runge–Kutta steps.
    started: usize,
    prediction: Prediction,
    /// The last outputs, newest last.
    outputs: Vec<Vec<f32>>,
    /// Sum of a Runge–Kutta step's outputs so far.
    sum: Vec<f32>,
    /// The sample that a Runge–Kutta step or the repeated timestep starts from.
    start: Vec<f32>,
}

/// Cumulative alphas between which one call moves the sample.
struct Move {
    from: f32,
    to: f32,
}

impl Pndm {
    /// Steps must have passed [`check_steps`].
    pub(super) fn new(settings: &Settings, table: &Table, steps: usize) -> Self {
        let plan = plan(settings, steps);
        let moves = plan.iter().map(|&(_, from, to)| Move {
            from: alpha_at(settings, table, from),
            to: alpha_at(settings, table, to),
        });
        Self {
            moves: moves.collect(),
            timesteps: plan.iter().map(|&(t, ..)| t as f32).collect(),
            started: runge_kutta_calls(settings),
            prediction: settings.prediction,
            outputs: Vec::new(),
            sum: Vec::new(),
            start: Vec::new(),
        }
    }

    /// One of the four calls of a pseudo Runge–Kutta step: the estimate to move along.
    fn runge_kutta(&mut self, call: &Call<'_>) -> Vec<f32> {
        let weigh = |weight: f32| call.output.iter().map(move |x| weight * x);
        match call.index % 4 {
            0 => {
                self.outputs.push(call.output.to_vec());
                self.start = call.sample.to_vec();
                self.sum = weigh(1.0 / 6.0).collect();
            }
            3 => return self.sum.iter().zip(weigh(1.0 / 6.0)).map(|(sum, x)| sum + x).collect(),
            _ => self.sum.iter_mut().zip(weigh(1.0 / 3.0)).for_each(|(sum, x)| *sum += x),
        }
        call.output.to_vec()
    }

    /// A call of the multistep formulas: the estimate to move along.
    fn multistep(&mut self, call: &Call<'_>) -> Vec<f32> {
        let repeated = call.index == 1;
        if !repeated {
            self.outputs.drain(..self.outputs.len().saturating_sub(3));
            self.outputs.push(call.output.to_vec());
        }
        let e = &self.outputs;
        let value = |i: usize| match e.as_slice() {
            [a] if repeated => 0.5 * (call.output[i] + a[i]),
            [a] => a[i],
            [b, a] => (3.0 * a[i] - b[i]) / 2.0,
            [c, b, a] => (23.0 * a[i] - 16.0 * b[i] + 5.0 * c[i]) / 12.0,
            [d, c, b, a, ..] => 1.0 / 24.0 * (55.0 * a[i] - 59.0 * b[i] + 37.0 * c[i] - 9.0 * d[i]),
            [] => 0.0,
        };
        (0..call.output.len()).map(value).collect()
    }

    /// Equation 11: along the estimate from one cumulative alpha to another.
    fn transfer(&self, x: &[f32], output: &[f32], Move { from, to }: &Move) -> Vec<f32> {
        let (noise, noise_to) = (1.0 - from, 1.0 - to);
        let (root, noise_root) = (from.sqrt(), noise.sqrt());
        let signal = (to / from).sqrt();
        let denominator = from * noise_to.sqrt() + (from * noise * to).sqrt();
        let change = to - from;
        pairs(x, output, |x, output| {
            let e = match self.prediction {
                Prediction::Velocity => root * output + noise_root * x,
                Prediction::Epsilon | Prediction::Sample => output,
            };
            signal * x - change * e / denominator
        })
    }
}

impl Sampler for Pndm {
    fn init_noise_sigma(&self) -> f32 {
        1.0
    }

    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn step(&mut self, call: Call<'_>, _noise: &mut Noise<'_>) -> Vec<f32> {
        let index = call.index;
        let estimate =
            if index < self.started { self.runge_kutta(&call) } else { self.multistep(&call) };
        if self.started == 0 && index == 0 {
            self.start = call.sample.to_vec();
        }
        let from_start = index < self.started || (self.started == 0 && index == 1);
        let x = if from_start { &self.start } else { call.sample };
        self.transfer(x, &estimate, &self.moves[index])
    }
}

/// Calls of the Runge–Kutta start: four for each of the first three timesteps.
fn runge_kutta_calls(settings: &Settings) -> usize {
    match settings.warm_up {
        WarmUp::RungeKutta => 4 * (STARTED - 1),
        WarmUp::Skipped => 0,
    }
}

/// For every call: what the model is told, and the timesteps between which the sample moves.
fn plan(settings: &Settings, steps: usize) -> Vec<(i64, i64, i64)> {
    let places = places(settings, steps);
    let ratio = (settings.train_steps / steps) as i64;
    let forward = |t: i64| (t, t, t - ratio);
    if settings.warm_up == WarmUp::RungeKutta {
        return runge_kutta_plan(&places, ratio / 2)
            .into_iter()
            .chain(places[STARTED - 1..].iter().map(|&t| forward(t)))
            .collect();
    }
    // The second timestep is visited twice: the second visit repeats the first move with the mean
    // of both outputs.
    let mut plan: Vec<_> = places.iter().map(|&t| forward(t)).collect();
    if let Some(&second) = places.get(1) {
        plan.insert(1, (second, second + ratio, second));
    }
    plan
}

/// Four calls per step: at its start, twice in the middle, at its end.
fn runge_kutta_plan(places: &[i64], half: i64) -> Vec<(i64, i64, i64)> {
    let mut told = Vec::new();
    for pair in places[..STARTED].windows(2) {
        let middle = pair[1] + half;
        told.extend([pair[0], middle, middle, pair[1]]);
    }
    let moves = told.iter().enumerate().map(|(i, &t)| {
        let to = if i % 2 == 0 { t - half } else { t };
        (t, told[i / 4 * 4], to)
    });
    moves.collect()
}

/// Whether there are enough steps to start with, and every timestep is in the table.
pub(super) fn check_steps(settings: &Settings, steps: usize) -> Result<(), String> {
    if settings.warm_up == WarmUp::RungeKutta && steps < STARTED {
        return Err(format!("its runge-kutta start needs {STARTED}; use plms for fewer"));
    }
    let plan = plan(settings, steps);
    let largest = plan.iter().flat_map(|&(_, from, to)| [from, to]).max().unwrap_or(0);
    if largest < settings.train_steps as i64 {
        return Ok(());
    }
    Err(format!("its first timestep would be {largest}; use fewer steps"))
}
