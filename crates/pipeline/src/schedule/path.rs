//! The row of timesteps and noise levels that one picture takes.

use super::{
    Error, Family, FinalSigma, Interpolation, Settings, SigmaCurve, Spacing, Table, TimestepScale,
    beta_quantile::symmetric_quantile, spacing,
};

/// Timesteps and sigmas of a run, noisiest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    /// What the model is told at each step.
    pub timesteps: Vec<f32>,
    /// Noise level before each step, and after the last.
    pub sigmas: Vec<f32>,
}

impl Path {
    /// The row of Euler, ancestral Euler and Heun: levels of the table read at the timesteps, then
    /// bent. Both ends of a bent row are those of the row read.
    #[must_use]
    pub fn of_levels(settings: &Settings, table: &Table, steps: usize) -> Self {
        let mut timesteps =
            spacing::falling(settings.spacing, settings.train_steps, steps, settings.steps_offset);
        let mut sigmas: Vec<f64> = match settings.interpolation {
            Interpolation::Linear => {
                let places = timesteps.iter().map(|&t| f64::from(t as f32));
                places.map(|t| read_at(&table.sigmas, t)).collect()
            }
            Interpolation::LogLinear => log_linear(table, steps),
        };
        if settings.curve != SigmaCurve::Discrete
            && let (Some(&first), Some(&last)) = (sigmas.first(), sigmas.last())
        {
            sigmas = bend(settings, [last, first], steps);
            timesteps = places_of(&sigmas, table);
        }
        Self::ending(settings, table, &timesteps, &sigmas)
    }

    /// The row of DPM-Solver and `UniPC`: whole timesteps; a bent row spans the whole table.
    ///
    /// # Errors
    /// More steps than the spacing can tell apart.
    pub fn of_solver(
        family: Family,
        settings: &Settings,
        table: &Table,
        steps: usize,
    ) -> Result<Self, Error> {
        let last = settings.train_steps - clipped(settings, table);
        if (settings.spacing == Spacing::Leading && last <= steps) || last == 0 {
            let reason = format!("the schedule has {last} timesteps; use fewer steps");
            return Err(Error::BadSteps { steps, method: family.name(), reason });
        }
        let offset = match settings.spacing {
            Spacing::Leading => settings.steps_offset as f64,
            _ => 0.0,
        };
        let places = spacing::solver(settings.spacing, last, settings.train_steps, steps);
        let mut timesteps: Vec<f64> = places.iter().map(|t| t + offset).collect();
        let (Some(&first), Some(&end)) = (table.sigmas.first(), table.sigmas.last()) else {
            return Ok(Self { timesteps: Vec::new(), sigmas: Vec::new() });
        };
        let sigmas = if settings.curve == SigmaCurve::Discrete {
            timesteps.iter().map(|&t| read_at(&table.sigmas, t)).collect()
        } else {
            let sigmas = bend(settings, [f64::from(first), f64::from(end)], steps);
            timesteps = places_of(&sigmas, table);
            if rounds(family, settings) {
                timesteps = timesteps.iter().map(|t| t.round_ties_even()).collect();
            }
            sigmas
        };
        timesteps = timesteps.iter().map(|t| t.trunc()).collect();
        let mut path = Self::ending(settings, table, &timesteps, &sigmas);
        if family == Family::UniPc
            && settings.final_sigma == FinalSigma::Minimum
            && settings.curve != SigmaCurve::Discrete
            && let [.., before, after] = path.sigmas.as_mut_slice()
        {
            // UniPC's smallest level of a bent row is the row's own.
            *after = *before;
        }
        Ok(path)
    }

    /// Adds the level after the last step and rounds to single precision.
    fn ending(settings: &Settings, table: &Table, timesteps: &[f64], sigmas: &[f64]) -> Self {
        let mut sigmas: Vec<f32> = sigmas.iter().map(|&sigma| sigma as f32).collect();
        sigmas.push(match settings.final_sigma {
            FinalSigma::Zero => 0.0,
            FinalSigma::Minimum => table.sigmas.first().copied().unwrap_or(0.0),
        });
        let timesteps = match settings.timestep_scale {
            TimestepScale::Discrete => timesteps.iter().map(|&t| t as f32).collect(),
            TimestepScale::QuarterLogSigma => {
                let levels = &sigmas[..sigmas.len() - 1];
                levels.iter().map(|&sigma| 0.25 * f64::from(sigma).ln() as f32).collect()
            }
        };
        Self { timesteps, sigmas }
    }
}

