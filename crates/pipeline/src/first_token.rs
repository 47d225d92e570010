//! Keys and values of a text's first token in real numbers, whatever the other tokens are computed in.
//!
//! An encoder of texts sees each token and those before it, so what it makes of the first, which begins every text, is the
//! same for all texts. In CLIP it is also by far the largest: a range that holds it leaves a few codes to all other
//! tokens. So it is kept out of their range, and its keys and values are those of real weights (MixDQ, section 4.1).
//!
//! Keys and values are handed from the program of the prompt to that of the step, once for each prompt. This is where
//! the rows of first tokens are replaced: nothing is computed twice, and no other operation knows of it. From an original
//! model the rows are computed from whatever the first tokens are. A packed one, which has no real weights, holds those
//! of the embedding that begins every text; the projections have no summand, so a multiple of it (a weighted prompt) has
//! that multiple of its keys, and a row of zeros (a negative prompt that was not given) has zeros. Anything else (an encoder's
//! layers left out) is refused where ranges are known, which have no room for it, and stays what rounded weights make of
//! it where they are not.

use tensor::graph::{Kind, NodeId};
use tensor::{Control, Device, Graph, Held, Plan, Precision, Recording, Session, Weight};

use crate::denoise::Condition;
use crate::files::Files;
use crate::plan::FirstToken;
use crate::request::Watch;
use crate::{Error, TextToImage};

/// Where a packed file keeps the rows of first tokens.
pub(crate) const FOLDER: &str = "unet/first_token";

/// The name of the embedding that they belong to, among them.
const EMBEDDING: &str = "embedding";

/// How far, relative to its length, an embedding may be from a multiple of the stored one: what rounding to 16 bits on one
/// machine and not on another leaves between two runs of the same encoder.
const NEAR: f64 = 0.05;

/// The layers that read texts, and how to get their results for first tokens.
pub(crate) struct FirstTokens<'a, D: Device> {
    device: &'a D,
    readers: Vec<Reader>,
    /// Tokens that an encoder reads at once.
    period: usize,
    /// What is known already.
    rows: Vec<Rows>,
    /// Whether no others can be computed.
    is_packed: bool,
    /// Whether rounded weights cannot stand in for them.
    is_needed: bool,
}

/// A layer that reads texts: a projection to keys or values.
pub(crate) struct Reader {
    /// Its result, by whose name the program of the prompt hands it over.
    node: NodeId,
    /// What its inputs are multiplied by, if by anything.
    pub(crate) factors: Option<Weight>,
    pub(crate) weight: Weight,
}

/// What an embedding becomes in each of the readers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rows {
    embedding: Vec<f32>,
    /// In the order of the readers.
    results: Vec<Vec<f32>>,
}

impl<'a, D: Device> FirstTokens<'a, D> {
    /// For a recorded model call, if the plan wants first tokens apart.
    pub(crate) fn new(
        pipeline: &TextToImage<'a, D>,
        recording: &Recording,
    ) -> Result<Option<Self>, Error> {
        if pipeline.plan.first_token() != FirstToken::Float {
            return Ok(None);
        }
        let readers = readers(recording);
        let model = pipeline.model;
        let rows = match &model.packed {
            None => Vec::new(),
            Some(packed) => vec![stored(&Files::packed(&packed.file).at(FOLDER), &readers)?],
        };
        Ok(Some(Self {
            device: pipeline.device,
            readers,
            period: model.encoders.first().map_or(1, |encoder| encoder.tokenizer.limit()),
            rows,
            is_packed: model.packed.is_some(),
            is_needed: pipeline.plan.has_ranges(),
        }))
    }

    /// The results of the layers that read texts.
    pub(crate) fn readers(&self) -> impl Iterator<Item = NodeId> {
        self.readers.iter().map(|reader| reader.node)
    }

    /// Replace the rows of first tokens in what was handed over for a prompt.
    pub(crate) fn replace(
        &mut self,
        condition: &Condition,
        values: &mut [Held],
        watch: &Watch<'_>,
    ) -> Result<(), Error> {
        let (texts, tokens) = condition.texts();
        let channels = texts.len() / condition.batch() / tokens;
        let mut places = Vec::new();
        for row in self.rows_of(condition) {
            let embedding = &texts[row * channels..][..channels];
            if embedding.iter().all(|x| *x == 0.0) {
                // Zeros have a code of their own in every range, and stay zeros.
                continue;
            }
            places.extend(self.find(embedding, watch)?.map(|found| (row, found)));
        }
        for (reader, layer) in self.readers.iter().enumerate() {
            let name = layer.node.to_string();
            let Some(value) = values.iter_mut().find(|value| value.name() == name) else {
                continue;
            };
            let rows = places.iter().map(|(row, (known, factor))| {
                let result = &self.rows[*known].results[reader];
                (*row, result.iter().map(|x| factor * x).collect())
            });
            *value = value.with_rows(&rows.collect::<Vec<(usize, Vec<f32>)>>())?;
        }
        Ok(())
    }

    /// Where first tokens are among all of a batch: each element, and each part of a long text, begins with one.
    pub(crate) fn rows_of(&self, condition: &Condition) -> Vec<usize> {
        let (_, tokens) = condition.texts();
        let texts = 0..condition.batch();
        let of = |text| (0..tokens).step_by(self.period).map(move |token| text * tokens + token);
        texts.flat_map(of).collect()
    }

