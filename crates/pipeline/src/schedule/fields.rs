//! Typed reading of a scheduler's JSON fields.
//!
//! A family reads only the fields that its class of diffusers has; a field of another class is
//! passed over, as diffusers does, because one file is often shared by several schedulers. A name
//! that no class knows is an error unless its value says "off".

use serde_json::{Map, Value};

use super::{Error, Family};

const TRAINING: [&str; 6] = [
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
];
const SPACING: [&str; 2] = ["timestep_spacing", "steps_offset"];
/// `sigma_min` and `sigma_max` count for every family that bends its sigmas, since diffusers looks
/// them up in whatever the file holds.
const BENDING: [&str; 5] =
    ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "sigma_min", "sigma_max"];
const THRESHOLD: [&str; 3] = ["thresholding", "dynamic_thresholding_ratio", "sample_max_value"];
const CLIP: [&str; 2] = ["clip_sample", "clip_sample_range"];
const SOLVER: [&str; 7] = [
    "solver_order",
    "solver_type",
    "lower_order_final",
    "final_sigmas_type",
    "rescale_betas_zero_snr",
    "use_flow_sigmas",
    "use_dynamic_shifting",
];
/// Fields that other classes have, or that only describe how a model was trained.
const ELSEWHERE: [&str; 8] = [
    "flow_shift",
    "time_shift_type",
    "shift",
    "base_shift",
    "max_shift",
    "base_image_seq_len",
    "max_image_seq_len",
    "variance_type",
];