/// Whether the timesteps of a bent row are rounded before they are cut to whole numbers.
fn rounds(family: Family, settings: &Settings) -> bool {
    let cosine = settings.betas == super::BetaCurve::Cosine;
    match settings.curve {
        SigmaCurve::Karras => family == Family::UniPc || !cosine,
        SigmaCurve::Lu => !cosine,
        _ => false,
    }
}

/// How many timesteps at the noisy end lie below the smallest half log signal-to-noise ratio.
fn clipped(settings: &Settings, table: &Table) -> usize {
    let lambda =
        |&a: &f32| f64::from(a.sqrt()).ln() as f32 - f64::from((1.0 - a).sqrt()).ln() as f32;
    let lambdas = table.alphas_cumprod.iter().rev().map(lambda);
    lambdas.take_while(|&lambda| f64::from(lambda) < settings.solver.lambda_min).count()
}

/// The table at a fractional timestep, linearly, the ends held.
fn read_at(table: &[f32], t: f64) -> f64 {
    let last = table.len() - 1;
    if t <= 0.0 {
        return f64::from(table[0]);
    }
    let low = t as usize;
    if low >= last {
        return f64::from(table[last]);
    }
    let (here, next) = (f64::from(table[low]), f64::from(table[low + 1]));
    (next - here) * (t - low as f64) + here
}

/// `steps + 1` levels with evenly spaced logarithms from the table's largest to its smallest.
fn log_linear(table: &Table, steps: usize) -> Vec<f64> {
    let logs = table.log_sigmas();
    let (Some(&low), Some(&high)) = (logs.first(), logs.last()) else { return Vec::new() };
    let line = super::table::line(f64::from(high), f64::from(low), steps + 1);
    line.iter().map(|&log| f64::from(f64::from(log).exp() as f32)).collect()
}

/// `steps` levels from the largest to the smallest bound, along the curve.
fn bend(settings: &Settings, bounds: [f64; 2], steps: usize) -> Vec<f64> {
    const RHO: f64 = 7.0;
    const SHAPE: f64 = 0.6;
    let min = settings.sigma_bounds[0].unwrap_or(bounds[0]);
    let max = settings.sigma_bounds[1].unwrap_or(bounds[1]);
    let ramp = spacing::ramp(1.0, steps);
    let mix = |from: f64, to: f64| ramp.iter().map(move |r| from + r * (to - from));
    match settings.curve {
        SigmaCurve::Discrete => Vec::new(),
        SigmaCurve::Karras => {
            mix(max.powf(1.0 / RHO), min.powf(1.0 / RHO)).map(|x| x.powf(RHO)).collect()
        }
        SigmaCurve::Exponential => mix(max.ln(), min.ln()).map(f64::exp).collect(),
        SigmaCurve::Beta => {
            let shares = ramp.iter().map(|r| symmetric_quantile(1.0 - r, SHAPE));
            shares.map(|share| min + share * (max - min)).collect()
        }
        // The bounds of a configuration do not apply to lambdas.
        SigmaCurve::Lu => {
            let log = |sigma: f64| f64::from(super::table::log(sigma as f32));
            mix(log(bounds[1]), log(bounds[0])).map(f64::exp).collect()
        }
    }
}

/// Fractional timesteps at which the table has these levels, linear in the logarithm.
fn places_of(sigmas: &[f64], table: &Table) -> Vec<f64> {
    let logs = table.log_sigmas();
    if logs.len() < 2 {
        return vec![0.0; sigmas.len()];
    }
    let place = |sigma: &f64| {
        let log = sigma.max(1e-10).ln();
        let below = logs.iter().rposition(|&level| f64::from(level) <= log).unwrap_or(0);
        let low = below.min(logs.len() - 2);
        let (here, next) = (f64::from(logs[low]), f64::from(logs[low + 1]));
        let share = ((here - log) / (here - next)).clamp(0.0, 1.0);
        (1.0 - share) * low as f64 + share * (low + 1) as f64
    };
    sigmas.iter().map(place).collect()
}
