//! What each layer's formats do to a network when all other layers are real: a file of JSON lines.
//!
//! ```text
//! {"version":4,"model":"…","prompts":["…"],…}                          what was measured, and how
//! {"component":"unet","layer":"conv_in","place":72,"format":"float",…}   one format of one layer
//! ```
//!
//! Lines are in order of layers as a picture needs them, through all components, then of formats. A file that was cut off ends with its last
//! whole line, so that a measurement can go on; one of several shards holds the layers whose place leaves its number.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::group::Group;
use crate::metrics;

/// The version of the file. Before the fourth, what layers read was not smoothed, or for texts alone, and rounding was another.
pub const VERSION: u32 = 4;

/// The name of real numbers among formats.
pub const FLOAT: &str = "float";

/// What was measured, and how. Two files go together if they are equal but for the shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The version of the file.
    pub version: u32,
    /// What was measured.
    pub of: Of,
    /// The model's name.
    pub model: String,
    /// A checksum of its weights.
    pub fingerprint: u32,
    /// Where weights were rounded by what layers read, a checksum of what was drawn for that.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub calibrated: Option<u32>,
    /// Prompts that were drawn.
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
    /// Whether keys and values of texts' first tokens were those of real weights, whatever was measured.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub real_first_token: bool,
    /// What is measured of each component, in the order in which a picture needs them.
    pub components: Vec<Component>,
    /// What rounding all real numbers to 16 bits does.
    pub rounding: Effect,
    /// The places of the layers that are measured; all of them where there is no list.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub places: Option<Vec<usize>>,
    /// The part of the layers that is here.
    pub shard: Option<Shard>,
}

/// What is measured of one component.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// Formats of each of its layers, real numbers first, then from fine to coarse.
    pub formats: Vec<String>,
    /// Names of its layers, as it runs them.
    pub layers: Vec<String>,
}

/// What a format's error is seen in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Of {
    /// What the network predicts, and the pictures.
    Network,
    /// What the network predicts for the first picture.
    Glance,
    /// What the layer itself computes.
    Output,
}

/// One of several parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// Its number, from 1.
    pub number: usize,
    /// Of how many.
    pub of: usize,
}

/// How far a changed network is from the real one; greater is nearer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Effect {
    /// Of what the UNet predicts at the first step, or of what the layer computes there, in decibels, over all pictures;
    /// for a layer of the decoder, of the decoded pictures.
    pub sqnr: f64,
    /// Of the finished pictures, the mean of their structural similarities; where it was measured.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ssim: Option<f64>,
}

/// One format of one layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The component that the layer belongs to.
    pub component: String,
    /// The layer.
    pub layer: String,
    /// Its place among all layers.
    pub place: usize,
    /// The format.
    pub format: String,
    /// Bytes that the layer's weights then take.
    pub bytes: u64,
    /// Its weights.
    pub weights: u64,
    /// What becomes of the network.
    #[serde(flatten)]
    pub effect: Effect,
    /// Whether that was worked out from other layers and formats.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub inferred: bool,
}

/// A whole file.
#[derive(Clone, Debug, PartialEq)]
pub struct Sensitivity {
    /// What was measured.
    pub header: Header,
    /// In order of places and formats.
    pub records: Vec<Record>,
}

impl Record {
    /// The group of its layer.
    pub fn group(&self) -> Group {
        Group::of_component(&self.component, &self.layer)
    }
}

impl Shard {
    /// Whether it holds the layer of this place.
    pub fn has(self, place: usize) -> bool {
        place % self.of == self.number - 1
    }
}

impl std::str::FromStr for Shard {
    type Err = String;

    /// `2/4` is the second of four.
    fn from_str(text: &str) -> Result<Self, String> {
        let numbers =
            text.split_once('/').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        match numbers {
            Some((number, of)) if (1..=of).contains(&number) => Ok(Self { number, of }),
            _ => Err(format!("{text:?} is no shard, use 1/4 for the first of four")),
        }
    }
}

