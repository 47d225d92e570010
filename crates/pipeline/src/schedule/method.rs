//! Names: families of schedulers, sampling methods, noise schedules.

use std::{fmt, str::FromStr};

use serde_json::{Map, Value, json};

use super::Error;

/// The scheduler class of diffusers whose arithmetic is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `EulerDiscreteScheduler`: Algorithm 2 of Karras et al. 2022 without churn.
    Euler,
    /// `EulerAncestralDiscreteScheduler`: Euler down to a lower level, then fresh noise.
    EulerAncestral,
    /// `HeunDiscreteScheduler`: Algorithm 1 of Karras et al. 2022, two model calls per step.
    Heun,
    /// `LCMScheduler`: multistep consistency sampling, Luo et al. 2023.
    Lcm,
    /// `TCDScheduler`: strategic stochastic sampling, Zheng et al. 2024.
    Tcd,
    /// `DDIMScheduler`: Song et al. 2021.
    Ddim,
    /// `PNDMScheduler`: Liu et al. 2022.
    Pndm,
    /// `DPMSolverMultistepScheduler`: Lu et al. 2022.
    DpmMultistep,
    /// `UniPCMultistepScheduler`: Zhao et al. 2023.
    UniPc,
}

impl Family {
    const ALL: [(Self, &'static str, &'static str); 9] = [
        (Self::Euler, "EulerDiscreteScheduler", "euler"),
        (Self::EulerAncestral, "EulerAncestralDiscreteScheduler", "euler_a"),
        (Self::Heun, "HeunDiscreteScheduler", "heun"),
        (Self::Lcm, "LCMScheduler", "lcm"),
        (Self::Tcd, "TCDScheduler", "tcd"),
        (Self::Ddim, "DDIMScheduler", "ddim"),
        (Self::Pndm, "PNDMScheduler", "pndm"),
        (Self::DpmMultistep, "DPMSolverMultistepScheduler", "dpm++"),
        (Self::UniPc, "UniPCMultistepScheduler", "unipc"),
    ];

    /// The family whose `_class_name` this is.
    ///
    /// # Errors
    /// A class that is not here; the text lists the sampling methods to use instead.
    pub fn from_class(class: &str) -> Result<Self, Error> {
        let found = Self::ALL.iter().find(|(_, name, _)| *name == class).map(|entry| entry.0);
        found.ok_or_else(|| Error::UnknownScheduler {
            class: class.to_owned(),
            choices: SamplingMethod::names(),
        })
    }

    /// The short name that messages and picture metadata use.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(family, ..)| *family == self).map_or("", |entry| entry.2)
    }
}

/// A way to sample that a person can ask for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SamplingMethod {
    /// `euler`.
    Euler,
    /// `euler_a`.
    EulerAncestral,
    /// `heun`.
    Heun,
    /// `lcm`.
    Lcm,
    /// `tcd`.
    Tcd,
    /// `ddim`.
    Ddim,
    /// `ddim_trailing`: DDIM whose first timestep is the last of training.
    DdimTrailing,
    /// `pndm`: with Runge–Kutta steps first unless the model's configuration skips them.
    Pndm,
    /// `plms`: PNDM without Runge–Kutta steps.
    Plms,
    /// `dpm++2m`: second order multistep DPM-Solver++.
    Dpmpp2m,
    /// `dpm++2m_sde`: the stochastic form of `dpm++2m`.
    Dpmpp2mSde,
    /// `dpm++3m`: third order multistep DPM-Solver++.
    Dpmpp3m,
    /// `unipc`: predictor and corrector of the same order.
    UniPc,
}

impl SamplingMethod {
    const ALL: [(Self, &'static str, Family); 13] = [
        (Self::Euler, "euler", Family::Euler),
        (Self::EulerAncestral, "euler_a", Family::EulerAncestral),
        (Self::Heun, "heun", Family::Heun),
        (Self::Lcm, "lcm", Family::Lcm),
        (Self::Tcd, "tcd", Family::Tcd),
        (Self::Ddim, "ddim", Family::Ddim),
        (Self::DdimTrailing, "ddim_trailing", Family::Ddim),
        (Self::Pndm, "pndm", Family::Pndm),
        (Self::Plms, "plms", Family::Pndm),
        (Self::Dpmpp2m, "dpm++2m", Family::DpmMultistep),
        (Self::Dpmpp2mSde, "dpm++2m_sde", Family::DpmMultistep),
        (Self::Dpmpp3m, "dpm++3m", Family::DpmMultistep),
        (Self::UniPc, "unipc", Family::UniPc),
    ];

    /// All names, separated by commas.
    pub fn names() -> String {
        Self::ALL.map(|entry| entry.1).join(", ")
    }

    /// The name by which it is asked for.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(method, ..)| *method == self).map_or("", |entry| entry.1)
    }

