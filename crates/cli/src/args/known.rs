//! What can be typed about ranges that are known before.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use pipeline::FirstToken;
use quant::calibration::Rule;
use tensor::{Halves, LayerFormat, Scheme};

/// Ranges of activations that are known before a model runs.
#[derive(Args, Clone, Debug)]
pub(crate) struct Known {
    /// Round activations of the UNet in ranges that are known before, as MixDQ does, instead of finding the range of each
    /// token or image; found now on a few pictures, or in --ranges
    #[arg(long = "static", conflicts_with_all = ["target", "scheme", "plan"])]
    pub(crate) is_static: bool,

    /// With --static: what `mixdq calibrate` found
    #[arg(long, value_name = "FILE", requires = "is_static")]
    pub(crate) ranges: Option<PathBuf>,

    /// With --static: how ranges follow from what was found: minmax, average (running, of batches, as in the paper), or
    /// p99.9 (that share of all numbers is inside)
    #[arg(long, value_name = "RULE", requires = "is_static", default_value = "p99.9")]
    pub(crate) rule: Rule,

    /// Keys and values of a text's first token, which may be far larger than all others [default: float with --static, and with
    /// --target where it is twice as large; else as-others]
    #[arg(long, value_enum, conflicts_with_all = ["scheme", "plan"])]
    pub(crate) first_token: Option<FirstTokenArg>,

    /// The two halves that shortcuts of the way up read, which need not be of one size
    #[arg(long, value_enum, default_value_t = ShortcutsArg::Apart,
          conflicts_with_all = ["target", "scheme", "plan"])]
    pub(crate) shortcuts: ShortcutsArg,

    /// With --static: leave text encoders and decoder in 16 bits
    #[arg(long, requires = "is_static")]
    pub(crate) unet_only: bool,
}

/// How the first token of a text is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FirstTokenArg {
    /// From real weights, and in no range
    Float,
    /// Like any other token
    AsOthers,
}

impl From<FirstTokenArg> for FirstToken {
    fn from(typed: FirstTokenArg) -> Self {
        match typed {
            FirstTokenArg::Float => Self::Float,
            FirstTokenArg::AsOthers => Self::AsOthers,
        }
    }
}

/// How shortcuts read what stands side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ShortcutsArg {
    /// Each half with a range and units of weights of its own
    Apart,
    /// As one
    Together,
}

impl From<ShortcutsArg> for Halves {
    fn from(typed: ShortcutsArg) -> Self {
        match typed {
            ShortcutsArg::Apart => Self::Apart,
            ShortcutsArg::Together => Self::Together,
        }
    }
}

/// What is drawn beside a quantized model: the original with …
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Beside {
    /// The same for every layer of its UNet.
    Scheme(Scheme),
    /// What a file says.
    Plan(PathBuf),
    /// Nothing: another packed model instead.
    Packed(PathBuf),
}

impl FromStr for Beside {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = std::path::Path::new(text);
        match path.extension().and_then(|end| end.to_str()) {
            Some("toml") => Ok(Self::Plan(path.into())),
            Some("mixdq") => Ok(Self::Packed(path.into())),
            _ => without_ranges(text).map(Self::Scheme),
        }
    }
}

/// A scheme that says all that a layer needs to know.
pub(super) fn without_ranges(text: &str) -> Result<Scheme, String> {
    let scheme: Scheme = text.parse()?;
    if scheme.is_static() { Err(needs_ranges(text)) } else { Ok(scheme) }
}

/// A scheme, or the rounding of activations alone, that says all that a layer needs to know.
pub(super) fn format_without_ranges(text: &str) -> Result<LayerFormat, String> {
    let format: LayerFormat = text.parse()?;
    let is_static = match format {
        LayerFormat::Float(_) => false,
        LayerFormat::Integer(scheme) => scheme.is_static(),
        LayerFormat::Rounded(activations) => activations.is_static(),
    };
    if is_static { Err(needs_ranges(text)) } else { Ok(format) }
}

fn needs_ranges(text: &str) -> String {
    format!("{text} needs ranges, which only plans have; use {}", text.trim_end_matches('s'))
}