impl Header {
    /// How many layers there are in all.
    pub fn count(&self) -> usize {
        self.components.iter().map(|component| component.layers.len()).sum()
    }

    /// The layer of a place, and the component that it belongs to.
    pub fn layer(&self, place: usize) -> Option<(&Component, &str)> {
        let mut left = place;
        for component in &self.components {
            match component.layers.get(left) {
                Some(layer) => return Some((component, layer)),
                None => left -= component.layers.len(),
            }
        }
        None
    }

    /// What a whole file has, in its order: places, each with all formats of its layer.
    pub fn entries(&self) -> Vec<(usize, &str)> {
        let formats = |place| self.layer(place).map_or(&[][..], |(of, _)| &of.formats[..]);
        let of_place = |place| formats(place).iter().map(move |format| (place, format.as_str()));
        self.places().flat_map(of_place).collect()
    }

    /// The places of the layers that are here.
    pub fn places(&self) -> impl Iterator<Item = usize> + use<> {
        let all = self.places.clone().unwrap_or_else(|| (0..self.count()).collect());
        let shard = self.shard;
        all.into_iter().filter(move |&place| shard.is_none_or(|shard| shard.has(place)))
    }

    /// The places of so many layers, one from each of as many equal parts; of all, where there are no more. Blocks repeat, so at
    /// equal distances most would be layers of a few roles: where in its part each is follows the golden ratio.
    pub fn spread(&self, layers: usize) -> Vec<usize> {
        const GOLDEN: f64 = 0.618_033_988_749_895;
        let all = self.count();
        let layers = layers.min(all);
        let part = |i: usize| i * all / layers;
        let within = |i: usize| (i as f64 * GOLDEN).fract() * (part(i + 1) - part(i)) as f64;
        (0..layers).map(|i| part(i) + within(i) as usize).collect()
    }

    /// The part of one layer in what rounding to 16 bits does, as if all layers had the same: what is finer than this is
    /// as good as real numbers. Nothing is, for a layer's own error.
    pub fn floor(&self) -> Effect {
        if self.of == Of::Output {
            return Effect { sqnr: metrics::SAME, ssim: None };
        }
        let layers = self.count().max(1) as f64;
        Effect {
            sqnr: self.rounding.sqnr + 10.0 * layers.log10(),
            ssim: self.rounding.ssim.map(|ssim| 1.0 - (1.0 - ssim) / layers),
        }
    }

    /// Whether two files were measured alike, as parts or wholes.
    fn goes_with(&self, other: &Self) -> bool {
        self.whole() == other.whole()
    }

    /// The same for all shards together.
    fn whole(&self) -> Self {
        Self { shard: None, ..self.clone() }
    }
}

impl Sensitivity {
    /// The start of a file.
    pub fn new(header: Header) -> Self {
        Self { header, records: Vec::new() }
    }

