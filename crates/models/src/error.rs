//! What can be wrong with a model.

/// Why a model cannot be built from its configuration and its checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A parameter that the configuration calls for is not there.
    #[error(
        "{place}: the tensor {name} is missing; the file is incomplete or belongs to another config.json"
    )]
    Missing {
        /// Where it was looked for.
        place: String,
        /// Its name in the checkpoint.
        name: String,
    },
    /// A parameter has other sizes than the configuration calls for.
    #[error(
        "{place}: the tensor {name} has shape {found:?}, but the configuration asks for {expected:?}; the file belongs to another config.json"
    )]
    Shape {
        /// Where it was found.
        place: String,
        /// Its name in the checkpoint.
        name: String,
        /// Sizes that follow from the configuration.
        expected: Vec<usize>,
        /// Sizes in the checkpoint.
        found: Vec<usize>,
    },
    /// An option is set to something that is not implemented.
    #[error("{model}: {field} is {value}, which is not implemented; {advice}")]
    Option {
        /// Class of the model.
        model: &'static str,
        /// Name of the option in `config.json`.
        field: String,
        /// Its value there.
        value: String,
        /// What is implemented, or what to do.
        advice: String,
    },
    /// An option cannot be read, or contradicts another one.
    #[error("{model}: {field} in config.json {fault}; correct config.json")]
    Config {
        /// Class of the model.
        model: &'static str,
        /// Name of the option in `config.json`.
        field: String,
        /// What is wrong with it.
        fault: String,
    },
    /// More of a text encoder's last layers are to be left out than it has.
    #[error(
        "{asked} layers of the text encoder are to be skipped, but it has only {layers}; skip fewer"
    )]
    Skip {
        /// How many are to be left out.
        asked: usize,
        /// How many there are.
        layers: usize,
    },
    /// The checkpoint cannot be read.
    #[error(transparent)]
    File(#[from] tensor::file::Error),
}
