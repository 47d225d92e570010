//! What can go wrong between a recording and its results.

use crate::{ShapeError, file};

/// A fault in preparing or running a program.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of weights.
    #[error(transparent)]
    File(#[from] file::Error),
    /// Shapes that do not fit.
    #[error("{0}; the configuration does not describe these weights")]
    Shape(#[from] ShapeError),
    /// A parameter that is not a number.
    #[error(
        "weight `{name}` holds NaN or infinity; the file is damaged or was saved from a diverged training, use another"
    )]
    NonFiniteWeight {
        /// Name of the tensor.
        name: String,
    },
    /// A weight of a packed file in a form that is of no use here.
    #[error(
        "weight `{name}` was packed as {found}, which its plan does not ask for; the file is damaged, pack the model again"
    )]
    Form {
        /// Name of the tensor.
        name: String,
        /// What it is.
        found: String,
    },
    /// A weight that a packed file leaves out.
    #[error(
        "weight `{name}` was left out when this model was packed, since its usual run does not read it; use the original model"
    )]
    Absent {
        /// Name of the tensor.
        name: String,
    },
    /// A result that is not a number.
    #[error(
        "`{layer}` is the first layer that produced NaN or infinity; try --precision f32, or check the model's weights"
    )]
    NonFinite {
        /// Name of the layer.
        layer: String,
    },
    /// The cancel flag was set.
    #[error("cancelled")]
    Cancelled,
    /// Memory that the system does not give.
    #[error("cannot allocate {bytes} bytes: {error}; choose a smaller picture or batch")]
    Memory {
        /// How much was asked for.
        bytes: usize,
        /// What the system said.
        error: std::io::Error,
    },
    /// A value written to or read from a session that does not fit its program.
    #[error("`{name}` {fault}")]
    Port {
        /// The name that was used.
        name: String,
        /// What does not fit.
        fault: String,
    },
}
