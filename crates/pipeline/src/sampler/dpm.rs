//! Multistep DPM-Solver and DPM-Solver++, Lu et al. 2022, with their stochastic forms.
//!
//! With half log signal-to-noise ratio `l = ln(alpha / sigma)` and `h = l' - l`, the deterministic
//! data form of order one is `x' = (sigma' / sigma) x - alpha' (exp(-h) - 1) x_0`, and the noise
//! form is `x' = (alpha' / alpha) x - sigma' (exp(h) - 1) e`. Higher orders add multiples of the
//! divided differences `D1`, `D2` of earlier predictions over `l`; the stochastic forms take twice
//! the step of the noise part and add noise for what that removed.

use std::collections::VecDeque;

use super::{
    Call, Noise, Sampler,
    prediction::{Mix, exp, pairs},
};
use crate::schedule::{
    Algorithm, FinalSigma, Limit, Path, Prediction, Settings, Solver, SolverKind,
};

/// Runs shorter than this take lower orders at the end.
const SHORT: usize = 15;

/// State of a run of DPM-Solver.
pub(super) struct Dpm {
    path: Path,
    prediction: Prediction,
    limit: Limit,
    solver: Solver,
    final_sigma: FinalSigma,
    /// The last predictions in the solver's form, newest first.
    past: VecDeque<Vec<f32>>,
}

/// Factors of one update: `x' = x·sample + d0·D0 + d1·D1 + d2·D2 + z·noise`.
#[derive(Clone, Copy, Debug, Default)]
struct Factors {
    sample: f32,
    d0: f32,
    d1: f32,
    d2: f32,
    noise: f32,
}

impl Dpm {
    pub(super) fn new(settings: &Settings, path: Path) -> Self {
        Self {
            path,
            prediction: settings.prediction,
            limit: settings.limit,
            solver: settings.solver.clone(),
            final_sigma: settings.final_sigma,
            past: VecDeque::new(),
        }
    }

    /// The prediction in the form that the solver integrates, limited.
    fn convert(&self, call: &Call<'_>) -> Vec<f32> {
        let mix = Mix::of_sigma(self.path.sigmas[call.index]);
        if matches!(self.solver.algorithm, Algorithm::DpmPlusPlus | Algorithm::SdeDpmPlusPlus) {
            let mut clean = mix.clean(self.prediction, call.output, call.sample);
            self.limit.apply(&mut clean, call.images);
            return clean;
        }
        let noise = mix.noise(self.prediction, call.output, call.sample);
        if self.limit == Limit::None {
            return noise;
        }
        let mut clean = mix.clean(Prediction::Epsilon, &noise, call.sample);
        self.limit.apply(&mut clean, call.images);
        mix.noise(Prediction::Sample, &clean, call.sample)
    }

    /// Order of the update after this call.
    fn order(&self, index: usize) -> usize {
        let steps = self.path.timesteps.len();
        let short = self.solver.lower_order_final && steps < SHORT;
        let first_at_last =
            self.solver.euler_at_final || short || self.final_sigma == FinalSigma::Zero;
        let most = match steps - index {
            1 if first_at_last => 1,
            2 if short => 2,
            _ => self.solver.order,
        };
        most.min(self.past.len())
    }

    /// Divided differences `D1` and `D2` of the past predictions, as far as the order needs them.
    fn differences(&self, order: usize, h: f32, mixes: &[Mix]) -> [Vec<f32>; 2] {
        let ratio = |i: usize| (mixes[i].lambda() - mixes[i + 1].lambda()) / h;
        let slope = |i: usize, r: f32| {
            let r = 1.0 / r;
            pairs(&self.past[i], &self.past[i + 1], |new, old| r * (new - old))
        };
        match order {
            1 => [Vec::new(), Vec::new()],
            2 => [slope(0, ratio(0)), Vec::new()],
            _ => {
                let (r0, r1) = (ratio(0), ratio(1));
                let (near, far) = (slope(0, r0), slope(1, r1));
                let (lean, bend) = (r0 / (r0 + r1), 1.0 / (r0 + r1));
                [
                    pairs(&near, &far, |near, far| near + lean * (near - far)),
                    pairs(&near, &far, |near, far| bend * (near - far)),
                ]
            }
        }
    }

