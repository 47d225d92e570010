//! Codes → what they stand for, where a layer of real weights reads what rounding left of its input.

use kernels::quantize::Range8;

use super::Run;
use crate::arena::Lease;
use crate::program::Dequantize;

impl Run<'_> {
    pub(super) fn dequantize(&self, op: &Dequantize, lease: &mut Lease<'_>) {
        let (codes, ranges): (&[u8], &[Range8]) = (lease.read(op.codes), lease.read(op.ranges));
        let numbers: &mut [f32] = lease.write(op.output);
        let (padded, rows) = (op.channels.next_multiple_of(4), op.rows_per_range);
        let numbers = (numbers, rows * op.channels);
        self.cpu.threads.run_pieces(numbers.0, numbers.1, |group, numbers| {
            let range = ranges[group];
            let codes = codes[group * rows * padded..].chunks_exact(padded);
            for (numbers, codes) in numbers.chunks_exact_mut(op.channels).zip(codes) {
                for (x, &code) in numbers.iter_mut().zip(codes) {
                    *x = range.scale * (f32::from(code) - range.zero);
                }
            }
        });
    }
}
