//! Turns the bytes of a fuzzer into files.

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// A folder that is removed at the end of a run.
pub struct Folder(tempfile::TempDir);

impl Folder {
    /// A new one, empty.
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder can be made"))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes one file in it.
    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, bytes).expect("a temporary file can be written");
        path
    }
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

/// A sound safetensors file whose tensors have the lines of `text` as names. A digit at a line's
/// front says how many dimensions the tensor has; all are of size one.
pub fn file_of_names(text: &str) -> Vec<u8> {
    let mut header = String::from("{");
    let mut count = 0;
    let mut seen = std::collections::HashSet::new();
    for line in text.lines() {
        let dimensions = line.bytes().next().map_or(0, |byte| usize::from(byte % 5));
        let name: String =
            line.chars().skip(1).filter(|c| !"\"\\".contains(*c) && *c >= ' ').collect();
        if name == "__metadata__" || !seen.insert(name.clone()) {
            continue;
        }
        let shape = vec!["1"; dimensions].join(",");
        let (start, end) = (4 * count, 4 * count + 4);
        let comma = if count > 0 { "," } else { "" };
        let _ = write!(
            header,
            r#"{comma}"{name}":{{"dtype":"F32","shape":[{shape}],"data_offsets":[{start},{end}]}}"#
        );
        count += 1;
    }
    header.push('}');
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.resize(file.len() + 4 * count, 0);
    file
}
