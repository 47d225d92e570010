//! What can be typed.
//!
//! Names follow stable-diffusion.cpp, with the aliases of diffusers beside them. A flag that other programs have and
//! this one does not is refused by name rather than ignored.

mod calibrate;
mod known;

use std::path::PathBuf;
use std::str::FromStr;

use bytesize::ByteSize;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use quant::sensitivity::Shard;
use tensor::Scheme;

pub(crate) use calibrate::Calibrate;
pub(crate) use known::{Beside, FirstTokenArg, Known, ShortcutsArg};

/// Pictures from text, in a fraction of the memory.
#[derive(Debug, Parser)]
#[command(name = "mixdq", version, about, max_term_width = 100)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Draw pictures from a prompt
    Generate(Box<Generate>),
    /// Pack a model into one file with weights of 8, 4 or 2 bits
    Quantize(Box<Quantize>),
    /// Find the ranges of what each layer reads
    Calibrate(Box<Calibrate>),
    /// Measure what each layer's formats do to the pictures
    Sensitivity(Box<Sensitivity>),
    /// Choose the bits of each layer from measured scores
    Allocate(Allocate),
    /// Compare the pictures of a quantized model with those of the original
    Evaluate(Box<Evaluate>),
    /// Show a model's components, layers, bytes and memory plan
    Inspect(Inspect),
    /// Show what this machine can do and which kernels will run
    Doctor,
    /// Time one component on given inputs
    #[command(hide = true)]
    Bench(Bench),
}

/// Where the model is.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Source {
    /// A diffusers folder, a single-file checkpoint or a packed .mixdq file; without it, the bundled model
    #[arg(short, long, value_name = "PATH")]
    pub(crate) model: Option<PathBuf>,

    /// A VAE to use instead of the model's: a folder or a file
    #[arg(long, value_name = "PATH")]
    pub(crate) vae: Option<PathBuf>,

    /// A tiny autoencoder to decode with instead of the VAE: faster, a little coarser
    #[arg(long, alias = "tae", value_name = "DIR", conflicts_with = "vae")]
    pub(crate) taesd: Option<PathBuf>,

    /// A LoRA to merge, with its scale; may be given several times
    #[arg(long, value_name = "FILE[:SCALE]")]
    pub(crate) lora: Vec<String>,
}

/// Where the model is and how it runs.
#[derive(Args, Clone, Debug)]
pub(crate) struct Engine {
    #[command(flatten)]
    pub(crate) source: Source,

    /// Threads to compute with [default: all cores]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,

    /// Number format of weights and multiplications
    #[arg(long, value_enum, default_value_t = PrecisionArg::Auto)]
    pub(crate) precision: PrecisionArg,

    /// Whole numbers instead, made while the model is loaded: w8a8, w4a8, w2a8, w8a16, w4a16, w2a16
    #[arg(long, value_name = "SCHEME")]
    pub(crate) scheme: Option<Scheme>,
}

/// How much memory may be used.
#[derive(Args, Clone, Debug)]
pub(crate) struct Memory {
    /// Stay within this much memory in all, such as 600M or 1.5GiB; weights of a packed model that do not fit are read
    /// while they are needed [default: what is free]
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_ram: Option<ByteSize>,
}

/// Number formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrecisionArg {
    /// The faster one on this machine
    Auto,
    /// Exact single precision
    F32,
    /// Half the memory, single-precision sums
    Bf16,
}

/// How pictures are drawn.
#[derive(Args, Clone, Debug)]
pub(crate) struct Sampling {
    /// Width in pixels, a multiple of 8 [default: the model's]
    #[arg(short = 'W', long, value_name = "PIXELS")]
    pub(crate) width: Option<usize>,

    /// Height in pixels, a multiple of 8 [default: the model's]
    #[arg(short = 'H', long, value_name = "PIXELS")]
    pub(crate) height: Option<usize>,

    /// Sampling steps [default: the model's]
    #[arg(long, aliases = ["num-inference-steps", "inference_steps"], value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) steps: Option<u32>,

    /// Guidance scale; 1 or less is none [default: the model's]
    #[arg(long, alias = "guidance-scale", value_name = "SCALE", allow_negative_numbers = true)]
    pub(crate) cfg_scale: Option<f32>,

    /// Sampler [default: the model's]: euler, `euler_a`, heun, lcm, tcd, ddim, pndm, dpm++2m, unipc
    #[arg(long = "sampling-method", value_name = "NAME")]
    pub(crate) method: Option<String>,

    /// Spacing of the noise levels [default: the model's]: discrete, karras, exponential, trailing, …
    #[arg(long, value_name = "NAME")]
    pub(crate) scheduler: Option<String>,
}

/// Draw pictures from a prompt.
#[derive(Args, Debug)]
pub(crate) struct Generate {
    #[command(flatten)]
    pub(crate) engine: Engine,

