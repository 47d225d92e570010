//! Files of weights: what a model is read from, as named tensors that look the same however they
//! are stored.
//!
//! Models whose weights are packed for kernels lie in files of their own kind, see [`packed`].
//!
//! A [`Checkpoint`] answers `name → TensorView`. Behind it may stand one safetensors file, several
//! shards, another layout whose names and shapes are translated ([`Recipe`]), or any of these with
//! low-rank corrections merged in as each tensor is read ([`Delta`]). Files are mapped, never
//! copied as a whole: a tensor that needs no change is a window into the page cache.
//!
//! ```
//! use tensor::file::{Checkpoint, Recipe, TensorView};
//!
//! let fused = TensorView::from_f32(&[6, 1], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
//! let stored = Checkpoint::from_views("example", [("in_proj_weight".to_owned(), fused)]);
//! let split = stored.renamed([("k.weight".to_owned(), Recipe::from("in_proj_weight").rows(2..4))])?;
//! assert_eq!(split.tensor("k.weight")?.to_f32(), [3.0, 4.0]);
//! # Ok::<(), tensor::file::Error>(())
//! ```

pub mod checkpoint;
pub mod delta;
pub mod folder;
pub mod packed;
pub mod recipe;
pub mod safetensors;
pub mod view;

pub use checkpoint::Checkpoint;
pub use delta::Delta;
pub use recipe::Recipe;
pub use safetensors::{Fault, SafeTensors};
pub use view::{Dtype, TensorView};

use std::path::PathBuf;

#[cfg(target_endian = "big")]
compile_error!("tensors in files are little-endian and are read in place");

/// What can be wrong with files of weights. Each is one line that ends with what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file or folder could not be read at all.
    #[error("cannot read {}: {error}; check the path and its permissions", path.display())]
    Read {
        /// What was to be read.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The content of a safetensors file is unsound.
    #[error("cannot use {}: {fault}", path.display())]
    Unsound {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: Fault,
    },
    /// A pickle: reading one can run any code that its author put there.
    #[error(
        "{} is a pickle, which may run code when read; convert it to safetensors or download the \
         .safetensors file of the same model",
        path.display()
    )]
    Pickle {
        /// The file.
        path: PathBuf,
    },
    /// A folder without weights that can be read.
    #[error(
        "{} holds no weights; expected diffusion_pytorch_model.safetensors or model.safetensors \
         (download the safetensors variant of this model)",
        folder.display()
    )]
    NoWeights {
        /// The folder.
        folder: PathBuf,
    },
    /// Several files of weights and none has a usual name.
    #[error(
        "{} holds several files of weights ({}); name the one to use model.safetensors",
        folder.display(), files.join(", ")
    )]
    Ambiguous {
        /// The folder.
        folder: PathBuf,
        /// The files' names.
        files: Vec<String>,
    },
    /// An index of shards that cannot be used.
    #[error("cannot use the index {}: {fault}; download the folder again", path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// What is wrong with it.
        fault: String,
    },
    /// A tensor that is not there.
    #[error("{place} has no tensor `{name}`; check that it is the model it is taken for")]
    Missing {
        /// Where it was looked for.
        place: String,
        /// The tensor.
        name: String,
    },
    /// A number format that is not computed with.
    #[error(
        "tensor `{name}` of {place} is stored as {dtype}; convert it to F32, F16 or BF16 first"
    )]
    Dtype {
        /// Where the tensor is.
        place: String,
        /// The tensor.
        name: String,
        /// The format's name in the file.
        dtype: String,
    },
    /// A packed pipeline that cannot be used.
    #[error("cannot use {}: {fault}", path.display())]
    PackedFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, as a clause that ends with what to do.
        fault: String,
    },
    /// A weight that is packed for kernels and cannot be changed any more.
    #[error(
        "`{name}` of {place} is packed already; merge LoRAs and change formats when the original \
         model is packed"
    )]
    Packed {
        /// Where the weight is.
        place: String,
        /// The weight.
        name: String,
    },
    /// A correction that holds NaN or infinity.
    #[error("the correction of `{name}` of {place} holds NaN or infinity; use another copy of it")]
    NotFinite {
        /// Where the tensor is.
        place: String,
        /// The tensor.
        name: String,
    },
    /// A tensor whose shape does not allow what is asked of it.
    #[error(
        "tensor `{name}` of {place} has shape {shape:?}, which {obstacle}; check that the file \
         belongs to this model"
    )]
    Shape {
        /// Where the tensor is.
        place: String,
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// What cannot be done, as a clause: "has no rows 0..320".
        obstacle: String,
    },
}

#[cfg(test)]
mod tests;
