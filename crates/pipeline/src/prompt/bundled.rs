//! CLIP's vocabulary from a crate that ships it, for checkpoints that come without one.
//!
//! The crate's own treatment of text differs from transformers' in the Unicode details, so it is
//! handed one finished word at a time and does only the merging.

use super::front;
use super::{Error, Marks};
use crate::files::Files;
use instant_clip_tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};
use tokenizers::normalizers::Sequence;
use tokenizers::pre_tokenizers::split::Split;
use tokenizers::tokenizer::pre_tokenizer::{OffsetType, PreTokenizedString};
use tokenizers::{NormalizedString, Normalizer, OffsetReferential, PreTokenizer, Result};

/// What fills an encoding behind the end of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// The end mark: the encoders of SD 1 and the first one of SDXL.
    EndOfText,
    /// Token 0, which is `!`: the `OpenCLIP` encoders of SD 2 and the second one of SDXL. As in
    /// transformers, an exclamation mark in the text then also becomes token 0.
    ExclamationMark,
}

/// How many tokens CLIP's text encoders read.
const LIMIT: usize = 77;

/// The file that says that this vocabulary is meant, where a model's files are written anew.
const FILE: &str = "clip.json";

/// What that file holds.
#[derive(Serialize, Deserialize)]
struct Named {
    padding: Padding,
}

/// The padding, if the files say that this vocabulary is meant.
pub(super) fn named(files: &Files) -> std::result::Result<Option<Padding>, Error> {
    let path = || files.path(FILE);
    let bytes = files.read(FILE).map_err(|error| Error::Read { path: path(), error })?;
    let Some(bytes) = bytes else { return Ok(None) };
    let named: Named = serde_json::from_slice(&bytes)
        .map_err(|error| Error::Unsound { path: path(), fault: error.to_string() })?;
    Ok(Some(named.padding))
}

pub(super) struct Bundled {
    merges: Tokenizer,
    normalizer: Sequence,
    splitter: Split,
    padding: Padding,
}

impl std::fmt::Debug for Bundled {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Bundled").field("padding", &self.padding).finish_non_exhaustive()
    }
}

impl Bundled {
    pub(super) fn new(padding: Padding) -> Result<Self> {
        let (normalizer, splitter) = (front::normalizer()?, front::splitter()?);
        Ok(Self { merges: Tokenizer::new(), normalizer, splitter, padding })
    }

    /// The file that names this vocabulary.
    pub(super) fn file(&self) -> (String, Vec<u8>) {
        let named = serde_json::json!({ "padding": self.padding });
        (FILE.to_owned(), named.to_string().into_bytes())
    }

    pub(super) fn marks(&self) -> Marks {
        let begin = u32::from(self.merges.start_of_text().to_u16());
        let end = u32::from(self.merges.end_of_text().to_u16());
        let pad = match self.padding {
            Padding::EndOfText => end,
            Padding::ExclamationMark => 0,
        };
        Marks { begin, end, pad, limit: LIMIT }
    }

    /// Ids without marks, and the byte of `text` at which each one's word begins.
    pub(super) fn tokens(&self, text: &str) -> Result<Vec<(u32, usize)>> {
        let mut tokens = Vec::new();
        let mut start = 0;
        while let Some((at, length, id)) = self.next_special(&text[start..]) {
            self.plain(text, start..start + at, &mut tokens)?;
            tokens.push((id, start + at));
            start += at + length;
        }
        self.plain(text, start..text.len(), &mut tokens)?;
        Ok(tokens)
    }

    /// The first special token that is spelled out in `text`: where, how long, which.
    fn next_special(&self, text: &str) -> Option<(usize, usize, u32)> {
        let Marks { begin, end, pad, .. } = self.marks();
        let bang = (self.padding == Padding::ExclamationMark).then_some(("!", pad));
        [("<|startoftext|>", begin), ("<|endoftext|>", end)]
            .into_iter()
            .chain(bang)
            .filter_map(|(spelling, id)| Some((text.find(spelling)?, spelling.len(), id)))
            .min()
    }

    /// Tokens of a stretch without special tokens.
    fn plain(
        &self,
        text: &str,
        stretch: std::ops::Range<usize>,
        tokens: &mut Vec<(u32, usize)>,
    ) -> Result<()> {
        let start = stretch.start;
        let mut normalized = NormalizedString::from(&text[stretch]);
        self.normalizer.normalize(&mut normalized)?;
        let mut words = PreTokenizedString::from(normalized);
        self.splitter.pre_tokenize(&mut words)?;
        let mut found = Vec::new();
        for (word, (at, _), _) in words.get_splits(OffsetReferential::Original, OffsetType::Byte) {
            found.clear();
            self.merges.encode(word, &mut found);
            tokens.extend(found.iter().map(|token| (u32::from(token.to_u16()), start + at)));
        }
        Ok(())
    }
}
