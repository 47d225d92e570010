//! Second moments: how much the channels of rows go together.

use std::ops::Range;

use crate::{
    Cpu,
    isa::{Isa, LANES, SimdOp},
};

/// Channels that are looked at together. A layer of more has one block after the other.
pub const BLOCK: usize = 256;

/// Channels of a block whose sums follow each other.
const STRIP: usize = LANES;

/// Strips of a block.
const STRIPS: usize = BLOCK / STRIP;

/// Sums of the first strip and the last, of the second and the last but one, …: all are as many. A thread takes two at a
/// time.
const PIECE: usize = STRIP * (BLOCK + STRIP);

/// Channels whose sums are in registers together.
const TOGETHER: usize = 4;

/// Rows that stay in the nearest cache while all channels of a strip meet all others.
const NEAR: usize = 64;

/// Sums of a block: those of channels `i ≤ j`, and some of the others.
pub const SUMS: usize = STRIPS / 2 * PIECE;

/// Where the sum of channels `i ≤ j` of a block lies.
pub fn place(i: usize, j: usize) -> usize {
    let strip = i / STRIP;
    let before = if strip < STRIPS / 2 { 0 } else { PIECE - STRIP * width(strip) };
    strip.min(STRIPS - 1 - strip) * PIECE + before + i % STRIP * width(strip) + j - strip * STRIP
}

/// Channels that those of a strip meet: themselves and all after them.
fn width(strip: usize) -> usize {
    BLOCK - strip * STRIP
}

/// Adds `Σ xᵢ xⱼ` over some rows to what is there, for channels `i ≤ j` of each block.
#[derive(Debug)]
pub struct SecondMoments<'a> {
    /// `[rows, channels]`.
    pub rows: &'a [f32],
    /// Elements of a row.
    pub channels: usize,
    /// `[blocks, SUMS]`, in the order of [`place`]; those beyond the channels stay as they are.
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
        assert_eq!(sums.len(), channels.div_ceil(BLOCK) * SUMS, "sums of all blocks");
        cpu.threads.run_pieces(sums, PIECE, |index, sums| {
            let (block, strip) = (index * PIECE / SUMS, index % (STRIPS / 2));
            let (upper, lower) = sums.split_at_mut(STRIP * width(strip));
            for (strip, sums) in [(strip, upper), (STRIPS - 1 - strip, lower)] {
                let first = block * BLOCK + strip * STRIP;
                let met = first..channels.min((block + 1) * BLOCK);
                if !met.is_empty() {
                    for rows in rows.chunks(NEAR * channels) {
                        cpu.eval(Add { rows, channels, met: met.clone(), sums });
                    }
                }
            }
        });
    }
}

/// Lets the channels of a strip, with which `met` begins, meet themselves and all after them.
struct Add<'a> {
    rows: &'a [f32],
    channels: usize,
    met: Range<usize>,
    /// `[STRIP, …]`.
    sums: &'a mut [f32],
}

impl SimdOp for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { rows, channels, met, sums } = self;
        let width = sums.len() / STRIP;
        for (some, sums) in sums.chunks_exact_mut(TOGETHER * width).enumerate() {
            for at in (0..met.len()).step_by(LANES) {
                let lanes = LANES.min(met.len() - at);
                let mut sum = [isa.splat(0.0); TOGETHER];
                for row in rows.chunks_exact(channels) {
                    let row = &row[met.clone()];
                    let x = isa.read(&row[at..at + lanes]);
                    for (i, sum) in sum.iter_mut().enumerate() {
                        // The last strip may be narrower.
                        let own = row.get(some * TOGETHER + i).copied().unwrap_or(0.0);
                        *sum = isa.fma(isa.splat(own), x, *sum);
                    }
                }
                for (sum, to) in sum.into_iter().zip(sums.chunks_exact_mut(width)) {
                    let to = to[at..].first_chunk_mut().expect("widths are whole vectors");
                    isa.store(isa.add(isa.load(to), sum), to);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, SUMS, SecondMoments, place};
    use crate::{Cpu, isa::Level, threads::Threads};

    #[test]
    fn places_are_different_and_fill_a_block() {
        let pairs = (0..BLOCK).flat_map(|i| (i..BLOCK).map(move |j| place(i, j)));
        let places: std::collections::BTreeSet<usize> = pairs.collect();
        assert_eq!(places.len(), BLOCK * (BLOCK + 1) / 2);
        assert!(places.last().unwrap() < &SUMS);
    }

    #[test]
    fn sums_are_those_of_the_definition_on_every_instruction_set() {
        let (count, channels) = (70, 300);
        let rows: Vec<f32> =
            (0..count * channels).map(|i| ((i * 37 % 101) as f32 - 50.0) / 40.0).collect();
        let found = |level| {
            let cpu = Cpu::new(Threads::new(2), level).unwrap();
            let mut sums = vec![0.0; 2 * SUMS];
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
                let sum = first[i / BLOCK * SUMS + place(i % BLOCK, j % BLOCK)];
                assert!((f64::from(sum) - products.sum::<f64>()).abs() < 1e-3, "{i} {j}: {sum}");
            }
        }
        for level in Level::available() {
            assert!(found(level) == first, "{level}");
        }
    }
}
