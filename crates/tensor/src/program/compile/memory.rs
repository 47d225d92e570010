//! Working memory, bands of rows and the layout of the arena, once all operations are known.

use super::Compiler;
use crate::program::op::Op;
use crate::program::{BufferId, Format, Lifetime, Program, Target, bands, place};

impl Compiler<'_> {
    pub(super) fn finish(mut self, target: &dyn Target) -> Program {
        let lives = self.lifetimes();
        bands::find(&mut self.program, &lives, target);
        for i in 0..self.program.steps.len() {
            let bytes = self.scratch(i, target);
            if bytes > 0 {
                let buffer = self.buffer(Format::Bytes, bytes);
                self.program.steps[i].op.set_scratch(buffer);
            }
        }
        let (offsets, arena) = place(&self.lifetimes());
        for (buffer, offset) in self.program.buffers.iter_mut().zip(offsets) {
            buffer.offset = offset;
        }
        self.program.arena = arena;
        self.program
    }

    /// Working memory of a step, for all that it is run on.
    pub(super) fn scratch(&self, step: usize, target: &dyn Target) -> usize {
        let op = &self.program.steps[step].op;
        let bands = self.program.bands.iter().find(|bands| bands.steps.contains(&step));
        let parts: Vec<Op> = match bands {
            Some(bands) => bands.iter().map(|band| band.of(op)).collect(),
            None => vec![op.clone()],
        };
        parts.iter().map(|op| target.scratch(op, &self.program)).max().unwrap_or(0)
    }

    pub(super) fn lifetimes(&self) -> Vec<Lifetime> {
        let program = &self.program;
        let mut lives: Vec<Lifetime> = program
            .buffers
            .iter()
            .map(|b| Lifetime { bytes: b.bytes(), from: usize::MAX, to: 0 })
            .collect();
        let mut touch = |buffer: BufferId, step: usize| {
            let life = &mut lives[buffer.0];
            life.from = life.from.min(step);
            life.to = life.to.max(step);
        };
        for port in &program.inputs {
            touch(port.buffer, 0);
            if port.kept {
                touch(port.buffer, program.steps.len());
            }
        }
        for (i, step) in program.steps.iter().enumerate() {
            let touched = step.op.operands().into_iter().chain(step.op.results());
            touched.chain(step.op.scratch()).for_each(|b| touch(b, i));
        }
        for port in &program.outputs {
            touch(port.buffer, program.steps.len());
        }
        // The first band of a late step runs before the last band of an early one.
        for bands in &program.bands {
            for step in &program.steps[bands.steps.clone()] {
                for id in step.op.operands().into_iter().chain(step.op.results()) {
                    if !program.buffer(id).is_band {
                        touch(id, bands.steps.start);
                        touch(id, bands.steps.end - 1);
                    }
                }
            }
        }
        lives
    }
}
