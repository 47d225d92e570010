//! What can be typed after `calibrate`.

use std::path::PathBuf;

use clap::Args;

use super::{Pictures, Sampling, Source};

/// Find the ranges of what each layer reads.
#[derive(Args, Debug)]
pub(crate) struct Calibrate {
    #[command(flatten)]
    pub(crate) source: Source,

    /// Where it goes, as JSON lines. If the work is interrupted, the same command goes on
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,

    /// Find what layers read as second moments instead, by which weights are rounded: a safetensors file for `quantize
    /// --moments` and `sensitivity --moments`
    #[arg(long, conflicts_with = "negative_prompt")]
    pub(crate) moments: bool,

    /// A file with one prompt on each line, instead of those that come with the program
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,

    /// Prompts to draw, from the first on
    #[arg(long, value_name = "N", default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: u32,

    /// Pictures of each prompt
    #[arg(short, long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch_count: u32,

    /// Seed of the first picture, the next ones count up
    #[arg(short, long, default_value_t = 0)]
    seed: u32,

    /// What not to draw (needs guidance)
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) negative_prompt: Option<String>,

    #[command(flatten)]
    sampling: Sampling,

    /// Threads to compute with [default: all cores]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
}

impl Calibrate {
    /// What is drawn, but for the negative prompt.
    pub(crate) fn pictures(&self) -> Pictures {
        let Self { prompts, count, batch_count, seed, sampling, .. } = self;
        let (prompts, sampling) = (prompts.clone(), sampling.clone());
        Pictures { prompts, count: *count, batch_count: *batch_count, seed: *seed, sampling }
    }
}