/// Field groups and single fields that a family reads besides the training table's.
fn groups(family: Family) -> (&'static [&'static [&'static str]], &'static [&'static str]) {
    match family {
        Family::Euler => (
            &[&SPACING, &BENDING],
            &["rescale_betas_zero_snr", "interpolation_type", "timestep_type", "final_sigmas_type"],
        ),
        Family::EulerAncestral => (&[&SPACING], &["rescale_betas_zero_snr"]),
        Family::Heun => (&[&SPACING, &BENDING, &CLIP], &[]),
        Family::Lcm => (
            &[&THRESHOLD, &CLIP],
            &["rescale_betas_zero_snr", "original_inference_steps", "timestep_scaling"],
        ),
        Family::Tcd => (&[], &["rescale_betas_zero_snr", "original_inference_steps"]),
        Family::Ddim => {
            (&[&SPACING, &THRESHOLD, &CLIP], &["rescale_betas_zero_snr", "set_alpha_to_one"])
        }
        Family::Pndm => (&[&SPACING], &["skip_prk_steps", "set_alpha_to_one"]),
        Family::DpmMultistep => (
            &[&SPACING, &BENDING, &THRESHOLD, &SOLVER],
            &[
                "algorithm_type",
                "euler_at_final",
                "use_lu_lambdas",
                "lambda_min_clipped",
                "variance_type",
            ],
        ),
        Family::UniPc => (
            &[&SPACING, &BENDING, &THRESHOLD, &SOLVER],
            &["predict_x0", "disable_corrector", "solver_p", "shift_terminal"],
        ),
    }
}

/// Whether the family's arithmetic depends on the field.
pub(super) fn reads(family: Family, field: &str) -> bool {
    let (groups, singles) = groups(family);
    TRAINING.contains(&field)
        || singles.contains(&field)
        || groups.iter().any(|group| group.contains(&field))
}

/// The fields of one configuration, as one family sees them.
pub(super) struct Fields<'a> {
    pub(super) family: Family,
    pub(super) map: &'a Map<String, Value>,
}

impl Fields<'_> {
    /// Refuses names that no scheduler has, unless they are private or off.
    pub(super) fn check_names(&self) -> Result<(), Error> {
        const FAMILIES: [Family; 9] = [
            Family::Euler,
            Family::EulerAncestral,
            Family::Heun,
            Family::Lcm,
            Family::Tcd,
            Family::Ddim,
            Family::Pndm,
            Family::DpmMultistep,
            Family::UniPc,
        ];
        for (field, value) in self.map {
            let off = value.is_null() || *value == Value::Bool(false);
            let known = ELSEWHERE.contains(&field.as_str())
                || FAMILIES.iter().any(|&family| reads(family, field));
            if !off && !known && !field.starts_with('_') {
                return Err(Error::UnknownField { field: field.clone(), value: value.to_string() });
            }
        }
        Ok(())
    }

    /// The value of a field that the family reads; none when absent.
    fn get(&self, field: &str) -> Option<&Value> {
        self.map.get(field).filter(|_| reads(self.family, field))
    }

    /// A switch, if it is there; null means off.
    pub(super) fn switch(&self, field: &str) -> Result<Option<bool>, Error> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(false)),
            Some(value) => match value.as_bool() {
                Some(on) => Ok(Some(on)),
                None => Err(bad(field, value, "true or false")),
            },
        }
    }

    /// Whether a switch that is off by default is on.
    pub(super) fn is_on(&self, field: &str) -> Result<bool, Error> {
        Ok(self.switch(field)?.unwrap_or(false))
    }

    /// A finite number, if it is there and not null. Python's infinities are accepted as text.
    pub(super) fn number(&self, field: &str) -> Result<Option<f64>, Error> {
        match self.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text == "-Infinity" => Ok(Some(f64::NEG_INFINITY)),
            Some(value) => match value.as_f64() {
                Some(number) => Ok(Some(number)),
                None => Err(bad(field, value, "a number")),
            },
        }
    }

    /// A number within the bounds, both included.
    pub(super) fn within(&self, field: &str, default: f64, bounds: [f64; 2]) -> Result<f64, Error> {
        let number = self.number(field)?.unwrap_or(default);
        if number >= bounds[0] && number <= bounds[1] {
            return Ok(number);
        }
        let value = self.map.get(field).unwrap_or(&Value::Null);
        Err(bad(field, value, &format!("a number from {} to {}", bounds[0], bounds[1])))
    }

    /// A whole number within the bounds, both included.
    pub(super) fn count(
        &self,
        field: &str,
        default: usize,
        bounds: [usize; 2],
    ) -> Result<usize, Error> {
        let Some(value) = self.get(field) else { return Ok(default) };
        // Some writers store whole numbers as 1.0.
        let number = value.as_f64().filter(|x| x.fract() == 0.0 && *x >= 0.0);
        match number.map(|x| x as usize) {
            Some(n) if n >= bounds[0] && n <= bounds[1] => Ok(n),
            _ => Err(bad(field, value, &format!("a whole number, {} to {}", bounds[0], bounds[1]))),
        }
    }

    /// One of a set of words.
    pub(super) fn choice<T: Copy>(
        &self,
        field: &str,
        default: &str,
        choices: &[(&str, T)],
    ) -> Result<T, Error> {
        let value = self.get(field).cloned().unwrap_or_else(|| default.into());
        let word = value.as_str();
        let found = choices.iter().find(|choice| word == Some(choice.0)).map(|choice| choice.1);
        found.ok_or_else(|| {
            let words: Vec<&str> = choices.iter().map(|choice| choice.0).collect();
            bad(field, &value, &format!("one of: {}", words.join(", ")))
        })
    }

    /// A list of numbers, if it is there and not null.
    pub(super) fn numbers(&self, field: &str) -> Result<Option<Vec<f64>>, Error> {
        let Some(value) = self.get(field).filter(|value| !value.is_null()) else { return Ok(None) };
        let list: Option<Vec<f64>> =
            value.as_array().and_then(|list| list.iter().map(Value::as_f64).collect());
        list.map(Some).ok_or_else(|| bad(field, value, "a list of numbers"))
    }

    /// Refuses a field that is switched on but has no implementation.
    pub(super) fn refuse(&self, field: &str, advice: &str) -> Result<(), Error> {
        match self.get(field) {
            None | Some(Value::Null | Value::Bool(false)) => Ok(()),
            Some(value) => Err(bad(field, value, advice)),
        }
    }
}

/// The error for a value that cannot be followed.
pub(super) fn bad(field: &str, value: &Value, expected: &str) -> Error {
    Error::BadValue {
        field: field.to_owned(),
        value: value.to_string(),
        expected: expected.to_owned(),
    }
}
