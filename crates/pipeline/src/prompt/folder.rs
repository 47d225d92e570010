//! A tokenizer's folder: the vocabulary in either form, and which tokens are special.
//!
//! Only the vocabulary and the merges are taken from `tokenizer.json`; the treatment of text is
//! CLIP's in any case. Which file decides about the special tokens follows transformers: a
//! `tokenizer_config.json` with `added_tokens_decoder` stands alone, an older one is overruled by
//! `special_tokens_map.json`.

use super::{Error, Marks, front};
use crate::files::Files;
use serde::Deserialize;
use std::collections::BTreeMap;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::pre_tokenizers::{PreTokenizerWrapper, byte_level::ByteLevel, sequence::Sequence};
use tokenizers::{AddedToken, Tokenizer};

/// How many tokens CLIP's text encoders read, where a folder does not say.
const LIMIT: usize = 77;

/// The vocabulary in its newer form.
const WHOLE: &str = "tokenizer.json";

/// The vocabulary in its older form.
const VOCAB: &str = "vocab.json";
const MERGES: &str = "merges.txt";

/// Which tokens are special.
const CONFIG: &str = "tokenizer_config.json";
const SPECIAL: &str = "special_tokens_map.json";

#[derive(Default, Deserialize)]
struct Config {
    model_max_length: Option<f64>,
    #[serde(flatten)]
    special: Special,
    added_tokens_decoder: Option<BTreeMap<String, Spelling>>,
    /// Those of `tokenizer.json`.
    #[serde(skip)]
    added: Vec<Spelling>,
}

/// The special tokens; the same in either file.
#[derive(Default, Deserialize)]
struct Special {
    #[serde(rename = "bos_token")]
    bos: Option<Spelling>,
    #[serde(rename = "eos_token")]
    eos: Option<Spelling>,
    #[serde(rename = "unk_token")]
    unk: Option<Spelling>,
    #[serde(rename = "pad_token")]
    pad: Option<Spelling>,
}

/// A token, spelled alone or with how it is to be found in text.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Spelling {
    Alone(String),
    Described {
        content: String,
        #[serde(default)]
        lstrip: bool,
        #[serde(default)]
        rstrip: bool,
        #[serde(default)]
        normalized: bool,
        #[serde(default)]
        single_word: bool,
    },
}

/// The part of `tokenizer.json` that matters.
#[derive(Deserialize)]
struct Whole {
    model: Model,
    #[serde(default)]
    added_tokens: Vec<Spelling>,
}

#[derive(Deserialize)]
struct Model {
    vocab: BTreeMap<String, u32>,
    merges: Vec<Merge>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Line(String),
    Pair(String, String),
}

/// Reads the folder's vocabulary and special tokens.
pub(super) fn open(files: &Files) -> Result<(Tokenizer, Marks), Error> {
    let mut config = config(files)?;
    let model = if let Some(whole) = json::<Whole>(files, WHOLE)? {
        config.added = whole.added_tokens;
        whole.model
    } else if let Some(vocab) = json(files, VOCAB)? {
        Model { vocab, merges: merges(files)? }
    } else {
        return Err(Error::NoTokenizer { folder: files.path("") });
    };
    let unsound = |fault: String| Error::Unsound { path: files.path(""), fault };
    let tokenizer = build(model, &config).map_err(|error| unsound(error.to_string()))?;
    let marks = marks(&tokenizer, &config).map_err(unsound)?;
    Ok((tokenizer, marks))
}

/// The files that [`open`] reads, by name.
pub(super) fn copy(files: &Files) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let named = |name: &str| Ok(bytes(files, name)?.map(|bytes| (name.to_owned(), bytes)));
    let whole = bytes(files, WHOLE)?.is_some();
    let vocabulary: &[&str] = if whole { &[WHOLE] } else { &[VOCAB, MERGES] };
    let all = vocabulary.iter().chain(&[CONFIG, SPECIAL]).map(|name| named(name));
    Ok(all.collect::<Result<Vec<_>, Error>>()?.into_iter().flatten().collect())
}

fn config(files: &Files) -> Result<Config, Error> {
    let mut config: Config = json(files, CONFIG)?.unwrap_or_default();
    if config.added_tokens_decoder.is_none()
        && let Some(map) = json::<Special>(files, SPECIAL)?
    {
        let own = config.special;
        config.special = Special {
            bos: map.bos.or(own.bos),
            eos: map.eos.or(own.eos),
            unk: map.unk.or(own.unk),
            pad: map.pad.or(own.pad),
        };
    }
    Ok(config)
}

