//! What can be typed after `sensitivity`.

use std::path::PathBuf;

use clap::Args;
use quant::sensitivity::Shard;
use tensor::LayerFormat;

use super::{FirstTokenArg, Pictures, Source, known};

/// Measure what each layer's formats do to the pictures.
#[derive(Args, Debug)]
pub(crate) struct Sensitivity {
    #[command(flatten)]
    pub(crate) source: Source,

    #[command(flatten)]
    pub(crate) pictures: Pictures,

    /// Where the scores go, as JSON lines. If the work is interrupted, the same command goes on
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,

    /// Formats to try on each layer of the UNet and the VAE, from fine to coarse: w4a8 rounds weights and activations,
    /// w4a16 weights alone, a8 activations alone
    #[arg(long, value_name = "FORMAT,…", value_delimiter = ',', default_value = "w8a8,w4a8,w2a8",
          value_parser = known::format_without_ranges)]
    pub(crate) formats: Vec<LayerFormat>,

    /// Formats to try on each layer of the text encoders, from fine to coarse
    #[arg(
        long,
        value_name = "FORMAT,…",
        value_delimiter = ',',
        default_value = "w8a16,w8a8,w4a16,w4a8,w2a8",
        value_parser = known::format_without_ranges
    )]
    pub(crate) text_formats: Vec<LayerFormat>,

    /// What layers read, from `mixdq calibrate --moments`: measure weights as they are rounded by that, not to the nearest
    /// code
    #[arg(long, value_name = "FILE")]
    pub(crate) moments: Option<PathBuf>,

    /// Keys and values of a text's first token: from real weights, so that layers are judged by other tokens, or not
    /// [default: float where the first token is twice as large as all others]
    #[arg(long, value_enum)]
    pub(crate) first_token: Option<FirstTokenArg>,

    /// Measure these components alone, of `unet`, `text_encoder`, `text_encoder_2`, `vae`
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub(crate) components: Vec<String>,

    /// Compare pictures for all layers, not only for those of text encoders, cross-attention, feed-forward and VAE
    #[arg(long)]
    pub(crate) all_pictures: bool,

    /// Measure layers' own errors, and what one format of each does to one picture's prediction, instead of what all do to
    /// all pictures: coarser, in minutes
    #[arg(long, conflicts_with = "shard")]
    pub(crate) fast: bool,

    /// Measure for about so long, such as 2h or 30m: all layers' own errors, and of the most telling layers what they do
    /// to pictures, from which the others are worked out
    #[arg(long, value_name = "TIME", conflicts_with_all = ["fast", "shard"])]
    pub(crate) time: Option<humantime::Duration>,

    /// Measure so many layers, spread evenly over all of them
    #[arg(long, value_name = "N", conflicts_with_all = ["fast", "time"],
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) layers: Option<u32>,

    /// Compute all that comes before a layer anew each time: the same scores, to see what keeping it is worth
    #[arg(long)]
    pub(crate) no_prefix_cache: bool,

    /// Measure one part of the layers, such as 1/4
    #[arg(long, value_name = "I/N")]
    pub(crate) shard: Option<Shard>,

    /// Scores to compare with, in another file: how well the order of these agrees with theirs
    #[arg(long, value_name = "FILE", conflicts_with = "merge")]
    pub(crate) against: Option<PathBuf>,

    /// Put the files of all shards together instead
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["shard", "model"])]
    pub(crate) merge: Vec<PathBuf>,

    /// Threads to compute with [default: all cores]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
}
