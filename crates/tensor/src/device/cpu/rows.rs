//! Operations that move or combine `f32` numbers.

use kernels::activation::{Affine, Combine, Extent, Operation};
use kernels::convert::Convert;
use kernels::format::{Activations, Source};
use kernels::resample::Nearest;
use kernels::threads::Output;

use super::Run;
use crate::arena::Lease;
use crate::program::{Simple, SimpleKind, SlotId};

impl Run<'_> {
    pub(super) fn simple(&self, op: &Simple, lease: &mut Lease<'_>) {
        let out: &mut [f32] = lease.write(op.output);
        match op.kind {
            SimpleKind::Embed { table } => {
                self.embed(table, lease.read(op.inputs[0]), out);
                return;
            }
            SimpleKind::Repeat { row } => {
                let row = self.weights.vector(self.program.slot(row));
                out.chunks_exact_mut(row.len()).for_each(|to| to.copy_from_slice(row));
                return;
            }
            _ => {}
        }
        let x: &[f32] = lease.read(op.inputs[0]);
        let flat = Extent::flat(x.len());
        match op.kind {
            SimpleKind::Add => {
                self.combine(Operation::Add, (x, lease.read(op.inputs[1]), 1), flat, out);
            }
            SimpleKind::Mul => {
                self.combine(Operation::Mul, (x, lease.read(op.inputs[1]), 1), flat, out);
            }
            SimpleKind::Affine { scale, offset } => {
                let output = Output::f32(out, x.len());
                Affine { input: x, extent: flat, scale, offset, output }.run(self.cpu);
            }
            SimpleKind::AddShift { rows, channels } => {
                let extent =
                    Extent { rows: x.len() / channels, columns: channels, stride: channels };
                self.combine(Operation::Add, (x, lease.read(op.inputs[1]), rows), extent, out);
            }
            SimpleKind::AddTable { table, period } => {
                let mut row = vec![0.0; period];
                self.weights.rows(self.program.slot(table)).widen(0, &mut row);
                let extent = Extent { rows: x.len() / period, columns: period, stride: period };
                self.combine(Operation::Add, (x, &row, extent.rows), extent, out);
            }
            SimpleKind::ScaleChannels { factors } => {
                let row = self.weights.vector(self.program.slot(factors));
                let columns = row.len();
                let extent = Extent { rows: x.len() / columns, columns, stride: columns };
                self.combine(Operation::Mul, (x, row, extent.rows), extent, out);
            }
            SimpleKind::Geglu { channels } => {
                let extent =
                    Extent { rows: out.len() / channels, columns: channels, stride: 2 * channels };
                let output = Output::f32(out, channels);
                let (left, right) = (x, &x[channels..]);
                let (operation, right_stride) = (Operation::Geglu, 2 * channels);
                Combine { operation, left, extent, right, right_stride, repeat: 1, output }
                    .run(self.cpu);
            }
            SimpleKind::Concat { widths } => {
                self.concat(widths, [x, lease.read(op.inputs[1])], out);
            }
            SimpleKind::Slice { width, start, count } => {
                self.copy(&x[start..], (out.len() / count, count, width), Output::f32(out, count));
            }
            SimpleKind::Upsample { from, to, channels } => {
                let batch = x.len() / (from[0] * from[1] * channels);
                let (input, output) = (Activations::F32(x), Output::f32(out, channels));
                Nearest { input, batch, size: from, channels, out_size: to, output }.run(self.cpu);
            }
            SimpleKind::SelectToken { tokens, channels } => {
                let which: &[u32] = lease.read(op.inputs[1]);
                for (b, (to, &token)) in out.chunks_exact_mut(channels).zip(which).enumerate() {
                    let at = (b * tokens + token as usize) * channels;
                    to.copy_from_slice(&x[at..at + channels]);
                }
            }
            SimpleKind::Embed { .. } | SimpleKind::Repeat { .. } => {}
        }
    }

    /// `x op y`, where `repeat` rows of `x` share a row of `y`.
    fn combine(
        &self,
        operation: Operation,
        (left, right, repeat): (&[f32], &[f32], usize),
        extent: Extent,
        out: &mut [f32],
    ) {
        let (right_stride, output) = (extent.columns, Output::f32(out, extent.columns));
        Combine { operation, left, extent, right, right_stride, repeat, output }.run(self.cpu);
    }

    fn concat(&self, widths: [usize; 2], parts: [&[f32]; 2], out: &mut [f32]) {
        let (width, rows) = (widths[0] + widths[1], out.len() / (widths[0] + widths[1]));
        self.copy(parts[0], (rows, widths[0], widths[0]), Output::f32(out, width));
        let right = &mut out[widths[0]..];
        self.copy(parts[1], (rows, widths[1], widths[1]), Output::f32(right, width));
    }

    fn copy(
        &self,
        from: &[f32],
        (rows, columns, stride): (usize, usize, usize),
        output: Output<'_>,
    ) {
        let extent = Extent { rows, columns, stride };
        Convert { input: Source::F32(from), extent, output }.run(self.cpu);
    }

    fn embed(&self, table: SlotId, ids: &[u32], out: &mut [f32]) {
        let table = self.weights.rows(self.program.slot(table));
        let channels = out.len() / ids.len();
        for (to, &id) in out.chunks_exact_mut(channels).zip(ids) {
            table.widen(id as usize * channels, to);
        }
    }
}
