//! Types, recorded graphs, memory plans, devices and files.

mod arena;
pub mod device;
mod error;
pub mod file;
pub mod graph;
pub mod moments;
pub mod packed;
mod plan;
pub mod program;
pub mod quantizer;
pub mod scheme;
mod session;
mod shape;
mod span;
mod weight;

pub use arena::{Arena, Lease};
pub use device::{Control, Cpu, CpuWeights, Device, Reference};
pub use error::Error;
pub use graph::{Graph, Recording, ShapeError, Value};
pub use plan::{Halves, LayerFormat, Plan, Precision, Scores};
pub use program::Program;
pub use scheme::Scheme;
pub use session::{Held, Session};
pub use shape::Shape;
pub use span::Span;
pub use weight::Weight;
