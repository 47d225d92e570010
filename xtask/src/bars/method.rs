//! The parts of the method one after the other, on the bundled model: naive static ranges, the first token apart, shortcuts
//! in halves; beside them our own dynamic ranges, and mixed formats of all components by both metrics or by one of them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use super::Options;
use super::gain::Gain;
use super::readings::Readings;
use crate::command::{build, program, read, root};
use crate::console::say;

/// Prompts whose ranges are found; those by which weights are rounded; all that anything is chosen by, and after them
/// those that are drawn.
const CALIBRATED: &str = "64";
const ROUNDED: &str = "76";
const USED: &str = "100";
const DRAWN: &str = "1000";

/// Plans with ranges: what they are called, how ranges follow, the first token, the shortcuts.
const STATIC: [(&str, [&str; 3]); 5] = [
    ("naive", ["average", "as-others", "together"]),
    ("naive-minmax", ["minmax", "as-others", "together"]),
    ("first-token", ["average", "float", "together"]),
    ("split", ["average", "float", "apart"]),
    ("split-p99.9", ["p99.9", "float", "apart"]),
];

/// Plans without.
const DYNAMIC: [&str; 2] = ["w8a8", "w4a8"];

/// One format for all of the UNet, each weight made up for by the others: what they are called, and bits of weights.
const CALIBRATED_WEIGHTS: [[&str; 2]; 2] = [["calibrated-w8a8", "8"], ["calibrated-w4a8", "4"]];

/// Mixed formats.
struct Mixed {
    name: &'static str,
    target: &'static str,
    metric: &'static str,
    /// Those whose scores serve these, too.
    like: Option<&'static str>,
    /// Those whose file must not be smaller.
    within: Option<&'static str>,
    more: &'static [&'static str],
}

/// All of them. The file of the last one is evaluated, with the others beside it.
const MIXED: [Mixed; 8] = [
    mixed("mixed-w8a8", ["w8a8", "decoupled"]),
    mixed("mixed-w5a8", ["w5a8", "decoupled"]).like("mixed-w8a8"),
    mixed("mixed-w3.66a16", ["w3.66a16", "decoupled"]),
    mixed("sqnr-w4a8", ["w4a8", "sqnr"]).like("mixed-w8a8"),
    mixed("ssim-w4a8", ["w4a8", "ssim"]),
    Mixed { more: &CHANNELS, ..mixed("channels-w4a8", ["w4a8", "decoupled"]) },
    Mixed {
        within: Some("channels-w4a8"),
        ..mixed("within-w4a8", ["w4a8", "decoupled"]).like("mixed-w8a8")
    },
    mixed("mixed-w4a8", ["w4a8", "decoupled"]).like("mixed-w8a8"),
];

const fn mixed(name: &'static str, [target, metric]: [&'static str; 2]) -> Mixed {
    Mixed { name, target, metric, like: None, within: None, more: &[] }
}

impl Mixed {
    const fn like(self, other: &'static str) -> Self {
        Self { like: Some(other), ..self }
    }
}

/// The paper's formats of weights: one unit for each output channel, each weight rounded to the nearest code.
const CHANNELS: [&str; 6] = [
    "--formats",
    "w8a8,w4ca8,w2ca8",
    "--text-formats",
    "w8a16,w8a8,w4ca16,w4ca8,w2ca8",
    "--rounding",
    "nearest",
];

/// Reads `naive`, `first`, `split`, `best` (static, with ranges that cut off outliers) and `dynamic` (SSIM), `ratio` (of the
/// first token to all others), `lost_w8a8` and `lost_w4a8` (by how much concept accuracy is less than the original's with mixed
/// formats). Of mixed formats of 4 bits beside uniform ones and beside the paper's, `bytes` and `channels_bytes` are a share
/// of theirs; `ssim` and `sqnr`, `channels_ssim` and `channels_sqnr` say how much more they have, the lower end of a paired
/// interval.
pub(super) fn readings(options: &Options) -> Result<Readings> {
    let folder = options.models.join("method");
    // What an earlier binary measured is not what this one would.
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let words = |path: &Path| path.display().to_string();
    let model = root().join("models/pocket-turbo");
    let bench = Bench {
        binary: build(&["--release"])?,
        clip: words(&root().join("models/pocket-clip")),
        scorer: words(&root().join("models/pocket-scorer")),
        prompts: words(&model.join("prompts.txt")),
        model: words(&model),
        folder,
    };
    bench.run()
}