    /// Read a file, whole or cut off. With it comes the length of its whole lines in bytes.
    ///
    /// # Errors
    ///
    /// A clause that says what is wrong with it.
    pub fn from_text(text: &str) -> Result<(Self, usize), String> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let end = text.rfind('\n').map_or(0, |at| at + 1);
        let mut lines = text[..end].lines();
        let first = lines.next().ok_or("it has no first line")?;
        let fault = |line: usize| move |error: serde_json::Error| format!("line {line}: {error}");
        let Version { version } = serde_json::from_str(first).map_err(fault(1))?;
        if version != VERSION {
            return Err(format!("it has version {version}, and this program reads {VERSION}"));
        }
        let header: Header = serde_json::from_str(first).map_err(fault(1))?;
        if let Some(place) = header.places().find(|&place| place >= header.count()) {
            return Err(format!("line 1: there is no layer at place {place}"));
        }
        let expected = header.entries();
        let mut records = Vec::new();
        for (i, line) in lines.enumerate() {
            let record: Record = serde_json::from_str(line).map_err(fault(i + 2))?;
            let due = expected.get(i).is_some_and(|&(place, format)| {
                let (component, layer) = (record.component.as_str(), record.layer.as_str());
                let there = header.layer(place).map(|(of, layer)| (of.name.as_str(), layer));
                (record.place, record.format.as_str()) == (place, format)
                    && there == Some((component, layer))
            });
            if !due {
                let Record { component, layer, format, .. } = record;
                return Err(format!(
                    "line {}: {layer} of {component} as {format} is not due there",
                    i + 2
                ));
            }
            if !record.effect.sqnr.is_finite() || !record.effect.ssim.is_none_or(f64::is_finite) {
                return Err(format!("line {}: a score is not finite", i + 2));
            }
            records.push(record);
        }
        Ok((Self { header, records }, end))
    }

    /// Read a finished file.
    ///
    /// # Errors
    ///
    /// If it cannot be read, holds something else, or lacks layers.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let fault = |fault: String| Error::Request(format!("{}: {fault}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| {
            fault(format!("{error}; give a file that `mixdq sensitivity` wrote"))
        })?;
        let (found, _) = Self::from_text(&text)
            .map_err(|what| fault(format!("{what}; give a file that `mixdq sensitivity` wrote")))?;
        if found.is_complete() {
            Ok(found)
        } else {
            Err(fault("layers are missing; run the same `mixdq sensitivity` again to go on".into()))
        }
    }

    /// The lines of a file.
    ///
    /// # Panics
    ///
    /// Never: what is in it can be written.
    pub fn to_text(&self) -> String {
        let mut text = line(&self.header);
        self.records.iter().for_each(|record| text.push_str(&line(record)));
        text
    }

    /// Whether all formats of all its layers are there.
    pub fn is_complete(&self) -> bool {
        self.records.len() == self.header.entries().len()
    }

    /// Put shards together: the file that one measurement of all layers would have written.
    ///
    /// # Errors
    ///
    /// If they were not measured alike, or layers are missing.
    pub fn merge(parts: &[Self]) -> Result<Self, Error> {
        let Some(first) = parts.first() else {
            return Err(Error::Request("no shards; name the files of all of them".into()));
        };
        if let Some(other) = parts.iter().find(|part| !part.header.goes_with(&first.header)) {
            let part = |header: &Header| {
                header.shard.map_or("the whole".into(), |s| format!("shard {}/{}", s.number, s.of))
            };
            return Err(Error::Request(format!(
                "{} and {} were not measured alike; measure all shards with the same settings",
                part(&first.header),
                part(&other.header)
            )));
        }
        let mut records: Vec<Record> = parts.iter().flat_map(|p| p.records.clone()).collect();
        let whole = first.header.whole();
        let entries = whole.entries();
        let number = |record: &Record| {
            entries.iter().position(|entry| *entry == (record.place, record.format.as_str()))
        };
        records.sort_by_cached_key(number);
        records.dedup_by(|a, b| (a.place, &a.format) == (b.place, &b.format));
        let merged = Self { header: whole.clone(), records };
        let has = |place: usize| merged.records.iter().any(|record| record.place == place);
        match merged.header.places().find(|&place| !has(place)) {
            None => Ok(merged),
            Some(place) => {
                let layer = merged.header.layer(place).map_or("?", |(_, layer)| layer);
                Err(Error::Request(format!("no shard has the layer `{layer}`; name all shards")))
            }
        }
    }

    /// The records of each layer, with its group.
    pub fn layers(&self) -> impl Iterator<Item = (Group, &[Record])> {
        let layers = self.records.chunk_by(|a, b| a.place == b.place);
        layers.map(|records| (records[0].group(), records))
    }
}

/// One line of a file.
///
/// # Panics
///
/// Never: numbers and strings can be written.
pub fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("numbers and strings can be written") + "\n"
}

#[cfg(test)]
pub(crate) mod tests;
