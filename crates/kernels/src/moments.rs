//! Second moments: how much the channels of rows go together, and the taps of a convolution.

mod taps;

pub use taps::TapMoments;

use std::ops::Range;

use crate::{
    Cpu,
    isa::{Isa, LANES, SimdOp},
};

/// Channels of a block whose sums follow each other.
const STRIP: usize = LANES;

/// Channels whose sums are in registers together.
const TOGETHER: usize = 4;

/// Rows that stay in the nearest cache while all channels of a strip meet all others.
const NEAR: usize = 64;

/// Channels in blocks of one size, the last of which may be smaller. Those of a block are looked at together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    channels: usize,
    size: usize,
}

impl Blocks {
    /// As few blocks as there can be of at most so many channels, a multiple of 32.
    ///
    /// # Panics
    ///
    /// Panics if blocks would have no channels.
    pub fn new(channels: usize, most: usize) -> Self {
        let count = channels.div_ceil(most).max(1);
        Self { channels, size: channels.div_ceil(count).max(1).next_multiple_of(2 * STRIP) }
    }

    /// Of all blocks.
    pub fn channels(self) -> usize {
        self.channels
    }

    /// Channels of a block.
    pub fn size(self) -> usize {
        self.size
    }

    /// How many there are.
    pub fn count(self) -> usize {
        self.channels.div_ceil(self.size)
    }

    /// Sums of a block: those of channels `i ≤ j`, and some of the others.
    pub fn sums(self) -> usize {
        self.size / STRIP / 2 * self.piece()
    }

    /// Where the sum of channels `i ≤ j` of a block lies.
    pub fn place(self, i: usize, j: usize) -> usize {
        let (strip, last) = (i / STRIP, self.size / STRIP - 1);
        let (first, second) = (strip.min(last - strip), strip > last - strip);
        let before = if second { self.piece() - STRIP * self.width(strip) } else { 0 };
        first * self.piece() + before + i % STRIP * self.width(strip) + j - strip * STRIP
    }

    /// Sums of the first strip and the last, of the second and the last but one, …: all are as many. A thread takes two at a
    /// time.
    fn piece(self) -> usize {
        STRIP * (self.size + STRIP)
    }

    /// Channels that those of a strip meet: themselves and all after them.
    fn width(self, strip: usize) -> usize {
        self.size - strip * STRIP
    }
}

/// Adds `Σ xᵢ xⱼ` over some rows to what is there, for channels `i ≤ j` of each block.
#[derive(Debug)]
pub struct SecondMoments<'a> {
    /// `[rows, channels]`.
    pub rows: &'a [f32],
    /// Of the channels.
    pub blocks: Blocks,
    /// Those of all blocks, in the order of [`Blocks::place`]; those beyond the channels stay as they are.
    pub sums: &'a mut [f32],
}

impl SecondMoments<'_> {
    /// Add all rows. Sums are the same for any number of threads and on every instruction set.
    ///
    /// # Panics
    ///
    /// Panics if there are no sums for all channels, or part of a row is missing.
    pub fn run(self, cpu: &Cpu) {
        let Self { rows, blocks, sums } = self;
        let Blocks { channels, size } = blocks;
        if channels == 0 {
            return;
        }
        assert!(rows.len().is_multiple_of(channels), "whole rows");
        assert_eq!(sums.len(), blocks.count() * blocks.sums(), "sums of all blocks");
        let strips = size / STRIP;
        cpu.threads.run_pieces(sums, blocks.piece(), |index, sums| {
            let (block, strip) = (index / (strips / 2), index % (strips / 2));
            let (upper, lower) = sums.split_at_mut(STRIP * blocks.width(strip));
            for (strip, sums) in [(strip, upper), (strips - 1 - strip, lower)] {
                let first = block * size + strip * STRIP;
                let met = first..channels.min((block + 1) * size);
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
    use super::{Blocks, SecondMoments};
    use crate::{Cpu, isa::Level, threads::Threads};

    #[test]
    fn blocks_are_alike() {
        let of = |channels, most| {
            let blocks = Blocks::new(channels, most);
            (blocks.count(), blocks.size())
        };
        assert_eq!([of(1280, 1024), of(1280, 256), of(1025, 1024)], [(2, 640), (5, 256), (2, 544)]);
        assert_eq!([of(4, 256), of(256, 256), of(0, 256)], [(1, 32), (1, 256), (0, 32)]);
    }

    #[test]
    fn places_are_different_and_fill_a_block() {
        for size in [32, 96, 256] {
            let blocks = Blocks::new(size, 256);
            let pairs = (0..size).flat_map(|i| (i..size).map(move |j| blocks.place(i, j)));
            let places: std::collections::BTreeSet<usize> = pairs.collect();
            assert_eq!(places.len(), size * (size + 1) / 2);
            assert!(*places.last().unwrap() < blocks.sums());
        }
    }

    #[test]
    fn sums_are_those_of_the_definition_on_every_instruction_set() {
        let (count, channels) = (70, 300);
        let rows: Vec<f32> =
            (0..count * channels).map(|i| ((i * 37 % 101) as f32 - 50.0) / 40.0).collect();
        for blocks in [Blocks::new(channels, 256), Blocks::new(channels, 512)] {
            let found = |level| {
                let cpu = Cpu::new(Threads::new(2), level).unwrap();
                let mut sums = vec![0.0; blocks.count() * blocks.sums()];
                for rows in [&rows[..30 * channels], &rows[30 * channels..]] {
                    SecondMoments { rows, blocks, sums: &mut sums }.run(&cpu);
                }
                sums
            };
            let (first, size) = (found(Level::Scalar), blocks.size());
            for (i, j) in (0..channels).flat_map(|i| (i..channels).map(move |j| (i, j))) {
                if i / size == j / size {
                    let products = rows
                        .chunks_exact(channels)
                        .map(|row| f64::from(row[i]) * f64::from(row[j]));
                    let sum = first[i / size * blocks.sums() + blocks.place(i % size, j % size)];
                    assert!(
                        (f64::from(sum) - products.sum::<f64>()).abs() < 1e-3,
                        "{i} {j}: {sum}"
                    );
                }
            }
            for level in Level::available() {
                assert!(found(level) == first, "{level}");
            }
        }
    }
}
