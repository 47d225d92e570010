//! Second moments: how much the channels of rows go together.

use crate::{
    Cpu,
    isa::{Isa, LANES, SimdOp},
};

/// Channels that are looked at together. A layer of more has one block after the other.
pub const BLOCK: usize = 128;

/// Channels of a block that a thread takes at a time.
const STRIP: usize = LANES;

/// Channels whose sums are in registers together.
const TOGETHER: usize = 4;

/// Rows that stay in the nearest cache while all channels of a strip meet all others.
const NEAR: usize = 64;

/// Adds `Σ xᵢ xⱼ` over some rows to what is there, for channels `i ≤ j` of each block. What is below the diagonal
/// may hold some of the sums, too.
#[derive(Debug)]
pub struct SecondMoments<'a> {
    /// `[rows, channels]`.
    pub rows: &'a [f32],
    /// Elements of a row.
    pub channels: usize,
    /// `[blocks, BLOCK, BLOCK]`; beyond the channels nothing is touched.
    pub sums: &'a mut [f32],
}

impl SecondMoments<'_> {
    /// Add all rows. Sums are the same for any number of threads and on every instruction set.
    ///
    /// # Panics
    ///
    /// Panics if there are no sums for all channels, or part of a row is missing.
    pub fn run(self, cpu: &Cpu) {
        let Self { rows, channels, sums } = self;
        if channels == 0 {
            return;
        }
        assert!(rows.len().is_multiple_of(channels), "whole rows");
        assert_eq!(sums.len(), channels.div_ceil(BLOCK) * BLOCK * BLOCK, "sums of all blocks");
        cpu.threads.run_pieces(sums, STRIP * BLOCK, |index, sums| {
            let first = index * STRIP / BLOCK * BLOCK;
            let block = first..channels.min(first + BLOCK);
            let strip = index * STRIP % BLOCK;
            if strip < block.len() {
                for rows in rows.chunks(NEAR * channels) {
                    let near = Strip { rows, channels, first, width: block.len(), strip };
                    cpu.eval(Add { near, sums });
                }
            }
        });
    }
}

/// Some channels that meet themselves and those after them.
#[derive(Clone, Copy)]
struct Strip<'a> {
    rows: &'a [f32],
    channels: usize,
    /// Where the block begins, and its channels.
    first: usize,
    width: usize,
    /// Where the strip begins in the block.
    strip: usize,
}

struct Add<'a, 's> {
    near: Strip<'a>,
    sums: &'s mut [f32],
}

impl SimdOp for Add<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { near: Strip { rows, channels, first, width, strip }, sums } = self;
        for (some, sums) in sums.chunks_exact_mut(TOGETHER * BLOCK).enumerate() {
            let upper = strip + some * TOGETHER;
            for at in (strip..width).step_by(LANES) {
                let lanes = LANES.min(width - at);
                let mut sum = [isa.splat(0.0); TOGETHER];
                for row in rows.chunks_exact(channels) {
                    let block = &row[first..first + width];
                    let x = isa.read(&block[at..at + lanes]);
                    for (i, sum) in sum.iter_mut().enumerate() {
                        // The last strip may be narrower.
                        let own = block.get(upper + i).copied().unwrap_or(0.0);
                        *sum = isa.fma(isa.splat(own), x, *sum);
                    }
                }
                for (sum, to) in sum.into_iter().zip(sums.chunks_exact_mut(BLOCK)) {
                    let to: &mut [f32; LANES] =
                        (&mut to[at..at + LANES]).try_into().expect("a block has whole vectors");
                    isa.store(isa.add(isa.load(to), sum), to);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, SecondMoments};
    use crate::{Cpu, isa::Level, threads::Threads};

    #[test]
    fn sums_are_those_of_the_definition_on_every_instruction_set() {
        let (count, channels) = (70, 150);
        let rows: Vec<f32> =
            (0..count * channels).map(|i| ((i * 37 % 101) as f32 - 50.0) / 40.0).collect();
        let found = |level| {
            let cpu = Cpu::new(Threads::new(2), level).unwrap();
            let mut sums = vec![0.0; 2 * BLOCK * BLOCK];
            for rows in [&rows[..30 * channels], &rows[30 * channels..]] {
                SecondMoments { rows, channels, sums: &mut sums }.run(&cpu);
            }
            sums
        };
        let first = found(Level::Scalar);
        for (i, j) in (0..channels).flat_map(|i| (i..channels).map(move |j| (i, j))) {
            if i / BLOCK == j / BLOCK {
                let products =
                    rows.chunks_exact(channels).map(|row| f64::from(row[i]) * f64::from(row[j]));
                let sum = first[(i * BLOCK) + j % BLOCK];
                assert!((f64::from(sum) - products.sum::<f64>()).abs() < 1e-3, "{i} {j}: {sum}");
            }
        }
        for level in Level::available() {
            assert!(found(level) == first, "{level}");
        }
    }
}
