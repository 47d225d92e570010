//! What can be typed after `evaluate`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use tensor::Scheme;

use super::{Beside, Pictures, PrecisionArg, Source, known};

/// Compare the pictures of a quantized model with those of the original.
#[derive(Args, Debug)]
pub(crate) struct Evaluate {
    #[command(flatten)]
    pub(crate) source: Source,

    /// The original model, which draws with real numbers
    #[arg(short, long, value_name = "PATH")]
    pub(crate) reference: PathBuf,

    /// What to set beside: the original with the same scheme for every layer of its UNet (w8a8, w4a8, …) and 8 bits in
    /// text encoders and VAE, or with a plan (a file that ends with .toml), weights rounded to the nearest; or other packed
    /// models (.mixdq)
    #[arg(long, value_name = "SCHEME|PLAN|FILE,…", value_delimiter = ',')]
    pub(crate) beside: Vec<Beside>,

    /// Schemes to set beside: the original with the same one for every layer of every component
    #[arg(long, value_name = "SCHEME,…", value_delimiter = ',',
          value_parser = known::without_ranges)]
    pub(crate) everywhere: Vec<Scheme>,

    #[command(flatten)]
    pub(crate) pictures: Pictures,

    /// Prompts to leave out at the beginning of the list
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) skip: u32,

    /// What the mean must be at least, such as ssim=0.9, psnr=25 or sqnr=15; else the exit status is 3
    #[arg(long, value_name = "SCORE=LEAST,…", value_delimiter = ',')]
    pub(crate) require: Vec<Requirement>,

    /// A CLIP that says how well pictures fit their prompts (the mean cosine, times 100), and how many are nearer to their own
    /// than to every other prompt (R-precision), in its judgement: a folder as transformers writes it
    #[arg(long, value_name = "DIR")]
    pub(crate) clip: Option<PathBuf>,

    /// A scorer that says how many pictures show all objects that their prompts name (concept accuracy), such as
    /// models/pocket-scorer for the bundled model
    #[arg(long, value_name = "DIR")]
    pub(crate) scorer: Option<PathBuf>,

    /// The folder in which `quantize --target` kept what it measured, for the report
    #[arg(long, value_name = "DIR", requires = "html")]
    pub(crate) work: Option<PathBuf>,

    /// What `mixdq calibrate` found on the original, for the report
    #[arg(long, value_name = "FILE", requires = "html")]
    pub(crate) ranges: Option<PathBuf>,

    /// Where a report goes, as one page
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,

    /// Where all figures go as JSON; `-` for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Number format of what is real in all but the reference, which is exact
    #[arg(long, value_enum, default_value_t = PrecisionArg::Auto)]
    pub(crate) precision: PrecisionArg,

    /// Threads to compute with [default: all cores]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
}

/// What the mean of a score must be at least.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Requirement {
    /// Of what.
    pub(crate) score: Score,
    /// The least.
    pub(crate) least: f64,
}

/// How near a picture is to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Score {
    /// Structural similarity of pictures
    Ssim,
    /// Peak signal-to-noise ratio of pictures in decibels
    Psnr,
    /// Signal-to-noise ratio of latents in decibels
    Sqnr,
}

impl FromStr for Requirement {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("unknown requirement {text:?}, use ssim=0.9, psnr=25 or sqnr=15");
        let (score, least) = text.split_once('=').ok_or_else(fault)?;
        let score = Score::from_str(score, false).map_err(|_| fault())?;
        let least = least.parse().ok().filter(|least: &f64| least.is_finite());
        Ok(Self { score, least: least.ok_or_else(fault)? })
    }
}
