//! What can keep layers from getting their bits.

use std::path::PathBuf;

/// A fault, as one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that is not there, or may not be read.
    #[error("cannot read {}: {reason}; give a YAML file of {holds}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        holds: &'static str,
        /// Why.
        reason: std::io::Error,
    },
    /// A file that holds something else.
    #[error("{}, line {line}: {fault}; give a YAML file of {holds}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// What is wrong with it.
        fault: String,
        /// What it should hold.
        holds: &'static str,
    },
    /// A layer that is in one file only.
    #[error("{}: no {what} of layer `{layer}`, which {} has; {advice}", path.display(), other.display())]
    Missing {
        /// The file in which it is missing.
        path: PathBuf,
        /// What is missing.
        what: &'static str,
        /// The layer.
        layer: String,
        /// The file that has it.
        other: PathBuf,
        /// What to do.
        advice: &'static str,
    },
    /// A number outside its range.
    #[error("{0}")]
    Request(String),
}
