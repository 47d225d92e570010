//! What can keep a prompt from becoming a picture.

use std::path::PathBuf;

/// A fault, as one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine, or a file of weights.
    #[error(transparent)]
    Engine(#[from] tensor::Error),
    /// A file of weights.
    #[error(transparent)]
    File(#[from] tensor::file::Error),
    /// A model that does not fit its configuration.
    #[error(transparent)]
    Model(#[from] models::Error),
    /// A scheduler configuration.
    #[error(transparent)]
    Schedule(#[from] crate::schedule::Error),
    /// A tokenizer or a prompt.
    #[error(transparent)]
    Prompt(#[from] crate::prompt::Error),
    /// A single-file checkpoint.
    #[error(transparent)]
    SingleFile(#[from] models::single_file::Error),
    /// A LoRA.
    #[error(transparent)]
    Lora(#[from] models::lora::Error),
    /// A request that does not fit into the memory that may be used.
    #[error("at least {} MB of memory are needed", least.div_ceil(1_000_000))]
    Room {
        /// Bytes that weights and values take at least.
        least: usize,
    },
    /// Something that should be a model and is not there.
    #[error("no model at {}; give a diffusers folder, a .safetensors checkpoint or a .mixdq file", path.display())]
    NoModel {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A file of a model folder that cannot be used.
    #[error("cannot use {}: {fault}", path.display())]
    Folder {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: String,
    },
    /// A pipeline of another kind.
    #[error(
        "{class} is not in this version; use a StableDiffusionPipeline, StableDiffusionXLPipeline or \
         LatentConsistencyModelPipeline"
    )]
    Pipeline {
        /// The class that the folder names.
        class: String,
    },
    /// Output that could not be written.
    #[error("cannot write the packed model: {0}; free some space or choose another place")]
    Write(std::io::Error),
    /// A request that cannot be drawn.
    #[error("{0}")]
    Request(String),
}
