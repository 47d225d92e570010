//! Prompts: text to the token ids that CLIP's text encoders read.
//!
//! A [`Prompt`] is parsed first, for weights such as `(red:1.3)`; a [`Tokenizer`] then turns it
//! into one or more [`Encoding`]s of the encoder's length, beginning and end marked and the rest
//! padded. The ids are those of `CLIPTokenizer` in the transformers library, including what that
//! does with a padding token that occurs in the text.
//!
//! ```
//! use pipeline::prompt::{Padding, Prompt, Tokenizer};
//!
//! let tokenizer = Tokenizer::clip(Padding::EndOfText)?;
//! let encoding = tokenizer.encode(&Prompt::weighted("a (red:1.5) fox"))?;
//! assert_eq!(encoding.ids[..6], [49406, 320, 736, 3240, 49407, 49407]);
//! assert_eq!(encoding.weights[..4], [1.0, 1.0, 1.5, 1.0]);
//! assert_eq!(encoding.cut, None);
//! # Ok::<(), pipeline::prompt::Error>(())
//! ```

mod attention;
mod bundled;
mod folder;
mod front;

pub use attention::Prompt;
pub use bundled::Padding;

use crate::files::Files;
use attention::Part;
use bundled::Bundled;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What can be wrong with a tokenizer's files or a prompt.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read.
    #[error("cannot read {}: {error}; check that the model's folder is complete", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// Neither form of a vocabulary is there.
    #[error(
        "{} holds no tokenizer; expected vocab.json and merges.txt, or tokenizer.json",
        folder.display()
    )]
    NoTokenizer {
        /// The folder.
        folder: PathBuf,
    },
    /// A file is not what it should be.
    #[error("cannot use the tokenizer {}: {fault}; download it again", path.display())]
    Unsound {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        fault: String,
    },
    /// Text that the tokenizer's vocabulary cannot express.
    #[error("cannot tokenize the prompt: {fault}; the model's vocabulary may be damaged")]
    Text {
        /// What the tokenizer said.
        fault: String,
    },
}

/// Token ids of one pass through a text encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoding {
    /// Begin mark, tokens, end mark, padding: as many as the encoder reads.
    pub ids: Vec<u32>,
    /// How strongly each position counts: its embedding is multiplied by this and then all are
    /// scaled so that their mean is what it was. One at marks and padding.
    pub weights: Vec<f32>,
    /// The text that did not fit, if any.
    pub cut: Option<String>,
}

impl Encoding {
    /// Whether any position has a weight other than one.
    pub fn is_weighted(&self) -> bool {
        self.weights.iter().any(|&weight| weight != 1.0)
    }
}

/// A CLIP tokenizer; a handle, cheap to clone.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    words: Arc<Words>,
    marks: Marks,
}

/// Where the vocabulary comes from.
#[derive(Debug)]
enum Words {
    Files(Box<tokenizers::Tokenizer>, Files),
    Bundled(Box<Bundled>),
}

/// The ids around the text and the length of an encoding.
#[derive(Clone, Copy, Debug)]
struct Marks {
    begin: u32,
    end: u32,
    pad: u32,
    limit: usize,
}

/// A token of the text: its id, its weight, and where its text begins: part, byte.
type Token = (u32, f32, (usize, usize));

