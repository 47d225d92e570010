//! Which number format each layer of each component has, as a file that people can read and write.
//!
//! ```toml
//! version = 1
//!
//! [unet]
//! default = "w4a8"
//! attention = "a8"
//!
//! [unet.layers]
//! conv_in = "w8a8"
//! "time_embedding.linear_1" = "float"
//! ```
//!
//! A component that is not listed has real numbers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tensor::{LayerFormat, Precision, Scheme, Scores};

use crate::model::Model;

/// The version of the format that this library reads and writes.
const VERSION: u32 = 1;

/// The word for real numbers.
const FLOAT: &str = "float";

/// The word for attention whose queries and keys are rounded to 8 bits.
const ROUNDED: &str = "a8";

/// The format of every layer of every component.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What real numbers are computed in.
    pub precision: Precision,
    components: BTreeMap<String, Formats>,
    /// Of components that are not listed.
    others: Option<Scheme>,
}

/// The formats of one component; `None` is real.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Formats {
    default: Option<Scheme>,
    scores: Scores,
    layers: BTreeMap<String, Option<Scheme>>,
}

/// The file.
#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    #[serde(flatten)]
    components: BTreeMap<String, WrittenFormats>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenFormats {
    default: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    attention: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    layers: BTreeMap<String, String>,
}

impl Plan {
    /// Real numbers everywhere.
    pub fn float(precision: Precision) -> Self {
        Self { precision, ..Self::default() }
    }

    /// The same scheme for every layer of every component.
    pub fn uniform(scheme: Scheme, precision: Precision) -> Self {
        Self { precision, others: Some(scheme), ..Self::default() }
    }

    /// The same with this scheme for every layer of one component.
    pub fn with_component(mut self, component: &str, scheme: Scheme) -> Self {
        self.components.insert(component.to_owned(), Formats::uniform(Some(scheme)));
        self
    }

    /// The same with these schemes for the layers of one component; `None` is real. The most common one becomes its
    /// default, which also says how attention computes.
    pub fn with_layers(
        mut self,
        component: &str,
        layers: BTreeMap<String, Option<Scheme>>,
    ) -> Self {
        let mut counts: BTreeMap<Option<Scheme>, usize> = BTreeMap::new();
        for scheme in layers.values() {
            *counts.entry(*scheme).or_default() += 1;
        }
        let schemes = counts.into_iter().filter(|(scheme, _)| scheme.is_some());
        let common = schemes.max_by_key(|(_, count)| *count).and_then(|(scheme, _)| scheme);
        let mut formats = Formats::uniform(common);
        formats.layers = layers.into_iter().filter(|(_, scheme)| *scheme != common).collect();
        self.components.insert(component.to_owned(), formats);
        self
    }

    /// The same with another precision of real numbers.
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// The formats of one component.
    pub fn component(&self, component: &str) -> tensor::Plan {
        let precision = self.precision;
        let format = |scheme: &Option<Scheme>| match scheme {
            Some(scheme) => LayerFormat::Integer(*scheme),
            None => LayerFormat::Float(precision),
        };
        let others = Formats::uniform(self.others);
        let layers = self.components.get(component).unwrap_or(&others);
        let exceptions = layers.layers.iter();
        tensor::Plan {
            default: precision,
            scheme: layers.default,
            scores: layers.scores,
            layers: exceptions.map(|(name, scheme)| (name.clone(), format(scheme))).collect(),
        }
    }

