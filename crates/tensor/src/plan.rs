//! Which number format each layer computes in. This is the only place where precision is decided.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// How a layer multiplies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// `f32` arithmetic; weights stay at the width of the checkpoint.
    #[default]
    F32,
    /// `bf16` factors with `f32` sums; weights take two bytes each.
    Bf16,
}

/// A precision for every layer: one default and named exceptions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What layers without an entry use; attention, too.
    pub default: Precision,
    /// Exceptions by layer name (`down_blocks.0.resnets.0.conv1`).
    pub layers: BTreeMap<String, Precision>,
}

impl Plan {
    /// The same precision everywhere.
    pub fn uniform(default: Precision) -> Self {
        Self { default, layers: BTreeMap::new() }
    }

    /// The precision of this layer.
    pub fn precision(&self, layer: &str) -> Precision {
        self.layers.get(layer).copied().unwrap_or(self.default)
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