struct Bench {
    binary: PathBuf,
    model: String,
    clip: String,
    scorer: String,
    prompts: String,
    folder: PathBuf,
}

impl Bench {
    fn run(&self) -> Result<Readings> {
        let ranges = self.at("ranges.jsonl");
        self.mixdq(&[
            "calibrate",
            "-o",
            &ranges,
            "--count",
            CALIBRATED,
            "--prompts",
            &self.prompts,
        ])?;
        let mut plans = Vec::new();
        for (name, [rule, first, shortcuts]) in STATIC {
            let (packed, work) = (self.at(&format!("{name}.mixdq")), self.at(name));
            let known = ["--static", "--unet-only", "--ranges", &ranges, "--rule", rule];
            let parts = ["--first-token", first, "--shortcuts", shortcuts, "-o", &packed];
            self.mixdq(&[&["quantize"], &known[..], &parts, &["--work", &work]].concat())?;
            plans.push(self.plan_of(name)?);
        }
        for scheme in DYNAMIC {
            let plan = self.at(&format!("{scheme}.toml"));
            // Attention is real in the plans above, as in the paper.
            let text =
                format!("version = 1\n[unet]\ndefault = \"{scheme}\"\nattention = \"float\"\n");
            fs::write(&plan, text)?;
            plans.push(plan);
        }
        plans.extend(DYNAMIC.map(str::to_owned));
        for [name, bits] in CALIBRATED_WEIGHTS {
            let packed = self.at(&format!("{name}.mixdq"));
            let words = ["quantize", "--rounding", "calibrated", "--weights", bits, "-o", &packed];
            let prompts = ["--prompts", &self.prompts, "--calibration-prompts", ROUNDED];
            self.mixdq(&[&words[..], &prompts].concat())?;
            plans.push(packed);
        }
        for mixed in &MIXED {
            self.mixed(mixed)?;
        }
        let [others @ .., judged] = &MIXED;
        plans.extend(others.iter().map(|mixed| self.at(&format!("{}.mixdq", mixed.name))));
        let judged = self.at(&format!("{}.mixdq", judged.name));
        let found = self.evaluate(&judged, &plans.join(","))?;
        let ratio = first_token(&fs::read_to_string(&ranges)?)?;
        say(&format!("  the first token of texts is {ratio:.2} times as large as all others"));
        let mut readings = table(&found)?;
        readings.set("ratio", ratio);
        Ok(readings)
    }

    /// Quantize for a target by a metric.
    fn mixed(&self, mixed: &Mixed) -> Result<()> {
        let Mixed { name, target, metric, like, within, more } = mixed;
        let (packed, work) = (self.at(&format!("{name}.mixdq")), self.at(name));
        if let Some(like) = like {
            fs::create_dir_all(&work)?;
            for file in ["sensitivity.jsonl", "moments.safetensors"] {
                fs::copy(Path::new(&self.at(like)).join(file), Path::new(&work).join(file))?;
            }
        }
        let bytes = |other| fs::metadata(self.at(&format!("{other}.mixdq"))).map(|file| file.len());
        let budget = within.map(bytes).transpose()?.map(|bytes| format!("{bytes}B"));
        let budget: Vec<&str> = budget.iter().flat_map(|bytes| ["--budget", bytes]).collect();
        let words = ["quantize", "--target", target, "--metric", metric, "-o", &packed];
        let prompts = ["--prompts", &self.prompts, "--calibration-prompts", ROUNDED];
        self.mixdq(&[&words[..], &["--work", &work], &prompts, &budget, more].concat())?;
        Ok(())
    }

    /// The plan in a work folder, under a name of its own.
    fn plan_of(&self, name: &str) -> Result<String> {
        let plan = self.at(&format!("{name}.toml"));
        fs::copy(Path::new(&self.at(name)).join("plan.toml"), &plan)?;
        Ok(plan)
    }