    /// Read a file.
    ///
    /// # Errors
    ///
    /// A clause that says what is wrong with it.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        // The version first: what else a newer one holds is not known.
        let Version { version } = toml::from_str(text).map_err(|error| said(&error))?;
        if version != VERSION {
            return Err(format!("it has version {version}, and this program reads {VERSION}"));
        }
        let written: Written = toml::from_str(text).map_err(|error| said(&error))?;
        let components = written.components.into_iter().map(|(name, component)| {
            let layers = component.layers.into_iter();
            let layers = layers.map(|(layer, format)| Ok((layer, scheme(&format)?)));
            let (default, scores) =
                (scheme(&component.default)?, scores(component.attention.as_deref())?);
            Ok((name, Formats { default, scores, layers: layers.collect::<Result<_, String>>()? }))
        });
        let components = components.collect::<Result<_, String>>()?;
        Ok(Self { components, ..Self::default() })
    }

    /// What [`Plan::from_toml`] reads, for these components.
    ///
    /// # Panics
    ///
    /// Never: maps of strings can be written.
    pub fn to_toml<'a>(&self, components: impl IntoIterator<Item = &'a str>) -> String {
        let word = |scheme: Option<Scheme>| scheme.map_or(FLOAT.to_owned(), |s| s.to_string());
        let components = components.into_iter().map(|name| {
            let others = Formats::uniform(self.others);
            let layers = self.components.get(name).unwrap_or(&others);
            let exceptions = layers.layers.iter();
            let written = WrittenFormats {
                default: word(layers.default),
                attention: (layers.scores == Scores::Int8).then(|| ROUNDED.to_owned()),
                layers: exceptions.map(|(name, scheme)| (name.clone(), word(*scheme))).collect(),
            };
            (name.to_owned(), written)
        });
        let written = Written { version: VERSION, components: components.collect() };
        toml::to_string(&written).expect("maps of strings can be written")
    }

    /// Whether the model has all components and layers that are named.
    ///
    /// # Errors
    ///
    /// A clause that names the first that it does not have.
    pub fn check(&self, model: &Model) -> Result<(), String> {
        for (name, layers) in &self.components {
            let Some(component) = model.components().find(|component| component.name == name)
            else {
                return Err(format!("the model has no component `{name}`"));
            };
            let known = |layer: &str| component.weights.contains(&format!("{layer}.weight"));
            if let Some(layer) = layers.layers.keys().find(|layer| !known(layer)) {
                return Err(format!("`{name}` has no layer `{layer}`"));
            }
        }
        Ok(())
    }
}

impl Formats {
    /// The same scheme for every layer.
    fn uniform(default: Option<Scheme>) -> Self {
        let scores = default.map(|scheme| tensor::Plan::integers(scheme, Precision::F32).scores);
        Self { default, scores: scores.unwrap_or_default(), ..Self::default() }
    }
}

fn scores(text: Option<&str>) -> Result<Scores, String> {
    match text {
        None | Some(FLOAT) => Ok(Scores::Real),
        Some(ROUNDED) => Ok(Scores::Int8),
        Some(other) => Err(format!("unknown attention {other:?}, use {ROUNDED} or {FLOAT}")),
    }
}

fn scheme(text: &str) -> Result<Option<Scheme>, String> {
    if text == FLOAT { Ok(None) } else { text.parse().map(Some) }
}

/// A parser's message on one line.
fn said(error: &toml::de::Error) -> String {
    error.message().lines().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = r#"
        version = 1
        [unet]
        default = "w4a8"
        attention = "a8"
        [unet.layers]
        conv_in = "w8a8"
        "time_embedding.linear_1" = "float"
        [vae]
        default = "float"
    "#;

    #[test]
    fn formats_are_those_of_the_file() {
        let plan = Plan::from_toml(EXAMPLE).unwrap().with_precision(Precision::Bf16);
        let unet = plan.component("unet");
        assert_eq!(unet.layer("conv_out").to_string(), "w4a8");
        assert_eq!(unet.layer("conv_in").to_string(), "w8a8");
        assert_eq!(unet.layer("time_embedding.linear_1").to_string(), "bf16");
        assert_eq!(plan.component("vae").layer("conv_in").to_string(), "bf16");
        assert_eq!(plan.component("text_encoder").layer("x").to_string(), "bf16");
    }

    #[test]
    fn what_was_written_is_read_back() {
        let plan = Plan::from_toml(EXAMPLE).unwrap();
        let text = plan.to_toml(["unet", "vae"]);
        assert_eq!(Plan::from_toml(&text).unwrap(), plan);
        let uniform = Plan::uniform("w8a8".parse().unwrap(), Precision::F32);
        let read = Plan::from_toml(&uniform.to_toml(["vae"])).unwrap();
        assert_eq!(read.component("vae"), uniform.component("vae"));
    }

    #[test]
    fn faults_are_named() {
        let fault = |text: &str| Plan::from_toml(text).unwrap_err();
        assert!(fault("version = 2\n[unet]\nnew = 1").contains("version 2"));
        assert!(fault("[unet]\ndefault = 'w8a8'").contains("version"));
        assert!(fault("version = 1\n[unet]\ndefault = 'w9a8'").contains("w9a8"));
        assert!(fault("version = 1\n[unet]\ndefault = 'float'\nattention = 'a4'").contains("a4"));
        assert!(fault("version = 1\n[unet]\ndefaults = 'w8a8'").contains("defaults"));
        assert!(
            fault("version = 1\n[unet]\ndefault = 'float'\n[unet.layers]\na = 'w8'")
                .contains("unknown scheme")
        );
    }
}