/// The byte-pair model with CLIP's treatment of text around it.
fn build(model: Model, config: &Config) -> tokenizers::Result<Tokenizer> {
    let pair = |merge| match merge {
        Merge::Pair(left, right) => Ok((left, right)),
        Merge::Line(line) => merge_of(&line).ok_or_else(|| format!("`{line}` is not a merge")),
    };
    let merges: Merges = model.merges.into_iter().map(pair).collect::<Result<_, _>>()?;
    let vocab: Vocab = model.vocab.into_iter().collect();
    let merging = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .unk_token(config.special.spelled(|special| &special.unk, END))
        .end_of_word_suffix("</w>".to_owned())
        .build()?;
    let mut tokenizer = Tokenizer::new(merging);
    tokenizer.with_normalizer(Some(front::normalizer()?))?;
    let bytes = ByteLevel::new(false, true, true);
    let words: Vec<PreTokenizerWrapper> = vec![front::splitter()?.into(), bytes.into()];
    tokenizer.with_pre_tokenizer(Some(Sequence::new(words)));
    tokenizer.add_special_tokens(special_tokens(config))?;
    Ok(tokenizer)
}

const BEGIN: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";

/// Tokens that are found in text before it is cut into words. Where several entries are spelled
/// the same, those among the added tokens say how it is found, else the last one in the order of
/// the file format, which ends with the padding token.
fn special_tokens(config: &Config) -> Vec<AddedToken> {
    let Special { bos, eos, unk, pad } = &config.special;
    let added = config.added_tokens_decoder.iter().flat_map(BTreeMap::values).chain(&config.added);
    let default = [BEGIN, END].map(|text| Spelling::Alone(text.to_owned()));
    let named = [pad, unk, eos, bos].into_iter().flatten().chain(&default);
    let mut tokens: Vec<AddedToken> = Vec::new();
    for token in added.chain(named).map(Spelling::added) {
        if !tokens.iter().any(|known| known.content == token.content) {
            tokens.push(token);
        }
    }
    tokens
}

fn marks(tokenizer: &Tokenizer, config: &Config) -> Result<Marks, String> {
    let id = |spelling: String| {
        tokenizer.token_to_id(&spelling).ok_or_else(|| format!("it has no token `{spelling}`"))
    };
    let special = &config.special;
    // A length that no encoder has stands for "not limited" in these files.
    let length = config.model_max_length.filter(|length| (3.0..100_000.0).contains(length));
    Ok(Marks {
        begin: id(special.spelled(|special| &special.bos, BEGIN))?,
        end: id(special.spelled(|special| &special.eos, END))?,
        pad: id(special.spelled(|special| &special.pad, END))?,
        limit: length.map_or(LIMIT, |length| length as usize),
    })
}

impl Special {
    fn spelled(&self, which: impl Fn(&Self) -> &Option<Spelling>, default: &str) -> String {
        which(self).as_ref().map_or_else(|| default.to_owned(), |token| token.content().to_owned())
    }
}

impl Spelling {
    fn content(&self) -> &str {
        match self {
            Self::Alone(content) | Self::Described { content, .. } => content,
        }
    }

    fn added(&self) -> AddedToken {
        match self {
            Self::Alone(content) => AddedToken::from(content, true),
            Self::Described { content, lstrip, rstrip, normalized, single_word } => {
                AddedToken::from(content, true)
                    .lstrip(*lstrip)
                    .rstrip(*rstrip)
                    .normalized(*normalized)
                    .single_word(*single_word)
            }
        }
    }
}

/// `merges.txt`: a pair per line under a line that states a version.
fn merges(files: &Files) -> Result<Vec<Merge>, Error> {
    let unsound = |fault: String| Error::Unsound { path: files.path(MERGES), fault };
    let bytes = bytes(files, MERGES)?.ok_or_else(|| unsound("it is not there".to_owned()))?;
    let text = String::from_utf8(bytes).map_err(|error| unsound(error.to_string()))?;
    let lines = text.lines().filter(|line| !line.starts_with("#version") && !line.is_empty());
    Ok(lines.map(|line| Merge::Line(line.to_owned())).collect())
}

fn merge_of(line: &str) -> Option<(String, String)> {
    let (left, right) = line.trim_end().split_once(' ')?;
    (!right.contains(' ')).then(|| (left.to_owned(), right.to_owned()))
}

fn json<T: for<'de> Deserialize<'de>>(files: &Files, name: &str) -> Result<Option<T>, Error> {
    let unsound = |fault| Error::Unsound { path: files.path(name), fault };
    let Some(bytes) = bytes(files, name)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map_err(|error| unsound(error.to_string()))
}

fn bytes(files: &Files, name: &str) -> Result<Option<Vec<u8>>, Error> {
    files.read(name).map_err(|error| Error::Read { path: files.path(name), error })
}
