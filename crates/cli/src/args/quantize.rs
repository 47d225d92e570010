//! What can be typed after `quantize`.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use quant::formats;
use tensor::Scheme;

use super::{Known, Pictures, Source, known};

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

    /// With --target: what the whole file may take, such as 1.2GiB, or how long a picture may take on this machine, such
    /// as 800ms or 2.5s, instead of the bits of weights
    #[arg(long, value_name = "SIZE|TIME", requires = "target")]
    pub(crate) budget: Option<Limit>,

    /// With --target: measure layers' own errors, and what one format of each does to one picture's prediction, instead of
    /// what all do to all pictures: coarser, in minutes
    #[arg(long, requires = "target")]
    pub(crate) fast: bool,

    /// With --target: measure and compare for about so long, such as 2h or 30m: all layers' own errors, and of the most
    /// telling layers what they do to pictures, from which the others are worked out
    #[arg(long, value_name = "TIME", requires = "target", conflicts_with = "fast")]
    pub(crate) time: Option<humantime::Duration>,

    /// With --target: the formats that each layer of the UNet and the VAE is offered beside 16 bits, from fine to coarse
    /// [default: w8, w4 and w2 with the target's activations]
    #[arg(long, value_name = "SCHEME,…", value_delimiter = ',', requires = "target",
          value_parser = known::without_ranges)]
    pub(crate) formats: Vec<Scheme>,

    /// With --target: those that each layer of the text encoders is offered [default: w8, w4 and w2 with the target's
    /// activations, w8a16 and w4a16]
    #[arg(long, value_name = "SCHEME,…", value_delimiter = ',', requires = "target",
          value_parser = known::without_ranges)]
    pub(crate) text_formats: Vec<Scheme>,

    /// With --target: the scores that formats are chosen by
    #[arg(long, value_enum, requires = "target", default_value_t = MetricArg::Decoupled)]
    pub(crate) metric: MetricArg,

    /// How weights become whole numbers [default: calibrated with --target or --moments, else nearest]
    #[arg(long, value_enum)]
    pub(crate) rounding: Option<RoundingArg>,

    /// With calibrated rounding: what layers read, from `mixdq calibrate --moments`, instead of drawing to see it
    #[arg(long, value_name = "FILE", conflicts_with = "calibration_prompts")]
    pub(crate) moments: Option<PathBuf>,

    /// With calibrated rounding: prompts that are drawn to see what layers read, after those that are measured and compared
    /// [default: 128; of small pictures more, up to 512]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) calibration_prompts: Option<u32>,

    /// With --target, --static or calibrated rounding: a folder for what was measured, from which interrupted work goes
    /// on [default: beside the output]
    #[arg(long, value_name = "DIR")]
    pub(crate) work: Option<PathBuf>,

    /// With --target, --static or calibrated rounding: what to measure with
    #[command(flatten)]
    pub(crate) pictures: Pictures,

    /// Bits of the UNet's weights; its first and last layer, text encoders and VAE keep 8
    #[arg(long, value_name = "BITS", default_value_t = 8, value_parser = bits(&["8", "4", "2"]))]
    pub(crate) weights: u8,

    /// Bits of activations of UNet and VAE: 8 multiplies whole numbers, 16 real ones; the first and last layer and text
    /// encoders keep 16
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

/// How weights become whole numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoundingArg {
    /// Each to the code that is nearest to it
    Nearest,
    /// One after the other, so that each makes up for the errors of those before it in what the layer reads
    Calibrated,
}

impl Quantize {
    /// Whether pictures are drawn first, to see what layers read.
    pub(crate) fn is_calibrated(&self) -> bool {
        let by_default = self.target.is_some() || self.moments.is_some();
        let default = if by_default { RoundingArg::Calibrated } else { RoundingArg::Nearest };
        self.rounding.unwrap_or(default) == RoundingArg::Calibrated
    }
}

/// Average bits of weights, and bits of activations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Target {
    /// Of a weight, on average, without what its unit adds.
    pub(crate) weights: f64,
    /// Of an activation.
    pub(crate) acts: u8,
}

/// What a mixed plan must keep to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Limit {
    /// Of the whole file.
    Size(ByteSize),
    /// Of one picture, on this machine.
    Time(Duration),
}

/// The scores that formats are chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum MetricArg {
    /// What carries content by the similarity of pictures, the rest by the noise of predictions
    Decoupled,
    /// All by the noise of predictions, for comparison
    Sqnr,
    /// All by the similarity of pictures, for comparison
    Ssim,
}

impl From<MetricArg> for formats::Metric {
    fn from(typed: MetricArg) -> Self {
        match typed {
            MetricArg::Decoupled => Self::Decoupled,
            MetricArg::Sqnr => Self::Sqnr,
            MetricArg::Ssim => Self::Ssim,
        }
    }
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

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let in_seconds = [("ms", 1e-3), ("s", 1.0)].into_iter().find_map(|(unit, seconds)| {
            let number: f64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
            Duration::try_from_secs_f64(number * seconds).ok()
        });
        match in_seconds {
            Some(time) if !time.is_zero() => Ok(Self::Time(time)),
            _ => text.parse().map(Self::Size).map_err(|_| {
                format!("unknown budget {text:?}, use a size as 1.2GiB or a time as 800ms or 2.5s")
            }),
        }
    }
}

/// One of a few numbers.
fn bits(all: &'static [&'static str]) -> impl TypedValueParser<Value = u8> {
    PossibleValuesParser::new(all).try_map(|text| text.parse::<u8>())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytesize::ByteSize;

    use super::Limit;

    #[test]
    fn budgets_are_sizes_or_times() {
        for (text, limit) in [
            ("20k", Limit::Size(ByteSize::kb(20))),
            ("1.5GiB", Limit::Size(ByteSize::mib(1536))),
            ("800ms", Limit::Time(Duration::from_millis(800))),
            ("2.5s", Limit::Time(Duration::from_millis(2500))),
        ] {
            assert_eq!(text.parse(), Ok(limit), "{text}");
        }
        for text in ["", "s", "fast", "0s", "-1s", "1 fortnight"] {
            assert!(text.parse::<Limit>().unwrap_err().contains("800ms"), "{text}");
        }
    }
}