    /// The factors for a step from the mix `now` to the mix `next`.
    fn factors(&self, order: usize, h: f32, now: Mix, next: Mix) -> Factors {
        let heun = self.solver.kind == SolverKind::Heun || order == 3;
        match self.solver.algorithm {
            Algorithm::DpmPlusPlus => {
                let g = exp(-h) - 1.0;
                let a = next.signal;
                Factors {
                    sample: next.noise / now.noise,
                    d0: -(a * g),
                    d1: if heun { a * (g / h + 1.0) } else { -(0.5 * (a * g)) },
                    d2: -(a * ((g + h) / (h * h) - 0.5)),
                    noise: 0.0,
                }
            }
            Algorithm::Dpm => {
                let g = exp(h) - 1.0;
                let s = next.noise;
                Factors {
                    sample: next.signal / now.signal,
                    d0: -(s * g),
                    d1: if heun { -(s * (g / h - 1.0)) } else { -(0.5 * (s * g)) },
                    d2: -(s * ((g - h) / (h * h) - 0.5)),
                    noise: 0.0,
                }
            }
            Algorithm::SdeDpmPlusPlus => {
                let g = 1.0 - exp(-2.0 * h);
                let a = next.signal;
                Factors {
                    sample: next.noise / now.noise * exp(-h),
                    d0: a * g,
                    d1: if heun { a * (g / (-2.0 * h) + 1.0) } else { 0.5 * (a * g) },
                    d2: a * ((g - 2.0 * h) / (2.0 * h * (2.0 * h)) - 0.5),
                    noise: next.noise * g.sqrt(),
                }
            }
            Algorithm::SdeDpm => {
                let g = exp(h) - 1.0;
                let s = next.noise;
                Factors {
                    sample: next.signal / now.signal,
                    d0: -(2.0 * (s * g)),
                    d1: if heun { -(2.0 * (s * (g / h - 1.0))) } else { -(s * g) },
                    d2: 0.0,
                    noise: s * (exp(2.0 * h) - 1.0).sqrt(),
                }
            }
        }
    }

    fn is_stochastic(&self) -> bool {
        matches!(self.solver.algorithm, Algorithm::SdeDpm | Algorithm::SdeDpmPlusPlus)
    }
}

impl Sampler for Dpm {
    fn init_noise_sigma(&self) -> f32 {
        1.0
    }

    fn timesteps(&self) -> &[f32] {
        &self.path.timesteps
    }

    fn step(&mut self, call: Call<'_>, noise: &mut Noise<'_>) -> Vec<f32> {
        let prediction = self.convert(&call);
        self.past.truncate(self.solver.order - 1);
        self.past.push_front(prediction);
        let order = self.order(call.index);
        // The mixes of the levels now, one step ago, two steps ago.
        let levels = self.path.sigmas[..=call.index].iter().rev().take(order);
        let mixes: Vec<Mix> = levels.map(|&sigma| Mix::of_sigma(sigma)).collect();
        let next = Mix::of_sigma(self.path.sigmas[call.index + 1]);
        let h = next.lambda() - mixes[0].lambda();
        let factors = self.factors(order, h, mixes[0], next);
        let differences = self.differences(order, h, &mixes);
        let mut moved =
            pairs(call.sample, &self.past[0], |x, d| factors.sample * x + factors.d0 * d);
        for (factor, difference) in [factors.d1, factors.d2].iter().zip(&differences) {
            moved.iter_mut().zip(difference).for_each(|(x, d)| *x += factor * d);
        }
        if self.is_stochastic() {
            let fresh = noise(moved.len());
            moved.iter_mut().zip(&fresh).for_each(|(x, z)| *x += factors.noise * z);
        }
        moved
    }
}
