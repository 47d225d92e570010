//! A scheduler's configuration as values, with the defaults of its family.

use super::{
    Algorithm, BetaCurve, Error, Family, FinalAlpha, FinalSigma, Interpolation, Limit, Prediction,
    SigmaCurve, Solver, SolverKind, SolverTarget, Spacing, TimestepScale, WarmUp, fields::Fields,
};

/// All that a scheduler's configuration says, in one family's reading.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Timesteps of training.
    pub train_steps: usize,
    /// Where the betas come from.
    pub betas: BetaCurve,
    /// Whether the table is stretched to end in pure noise, Algorithm 1 of Lin et al. 2024.
    pub zero_terminal_snr: bool,
    /// What the model's output means.
    pub prediction: Prediction,
    /// Which timesteps are taken.
    pub spacing: Spacing,
    /// Added to leading timesteps.
    pub steps_offset: usize,
    /// How the levels are spread.
    pub curve: SigmaCurve,
    /// Smallest and largest level of a curve, where they are not the table's.
    pub sigma_bounds: [Option<f64>; 2],
    /// The level after the last step.
    pub final_sigma: FinalSigma,
    /// How Euler reads the table.
    pub interpolation: Interpolation,
    /// What Euler's model is told about time.
    pub timestep_scale: TimestepScale,
    /// What is done to a predicted clean sample.
    pub limit: Limit,
    /// The cumulative alpha before the first timestep.
    pub final_alpha: FinalAlpha,
    /// How PNDM starts.
    pub warm_up: WarmUp,
    /// Steps of the teacher's solver that LCM and TCD were distilled with.
    pub original_steps: usize,
    /// Factor on the timestep in LCM's boundary condition.
    pub timestep_scaling: f64,
    /// Options of DPM-Solver and `UniPC`.
    pub solver: Solver,
}

impl Settings {
    /// Reads and checks every field that the family has.
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, Error> {
        fields.check_names()?;
        fields.refuse("use_flow_sigmas", "false: flow matching models are not supported")?;
        fields.refuse("use_dynamic_shifting", "false: flow matching models are not supported")?;
        fields.refuse("shift_terminal", "null: flow matching models are not supported")?;
        fields.refuse("solver_p", "null: a second solver as predictor is not supported")?;
        let family = fields.family;
        let train_steps = fields.count("num_train_timesteps", 1000, [1, 1_000_000])?;
        let alpha_one = fields.switch("set_alpha_to_one")?.unwrap_or(family != Family::Pndm);
        Ok(Self {
            train_steps,
            betas: betas(fields, train_steps)?,
            zero_terminal_snr: fields.is_on("rescale_betas_zero_snr")?,
            prediction: prediction(fields)?,
            spacing: spacing(fields)?,
            steps_offset: fields.count("steps_offset", 0, [0, train_steps])?,
            curve: curve(fields)?,
            sigma_bounds: [sigma_bound(fields, "sigma_min")?, sigma_bound(fields, "sigma_max")?],
            final_sigma: fields.choice(
                "final_sigmas_type",
                "zero",
                &[("zero", FinalSigma::Zero), ("sigma_min", FinalSigma::Minimum)],
            )?,
            interpolation: fields.choice(
                "interpolation_type",
                "linear",
                &[("linear", Interpolation::Linear), ("log_linear", Interpolation::LogLinear)],
            )?,
            timestep_scale: timestep_scale(fields)?,
            limit: limit(fields)?,
            final_alpha: if alpha_one { FinalAlpha::One } else { FinalAlpha::First },
            warm_up: if fields.is_on("skip_prk_steps")? {
                WarmUp::Skipped
            } else {
                WarmUp::RungeKutta
            },
            original_steps: fields.count("original_inference_steps", 50, [1, train_steps])?,
            timestep_scaling: fields.within("timestep_scaling", 10.0, [0.0, 1e6])?,
            solver: solver(fields)?,
        })
    }
}

