//! Which number format each layer computes in. This is the only place where precision is decided.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

pub use kernels::attention::Scores;

use crate::scheme::ActivationScheme;
use crate::{Scheme, Span};

/// How a layer multiplies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// `f32` arithmetic; weights stay at the width of the checkpoint.
    #[default]
    F32,
    /// `bf16` factors with `f32` sums; weights take two bytes each.
    Bf16,
}

/// What a layer's numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerFormat {
    /// Real numbers.
    Float(Precision),
    /// Whole weights.
    Integer(Scheme),
    /// Real weights in `f32`, and activations that were rounded to codes and back: what rounding activations alone does.
    Rounded(ActivationScheme),
}

/// A format for every layer: one default and named exceptions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What is computed with real numbers: attention, and what real activations meet.
    pub default: Precision,
    /// The scheme of layers without an entry; without one they are real, too.
    pub scheme: Option<Scheme>,
    /// How queries of attention meet keys.
    pub scores: Scores,
    /// Exceptions by layer name (`down_blocks.0.resnets.0.conv1`).
    pub layers: BTreeMap<String, LayerFormat>,
    /// The range of what a layer reads, by its name, or of a half of it ([`Weight::reads`](crate::Weight::reads)). A
    /// static scheme without one finds the range of each input as a dynamic one does.
    pub ranges: BTreeMap<String, Span>,
    /// How convolutions read two values that stand side by side.
    pub halves: Halves,
}

/// How a convolution of whole numbers reads two values that stand side by side: what a network's way down hands to its way
/// up beside what it has there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Halves {
    /// As one, with one range and one unit of weights.
    #[default]
    Together,
    /// Each with a range and units of weights of its own; the products are added.
    Apart,
}

impl Plan {
    /// The same precision everywhere.
    pub fn uniform(default: Precision) -> Self {
        Self { default, ..Self::default() }
    }

    /// The same scheme for every layer; where it rounds activations, queries and keys are rounded, too.
    pub fn integers(scheme: Scheme, default: Precision) -> Self {
        let scores = match scheme.activations {
            // The range of queries and keys is not among those that a plan knows.
            ActivationScheme::Float | ActivationScheme::Static { .. } => Scores::Real,
            ActivationScheme::Dynamic { .. } => Scores::Int8,
        };
        Self { default, scheme: Some(scheme), scores, ..Self::default() }
    }

    /// The format of this layer.
    pub fn layer(&self, layer: &str) -> LayerFormat {
        let uniform = self.scheme.map_or(LayerFormat::Float(self.default), LayerFormat::Integer);
        self.layers.get(layer).copied().unwrap_or(uniform)
    }
}

impl fmt::Display for LayerFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float(precision) => precision.fmt(f),
            Self::Integer(scheme) => scheme.fmt(f),
            Self::Rounded(activations) => activations.fmt(f),
        }
    }
}

impl FromStr for LayerFormat {
    type Err = String;

    /// `w4a8` is a scheme, `a8` rounds activations alone.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(ActivationScheme::Float) => Err("a16 rounds nothing; use a8 or a4".into()),
            Ok(activations) => Ok(Self::Rounded(activations)),
            Err(_) => text.parse().map(Self::Integer),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            other => Err(format!("unknown precision {other:?}, use f32 or bf16")),
        }
    }
}
