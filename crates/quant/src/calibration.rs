//! What the layers of a network read while it draws: a file of JSON lines, and the ranges that follow from it.
//!
//! ```text
//! {"version":2,"model":"…","prompts":["…"],"done":64,…}              what was drawn, and how
//! {"reads":"conv_in","branch":"text","tokens":"all","observed":{…}}  what one layer read
//! ```
//!
//! The file of unfinished work has the same form: `done` says how many pictures are in it, and sums are kept with all
//! their digits, so that work that goes on ends with the bytes of work that was never interrupted.

mod observed;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::sensitivity::line;

pub use observed::Observed;

/// The version of the file.
pub const VERSION: u32 = 2;

/// Pictures of a batch: the running average is updated once for each.
pub const BATCH: usize = 8;

/// What was drawn, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The version of the file.
    pub version: u32,
    /// The model's name.
    pub model: String,
    /// A checksum of its weights.
    pub fingerprint: u32,
    /// Prompts that are drawn.
    pub prompts: Vec<String>,
    /// Pictures of each.
    pub pictures: usize,
    /// Seed of the first picture.
    pub seed: u64,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Sampling steps.
    pub steps: usize,
    /// Guidance scale.
    pub guidance: f32,
    /// The sampling method, where it was not that of the model's scheduler.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub method: Option<String>,
    /// The spacing of the noise levels, where it was not that of the model's scheduler.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub schedule: Option<String>,
    /// The sampler.
    pub sampler: String,
    /// The times at which the network is called for each picture.
    pub timesteps: Vec<f32>,
    /// Tokens of a text that an encoder reads at once; the first of each is the same for all texts.
    pub tokens: usize,
    /// Pictures that are in it.
    pub done: usize,
}

/// Which of two predictions a row belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Branch {
    /// That of the negative prompt, under guidance.
    Negative,
    /// That of the prompt.
    Text,
}

/// Which rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tokens {
    /// All.
    All,
    /// Of a text's embedding, the first token of what an encoder reads at once.
    First,
    /// Of a text's embedding, all others.
    Others,
}

/// What a layer read, as far as it is looked at together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// The layer, or with its channels one of the halves that it reads: `conv_shortcut:0-1280`.
    pub reads: String,
    /// For which prediction.
    pub branch: Branch,
    /// Which rows.
    pub tokens: Tokens,
    /// What they were.
    pub observed: Observed,
}

/// A whole file.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// What was drawn.
    pub header: Header,
    /// In the order in which the network runs its layers.
    pub seen: Vec<Seen>,
}

/// How a range follows from what was seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// From the least number to the greatest.
    Extremes,
    /// The running average of the extremes of batches, as the published method has it.
    Average,
    /// So that this share of all numbers is inside.
    Inside(f64),
}

/// What becomes of the first token of a text, whose embedding is the same for all texts and far larger than the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstToken {
    /// It is in no range, since it is computed apart.
    Apart,
    /// It is a token like any other.
    AsOthers,
}

impl Header {
    /// Pictures in all.
    pub fn total(&self) -> usize {
        self.prompts.len() * self.pictures
    }

    /// Whether two files tell of the same pictures, however many of them are done.
    pub fn goes_with(&self, other: &Self) -> bool {
        Self { done: 0, ..self.clone() } == Self { done: 0, ..other.clone() }
    }

    /// Whether another file, with more prompts, goes on where this one ends.
    pub fn is_start_of(&self, other: &Self) -> bool {
        let prompts = &other.prompts;
        prompts.starts_with(&self.prompts)
            && Self { prompts: prompts.clone(), ..self.clone() }.goes_with(other)
    }

    /// Whether all pictures are in it.
    pub fn is_whole(&self) -> bool {
        self.done >= self.total()
    }
}

impl Calibration {
    /// The start of a file.
    pub fn new(header: Header) -> Self {
        Self { header, seen: Vec::new() }
    }

