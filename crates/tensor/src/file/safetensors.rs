//! One safetensors file, mapped: eight bytes of header length, a JSON header that names each
//! tensor's format, shape and place, then the numbers.
//!
//! A file comes from anywhere, so nothing in the header is believed before it is checked: its
//! length is bounded, each tensor's bytes must be exactly those its shape asks for, and together
//! they must cover the rest of the file without gap or overlap. After that every range is inside
//! the map, and reading a tensor cannot fail.

use super::{Error, view::Bytes};
use ::safetensors::tensor::{Dtype, Metadata, SafeTensorError, TensorInfo};
use os::Mapping;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The longest header that is read, bytes. A model of ten thousand tensors needs about one
/// million; the format itself allows a hundred million.
const MAX_HEADER: u64 = 100_000_000;

/// Bytes in front of the header.
const PREFIX: usize = 8;

/// What is wrong with the content of a file, as a clause that ends with what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Fewer or more bytes than the header promises.
    #[error("its header promises {expected} bytes and it has {actual}; download it again")]
    Length {
        /// Bytes that there should be.
        expected: u64,
        /// Bytes that there are.
        actual: u64,
    },
    /// A header length that no model needs.
    #[error("its header would be {length} bytes long; it is damaged or not a safetensors file")]
    AbsurdHeader {
        /// The stated length.
        length: u64,
    },
    /// A header that is not what the format says.
    #[error("its header is damaged ({detail}); download it again")]
    Header {
        /// What the parser met.
        detail: String,
    },
    /// Another kind of file that is often met under the same name.
    #[error("it is {kind}")]
    Foreign {
        /// The kind, and what to do about it.
        kind: &'static str,
    },
    /// A pickle or an archive that holds one.
    #[error("it is a pickle; convert it to safetensors")]
    Pickle,
}

/// A checked header: where each tensor's bytes are.
#[derive(Debug)]
pub struct Header {
    /// Free text about the file, such as a trainer's notes.
    pub metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, Place>,
}

/// Where one tensor lies.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// Bytes in the file.
    pub(super) range: Range<usize>,
}

impl Header {
    /// Reads and checks the header of `file`, the bytes of a whole file.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when any part of it is unsound. Never panics, whatever the bytes.
    pub fn parse(file: &[u8]) -> Result<Self, Fault> {
        if let Some(fault) = foreign(file) {
            return Err(fault);
        }
        let actual = file.len() as u64;
        let (prefix, rest) = file
            .split_first_chunk::<PREFIX>()
            .ok_or(Fault::Length { expected: PREFIX as u64, actual })?;
        let length = u64::from_le_bytes(*prefix);
        if length > MAX_HEADER {
            return Err(Fault::AbsurdHeader { length });
        }
        let header = rest
            .get(..length as usize)
            .ok_or(Fault::Length { expected: PREFIX as u64 + length, actual })?;
        let (notes, metadata) = parse_json(header)?;
        let start = PREFIX + header.len();
        let expected = (start as u64).saturating_add(metadata.data_len() as u64);
        if expected != actual {
            return Err(Fault::Length { expected, actual });
        }
        let place = |info: &TensorInfo| Place {
            dtype: info.dtype,
            shape: info.shape.clone(),
            range: start + info.data_offsets.0..start + info.data_offsets.1,
        };
        let tensors = metadata.tensors().into_iter().map(|(name, info)| (name, place(info)));
        Ok(Self { metadata: notes, tensors: tensors.collect() })
    }

    /// The tensors' names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }
}

/// A safetensors file, mapped and checked.
#[derive(Debug)]
pub struct SafeTensors {
    path: PathBuf,
    mapping: Arc<Mapping>,
    header: Header,
}

