//! Reading `config.json`: fields by name, lists that may be given as one number, and options that are not implemented.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tensor::graph::Activation;

use crate::Error;

/// Fields of a configuration that the struct which reads it does not have.
pub(crate) type Rest = BTreeMap<String, Value>;

/// A number for all levels, or one for each.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(untagged)]
pub enum PerLevel<T> {
    /// The same for all.
    All(T),
    /// One for each, outermost level first.
    Each(Vec<T>),
}

impl<T: Copy> PerLevel<T> {
    /// The value at each of `levels` levels, or `None` if the list has another length.
    pub(crate) fn list(&self, levels: usize) -> Option<Vec<T>> {
        match self {
            Self::All(value) => Some(vec![*value; levels]),
            Self::Each(list) => (list.len() == levels).then(|| list.clone()),
        }
    }
}

/// Read a configuration, and name the field that does not fit.
pub(crate) fn read<T: DeserializeOwned>(model: &'static str, json: &Value) -> Result<T, Error> {
    let Value::Object(all) = json else {
        return Err(fault(model, "the whole", "is not an object"));
    };
    // Most models leave options that do not concern them at null, which means the default.
    let fields: Map<String, Value> = all
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    serde_json::from_value(Value::Object(fields.clone())).map_err(|error| {
        let culprit = fields.keys().find(|key| {
            let mut others = fields.clone();
            others.remove(*key);
            serde_json::from_value::<T>(Value::Object(others)).is_ok()
        });
        let field = culprit.map_or("a field", String::as_str);
        fault(model, field, &format!("cannot be read ({error})"))
    })
}

/// An error about a field that contradicts others or cannot be read.
pub(crate) fn fault(model: &'static str, field: &str, fault: &str) -> Error {
    Error::Config { model, field: field.to_owned(), fault: fault.to_owned() }
}

/// Refuse sizes that no model has, before they are multiplied with each other.
pub(crate) fn within(
    model: &'static str,
    field: &str,
    sizes: impl IntoIterator<Item = usize>,
    range: RangeInclusive<usize>,
) -> Result<(), Error> {
    if sizes.into_iter().all(|size| range.contains(&size)) {
        return Ok(());
    }
    let (least, most) = (range.start(), range.end());
    Err(fault(model, field, &format!("must lie between {least} and {most}")))
}

/// Numbers of channels that models may have.
pub(crate) const CHANNELS: RangeInclusive<usize> = 1..=1 << 20;

/// Numbers of levels that a model may have.
pub(crate) const LEVELS: RangeInclusive<usize> = 1..=16;

/// An error about an option that is not implemented.
pub(crate) fn unsupported(
    model: &'static str,
    field: &str,
    value: impl Into<Value>,
    advice: &str,
) -> Error {
    let (field, value) = (field.to_owned(), value.into().to_string());
    Error::Option { model, field, value, advice: advice.to_owned() }
}

/// Refuse what is not implemented among the fields that were not read.
///
/// `neutral` lists fields that do not change the result, with the one value that they may have there (`Null`: any).
pub(crate) fn refuse(
    model: &'static str,
    rest: &Rest,
    neutral: &[(&str, Value)],
) -> Result<(), Error> {
    for (field, value) in rest {
        let off = field.starts_with('_') || value.is_null() || *value == Value::Bool(false);
        let accepted = |(name, only): &(&str, Value)| {
            name == field
                && (only.is_null()
                    || only == value
                    || only.as_f64().is_some_and(|n| value.as_f64() == Some(n)))
        };
        if !off && !TRAINING.contains(&field.as_str()) && !neutral.iter().any(accepted) {
            return Err(unsupported(model, field, value.clone(), "use a checkpoint without it"));
        }
    }
    Ok(())
}

/// Fields that a moving average of weights leaves behind when it is saved.
const TRAINING: [&str; 7] = [
    "decay",
    "inv_gamma",
    "min_decay",
    "optimization_step",
    "power",
    "update_after_step",
    "use_ema_warmup",
];

/// The activation function of this name.
pub(crate) fn activation(
    model: &'static str,
    field: &str,
    name: &str,
) -> Result<Activation, Error> {
    Ok(match name.to_ascii_lowercase().as_str() {
        "silu" | "swish" => Activation::Silu,
        "gelu" => Activation::Gelu,
        "quick_gelu" => Activation::QuickGelu,
        "gelu_new" | "gelu_pytorch_tanh" => Activation::GeluTanh,
        "relu" => Activation::Relu,
        _ => {
            let advice = "implemented are silu, swish, gelu, quick_gelu, gelu_new, gelu_pytorch_tanh and relu";
            return Err(unsupported(model, field, name, advice));
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{PerLevel, Rest, activation, read, refuse};

    #[derive(Debug, serde::Deserialize)]
    struct Sample {
        #[serde(default)]
        layers: Option<PerLevel<usize>>,
        #[serde(flatten)]
        rest: Rest,
    }

    #[test]
    fn lists_may_be_numbers() {
        let sample: Sample = read("Sample", &json!({"layers": 2})).unwrap();
        assert_eq!(sample.layers.unwrap().list(3).unwrap(), [2, 2, 2]);
        let sample: Sample = read("Sample", &json!({"layers": [1, 2], "x": null})).unwrap();
        assert!(sample.rest.is_empty());
        assert_eq!(sample.layers.unwrap().list(3), None);
    }

    #[test]
    fn the_unreadable_field_is_named() {
        let error = read::<Sample>("Sample", &json!({"a": 1, "layers": "two"})).unwrap_err();
        assert!(error.to_string().starts_with("Sample: layers in config.json cannot"), "{error}");
    }

    #[test]
    fn options_that_are_not_implemented_are_named() {
        let neutral = [("dropout", json!(null)), ("kind", json!("default")), ("one", json!(1))];
        let check = |json| {
            let sample: Sample = read("Sample", &json).unwrap();
            refuse("Sample", &sample.rest, &neutral).map_err(|e| e.to_string())
        };
        assert_eq!(
            check(json!({"_v": 1, "dropout": 0.5, "kind": "default", "off": false, "one": 1.0})),
            Ok(())
        );
        let message = check(json!({"kind": "other"})).unwrap_err();
        assert!(
            message.starts_with("Sample: kind is \"other\", which is not implemented"),
            "{message}"
        );
        assert!(activation("Sample", "act_fn", "mish").is_err());
    }
}
