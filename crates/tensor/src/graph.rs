//! Model code writes arithmetic on [`Value`]s; each operation is recorded in a [`Graph`], to be fused and laid out in
//! memory as a whole before anything runs.
//!
//! Recording cannot fail, so `forward` functions read like the formulas they implement. A shape that does not fit is
//! reported once, by [`Graph::finish`], with the line of model code that asked for it.
//!
//! ```
//! use tensor::Graph;
//!
//! let graph = Graph::new();
//! let x = graph.input("x", [2, 320]);
//! let y = x.silu() + x;
//! let recording = graph.finish(&[("y", y)]).unwrap();
//! assert_eq!(recording.output("y").unwrap().1[..], [2, 320]);
//! ```

pub(crate) mod fuse;
mod record;
mod value;

use std::cell::RefCell;
use std::fmt;
use std::panic::Location;

pub use fuse::{Output, Part};
pub use record::{Activation, Kind, Mask, Node, NodeId, Padding, Recording};
pub use value::Value;

use crate::Shape;

/// A computation that is being recorded.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: RefCell<Vec<Node>>,
    error: RefCell<Option<ShapeError>>,
}

/// Shapes that an operation cannot combine, and the line of model code that asked it to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShapeError {
    op: &'static str,
    shapes: Vec<Vec<usize>>,
    at: &'static Location<'static>,
}

impl Graph {
    /// A graph without operations.
    pub fn new() -> Self {
        Self::default()
    }

    /// Declare an input of real numbers.
    #[track_caller]
    pub fn input(&self, name: &str, shape: impl Into<Shape>) -> Value<'_> {
        self.record(Kind::Input { name: name.into() }, &[], shape.into())
    }

    /// Declare an input of indices (token ids, positions).
    #[track_caller]
    pub fn index(&self, name: &str, shape: impl Into<Shape>) -> Value<'_> {
        self.record(Kind::Index { name: name.into() }, &[], shape.into())
    }

    /// End the recording and name its results.
    ///
    /// # Errors
    ///
    /// The first operation that was given shapes it cannot combine.
    pub fn finish(&self, outputs: &[(&str, Value<'_>)]) -> Result<Recording, ShapeError> {
        if let Some(error) = &*self.error.borrow() {
            return Err(error.clone());
        }
        let outputs = outputs.iter().map(|(name, v)| ((*name).to_owned(), v.node())).collect();
        Ok(Recording::new(self.nodes.borrow().clone(), outputs))
    }

    #[track_caller]
    fn record(&self, kind: Kind, inputs: &[NodeId], shape: Shape) -> Value<'_> {
        let mut nodes = self.nodes.borrow_mut();
        let at = Location::caller();
        nodes.push(Node { kind, inputs: inputs.to_vec(), shape, at });
        Value::new(self, NodeId(nodes.len() - 1))
    }

    #[track_caller]
    fn fail(&self, op: &'static str, shapes: &[&[usize]]) {
        let shapes = shapes.iter().map(|s| s.to_vec()).collect();
        let at = Location::caller();
        self.error.borrow_mut().get_or_insert(ShapeError { op, shapes, at });
    }
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of ", self.op)?;
        for (i, shape) in self.shapes.iter().enumerate() {
            write!(f, "{}{shape:?}", if i == 0 { "" } else { " and " })?;
        }
        write!(f, " at {}", self.at)
    }
}

impl std::error::Error for ShapeError {}