    /// What to draw
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) prompt: Option<String>,

    /// What to draw, as a bare argument
    #[arg(value_name = "PROMPT", conflicts_with = "prompt")]
    pub(crate) words: Option<String>,

    /// A file with one prompt on each line
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt", "words"])]
    pub(crate) prompts: Option<PathBuf>,

    /// What not to draw (needs guidance)
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) negative_prompt: Option<String>,

    /// Where the picture goes; `-` for standard output. Further pictures get `-2`, `-3`, …
    #[arg(short, long, value_name = "FILE", default_value = "out.png")]
    pub(crate) output: PathBuf,

    #[command(flatten)]
    pub(crate) sampling: Sampling,

    /// Seed of the first picture, the next ones count up; -1 picks one and says which
    #[arg(short, long, default_value_t = 42, allow_negative_numbers = true)]
    pub(crate) seed: i64,

    /// Pictures of each prompt
    #[arg(short, long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) batch_count: u32,

    /// Last layers of CLIP to leave out, as diffusers counts them ("Clip skip: 2" elsewhere is 1 here)
    #[arg(long, value_name = "N")]
    pub(crate) clip_skip: Option<u32>,

    /// Read prompts beyond 77 tokens in chunks of 75 instead of cutting them
    #[arg(long)]
    pub(crate) long_prompt: bool,

    #[command(flatten)]
    pub(crate) memory: Memory,

    /// Decode the picture in overlapping tiles: less memory, a little slower, a slightly different picture
    #[arg(long)]
    pub(crate) vae_tiling: bool,

    /// Print seconds and peak memory of each phase
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

/// Pack a model into one file with weights of 8, 4 or 2 bits.
#[derive(Args, Debug)]
pub(crate) struct Quantize {
    #[command(flatten)]
    pub(crate) source: Source,

    /// Where the packed model goes
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,

    /// Measure the model and mix formats so that the weights of all components take so many bits on average, scales
    /// included (w4: at most 4.3), and activations 8 or 16: w8a8, w5a8, w4a8, w3.66a16, …
    #[arg(long, value_name = "TARGET", conflicts_with_all = ["weights", "acts", "scheme", "plan"])]
    pub(crate) target: Option<Target>,

    /// With --target: what the whole file may take, such as 1.2GiB, instead of its bits
    #[arg(long, value_name = "SIZE", requires = "target")]
    pub(crate) budget: Option<ByteSize>,

    /// With --target: measure layers' own errors, and what one format of each does to one picture's prediction, instead of
    /// what all do to all pictures: coarser, in minutes
    #[arg(long, requires = "target")]
    pub(crate) fast: bool,

    /// With --target: measure for about so long, such as 2h or 30m: all layers' own errors, and of the most telling layers what they do
    /// to pictures, from which the others are worked out
    #[arg(long, value_name = "TIME", requires = "target", conflicts_with = "fast")]
    pub(crate) time: Option<humantime::Duration>,

    /// With --target or --static: a folder for what was measured, from which interrupted work goes on [default: beside
    /// the output]
    #[arg(long, value_name = "DIR")]
    pub(crate) work: Option<PathBuf>,

    /// With --target or --static: what to measure with
    #[command(flatten)]
    pub(crate) pictures: Pictures,

    /// Bits of the UNet's weights; text encoders and VAE keep 8 at least
    #[arg(long, value_name = "BITS", default_value_t = 8, value_parser = bits(&["8", "4", "2"]))]
    pub(crate) weights: u8,

    /// Bits of activations: 8 multiplies whole numbers, 16 real ones
    #[arg(long, value_name = "BITS", default_value_t = 8, value_parser = bits(&["8", "16"]))]
    pub(crate) acts: u8,

    #[command(flatten)]
    pub(crate) known: Known,

    /// One scheme for every layer of every component instead: w8a8, w4a8, w4ca8, …
    #[arg(long, value_name = "SCHEME", conflicts_with_all = ["weights", "acts"])]
    pub(crate) scheme: Option<Scheme>,

    /// A file that says which scheme each layer has
    #[arg(long, value_name = "FILE", conflicts_with_all = ["weights", "acts", "scheme"])]
    pub(crate) plan: Option<PathBuf>,

    /// Threads to compute with [default: all cores]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
}

/// Which pictures stand for all.
#[derive(Args, Clone, Debug)]
pub(crate) struct Pictures {
    /// A file with one prompt on each line, instead of those that come with the program
    #[arg(long, value_name = "FILE")]
    pub(crate) prompts: Option<PathBuf>,

    /// Prompts to draw, from the first on
    #[arg(long, value_name = "N", default_value_t = 8,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) count: u32,

    /// Pictures of each prompt
    #[arg(short, long, value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) batch_count: u32,

    /// Seed of the first picture, the next ones count up
    #[arg(short, long, default_value_t = 0)]
    pub(crate) seed: u32,

    #[command(flatten)]
    pub(crate) sampling: Sampling,
}