impl SafeTensors {
    /// Maps the file at `path` and checks its header.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] if the system cannot, [`Error::Pickle`] and [`Error::Unsound`] if the
    /// content is something else or damaged.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let read = |error| Error::Read { path: path.to_owned(), error };
        let mapping = Mapping::open(path).map_err(read)?;
        let header = Header::parse(mapping.as_slice()).map_err(|fault| {
            let path = path.to_owned();
            if fault == Fault::Pickle || named_as_pickle(&path) {
                Error::Pickle { path }
            } else {
                Error::Unsound { path, fault }
            }
        })?;
        Ok(Self { path: path.to_owned(), mapping: Arc::new(mapping), header })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Free text about the file, such as a trainer's notes.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.header.metadata
    }

    /// The tensors' names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.header.names()
    }

    pub(super) fn place(&self, name: &str) -> Option<&Place> {
        self.header.tensors.get(name)
    }

    /// Bytes of the whole file.
    pub(super) fn len(&self) -> usize {
        self.mapping.as_slice().len()
    }

    /// The length and the header, with what fills it up.
    pub(super) fn header_bytes(&self) -> &[u8] {
        let first = self.header.tensors.values().map(|place| place.range.start).min();
        &self.mapping.as_slice()[..first.unwrap_or(self.len())]
    }

    /// The tensors in the order in which they lie.
    pub(super) fn in_order(&self) -> Vec<(&str, &Place)> {
        let mut all: Vec<_> = self.header.tensors.iter().map(|(n, p)| (n.as_str(), p)).collect();
        all.sort_by_key(|(_, place)| (place.range.start, place.range.end));
        all
    }

    /// The bytes of `place`, which must be one of this file's.
    pub(super) fn slice(&self, place: &Place) -> &[u8] {
        &self.mapping.as_slice()[place.range.clone()]
    }

    /// Take the pages of `bytes`, a part of the file, out of this process's memory.
    pub(super) fn drop_pages(&self, bytes: &[u8]) {
        let start = bytes.as_ptr().addr().saturating_sub(self.mapping.as_slice().as_ptr().addr());
        self.mapping.drop_pages(start..start + bytes.len());
    }

    /// A window on `place`, which must be one of this file's.
    pub(super) fn bytes(&self, place: &Place) -> Bytes {
        Bytes::Mapped { mapping: Arc::clone(&self.mapping), range: place.range.clone() }
    }
}

/// Whether a file's ending is one that `PyTorch` gives to pickles.
pub(super) fn named_as_pickle(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    ["bin", "ckpt", "pt", "pth", "pkl"].iter().any(|pickle| ending.eq_ignore_ascii_case(pickle))
}

/// Knows the files that people most often have in place of a safetensors file.
fn foreign(file: &[u8]) -> Option<Fault> {
    let foreign = |kind| Some(Fault::Foreign { kind });
    match file {
        [b'P', b'K', 3, 4, ..] | [0x80, 2..=5, ..] if !plausible(file) => Some(Fault::Pickle),
        [b'G', b'G', b'U', b'F', ..] => foreign("a GGUF file; use the original safetensors"),
        [b'v', b'e', b'r', b's', b'i', b'o', b'n', b' ', b'h', ..] => {
            foreign("a git-lfs pointer; fetch the content with `git lfs pull`")
        }
        [b'<', b'!' | b'h', ..] if !plausible(file) => {
            foreign("a web page; download the file itself, not the page about it")
        }
        _ => None,
    }
}

/// Whether the first bytes can be those of a safetensors file: a length that fits and a brace.
fn plausible(file: &[u8]) -> bool {
    file.first_chunk::<PREFIX>().is_some_and(|prefix| u64::from_le_bytes(*prefix) <= MAX_HEADER)
        && file.get(PREFIX) == Some(&b'{')
}

/// Free text, and the tensors with sizes and offsets checked against each other.
fn parse_json(header: &[u8]) -> Result<(BTreeMap<String, String>, Metadata), Fault> {
    let damaged = |detail: String| Fault::Header { detail };
    let text = std::str::from_utf8(header).map_err(|error| damaged(error.to_string()))?;
    let mut json = serde_json::Deserializer::from_str(text);
    let (notes, mut tensors) =
        json.deserialize_map(Entries).map_err(|error| damaged(error.to_string()))?;
    json.end().map_err(|error| damaged(error.to_string()))?;
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    let metadata = Metadata::new(None, tensors).map_err(|error| damaged(explain(&error)))?;
    Ok((notes, metadata))
}

/// The faults of offsets in plainer words than the parser's.
fn explain(error: &SafeTensorError) -> String {
    match error {
        SafeTensorError::InvalidOffset(name) => {
            format!("tensor `{name}` overlaps another or leaves a gap")
        }
        SafeTensorError::TensorInvalidInfo => {
            "a tensor's bytes do not agree with its shape".to_owned()
        }
        SafeTensorError::ValidationOverflow => "a tensor's size overflows".to_owned(),
        other => other.to_string(),
    }
}

/// Collects a header's entries in order, so that a name given twice is seen: a map would keep
/// the last one silently.
struct Entries;

type Listed = (BTreeMap<String, String>, Vec<(String, TensorInfo)>);

impl<'de> Visitor<'de> for Entries {
    type Value = Listed;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Listed, A::Error> {
        let mut notes = BTreeMap::new();
        let mut tensors: Vec<(String, TensorInfo)> = Vec::new();
        let mut seen: HashMap<String, ()> = HashMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if seen.insert(name.clone(), ()).is_some() {
                return Err(A::Error::custom(format!("`{name}` appears twice")));
            }
            if name == "__metadata__" {
                notes = map.next_value()?;
            } else {
                tensors.push((name, map.next_value()?));
            }
        }
        Ok((notes, tensors))
    }
}
