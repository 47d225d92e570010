//! Reading `scheduler_config.json`, and what the caller changes in it.

use serde_json::{Map, Value, json};

use super::{
    Algorithm, Error, Family, NoiseSchedule, SamplingMethod, Settings, SigmaCurve, fields,
    fields::Fields,
};

/// A scheduler's configuration, checked, from which a sampler for any number of steps is made.
#[derive(Clone, Debug)]
pub struct SchedulerConfig {
    family: Family,
    source: Map<String, Value>,
    settings: Settings,
    eta: f64,
}

impl SchedulerConfig {
    /// Reads the text of a `scheduler_config.json`, with the infinities that Python writes.
    ///
    /// # Errors
    /// Text that is no JSON object, and whatever [`SchedulerConfig::from_config`] refuses.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let value = json_with_infinities(text)
            .map_err(|error| Error::NotAnObject { reason: error.to_string() })?;
        Self::from_config(&value)
    }

    /// Reads a parsed `scheduler_config.json`; `_class_name` decides the family.
    ///
    /// # Errors
    /// An unknown class, a value out of range, an option without an implementation, or a field that
    /// no scheduler has.
    pub fn from_config(value: &Value) -> Result<Self, Error> {
        let Value::Object(source) = value else {
            return Err(Error::NotAnObject { reason: "it holds something else".to_owned() });
        };
        let class = source.get("_class_name").and_then(Value::as_str).unwrap_or("");
        Self::read(Family::from_class(class)?, source.clone())
    }

    /// The configuration that belongs to a method when a model brings none: the betas of Stable
    /// Diffusion.
    ///
    /// # Errors
    /// None for the methods there are; the type is that of the other constructors.
    pub fn from_method(method: SamplingMethod) -> Result<Self, Error> {
        let source = json!({
            "beta_schedule": "scaled_linear",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "clip_sample": false,
            "skip_prk_steps": true,
            "steps_offset": 1,
            "timestep_spacing": "leading",
        });
        let mut source = source.as_object().cloned().unwrap_or_default();
        method.edit(&mut source);
        Self::read(method.family(), source)
    }

    /// The same model's configuration read by another method, as `from_config` of diffusers does:
    /// fields that the file does not hold take the new family's defaults.
    ///
    /// # Errors
    /// A field that the new family cannot follow.
    pub fn with_method(&self, method: SamplingMethod) -> Result<Self, Error> {
        let mut source = self.source.clone();
        method.edit(&mut source);
        Self::read(method.family(), source)
    }

    /// The configuration with another spread of noise levels or of timesteps.
    ///
    /// # Errors
    /// A schedule that the family does not have.
    pub fn with_schedule(&self, schedule: NoiseSchedule) -> Result<Self, Error> {
        let mut source = self.source.clone();
        let Some(field) = schedule.field() else {
            Self::clear_curves(&mut source);
            return Ok(Self { eta: self.eta, ..Self::read(self.family, source)? });
        };
        if !fields::reads(self.family, field) {
            return Err(Error::NoSuchSchedule {
                method: self.family.name(),
                schedule: schedule.name(),
                choices: match schedule {
                    NoiseSchedule::Lu => "dpm++2m, dpm++2m_sde or dpm++3m",
                    _ if field == "timestep_spacing" => "euler, euler_a, heun, ddim or dpm++2m",
                    _ => "euler, heun, dpm++2m, dpm++2m_sde, dpm++3m or unipc",
                },
            });
        }
        if field == "timestep_spacing" {
            source.insert(field.to_owned(), schedule.name().into());
        } else {
            Self::clear_curves(&mut source);
            source.insert(field.to_owned(), true.into());
        }
        Ok(Self { eta: self.eta, ..Self::read(self.family, source)? })
    }

    /// The configuration with another share of fresh noise per step for DDIM (equation 16 of Song
    /// et al. 2021) and TCD (gamma of Zheng et al. 2024). Changing the method puts it back to 0.
    ///
    /// The default is 0, which is what the pipelines of diffusers pass to both; TCD's paper and
    /// diffusers' bare `TCDScheduler.step` use 0.3.
    ///
    /// # Errors
    /// A value outside 0 to 1, or one other than 0 for a family that has no such share.
    pub fn with_eta(&self, eta: f64) -> Result<Self, Error> {
        let most = f64::from(u8::from(matches!(self.family, Family::Ddim | Family::Tcd)));
        if (0.0..=most).contains(&eta) {
            return Ok(Self { eta, ..self.clone() });
        }
        let expected = match self.family {
            Family::Ddim | Family::Tcd => "a number from 0 to 1",
            _ => "0 with this sampling method; ddim and tcd have others",
        };
        Err(fields::bad("eta", &json!(eta), expected))
    }

    /// The arithmetic that the sampler will follow.
    pub fn family(&self) -> Family {
        self.family
    }

    /// A short name of the method and its spread of levels, such as `dpm++2m_sde karras`.
    pub fn name(&self) -> String {
        let solver = &self.settings.solver;
        let method = match (self.family, solver.algorithm) {
            (Family::DpmMultistep, Algorithm::Dpm) => format!("dpm{}m", solver.order),
            (Family::DpmMultistep, Algorithm::DpmPlusPlus) => format!("dpm++{}m", solver.order),
            (Family::DpmMultistep, Algorithm::SdeDpm) => format!("dpm{}m_sde", solver.order),
            (Family::DpmMultistep, _) => format!("dpm++{}m_sde", solver.order),
            (family, _) => family.name().to_owned(),
        };
        match self.settings.curve {
            SigmaCurve::Discrete => method,
            SigmaCurve::Karras => method + " karras",
            SigmaCurve::Exponential => method + " exponential",
            SigmaCurve::Beta => method + " beta",
            SigmaCurve::Lu => method + " lu",
        }
    }

    /// The fields as values.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Share of fresh noise per step of DDIM and TCD.
    pub fn eta(&self) -> f64 {
        self.eta
    }

    fn read(family: Family, source: Map<String, Value>) -> Result<Self, Error> {
        let settings = Settings::read(&Fields { family, map: &source })?;
        Ok(Self { family, source, settings, eta: 0.0 })
    }

    fn clear_curves(source: &mut Map<String, Value>) {
        for field in
            ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas"]
        {
            source.remove(field);
        }
    }
}