/// Average bits of weights, and bits of activations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Target {
    /// Of a weight, on average, without what its unit adds.
    pub(crate) weights: f64,
    /// Of an activation.
    pub(crate) acts: u8,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.strip_prefix('w').and_then(|rest| rest.split_once('a'));
        let numbers = numbers.and_then(|(w, a)| Some((w.parse::<f64>().ok()?, a.parse().ok()?)));
        match numbers {
            Some((weights, acts @ (8 | 16))) if (2.0..=16.0).contains(&weights) => {
                Ok(Self { weights, acts })
            }
            _ => Err(format!("unknown target {text:?}, use w8a8, w5a8, w4a8 or w3.66a16")),
        }
    }
}

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

    /// Formats to try on each layer of the UNet and the VAE, from fine to coarse
    #[arg(long, value_name = "SCHEME,…", value_delimiter = ',', default_value = "w8a8,w4a8,w2a8",
          value_parser = known::without_ranges)]
    pub(crate) formats: Vec<Scheme>,

    /// Formats to try on each layer of the text encoders, from fine to coarse
    #[arg(
        long,
        value_name = "SCHEME,…",
        value_delimiter = ',',
        default_value = "w8a16,w8a8,w4a16,w4a8,w2a8",
        value_parser = known::without_ranges
    )]
    pub(crate) text_formats: Vec<Scheme>,

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

/// Compare the pictures of a quantized model with those of the original.
#[derive(Args, Debug)]
pub(crate) struct Evaluate {
    #[command(flatten)]
    pub(crate) source: Source,

    /// The original model, which draws with real numbers
    #[arg(short, long, value_name = "PATH")]
    pub(crate) reference: PathBuf,

    /// What to set beside: the original with the same scheme for every layer of its UNet (w8a8, w4a8, …) and 8 bits in
    /// text encoders and VAE, or with a plan (a file that ends with .toml)
    #[arg(long, value_name = "SCHEME|PLAN,…", value_delimiter = ',')]
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

    /// A CLIP that says how well pictures fit their prompts: a folder as transformers writes it
    #[arg(long, value_name = "DIR")]
    pub(crate) clip: Option<PathBuf>,

    /// The folder in which `quantize --target` kept what it measured, for the report
    #[arg(long, value_name = "DIR", requires = "html")]
    pub(crate) work: Option<PathBuf>,

    /// Where a report goes, as one page
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,

    /// Where all figures go as JSON; `-` for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

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

/// One of a few numbers.
fn bits(all: &'static [&'static str]) -> impl TypedValueParser<Value = u8> {
    PossibleValuesParser::new(all).try_map(|text| text.parse::<u8>())
}

/// Show a model's components, layers, bytes and memory plan.
#[derive(Args, Debug)]
pub(crate) struct Inspect {
    /// The model, as a bare argument
    #[arg(value_name = "MODEL", conflicts_with = "model")]
    pub(crate) path: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) engine: Engine,

    /// Width in pixels to plan memory for [default: the model's]
    #[arg(short = 'W', long, value_name = "PIXELS")]
    pub(crate) width: Option<usize>,

    /// Height in pixels to plan memory for [default: the model's]
    #[arg(short = 'H', long, value_name = "PIXELS")]
    pub(crate) height: Option<usize>,

    #[command(flatten)]
    pub(crate) memory: Memory,

    /// List every layer
    #[arg(short, long)]
    pub(crate) verbose: bool,

    /// Compare every byte of a packed model with its checksums
    #[arg(long)]
    pub(crate) verify: bool,
}

/// Time one component on given inputs.
#[derive(Args, Debug)]
pub(crate) struct Bench {
    /// Which
    #[arg(value_enum)]
    pub(crate) component: BenchComponent,

    #[command(flatten)]
    pub(crate) engine: Engine,

    /// Inputs by the names of diffusers, NCHW
    #[arg(long, value_name = "FILE")]
    pub(crate) inputs: PathBuf,

    /// Where the output of the last run goes
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,

    /// Runs, after one to warm up
    #[arg(long, default_value_t = 3)]
    pub(crate) runs: u32,

    /// Run once for each line on standard input and answer with seconds
    #[arg(long)]
    pub(crate) serve: bool,

    /// Print the time of each kind of operation
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

/// What `bench` can time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchComponent {
    /// One UNet step
    Unet,
    /// One VAE decode
    Vae,
}

/// Flags that users of other programs will try.
const ELSEWHERE: &[&str] = &[
    "--diffusion-model",
    "--clip_l",
    "--clip_g",
    "--type",
    "--tensor-type-rules",
    "--diffusion-fa",
    "--mmap",
    "--offload-to-cpu",
    "--max-vram",
    "--lora-model-dir",
    "-i",
    "--init-img",
    "--mask",
    "--strength",
    "--control-net",
    "--rng",
    "--preview",
    "--preview-path",
    "--preview-interval",
    "-M",
    "--listen-ip",
    "--listen-port",
    "--imat-in",
    "--imat-out",
];

/// The first flag of `args` that belongs to another program.
pub(crate) fn not_in_this_version(args: &[String]) -> Option<&'static str> {
    let named = |flag: &&&str| {
        args.iter().any(|arg| arg == **flag || arg.starts_with(&format!("{}=", **flag)))
    };
    ELSEWHERE.iter().find(named).copied()
}
