//! What can be typed after `allocate`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Choose the bits of each layer from measured scores.
#[derive(Args, Debug)]
pub(crate) struct Allocate {
    /// What gets the bits
    #[arg(long, value_enum)]
    pub(crate) kind: KindArg,

    /// YAML file with the scores of cross-attention and feed-forward layers at 2, 4 and 8 bits
    #[arg(long, value_name = "FILE")]
    pub(crate) content_scores: PathBuf,

    /// YAML file with the scores of all other layers at 2, 4 and 8 bits
    #[arg(long, value_name = "FILE")]
    pub(crate) quality_scores: PathBuf,

    /// YAML file with the size of every layer, in any unit
    #[arg(long, value_name = "FILE")]
    pub(crate) costs: PathBuf,

    /// Bits of all layers, averaged by size; with --sweep the greatest average
    #[arg(long, value_name = "BITS", allow_negative_numbers = true)]
    pub(crate) average_bits: f64,

    /// Average of the content layers, divided by that of the others
    #[arg(
        long,
        value_name = "RATIO",
        required_unless_present = "sweep",
        allow_negative_numbers = true
    )]
    pub(crate) ratio: Option<f64>,

    /// Share of each group's layers to leave out: those with the lowest scores at 8 bits
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, allow_negative_numbers = true)]
    pub(crate) protect: f64,

    /// Where the bits go as YAML, one layer on each line; `-` for standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Where averages, sums of scores and bits go as JSON; `-` for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// A folder for the bits at many averages and ratios, one YAML file each
    #[arg(long, value_name = "DIR", conflicts_with_all = ["ratio", "output", "json"])]
    pub(crate) sweep: Option<PathBuf>,
}

/// What `allocate` gives bits to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KindArg {
    /// Weights
    Weight,
    /// Activations
    Act,
}