    /// The known rows for an embedding, and the factor that makes them its own; `None` where there are none, and none are
    /// needed.
    fn find(
        &mut self,
        embedding: &[f32],
        watch: &Watch<'_>,
    ) -> Result<Option<(usize, f32)>, Error> {
        if let Some(known) = self.rows.iter().position(|rows| rows.embedding == embedding) {
            return Ok(Some((known, 1.0)));
        }
        if !self.is_packed {
            let results = compute(self.device, &self.readers, embedding, watch)?;
            self.rows.push(Rows { embedding: embedding.to_vec(), results });
            return Ok(Some((self.rows.len() - 1, 1.0)));
        }
        let near = |known: &Rows| multiple(&known.embedding, embedding);
        let found = self.rows.iter().enumerate().find_map(|(i, rows)| Some((i, near(rows)?)));
        if found.is_some() || !self.is_needed {
            return Ok(found);
        }
        let fault = "this model was packed for texts that begin as its encoders make them without --clip-skip; \
                     leave it out, or quantize the model again with dynamic activations";
        Err(Error::Request(fault.into()))
    }
}

/// The factor by which `found` is a multiple of `known`, if it is one.
fn multiple(known: &[f32], found: &[f32]) -> Option<f32> {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    if known.len() != found.len() {
        return None;
    }
    let factor = dot(known, found) / dot(known, known);
    let apart = dot(found, found) - factor * dot(known, found);
    (apart <= NEAR * NEAR * dot(found, found)).then_some(factor as f32)
}

/// The layers of a recording that read texts as they are, or smoothed.
pub(crate) fn readers(recording: &Recording) -> Vec<Reader> {
    let nodes = recording.nodes().iter().enumerate();
    let of = nodes.filter_map(|(i, node)| {
        let weight = node.weight()?.clone();
        let mut read = recording.node(*node.inputs.first()?);
        let mut factors = None;
        if let Kind::ScaleChannels { factors: own } = &read.kind {
            factors = Some(own.clone());
            read = recording.node(*read.inputs.first()?);
        }
        let reads_texts = matches!(&read.kind, Kind::Input { name } if name == Condition::TEXTS);
        reads_texts.then(|| Reader { node: recording.id(i), factors, weight })
    });
    of.collect()
}

/// What real weights make of an embedding, one layer after the other so that no two of them are in memory together.
fn compute<D: Device>(
    device: &D,
    readers: &[Reader],
    embedding: &[f32],
    watch: &Watch<'_>,
) -> Result<Vec<Vec<f32>>, Error> {
    let control = Control { cancel: watch.cancel, progress: None };
    let result = |reader: &Reader| {
        let graph = Graph::new();
        let row = graph.input("embedding", [1, embedding.len()]);
        let row = reader.factors.as_ref().map_or(row, |factors| row.scale_channels(factors));
        let row = row.linear(&reader.weight, None);
        let recording = graph.finish(&[("result", row)]).map_err(|e| Error::Engine(e.into()))?;
        let plan = Plan::uniform(Precision::F32);
        let mut session = Session::new(device, &recording, &plan)?;
        let mut weights = D::Weights::default();
        device.prepare(&mut weights, session.program(), &control)?;
        session.write("embedding", embedding)?;
        session.run(&weights, &control)?;
        Ok(session.read("result")?)
    };
    readers.iter().map(result).collect()
}

/// What a packed file holds.
fn stored(files: &Files, readers: &[Reader]) -> Result<Rows, Error> {
    let numbers = |name: &str, count: Option<usize>| {
        let fault = |fault: &str| {
            let fault = format!("{fault}; pack the model again");
            Error::Folder { path: files.path(name), fault }
        };
        let bytes = files.read(name).ok().flatten().ok_or_else(|| fault("it is not there"))?;
        let (numbers, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() || count.is_some_and(|count| count != numbers.len()) {
            return Err(fault("it is too long or too short"));
        }
        let numbers: Vec<f32> = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        if numbers.iter().all(|x| x.is_finite()) {
            Ok(numbers)
        } else {
            Err(fault("it is damaged"))
        }
    };
    let results = readers
        .iter()
        .map(|reader| numbers(reader.weight.layer(), reader.weight.shape().first().copied()));
    let channels = readers.first().map(|reader| reader.weight.shape()[1]);
    Ok(Rows {
        embedding: numbers(EMBEDDING, channels)?,
        results: results.collect::<Result<_, _>>()?,
    })
}

/// The small files that a packed model has for first tokens, whose embeddings are given for some texts: all are the same.
///
/// # Errors
///
/// If they are not, which no encoder of texts that the method was made for does.
pub(crate) fn files<D: Device>(
    device: &D,
    recording: &Recording,
    embeddings: &[&[f32]],
) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let [first, others @ ..] = embeddings else { return Ok(Vec::new()) };
    if others.iter().any(|other| other != first) {
        let fault = "the first token of this model's texts depends on what follows it; \
                     leave `first_token` out of the plan";
        return Err(Error::Request(fault.into()));
    }
    let readers = readers(recording);
    let results = compute(device, &readers, first, &Watch::default())?;
    Ok(named(&readers, first, &results))
}

/// The same with zeros in them, whose bytes are as many.
pub(crate) fn blank(recording: &Recording) -> Vec<(String, Vec<u8>)> {
    let readers = readers(recording);
    let channels = readers.first().map_or(0, |reader| reader.weight.shape()[1]);
    let results = readers.iter().map(|reader| vec![0.0; reader.weight.shape()[0]]);
    named(&readers, &vec![0.0; channels], &results.collect::<Vec<_>>())
}

fn named(readers: &[Reader], embedding: &[f32], results: &[Vec<f32>]) -> Vec<(String, Vec<u8>)> {
    let bytes = |numbers: &[f32]| numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
    let layers = readers.iter().map(|reader| reader.weight.layer());
    let all = std::iter::once((EMBEDDING, embedding))
        .chain(layers.zip(results.iter().map(Vec::as_slice)));
    all.map(|(name, numbers)| (format!("{FOLDER}/{name}"), bytes(numbers))).collect()
}

#[cfg(test)]
mod tests;