    /// The arithmetic that it uses.
    pub fn family(self) -> Family {
        Self::ALL.iter().find(|(method, ..)| *method == self).map_or(Family::Euler, |entry| entry.2)
    }

    /// Writes into a configuration the fields that set the method apart within its family.
    pub(super) fn edit(self, fields: &mut Map<String, Value>) {
        let edits = match self {
            Self::DdimTrailing => json!({"timestep_spacing": "trailing"}),
            Self::Plms => json!({"skip_prk_steps": true}),
            Self::Dpmpp2m => dpm("dpmsolver++", 2),
            Self::Dpmpp2mSde => dpm("sde-dpmsolver++", 2),
            Self::Dpmpp3m => dpm("dpmsolver++", 3),
            _ => return,
        };
        if let Value::Object(edits) = edits {
            fields.extend(edits);
        }
    }
}

fn dpm(algorithm: &str, order: u8) -> Value {
    json!({"algorithm_type": algorithm, "solver_order": order, "solver_type": "midpoint"})
}

impl FromStr for SamplingMethod {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let found = Self::ALL.iter().find(|entry| entry.1 == name).map(|entry| entry.0);
        found.ok_or_else(|| Error::UnknownName {
            what: "sampling method",
            name: name.to_owned(),
            choices: Self::names(),
        })
    }
}

impl fmt::Display for SamplingMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How the noise levels are spread, when the caller does not want the model's own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoiseSchedule {
    /// `discrete`: levels of the training table at the chosen timesteps.
    Discrete,
    /// `karras`: equation 5 of Karras et al. 2022 with rho = 7.
    Karras,
    /// `exponential`: evenly spaced logarithms.
    Exponential,
    /// `beta`: quantiles of the Beta(0.6, 0.6) distribution, Lee et al. 2024.
    Beta,
    /// `lu`: evenly spaced log signal-to-noise ratios, Lu et al. 2022.
    Lu,
    /// `trailing`: timesteps counted down from the last of training.
    Trailing,
    /// `leading`: timesteps counted up from the first of training.
    Leading,
    /// `linspace`: timesteps from the first to the last, both included.
    Linspace,
}

impl NoiseSchedule {
    const ALL: [(Self, &'static str); 8] = [
        (Self::Discrete, "discrete"),
        (Self::Karras, "karras"),
        (Self::Exponential, "exponential"),
        (Self::Beta, "beta"),
        (Self::Lu, "lu"),
        (Self::Trailing, "trailing"),
        (Self::Leading, "leading"),
        (Self::Linspace, "linspace"),
    ];

    /// All names, separated by commas.
    pub fn names() -> String {
        Self::ALL.map(|entry| entry.1).join(", ")
    }

    /// The name by which it is asked for.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(schedule, _)| *schedule == self).map_or("", |entry| entry.1)
    }

    /// The field of the configuration that turns it on; none for the plain table.
    pub(super) fn field(self) -> Option<&'static str> {
        match self {
            Self::Discrete => None,
            Self::Karras => Some("use_karras_sigmas"),
            Self::Exponential => Some("use_exponential_sigmas"),
            Self::Beta => Some("use_beta_sigmas"),
            Self::Lu => Some("use_lu_lambdas"),
            Self::Trailing | Self::Leading | Self::Linspace => Some("timestep_spacing"),
        }
    }
}

impl FromStr for NoiseSchedule {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let found = Self::ALL.iter().find(|entry| entry.1 == name).map(|entry| entry.0);
        found.ok_or_else(|| Error::UnknownName {
            what: "noise schedule",
            name: name.to_owned(),
            choices: Self::names(),
        })
    }
}
