//! Runs of operations that treat each row alone, done for some rows at a time.
//!
//! A linear layer, a layer norm or a rounding of a token needs no other token. Where such operations follow each
//! other, doing all of them for one band of rows and then for the next keeps what passes between them in the caches,
//! and memory for a single band is enough for it. Results are the same: no row looks at another.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Buffer, BufferId, Format, Geometry, Lifetime, Op, Program, SimpleKind, Step, Target};

/// Bands have a whole multiple of this many rows, but for the last.
const GRAIN: usize = 32;

/// Rows below which a band leaves too little for threads to share.
const FEWEST: usize = 128;

/// Steps that are done band by band.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bands {
    /// The steps.
    pub steps: Range<usize>,
    /// All rows.
    pub rows: usize,
    /// Rows of a band; the last may have fewer.
    pub height: usize,
}

/// One band.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Band {
    /// Its rows.
    pub rows: Range<usize>,
    /// All rows, and those of a full band.
    of: [usize; 2],
}

impl Bands {
    /// The bands, in order.
    pub fn iter(&self) -> impl Iterator<Item = Band> + use<> {
        let (rows, height) = (self.rows, self.height);
        let band = move |start| Band { rows: start..rows.min(start + height), of: [rows, height] };
        (0..rows).step_by(height).map(band)
    }
}

impl Band {
    /// The bytes of a buffer that belong to these rows, counted from its beginning.
    pub(crate) fn bytes(&self, buffer: &Buffer) -> Range<usize> {
        let [rows, height] = self.of;
        if buffer.format == Format::Bytes {
            // Working memory has no rows.
            return 0..buffer.bytes();
        }
        if buffer.is_band {
            return 0..buffer.bytes() / height * self.rows.len();
        }
        let row = buffer.bytes() / rows;
        self.rows.start * row..self.rows.end * row
    }

    /// The operation on these rows alone.
    pub(crate) fn of(&self, op: &Op) -> Op {
        let ([rows, _], count) = (self.of, self.rows.len());
        let mut op = op.clone();
        match &mut op {
            Op::Matmul(m) => m.rows = count,
            Op::LayerNorm(n) => n.rows = count,
            Op::Quantize(q) => q.rows = count,
            Op::Unary(u) => u.elements = u.elements / rows * count,
            _ => {}
        }
        op
    }
}

/// Find all runs that are worth it, and note which buffers are needed for one band only.
pub(super) fn find(program: &mut Program, lives: &[Lifetime], target: &dyn Target) {
    let mut start = 0;
    while start < program.steps.len() {
        let Some(rows) = rows(&program.steps[start].op) else {
            start += 1;
            continue;
        };
        let more = program.steps[start..].iter();
        let length = more.take_while(|step| follows(program, step, rows)).count();
        let run = Run { program, lives, steps: start..start + length, rows };
        if let Some(height) = run.height(target) {
            let own: Vec<BufferId> = run.own().collect();
            for BufferId(id) in own {
                let buffer = &mut program.buffers[id];
                buffer.elements = buffer.elements / rows * height;
                buffer.is_band = true;
            }
            program.bands.push(Bands { steps: start..start + length, rows, height });
        }
        start += length;
    }
}

/// The rows of an operation that treats each of them alone.
fn rows(op: &Op) -> Option<usize> {
    match op {
        Op::Matmul(m) if matches!(m.geometry, Geometry::Rows) && m.shift.is_none() => Some(m.rows),
        Op::LayerNorm(n) => Some(n.rows),
        Op::Quantize(q) if q.rows_per_range == 1 => Some(q.rows),
        _ => None,
    }
}

/// Whether a step can go on with a run of this many rows. What is done element by element fits any rows that cut its
/// buffers evenly.
fn follows(program: &Program, step: &Step, count: usize) -> bool {
    let elementwise = match &step.op {
        Op::Convert(_) | Op::Unary(_) => true,
        Op::Simple(simple) => matches!(simple.kind, SimpleKind::Add | SimpleKind::Mul),
        _ => false,
    };
    let even = |id: BufferId| program.buffer(id).elements.is_multiple_of(count);
    rows(&step.op) == Some(count)
        || elementwise && step.op.operands().into_iter().chain(step.op.results()).all(even)
}

/// Steps that could be done in bands.
struct Run<'a> {
    program: &'a Program,
    lives: &'a [Lifetime],
    steps: Range<usize>,
    rows: usize,
}

impl Run<'_> {
    /// All buffers that it touches, each once, but for working memory.
    fn buffers(&self) -> impl Iterator<Item = BufferId> {
        let steps = self.program.steps[self.steps.clone()].iter();
        let all = steps.flat_map(|step| step.op.operands().into_iter().chain(step.op.results()));
        let once: BTreeMap<usize, BufferId> = all.map(|id| (id.0, id)).collect();
        once.into_values()
    }

    /// The buffers that nothing else touches.
    fn own(&self) -> impl Iterator<Item = BufferId> {
        self.buffers().filter(|id| {
            let life = &self.lives[id.0];
            let is_input = self.program.inputs.iter().any(|port| port.buffer == *id);
            self.steps.start <= life.from && life.to < self.steps.end && !is_input
        })
    }

    /// Bytes of all rows of some buffers.
    fn bytes(&self, buffers: impl Iterator<Item = BufferId>) -> usize {
        buffers.map(|id| self.program.buffer(id).bytes()).sum()
    }

    /// How many rows a band should have; `None` where bands cost more than they save.
    fn height(&self, target: &dyn Target) -> Option<usize> {
        let near = target.near_bytes();
        let count = self.bytes(self.buffers()).checked_div(near)? + 1;
        let height = self.rows.div_ceil(count).next_multiple_of(GRAIN).max(FEWEST);
        let count = self.rows.div_ceil(height);
        // What is saved is written and read elsewhere than in memory; what is paid is weights read again.
        let weights: usize = self.program.steps[self.steps.clone()]
            .iter()
            .filter_map(|step| match &step.op {
                Op::Matmul(m) => Some(target.resident_bytes(self.program.slot(m.weight))),
                _ => None,
            })
            .sum();
        let saved = 2 * self.bytes(self.own());
        (count > 1 && (count - 1) * weights < saved).then_some(height)
    }
}
