//! The choices that a scheduler's configuration makes.

/// What the model's output means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prediction {
    /// The noise `e`.
    Epsilon,
    /// `v = sqrt(a) e - sqrt(1 - a) x_0`, Salimans and Ho 2022.
    Velocity,
    /// The clean sample `x_0`.
    Sample,
}

/// Where the betas of training come from.
#[derive(Clone, Debug, PartialEq)]
pub enum BetaCurve {
    /// A straight line between two betas.
    Linear(f64, f64),
    /// The square of a straight line between two betas' roots.
    ScaledLinear(f64, f64),
    /// `a(t) = cos²` of Nichol and Dhariwal 2021, each beta at most 0.999.
    Cosine,
    /// `a(t) = exp(-12 t)`, each beta at most 0.999.
    Exponential,
    /// A list in the configuration.
    Trained(Vec<f32>),
}

/// Which timesteps are taken, Table 2 of Lin et al. 2024.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// Multiples of a whole ratio, from the first timestep up.
    Leading,
    /// Multiples of a ratio, from the last timestep down.
    Trailing,
    /// Evenly from the first to the last.
    Linspace,
}

/// How the noise levels between the largest and the smallest are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigmaCurve {
    /// As in the training table at the timesteps.
    Discrete,
    /// Equation 5 of Karras et al. 2022, rho = 7.
    Karras,
    /// Evenly spaced logarithms.
    Exponential,
    /// Quantiles of Beta(0.6, 0.6), Lee et al. 2024.
    Beta,
    /// Evenly spaced half log signal-to-noise ratios, Lu et al. 2022.
    Lu,
}

/// The level after the last step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinalSigma {
    /// No noise at all.
    Zero,
    /// The smallest level of the training table.
    Minimum,
}

/// How Euler's levels are read from the training table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// Linearly at the timesteps.
    Linear,
    /// Evenly spaced logarithms between the ends of the table.
    LogLinear,
}

/// What the model is told about time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestepScale {
    /// A place in the training table.
    Discrete,
    /// A quarter of the logarithm of sigma, Karras et al. 2022.
    QuarterLogSigma,
}

/// What is done to a predicted clean sample before it is used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// Nothing.
    None,
    /// Clipped to plus or minus this.
    Clip(f32),
    /// Dynamic thresholding, section 2.3 of Saharia et al. 2022.
    Threshold {
        /// Quantile of the magnitudes that becomes the limit.
        ratio: f32,
        /// Largest limit.
        max: f32,
    },
}

/// The cumulative alpha "before" the first timestep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinalAlpha {
    /// One: no noise.
    One,
    /// That of the first timestep.
    First,
}

/// How PNDM obtains its first derivatives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarmUp {
    /// Pseudo Runge–Kutta steps, four model calls each.
    RungeKutta,
    /// Lower order multistep formulas.
    Skipped,
}

/// The form of the diffusion equation that DPM-Solver integrates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// The noise form, deterministic.
    Dpm,
    /// The data form, deterministic: DPM-Solver++.
    DpmPlusPlus,
    /// The noise form with fresh noise.
    SdeDpm,
    /// The data form with fresh noise.
    SdeDpmPlusPlus,
}

/// The variant of a multistep solver's coefficients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SolverKind {
    /// DPM-Solver: midpoint rule.
    Midpoint,
    /// DPM-Solver: Heun's rule.
    Heun,
    /// `UniPC`: `B(h) = h`.
    Bh1,
    /// `UniPC`: `B(h) = exp(h) - 1`.
    Bh2,
}

/// What `UniPC`'s polynomial runs through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SolverTarget {
    /// Predicted clean samples.
    Sample,
    /// Predicted noises.
    Noise,
}

/// Options of the multistep solvers.
#[derive(Clone, Debug, PartialEq)]
pub struct Solver {
    /// Highest order.
    pub order: usize,
    /// Form of the equation (DPM-Solver).
    pub algorithm: Algorithm,
    /// Variant of the coefficients.
    pub kind: SolverKind,
    /// Whether the last steps of a short run have lower order.
    pub lower_order_final: bool,
    /// Whether the last step always has order one.
    pub euler_at_final: bool,
    /// Half log signal-to-noise ratio below which timesteps are cut off.
    pub lambda_min: f64,
    /// What the polynomial runs through (`UniPC`).
    pub target: SolverTarget,
    /// Steps after which `UniPC` does not correct.
    pub uncorrected: Vec<usize>,
}