    fn at(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Run a command on the bundled model.
    fn mixdq(&self, words: &[&str]) -> Result<String> {
        let (command, words) = words.split_first().context("a command")?;
        let all = [&[*command, "-m", &self.model, "-t", "2"], words].concat();
        read(&mut program(&self.binary, &all))
    }

    fn evaluate(&self, packed: &str, beside: &str) -> Result<Value> {
        let models = ["evaluate", "-m", packed, "-r", &self.model, "--beside", beside];
        let prompts = ["--prompts", &self.prompts, "--skip", USED, "--count", DRAWN];
        let judges = ["--clip", &self.clip, "--scorer", &self.scorer];
        let others = ["-b", "1", "--json", "-", "-t", "2"];
        let words = [&models[..], &prompts, &judges, &others].concat();
        let found = read(&mut program(&self.binary, &words))?;
        serde_json::from_str(&found).context("evaluate writes JSON")
    }
}

/// The greatest ratio of the magnitudes of first tokens and of all others in a file of ranges.
fn first_token(text: &str) -> Result<f64> {
    let mut most = [0.0_f64; 2];
    for line in text.lines().skip(1) {
        let seen: Value = serde_json::from_str(line)?;
        let which = match seen["tokens"].as_str() {
            Some("first") => 0,
            Some("others") => 1,
            _ => continue,
        };
        let channels = seen["observed"]["most"].as_array().into_iter().flatten();
        let own = channels.filter_map(Value::as_f64).fold(0.0, f64::max);
        most[which] = most[which].max(own);
    }
    Ok(most[0] / most[1])
}

/// One line for each contender, and what the bars are about.
fn table(found: &Value) -> Result<Readings> {
    let contenders = found["contenders"].as_array().context("contenders")?;
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    for contender in contenders {
        let name = contender["name"].as_str().unwrap_or_default();
        let name = name.rsplit('/').next().unwrap_or(name);
        let [ssim, psnr, sqnr] = ["ssim", "psnr", "sqnr"].map(|s| number(&contender["mean"][s]));
        let (fit, mb) = (number(&contender["fit"]), number(&contender["bytes"]) / 1e6);
        let [first, concepts] = ["r_precision", "concepts"].map(|s| number(&contender[s]));
        let scores = if contender["mean"].is_null() {
            "the original".to_owned()
        } else {
            format!("SSIM {ssim:.4}, PSNR {psnr:.2} dB, latents {sqnr:.2} dB")
        };
        let judged = format!("CLIP {fit:.2}, R-precision {first:.3}, concepts {concepts:.3}");
        say(&format!("  {name:<16} {scores}, {judged}, {mb:.2} MB"));
    }
    let named = |wanted: &str| {
        let is_it =
            |c: &&Value| c["name"].as_str().is_some_and(|n| n.rsplit('/').next() == Some(wanted));
        contenders.iter().find(is_it).unwrap_or(&Value::Null)
    };
    let ssim = |wanted| number(&named(wanted)["mean"]["ssim"]);
    let lost = |wanted| number(&named("f32")["concepts"]) - number(&named(wanted)["concepts"]);
    let mut readings = Readings::default();
    readings.set("lost_w8a8", lost("mixed-w8a8"));
    readings.set("lost_w4a8", lost("mixed-w4a8"));
    for (ours, theirs, prefix) in
        [("mixed-w4a8", "uniform w4a8", ""), ("within-w4a8", "channels-w4a8", "channels_")]
    {
        let both = [named(ours), named(theirs)];
        let [bytes, of] = both.map(|contender| number(&contender["bytes"]));
        readings.set(&format!("{prefix}bytes"), bytes / of);
        for (score, unit) in [("ssim", ""), ("sqnr", " dB")] {
            let gain = Gain::new(both.map(|contender| scores(contender, score)));
            say(&format!("  {ours} over {theirs}, {score}: {gain}{unit}"));
            readings.set(&format!("{prefix}{score}"), gain.least());
        }
    }
    for (name, contender) in [
        ("naive", "naive"),
        ("first", "first-token"),
        ("split", "split"),
        ("best", "split-p99.9"),
        ("dynamic", "w8a8"),
    ] {
        readings.set(name, ssim(contender));
    }
    Ok(readings)
}

/// A score of all pictures of a contender.
fn scores(contender: &Value, score: &str) -> Vec<f64> {
    let pictures = contender["pictures"].as_array().into_iter().flatten();
    pictures.filter_map(|picture| picture[score].as_f64()).collect()
}