    /// Read a file, of finished work or not.
    ///
    /// # Errors
    ///
    /// A clause that says what is wrong with it.
    pub fn from_text(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let mut lines = text.lines().enumerate();
        let (_, first) = lines.next().ok_or("it has no first line")?;
        let fault = |line: usize| move |error: serde_json::Error| format!("line {line}: {error}");
        let Version { version } = serde_json::from_str(first).map_err(fault(1))?;
        if version != VERSION {
            return Err(format!("it has version {version}, and this program reads {VERSION}"));
        }
        let header: Header = serde_json::from_str(first).map_err(fault(1))?;
        let seen = lines.map(|(i, line)| {
            let seen: Seen = serde_json::from_str(line).map_err(fault(i + 1))?;
            if seen.observed.is_sound(header.timesteps.len()) {
                Ok(seen)
            } else {
                Err(format!("line {}: what `{}` read does not fit together", i + 1, seen.reads))
            }
        });
        Ok(Self { seen: seen.collect::<Result<_, _>>()?, header })
    }

    /// Read a file of finished work.
    ///
    /// # Errors
    ///
    /// If it cannot be read, holds something else, or lacks pictures.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let fault = |fault: String| Error::Request(format!("{}: {fault}", path.display()));
        let advice = "give a file that `mixdq calibrate` wrote";
        let text = std::fs::read_to_string(path).map_err(|e| fault(format!("{e}; {advice}")))?;
        let found = Self::from_text(&text).map_err(|what| fault(format!("{what}; {advice}")))?;
        if found.header.done == found.header.total() {
            Ok(found)
        } else {
            Err(fault("pictures are missing; run the same `mixdq calibrate` again to go on".into()))
        }
    }

    /// The lines of a file.
    pub fn to_text(&self) -> String {
        let mut text = line(&self.header);
        self.seen.iter().for_each(|seen| text.push_str(&line(seen)));
        text
    }

    /// The range of what each layer reads, over both predictions, and of each half that one reads.
    pub fn ranges(&self, rule: Rule, first: FirstToken) -> BTreeMap<String, [f32; 2]> {
        let mut ranges: BTreeMap<String, [f32; 2]> = BTreeMap::new();
        for Seen { reads, tokens, observed, .. } in &self.seen {
            if *tokens == Tokens::First && first == FirstToken::Apart {
                continue;
            }
            let own = match rule {
                Rule::Extremes => observed.extremes,
                Rule::Average => observed.average.unwrap_or(observed.extremes),
                Rule::Inside(share) => observed.within(1.0 - share),
            };
            // What is read in halves is read as a whole, too, where a plan has it so.
            let whole = reads.split(':').next().unwrap_or(reads);
            for reads in [reads.as_str(), whole] {
                let range = ranges.entry(reads.to_owned()).or_insert(own);
                *range = [range[0].min(own[0]), range[1].max(own[1])];
            }
        }
        ranges
    }

    /// How much larger the first token of texts is than all others, where a layer reads texts: the largest of the ratios of
    /// their greatest magnitudes.
    pub fn first_token_ratio(&self) -> Option<f64> {
        let most = |wanted: Tokens, reads: &str| {
            let of = self.seen.iter().filter(|s| s.tokens == wanted && s.reads == reads);
            of.flat_map(|s| &s.observed.most).fold(0.0_f32, |a, b| a.max(*b))
        };
        let firsts = self.seen.iter().filter(|seen| seen.tokens == Tokens::First);
        let ratios = firsts.map(|seen| {
            let [first, others] = [Tokens::First, Tokens::Others].map(|t| most(t, &seen.reads));
            f64::from(first) / f64::from(others.max(f32::MIN_POSITIVE))
        });
        ratios.max_by(f64::total_cmp)
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let percent = text.strip_prefix('p').and_then(|number| number.parse::<f64>().ok());
        match (text, percent) {
            ("minmax", _) => Ok(Self::Extremes),
            ("average", _) => Ok(Self::Average),
            (_, Some(percent)) if (50.0..=100.0).contains(&percent) => {
                Ok(Self::Inside(percent / 100.0))
            }
            _ => Err(format!("unknown rule {text:?}, use minmax, average or p99.9")),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Extremes => f.write_str("minmax"),
            Self::Average => f.write_str("average"),
            Self::Inside(share) => write!(f, "p{}", 100.0 * share),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Branch, Calibration, FirstToken, Header, Observed, Rule, Seen, Tokens};

    fn header() -> Header {
        Header {
            version: super::VERSION,
            model: "m".into(),
            fingerprint: 7,
            prompts: vec!["a fox".into()],
            pictures: 1,
            seed: 0,
            width: 64,
            height: 64,
            steps: 1,
            guidance: 1.0,
            method: None,
            schedule: None,
            sampler: "euler".into(),
            timesteps: vec![999.0],
            tokens: 77,
            done: 1,
        }
    }

    fn seen(reads: &str, branch: Branch, tokens: Tokens, rows: &[[f32; 2]]) -> Seen {
        let mut observed = Observed::new(2, 1);
        observed.add(0, rows.iter().map(|row| &row[..]));
        observed.end_batch();
        Seen { reads: reads.into(), branch, tokens, observed }
    }

    fn example() -> Calibration {
        let seen = vec![
            seen("conv_in", Branch::Negative, Tokens::All, &[[-1.0, 2.0]]),
            seen("conv_in", Branch::Text, Tokens::All, &[[-3.0, 1.0]]),
            seen("attn2.to_k", Branch::Text, Tokens::First, &[[800.0, -10.0]]),
            seen("attn2.to_k", Branch::Text, Tokens::Others, &[[8.0, -10.0], [0.1, 0.3]]),
            seen("up.conv_shortcut:0-2", Branch::Text, Tokens::All, &[[5.0, 1.0]]),
            seen("up.conv_shortcut:2-4", Branch::Text, Tokens::All, &[[-0.5, 1.0]]),
        ];
        Calibration { header: header(), seen }
    }

    #[test]
    fn what_was_written_is_read_back() {
        let text = example().to_text();
        let read = Calibration::from_text(&text).unwrap();
        assert_eq!(read, example());
        assert_eq!(read.to_text(), text);
        let fault = |text: &str| Calibration::from_text(text).unwrap_err();
        assert!(fault("").contains("no first line"));
        assert!(fault(&text.replacen("\"version\":2", "\"version\":3", 1)).contains("version 3"));
        assert!(fault(&text.replacen("[999.0]", "[999.0,1.0]", 1)).contains("line 2"));
        assert!(fault(&(text + "{\"reads\":")).contains("line 8"));
    }

    #[test]
    fn ranges_are_those_of_both_predictions_and_of_halves() {
        let ranges = example().ranges(Rule::Extremes, FirstToken::Apart);
        assert_eq!(ranges["conv_in"], [-3.0, 2.0]);
        assert_eq!(ranges["attn2.to_k"], [-10.0, 8.0]);
        assert_eq!(ranges["up.conv_shortcut:0-2"], [1.0, 5.0]);
        assert_eq!(ranges["up.conv_shortcut"], [-0.5, 5.0]);
        let naive = example().ranges(Rule::Average, FirstToken::AsOthers);
        assert_eq!(naive["attn2.to_k"], [-10.0, 800.0]);
        assert_eq!(example().first_token_ratio(), Some(80.0));
    }

    #[test]
    fn rules_are_read_back() {
        for name in ["minmax", "average", "p99.9", "p100"] {
            assert_eq!(name.parse::<Rule>().unwrap().to_string(), name);
        }
        for name in ["", "p", "p10", "max", "99"] {
            assert!(name.parse::<Rule>().unwrap_err().contains("use minmax"), "{name}");
        }
    }
}
