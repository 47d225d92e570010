//! A parameter of a model: which tensor of which checkpoint, and nothing about how it is computed with.
//!
//! Layers hold [`Weight`]s and never see their numbers. A device turns a weight into what its kernels read (packed
//! panels, vectors, device memory) when a program first needs it, and borrows that for one operation at a time.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::file::{Checkpoint, Dtype, Error, TensorView};
use crate::packed::PackedWeight;

/// A handle to one tensor of a checkpoint. Cloning it is cheap, and clones are the same weight.
#[derive(Clone)]
pub struct Weight(Arc<Inner>);

struct Inner {
    /// Name of the tensor in the checkpoint, such as `down_blocks.0.resnets.0.conv1.weight`.
    name: String,
    shape: Vec<usize>,
    source: Checkpoint,
}

impl Weight {
    /// The tensor `name` of `source`, whose shape the caller has checked to be `shape`.
    pub fn new(source: &Checkpoint, name: &str, shape: &[usize]) -> Self {
        Self(Arc::new(Inner { name: name.into(), shape: shape.into(), source: source.clone() }))
    }

    /// Name of the tensor in its checkpoint.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Name of the layer it belongs to: the tensor's name without its last part.
    pub fn layer(&self) -> &str {
        self.0.name.rsplit_once('.').map_or(&self.0.name, |(layer, _)| layer)
    }

    /// Its sizes, as stored in the checkpoint (outputs first).
    pub fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.0.shape.iter().product()
    }

    /// The number format of the checkpoint; `None` where the tensor cannot be read, which [`Weight::view`] explains.
    pub fn dtype(&self) -> Option<Dtype> {
        self.0.source.dtype(&self.0.name)
    }

    /// The weight as kernels read it, where the checkpoint holds it in that form.
    pub fn packed(&self) -> Option<&PackedWeight> {
        self.0.source.packed(&self.0.name)
    }

    /// The numbers, as the checkpoint stores them.
    ///
    /// # Errors
    ///
    /// If the checkpoint cannot deliver the tensor.
    pub fn view(&self) -> Result<TensorView, Error> {
        self.0.source.tensor(&self.0.name)
    }
}

impl fmt::Debug for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.name(), self.shape())
    }
}

impl PartialEq for Weight {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Weight {}

impl Hash for Weight {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}
