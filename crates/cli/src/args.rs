//! What can be typed.
//!
//! Names follow stable-diffusion.cpp, with the aliases of diffusers beside them. A flag that other programs have and
//! this one does not is refused by name rather than ignored.

mod allocate;
mod calibrate;
mod evaluate;
mod known;
mod quantize;
mod sensitivity;

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, ValueEnum};
use tensor::Scheme;

pub(crate) use allocate::{Allocate, KindArg};
pub(crate) use calibrate::Calibrate;
pub(crate) use evaluate::{Evaluate, Requirement, Score};
pub(crate) use known::{Beside, FirstTokenArg, Known};
pub(crate) use quantize::{Limit, Quantize, Target};
pub(crate) use sensitivity::Sensitivity;

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
