//! The small files of a model, by their path in the layout of diffusers, wherever they lie.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tensor::file::packed::PackedFile;

/// Files longer than this are none of a model's small ones, bytes.
const MAX_FILE: u64 = 64 << 20;

/// A folder of them; a handle, cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    place: Place,
    /// Empty at the root, else it ends with a slash.
    prefix: String,
}

#[derive(Clone, Debug)]
enum Place {
    Folder(PathBuf),
    Packed(Arc<PackedFile>),
}

impl Files {
    /// Those of a folder.
    pub(crate) fn folder(path: &Path) -> Self {
        Self { place: Place::Folder(path.to_owned()), prefix: String::new() }
    }

    /// Those inside a packed file.
    pub(crate) fn packed(file: &Arc<PackedFile>) -> Self {
        Self { place: Place::Packed(Arc::clone(file)), prefix: String::new() }
    }

    /// The folder `name` below this one.
    pub(crate) fn at(&self, name: &str) -> Self {
        Self { prefix: format!("{}{name}/", self.prefix), ..self.clone() }
    }

    /// What messages call the file `name`; with an empty name, the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        let place = match &self.place {
            Place::Folder(path) => path.as_path(),
            Place::Packed(file) => file.path(),
        };
        let name = format!("{}{name}", self.prefix);
        place.join(name).components().collect()
    }

    /// The bytes of a file; `None` if there is none of this name.
    pub(crate) fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match &self.place {
            Place::Folder(_) => {
                let path = self.path(name);
                if !path.is_file() {
                    return Ok(None);
                }
                if std::fs::metadata(&path)?.len() > MAX_FILE {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too long"));
                }
                std::fs::read(path).map(Some)
            }
            Place::Packed(file) => {
                Ok(file.file(&format!("{}{name}", self.prefix)).map(<[u8]>::to_vec))
            }
        }
    }
}