fn betas(fields: &Fields<'_>, train_steps: usize) -> Result<BetaCurve, Error> {
    if let Some(list) = fields.numbers("trained_betas")? {
        let inside = list.iter().all(|beta| (0.0..1.0).contains(beta));
        if list.len() != train_steps || !inside {
            let advice = format!("{train_steps} numbers from 0 to below 1");
            let length = format!("a list of {}", list.len()).into();
            return Err(super::fields::bad("trained_betas", &length, &advice));
        }
        return Ok(BetaCurve::Trained(list.iter().map(|&beta| beta as f32).collect()));
    }
    let (start, end, curve) = match fields.family {
        Family::Heun => (0.00085, 0.012, "linear"),
        Family::Lcm | Family::Tcd => (0.00085, 0.012, "scaled_linear"),
        _ => (0.0001, 0.02, "linear"),
    };
    let start = fields.within("beta_start", start, [1e-9, 0.999])?;
    let end = fields.within("beta_end", end, [1e-9, 0.999])?;
    let make: fn(f64, f64) -> BetaCurve = match fields.family {
        Family::Heun => fields.choice(
            "beta_schedule",
            curve,
            &[
                ("linear", BetaCurve::Linear as fn(f64, f64) -> BetaCurve),
                ("scaled_linear", BetaCurve::ScaledLinear),
                ("squaredcos_cap_v2", |_, _| BetaCurve::Cosine),
                ("exp", |_, _| BetaCurve::Exponential),
            ],
        )?,
        _ => fields.choice(
            "beta_schedule",
            curve,
            &[
                ("linear", BetaCurve::Linear as fn(f64, f64) -> BetaCurve),
                ("scaled_linear", BetaCurve::ScaledLinear),
                ("squaredcos_cap_v2", |_, _| BetaCurve::Cosine),
            ],
        )?,
    };
    Ok(make(start, end))
}

fn prediction(fields: &Fields<'_>) -> Result<Prediction, Error> {
    const ALL: [(&str, Prediction); 4] = [
        ("epsilon", Prediction::Epsilon),
        ("v_prediction", Prediction::Velocity),
        ("sample", Prediction::Sample),
        ("original_sample", Prediction::Sample),
    ];
    let known = match fields.family {
        Family::Pndm => 2,
        Family::Euler => 4,
        _ => 3,
    };
    fields.choice("prediction_type", "epsilon", &ALL[..known])
}

fn spacing(fields: &Fields<'_>) -> Result<Spacing, Error> {
    let default = match fields.family {
        Family::Ddim | Family::Pndm | Family::Lcm | Family::Tcd => "leading",
        _ => "linspace",
    };
    fields.choice(
        "timestep_spacing",
        default,
        &[
            ("leading", Spacing::Leading),
            ("trailing", Spacing::Trailing),
            ("linspace", Spacing::Linspace),
        ],
    )
}

fn curve(fields: &Fields<'_>) -> Result<SigmaCurve, Error> {
    const CURVES: [(&str, SigmaCurve); 3] = [
        ("use_karras_sigmas", SigmaCurve::Karras),
        ("use_exponential_sigmas", SigmaCurve::Exponential),
        ("use_beta_sigmas", SigmaCurve::Beta),
    ];
    let mut chosen = SigmaCurve::Discrete;
    for (field, curve) in CURVES {
        if fields.is_on(field)? && chosen != SigmaCurve::Discrete {
            return Err(super::fields::bad(field, &true.into(), "off beside another sigma curve"));
        } else if fields.is_on(field)? {
            chosen = curve;
        }
    }
    // The lambdas of Lu may be on beside another curve; only Karras' goes before them.
    let lu = fields.is_on("use_lu_lambdas")? && chosen != SigmaCurve::Karras;
    Ok(if lu { SigmaCurve::Lu } else { chosen })
}

fn sigma_bound(fields: &Fields<'_>, field: &str) -> Result<Option<f64>, Error> {
    match fields.number(field)? {
        None => Ok(None),
        Some(_) => fields.within(field, 1.0, [1e-10, 1e10]).map(Some),
    }
}

fn timestep_scale(fields: &Fields<'_>) -> Result<TimestepScale, Error> {
    let scale = fields.choice(
        "timestep_type",
        "discrete",
        &[("discrete", TimestepScale::Discrete), ("continuous", TimestepScale::QuarterLogSigma)],
    )?;
    // Other predictions keep the places in the table, whatever the field says.
    let velocity = prediction(fields)? == Prediction::Velocity;
    Ok(if velocity { scale } else { TimestepScale::Discrete })
}