/// Parse JSON as Python writes it: infinities become the strings "Infinity" and "-Infinity", which
/// [`SchedulerConfig::from_config`] reads as numbers.
///
/// # Errors
/// Text that is no JSON.
pub fn json_with_infinities(text: &str) -> serde_json::Result<Value> {
    serde_json::from_str(&quote_infinities(text))
}

/// Puts quotation marks around `-Infinity`, which Python writes for `lambda_min_clipped` although
/// JSON has no such number. Text inside strings is left alone.
fn quote_infinities(text: &str) -> String {
    let outside = |index: usize| text[..index].matches('"').count().is_multiple_of(2);
    let mut quoted = String::with_capacity(text.len());
    let mut rest = 0;
    for (index, word) in text.match_indices("-Infinity") {
        if outside(index) {
            quoted.push_str(&text[rest..index]);
            quoted.push_str("\"-Infinity\"");
            rest = index + word.len();
        }
    }
    quoted.push_str(&text[rest..]);
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        SchedulerConfig::from_json(text).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn faults_are_named() {
        let cases = [
            ("[1]", "not a json object"),
            (r#"{"_class_name": "FooScheduler"}"#, "unknown scheduler `FooScheduler`"),
            (r#"{"_class_name": "FooScheduler"}"#, "dpm++2m"),
            (r#"{"_class_name": "DDIMScheduler", "frobnicate": 3}"#, "`frobnicate` = 3"),
            (r#"{"_class_name": "DDIMScheduler", "beta_start": "x"}"#, "`beta_start` = \"x\""),
            (r#"{"_class_name": "PNDMScheduler", "prediction_type": "sample"}"#, "one of: epsilon"),
            (r#"{"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": true}"#, "flow"),
            (
                r#"{"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver"}"#,
                "final_sigmas_type",
            ),
            (
                r#"{"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": true,
                    "use_beta_sigmas": true}"#,
                "another sigma curve",
            ),
        ];
        let wrong: Vec<_> =
            cases.iter().filter(|(text, part)| !message(text).contains(part)).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    #[test]
    fn private_other_and_switched_off_fields_are_passed_over() {
        let text = r#"{"_class_name": "EulerDiscreteScheduler", "_diffusers_version": "0.42.1",
            "skip_prk_steps": true, "use_flow_sigmas": true, "stochastic_sampling": false,
            "shift_terminal": null, "lambda_min_clipped": -Infinity}"#;
        assert!(SchedulerConfig::from_json(text).is_ok());
    }

    #[test]
    fn methods_and_schedules_replace_fields() {
        let euler = SchedulerConfig::from_method(SamplingMethod::Euler).unwrap();
        let karras = euler.with_schedule(NoiseSchedule::Karras).unwrap();
        assert_eq!(karras.settings().curve, SigmaCurve::Karras);
        let back = karras.with_schedule(NoiseSchedule::Discrete).unwrap();
        assert_eq!(back.settings(), euler.settings());
        let ancestral = euler.with_method(SamplingMethod::EulerAncestral).unwrap();
        let refused = ancestral.with_schedule(NoiseSchedule::Karras).unwrap_err().to_string();
        assert!(refused.contains("euler_a has no karras schedule"), "{refused}");
        for name in SamplingMethod::names().split(", ") {
            let method: SamplingMethod = name.parse().unwrap();
            assert_eq!(euler.with_method(method).unwrap().family(), method.family());
        }
        let solver = euler.with_method(SamplingMethod::Dpmpp2mSde).unwrap();
        let solver = solver.with_schedule(NoiseSchedule::Karras).unwrap();
        assert_eq!(solver.name(), "dpm++2m_sde karras");
        assert!(euler.with_eta(0.5).is_err());
    }
}
