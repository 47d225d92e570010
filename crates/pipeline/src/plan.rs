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
//! A component that is not listed has real numbers. Of a UNet whose ranges are known before (`a8s`), a plan says more:
//!
//! ```toml
//! [unet]
//! default = "w8a8s"
//! first_token = "float"
//! shortcuts = "apart"
//!
//! [unet.ranges]
//! conv_in = [-3.9, 4.1]
//! "up_blocks.0.resnets.0.conv_shortcut:0-1280" = [-5.0, 6.0]
//! ```
//!
//! It may also say in which run its ranges were found, by which a packed model then draws unless it is told otherwise:
//!
//! ```toml
//! [run]
//! steps = 4
//! guidance = 1.0
//! width = 512
//! height = 512
//! sampling_method = "lcm"
//! ```

mod run;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tensor::{Halves, LayerFormat, Precision, Scheme, Scores, Span};

use crate::model::{Component, Model};
pub use run::Run;

/// The newest version of the format, which plans of known ranges have.
const VERSION: u32 = 2;

/// The version of plans that say nothing that was not in it.
const PLAIN: u32 = 1;

/// The one component whose ranges may be known before.
const UNET: &str = "unet";

/// The word for real numbers.
const FLOAT: &str = "float";

/// The word for attention whose queries and keys are rounded to 8 bits.
const ROUNDED: &str = "a8";

/// The word for halves that are read apart.
const APART: &str = "apart";

/// The format of every layer of every component.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// What real numbers are computed in.
    pub precision: Precision,
    run: Option<Run>,
    components: BTreeMap<String, Formats>,
    /// Of components that are not listed.
    others: Option<Scheme>,
}

/// The formats of one component; `None` is real.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Formats {
    default: Option<Scheme>,
    scores: Scores,
    first_token: FirstToken,
    halves: Halves,
    layers: BTreeMap<String, Option<Scheme>>,
    ranges: BTreeMap<String, Span>,
}

/// How keys and values of a text's first token are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FirstToken {
    /// As those of all others.
    #[default]
    AsOthers,
    /// In real numbers, from real weights.
    Float,
}

/// What is known of a component's layers before they run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The range of what each layer reads, or of each half of it.
    pub ranges: BTreeMap<String, Span>,
    /// How the first token of a text is treated.
    pub first_token: FirstToken,
    /// How a convolution reads two values that stand side by side.
    pub halves: Halves,
}

