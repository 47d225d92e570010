//! A walk over the names of a checkpoint: names → weights.
//!
//! ```
//! use models::Params;
//! use tensor::file::{Checkpoint, TensorView};
//!
//! let view = TensorView::from_f32(&[2, 3], &[0.0; 6]);
//! let checkpoint = Checkpoint::from_views("memory", [("conv_in.weight".to_owned(), view)]);
//! let params = Params::new(&checkpoint);
//! let weight = params.at("conv_in").weight("weight", &[2, 3])?;
//! assert_eq!(weight.name(), "conv_in.weight");
//! assert!(params.unread().is_empty());
//! # Ok::<(), models::Error>(())
//! ```

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};

use tensor::Weight;
use tensor::file::Checkpoint;

use crate::Error;

/// A place in the tree of a checkpoint's names. It remembers which of them were asked for, at any place.
#[derive(Clone)]
pub struct Params {
    source: Checkpoint,
    /// Empty at the root, else it ends with a dot.
    prefix: String,
    read: Arc<Mutex<BTreeSet<String>>>,
}

impl Params {
    /// The root of a checkpoint.
    pub fn new(source: &Checkpoint) -> Self {
        Self { source: source.clone(), prefix: String::new(), read: Arc::default() }
    }

    /// The place `name` below this one. A name may have several parts: `to_out.0`.
    pub fn at(&self, name: impl Display) -> Self {
        Self { prefix: format!("{}{name}.", self.prefix), ..self.clone() }
    }

    /// Whether there is a tensor of this name below this place.
    pub fn contains(&self, name: &str) -> bool {
        self.source.contains(&self.full(name))
    }

    /// The tensor `name` below this place, as a weight of this shape.
    ///
    /// Sizes of one at the end are disregarded, so that a 1×1 convolution and a linear layer can be stored as either.
    ///
    /// # Errors
    ///
    /// If there is no such tensor or its shape is another.
    pub fn weight(&self, name: &str, shape: &[usize]) -> Result<Weight, Error> {
        let name = self.full(name);
        let place = || self.source.place().to_owned();
        let Some(found) = self.source.shape(&name) else {
            return Err(Error::Missing { place: place(), name });
        };
        if significant(found) != significant(shape) {
            let (expected, found) = (shape.to_vec(), found.to_vec());
            return Err(Error::Shape { place: place(), name, expected, found });
        }
        let weight = Weight::new(&self.source, &name, shape);
        self.read.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
        Ok(weight)
    }

    /// Names in the checkpoint that no layer asked for, in order. Position tables that some versions of the reference
    /// implementation saved by mistake are not among them.
    pub fn unread(&self) -> Vec<String> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let names = self.source.names().filter(|name| !name.ends_with(".position_ids"));
        // A weight may lie in parts that are called `weight:0-64`.
        let whole = |name: &str| name.split(':').next().unwrap_or(name).to_owned();
        names.filter(|name| !read.contains(&whole(name))).map(str::to_owned).collect()
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

/// A shape without the ones at its end.
fn significant(shape: &[usize]) -> &[usize] {
    let ones = shape.iter().rev().take_while(|&&size| size == 1).count();
    &shape[..shape.len() - ones]
}

#[cfg(test)]
mod tests {
    use tensor::file::{Checkpoint, TensorView};

    use super::Params;

    fn params() -> Params {
        let views = [("a.w", vec![2, 3, 1, 1]), ("a.position_ids", vec![1]), ("b.w", vec![4])];
        let views = views.map(|(name, shape)| {
            let zeros = vec![0.0; shape.iter().product()];
            (name.to_owned(), TensorView::from_f32(&shape, &zeros))
        });
        Params::new(&Checkpoint::from_views("memory", views))
    }

    #[test]
    fn pointwise_and_linear_shapes_are_one() {
        assert_eq!(params().at("a").weight("w", &[2, 3]).unwrap().shape(), [2, 3]);
        assert_eq!(params().weight("a.w", &[2, 3, 1, 1]).unwrap().shape(), [2, 3, 1, 1]);
    }

    #[test]
    fn faults_are_named() {
        let message = params().at("a").at("c").weight("w", &[1]).unwrap_err().to_string();
        assert!(message.starts_with("memory: the tensor a.c.w is missing"), "{message}");
        let message = params().weight("b.w", &[5]).unwrap_err().to_string();
        assert!(message.contains("has shape [4], but the configuration asks for [5]"), "{message}");
    }

    #[test]
    fn unread_names_are_reported() {
        let params = params();
        params.at("a").weight("w", &[2, 3]).unwrap();
        assert_eq!(params.unread(), ["b.w"]);
    }
}