impl Tokenizer {
    /// Reads the tokenizer of a model folder (`tokenizer/` or `tokenizer_2/`).
    ///
    /// # Errors
    ///
    /// Missing or unsound files, by name.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        Self::read(&Files::folder(folder))
    }

    /// The same from wherever a model's files lie.
    pub(crate) fn read(files: &Files) -> Result<Self, Error> {
        if let Some(padding) = bundled::named(files)? {
            return Self::clip(padding);
        }
        let (tokenizer, marks) = folder::open(files)?;
        Ok(Self { words: Arc::new(Words::Files(Box::new(tokenizer), files.clone())), marks })
    }

    /// The files from which [`Tokenizer::read`] makes the same tokenizer.
    pub(crate) fn files(&self) -> Result<Vec<(String, Vec<u8>)>, Error> {
        match &*self.words {
            Words::Files(_, files) => folder::copy(files),
            Words::Bundled(bundled) => Ok(vec![bundled.file()]),
        }
    }

    /// CLIP's own vocabulary of 49,408 tokens, for checkpoints that carry none.
    ///
    /// # Errors
    ///
    /// None that a build which passed its tests can show.
    pub fn clip(padding: Padding) -> Result<Self, Error> {
        let bundled = Bundled::new(padding).map_err(text_error)?;
        let marks = bundled.marks();
        Ok(Self { words: Arc::new(Words::Bundled(Box::new(bundled))), marks })
    }

    /// How many ids an encoding has, marks and padding included.
    pub fn limit(&self) -> usize {
        self.marks.limit
    }

    /// One encoding; what does not fit is cut off and reported. A break in the prompt counts as
    /// a space here.
    ///
    /// # Errors
    ///
    /// [`Error::Text`], which only a damaged vocabulary causes.
    pub fn encode(&self, prompt: &Prompt) -> Result<Encoding, Error> {
        let tokens = self.tokens(prompt.parts())?;
        let room = self.room();
        let cut = tokens.get(room).map(|&(_, _, start)| prompt.text_from(start));
        let kept = &tokens[..room.min(tokens.len())];
        Ok(Encoding { cut, ..self.marked(kept) })
    }

    /// As many encodings as the prompt needs, at least one; a break begins a new one. Their
    /// embeddings are joined along the tokens.
    ///
    /// # Errors
    ///
    /// [`Error::Text`], which only a damaged vocabulary causes.
    pub fn encode_long(&self, prompt: &Prompt) -> Result<Vec<Encoding>, Error> {
        let mut encodings = Vec::new();
        for parts in prompt.parts().split(|part| *part == Part::Break) {
            let tokens = self.tokens(parts)?;
            if tokens.is_empty() {
                encodings.push(self.marked(&[]));
            }
            encodings.extend(tokens.chunks(self.room()).map(|tokens| self.marked(tokens)));
        }
        Ok(encodings)
    }

    /// How many tokens of text an encoding holds.
    fn room(&self) -> usize {
        self.marks.limit - 2
    }

    fn tokens(&self, parts: &[Part]) -> Result<Vec<Token>, Error> {
        let mut tokens = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            if let Part::Text { text, weight } = part {
                let found = self.words.tokens(text).map_err(text_error)?;
                tokens.extend(found.into_iter().map(|(id, at)| (id, *weight, (index, at))));
            }
        }
        Ok(tokens)
    }

    /// Puts marks and padding around tokens, which must fit.
    fn marked(&self, tokens: &[Token]) -> Encoding {
        let Marks { begin, end, pad, limit } = self.marks;
        let mut ids = vec![begin];
        let mut weights = vec![1.0];
        ids.extend(tokens.iter().map(|token| token.0));
        weights.extend(tokens.iter().map(|token| token.1));
        ids.push(end);
        ids.resize(limit, pad);
        weights.resize(limit, 1.0);
        Encoding { ids, weights, cut: None }
    }
}

impl Words {
    /// Ids without marks, and the byte of `text` at which each one's text begins.
    fn tokens(&self, text: &str) -> tokenizers::Result<Vec<(u32, usize)>> {
        match self {
            Self::Bundled(bundled) => bundled.tokens(text),
            Self::Files(tokenizer, _) => {
                let encoding = tokenizer.encode(text, false)?;
                let starts = encoding.get_offsets().iter().map(|&(start, _)| start);
                Ok(encoding.get_ids().iter().copied().zip(starts).collect())
            }
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err asks for")]
fn text_error(error: tokenizers::Error) -> Error {
    Error::Text { fault: error.to_string() }
}

#[cfg(test)]
mod tests;