/// The file.
#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<Run>,
    #[serde(flatten)]
    components: BTreeMap<String, WrittenFormats>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenFormats {
    default: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    attention: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shortcuts: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    layers: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    ranges: BTreeMap<String, [f32; 2]>,
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

    /// The same with another scheme for some layers of a component that has formats of its own.
    pub fn with_exceptions(mut self, component: &str, layers: &[&str], scheme: Scheme) -> Self {
        if let Some(formats) = self.components.get_mut(component) {
            let exceptions = layers.iter().map(|layer| ((*layer).to_owned(), Some(scheme)));
            formats.layers.extend(exceptions.filter(|(_, scheme)| *scheme != formats.default));
        }
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

    /// The same with what is known of a component that has formats of its own.
    pub fn with_known(mut self, component: &str, known: Known) -> Self {
        if let Some(formats) = self.components.get_mut(component) {
            let Known { ranges, first_token, halves } = known;
            (formats.ranges, formats.first_token, formats.halves) = (ranges, first_token, halves);
        }
        self
    }

    /// The same with another treatment of first tokens, and no other change.
    pub fn with_first_token(mut self, first_token: FirstToken) -> Self {
        let unlisted = Formats { default: self.others, ..Formats::default() };
        let formats = self.components.entry(UNET.to_owned()).or_insert(unlisted);
        formats.first_token = first_token;
        self
    }

    /// The same for a model that draws so unless it is told otherwise.
    pub fn with_run(self, run: Run) -> Self {
        Self { run: Some(run), ..self }
    }

    /// How a model with this plan draws unless it is told otherwise, where the plan says so.
    pub fn run(&self) -> Option<&Run> {
        self.run.as_ref()
    }

    /// How the first token of a text is treated.
    pub fn first_token(&self) -> FirstToken {
        self.components.get(UNET).map_or(FirstToken::AsOthers, |formats| formats.first_token)
    }

    /// Whether ranges of activations are known before.
    pub fn has_ranges(&self) -> bool {
        self.components.values().any(|formats| !formats.ranges.is_empty())
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
            ranges: layers.ranges.clone(),
            halves: layers.halves,
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
        if !(PLAIN..=VERSION).contains(&version) {
            return Err(format!("it has version {version}, and this program reads {VERSION}"));
        }
        let written: Written = toml::from_str(text).map_err(|error| said(&error))?;
        let components = written
            .components
            .into_iter()
            .map(|(name, component)| Ok::<_, String>((name, component.read()?)));
        let components = components.collect::<Result<_, String>>()?;
        Ok(Self { components, run: written.run, ..Self::default() })
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
            let ranges = layers.ranges.iter();
            let is_float = layers.first_token == FirstToken::Float;
            let written = WrittenFormats {
                default: word(layers.default),
                attention: (layers.scores == Scores::Int8).then(|| ROUNDED.to_owned()),
                first_token: is_float.then(|| FLOAT.to_owned()),
                shortcuts: (layers.halves == Halves::Apart).then(|| APART.to_owned()),
                layers: exceptions.map(|(name, scheme)| (name.clone(), word(*scheme))).collect(),
                ranges: ranges.map(|(name, span)| (name.clone(), span.ends())).collect(),
            };
            (name.to_owned(), written)
        });
        let components: BTreeMap<String, WrittenFormats> = components.collect();
        let run = self.run.clone();
        let is_plain = run.is_none() && components.values().all(WrittenFormats::is_plain);
        let version = if is_plain { PLAIN } else { VERSION };
        let written = Written { version, run, components };
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
            let whole = |reads: &String| reads.split(':').next().unwrap_or(reads).to_owned();
            if let Some(layer) = layers.ranges.keys().map(whole).find(|layer| !known(layer)) {
                return Err(format!("`{name}` has a range for `{layer}`, which is no layer of it"));
            }
            layers.check_ranges(name, component)?;
        }
        if self.others.is_some_and(Scheme::is_static) {
            return Err("only layers of the unet can have ranges that are known before".into());
        }
        Ok(())
    }
}

impl WrittenFormats {
    /// Whether a program that reads the first version alone can read it.
    fn is_plain(&self) -> bool {
        let formats = || self.layers.values().chain([&self.default]);
        let is_static = formats().filter_map(|format| scheme(format).ok().flatten());
        self.first_token.is_none()
            && self.shortcuts.is_none()
            && self.ranges.is_empty()
            && !is_static.into_iter().any(Scheme::is_static)
    }

    fn read(self) -> Result<Formats, String> {
        let layers = self.layers.into_iter();
        let layers = layers.map(|(layer, format)| Ok((layer, scheme(&format)?)));
        let ranges = self.ranges.into_iter().map(|(layer, [low, high])| {
            let span = Span::new(low, high).filter(|_| low <= high);
            let span = span.ok_or_else(|| format!("the range of `{layer}` is none"))?;
            Ok((layer, span))
        });
        let one_of = |field: &str, found: Option<&str>, words: [&str; 2]| match found {
            None => Ok(false),
            Some(found) if found == words[0] => Ok(true),
            Some(found) if found == words[1] => Ok(false),
            Some(found) => {
                Err(format!("unknown {field} {found:?}, use {} or {}", words[0], words[1]))
            }
        };
        let float = one_of("first_token", self.first_token.as_deref(), [FLOAT, "as others"])?;
        let apart = one_of("shortcuts", self.shortcuts.as_deref(), [APART, "together"])?;
        Ok(Formats {
            default: scheme(&self.default)?,
            scores: scores(self.attention.as_deref())?,
            first_token: if float { FirstToken::Float } else { FirstToken::AsOthers },
            halves: if apart { Halves::Apart } else { Halves::Together },
            layers: layers.collect::<Result<_, String>>()?,
            ranges: ranges.collect::<Result<_, String>>()?,
        })
    }
}

