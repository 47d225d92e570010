//! A compiled computation: operations over numbered buffers, whose places in one arena are known before it runs.
//!
//! A program holds no pointers and no numbers, so any [`Device`](crate::device::Device) can run it: buffers are ranges
//! of an arena that the device allocates, weights are slots that it fills in its own way.

mod bands;
mod compile;
mod layout;
mod op;
mod residency;

pub use bands::{Band, Bands};
pub(crate) use layout::{Lifetime, place};
pub use op::{
    Attention, Conv, Convert, Dequantize, Geometry, GroupNorm, LayerNorm, Matmul, Normed, Op,
    Operand, Quantize, Results, Simple, SimpleKind, Unary,
};

pub use residency::Residency;

use std::panic::Location;

use crate::graph::NodeId;
use crate::{Shape, Weight};

/// What a program's layout depends on beside its recording and plan: the device that will run it.
pub trait Target {
    /// Working memory that `op` needs, in bytes.
    fn scratch(&self, op: &Op, program: &Program) -> usize;

    /// Bytes that a weight of a program keeps in memory once it is prepared.
    fn resident_bytes(&self, slot: &Slot) -> usize;

    /// Whether a weight can be brought from its file whenever it is due, without any work on it.
    fn can_flow(&self, slot: &Slot) -> bool;

    /// Bytes that rows of a band may take so that they stay near the cores; zero where bands do not help.
    fn near_bytes(&self) -> usize;
}

/// Number of a buffer in its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BufferId(pub(crate) usize);

/// Number of a weight slot in its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlotId(pub(crate) usize);

/// How the numbers of a buffer are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Four bytes each.
    F32,
    /// The upper two bytes of an `f32`.
    Bf16,
    /// Codes of one byte.
    U8,
    /// What codes stand for: two `f32`, the unit and the code of zero.
    Range,
    /// Unsigned 32-bit indices.
    Index,
    /// Working memory of one operation.
    Bytes,
}

/// A range of the arena.
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    /// How its numbers are stored.
    pub format: Format,
    /// Number of elements.
    pub elements: usize,
    /// Where it begins, in bytes; a multiple of 64.
    pub offset: usize,
    /// Whether it holds the rows of one band only; see [`Bands`].
    pub is_band: bool,
}

/// What a weight has to become before a kernel can read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Packing {
    /// Plain `f32` numbers (biases, norms).
    Vector,
    /// Rows at the checkpoint's own width, read by index (embeddings).
    Rows,
    /// Panels for matrix multiplication.
    Panels(PanelOrder, Numbers),
}

/// What the numbers of packed panels are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Numbers {
    /// Real.
    Float(crate::Precision),
    /// Whole, with their units.
    Integer(crate::scheme::WeightScheme),
}

/// Order of the output channels in packed panels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PanelOrder {
    /// As in the checkpoint.
    Natural,
    /// Hidden and gate rows of a GEGLU projection by turns of sixteen, so that one tile holds both.
    Gated,
}

/// A weight and the form in which the program needs it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// The weight.
    pub weight: Weight,
    /// What it has to become.
    pub packing: Packing,
}

/// One operation, where it came from and what it costs.
#[derive(Clone, Debug)]
pub struct Step {
    /// The operation.
    pub op: Op,
    /// The layer it computes, or the kind of operation where it has no weight.
    pub name: String,
    /// The recorded node whose value it produces.
    pub node: NodeId,
    /// The line of model code that asked for it.
    pub at: &'static Location<'static>,
}

/// A value that is written before or read after a run.
#[derive(Clone, Debug)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub buffer: BufferId,
    /// Its shape.
    pub shape: Shape,
    /// For indices, the number that they must stay below.
    pub limit: Option<usize>,
    /// Whether it keeps its place, and so its contents, from run to run.
    pub kept: bool,
}

/// A compiled computation.
#[derive(Clone, Debug)]
pub struct Program {
    /// Operations in the order in which they run.
    pub steps: Vec<Step>,
    /// Those that run band by band, in order.
    pub bands: Vec<Bands>,
    /// All buffers.
    pub buffers: Vec<Buffer>,
    /// All weights.
    pub slots: Vec<Slot>,
    /// What must be written before a run.
    pub inputs: Vec<Port>,
    /// What can be read after a run.
    pub outputs: Vec<Port>,
    /// Size of the arena in bytes.
    pub arena: usize,
}

impl Program {
    /// The buffer of this number.
    pub fn buffer(&self, id: BufferId) -> &Buffer {
        &self.buffers[id.0]
    }

    /// The weight slot of this number.
    pub fn slot(&self, id: SlotId) -> &Slot {
        &self.slots[id.0]
    }

    /// The place of an input among all inputs.
    pub fn input(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|port| port.name == name)
    }

    /// Multiply-adds of one run, counted from the shapes, attention included.
    pub fn multiply_adds(&self) -> u64 {
        self.steps.iter().map(|step| step.op.multiply_adds()).sum()
    }
}

impl Buffer {
    /// Its size in bytes.
    pub fn bytes(&self) -> usize {
        self.elements * self.format.width()
    }
}

impl Format {
    /// Bytes of one element.
    pub fn width(self) -> usize {
        match self {
            Self::Range => 8,
            Self::F32 | Self::Index => 4,
            Self::Bf16 => 2,
            Self::U8 | Self::Bytes => 1,
        }
    }
}