fn limit(fields: &Fields<'_>) -> Result<Limit, Error> {
    let clips = fields.switch("clip_sample")?.unwrap_or(fields.family == Family::Ddim);
    if fields.is_on("thresholding")? {
        let ratio = fields.within("dynamic_thresholding_ratio", 0.995, [0.0, 1.0])? as f32;
        let max = fields.within("sample_max_value", 1.0, [1e-6, 1e6])? as f32;
        return Ok(Limit::Threshold { ratio, max });
    }
    let range = fields.within("clip_sample_range", 1.0, [0.0, 1e9])? as f32;
    Ok(if clips { Limit::Clip(range) } else { Limit::None })
}

fn solver(fields: &Fields<'_>) -> Result<Solver, Error> {
    let unipc = fields.family == Family::UniPc;
    // Names of another solver's variants stand for the nearest of this one, as in diffusers.
    let kind = if unipc {
        fields.choice(
            "solver_type",
            "bh2",
            &[
                ("bh1", SolverKind::Bh1),
                ("bh2", SolverKind::Bh2),
                ("midpoint", SolverKind::Bh2),
                ("heun", SolverKind::Bh2),
                ("logrho", SolverKind::Bh2),
            ],
        )?
    } else {
        fields.choice(
            "solver_type",
            "midpoint",
            &[
                ("midpoint", SolverKind::Midpoint),
                ("heun", SolverKind::Heun),
                ("logrho", SolverKind::Midpoint),
                ("bh1", SolverKind::Midpoint),
                ("bh2", SolverKind::Midpoint),
            ],
        )?
    };
    let predicts_sample = fields.switch("predict_x0")?.unwrap_or(true);
    let solver = Solver {
        order: fields.count("solver_order", 2, [1, if unipc { 8 } else { 3 }])?,
        algorithm: fields.choice(
            "algorithm_type",
            "dpmsolver++",
            &[
                ("dpmsolver++", Algorithm::DpmPlusPlus),
                ("deis", Algorithm::DpmPlusPlus),
                ("dpmsolver", Algorithm::Dpm),
                ("sde-dpmsolver", Algorithm::SdeDpm),
                ("sde-dpmsolver++", Algorithm::SdeDpmPlusPlus),
            ],
        )?,
        kind,
        lower_order_final: fields.switch("lower_order_final")?.unwrap_or(true),
        euler_at_final: fields.is_on("euler_at_final")?,
        lambda_min: fields.number("lambda_min_clipped")?.unwrap_or(f64::NEG_INFINITY),
        target: if predicts_sample { SolverTarget::Sample } else { SolverTarget::Noise },
        uncorrected: uncorrected(fields)?,
    };
    check_solver(fields, &solver)?;
    Ok(solver)
}

fn uncorrected(fields: &Fields<'_>) -> Result<Vec<usize>, Error> {
    let list = fields.numbers("disable_corrector")?.unwrap_or_default();
    Ok(list.iter().filter(|&&step| step >= 0.0).map(|&step| step as usize).collect())
}

/// Combinations that the equations do not allow.
fn check_solver(fields: &Fields<'_>, solver: &Solver) -> Result<(), Error> {
    let field = |name: &str| fields.map.get(name).cloned().unwrap_or_default();
    let noise_form = matches!(solver.algorithm, Algorithm::Dpm | Algorithm::SdeDpm);
    let ends_at_zero = field("final_sigmas_type").as_str() != Some("sigma_min");
    if noise_form && ends_at_zero {
        let advice = "sigma_min with algorithm_type dpmsolver or sde-dpmsolver";
        return Err(super::fields::bad("final_sigmas_type", &field("final_sigmas_type"), advice));
    }
    if solver.algorithm == Algorithm::SdeDpm && solver.order == 3 {
        let advice = "1 or 2 with algorithm_type sde-dpmsolver";
        return Err(super::fields::bad("solver_order", &field("solver_order"), advice));
    }
    if matches!(field("variance_type").as_str(), Some("learned" | "learned_range"))
        && super::fields::reads(fields.family, "variance_type")
    {
        let advice = "null: models that predict their variance are not supported";
        return Err(super::fields::bad("variance_type", &field("variance_type"), advice));
    }
    Ok(())
}