impl Formats {
    /// Whether every layer of a static scheme has a range.
    fn check_ranges(&self, name: &str, component: &Component) -> Result<(), String> {
        let of = |layer: &str| self.layers.get(layer).copied().unwrap_or(self.default);
        let is_static = |scheme: Option<Scheme>| scheme.is_some_and(Scheme::is_static);
        if name != UNET {
            let any = self.layers.values().chain([&self.default]).any(|scheme| is_static(*scheme));
            let fault = "only layers of the unet can have ranges that are known before";
            return if any { Err(fault.into()) } else { Ok(()) };
        }
        let known = |layer: &str| {
            let halves = |reads: &&String| {
                reads
                    .strip_prefix(layer)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
            };
            self.ranges.keys().any(|reads| halves(&reads))
        };
        let layers = component.weights.names().filter_map(|weight| {
            let layer = weight.strip_suffix(".weight")?;
            component.weights.shape(weight).filter(|shape| shape.len() > 1).map(|_| layer)
        });
        match layers.into_iter().find(|layer| is_static(of(layer)) && !known(layer)) {
            None => Ok(()),
            Some(layer) => Err(format!(
                "`{layer}` has a static scheme and no range; `mixdq calibrate` finds it"
            )),
        }
    }

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
    fn what_is_known_is_read_back() {
        let text = r#"
            version = 2
            [unet]
            default = "w8a8s"
            first_token = "float"
            shortcuts = "apart"
            [unet.ranges]
            conv_in = [-0.1, 3.4028235e38]
            "up.conv_shortcut:0-64" = [1e-30, 0.7]
        "#;
        let plan = Plan::from_toml(text).unwrap();
        assert_eq!(plan.first_token(), FirstToken::Float);
        let unet = plan.component("unet");
        assert_eq!(unet.halves, Halves::Apart);
        assert_eq!(unet.ranges["up.conv_shortcut:0-64"], Span::new(0.0, 0.7).unwrap());
        let written = plan.to_toml(["unet"]);
        assert!(written.starts_with("version = 2"));
        assert_eq!(Plan::from_toml(&written).unwrap(), plan);
        assert!(Plan::from_toml(EXAMPLE).unwrap().to_toml(["unet"]).starts_with("version = 1"));
        let fault = |text: &str| Plan::from_toml(text).unwrap_err();
        let start = "version = 2\n[unet]\ndefault = 'w8a8s'\n";
        assert!(fault(&format!("{start}first_token = 'a8'")).contains("use float"));
        assert!(fault(&format!("{start}shortcuts = 'split'")).contains("use apart"));
        assert!(fault(&format!("{start}[unet.ranges]\na = [1.0, inf]")).contains("`a` is none"));
        assert!(fault(&format!("{start}[unet.ranges]\na = [1.0, -1.0]")).contains("`a` is none"));
    }

    #[test]
    fn a_run_is_read_back() {
        let text = "version = 2\n[run]\nsteps = 4\nguidance = 1.2\nwidth = 512\nheight = 64\n\
                    sampling_method = 'dpm++2m'\nscheduler = 'karras'\n[unet]\ndefault = 'w8a8'\n";
        let plan = Plan::from_toml(text).unwrap();
        let run = plan.run().unwrap();
        assert_eq!((run.steps, run.guidance, run.width, run.height), (4, 1.2, 512, 64));
        assert_eq!(run.method.unwrap().name(), "dpm++2m");
        let written = plan.to_toml(["unet"]);
        assert!(written.starts_with("version = 2"));
        assert_eq!(Plan::from_toml(&written).unwrap(), plan);
        let fault = Plan::from_toml(&text.replace("karras", "carras")).unwrap_err();
        assert!(fault.contains("carras"), "{fault}");
    }

    #[test]
    fn faults_are_named() {
        let fault = |text: &str| Plan::from_toml(text).unwrap_err();
        assert!(fault("version = 3\n[unet]\nnew = 1").contains("version 3"));
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
