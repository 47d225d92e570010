//! How the channels that a layer reads go together, and what follows for rounding its weights.
//!
//! A layer's error is `Σ (w − ŵ)ᵢ (w − ŵ)ⱼ Hᵢⱼ`, where `H = Σ x xᵀ` over the rows that it reads. Rounding each weight to
//! the nearest code makes the diagonal's part small alone. Rounded one after the other, each weight can make up for the errors of
//! those before it (Frantar et al. 2022, GPTQ). That takes no byte and no time in what is packed: codes are others, units the same.
//!
//! `H` is kept in blocks along its diagonal, so that those of all layers of a model are found and kept together.

use std::ops::Range;

pub use kernels::moments::BLOCK;
use kernels::moments::SecondMoments;

use crate::Cpu;

/// What is added to the diagonal, of its mean: numbers that were seen are few.
const DAMPING: f64 = 0.01;

/// `Σ x xᵀ` of the rows that a layer reads, for each 128 of its channels.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    channels: usize,
    /// `[blocks, 128, 128]`, of which the upper triangles count.
    sums: Vec<f32>,
}

impl Moments {
    /// Those of no rows.
    pub fn new(channels: usize) -> Self {
        let blocks = channels.div_ceil(BLOCK);
        Self { channels, sums: vec![0.0; blocks * BLOCK * BLOCK] }
    }

    /// Those that [`Moments::sums`] were; `None` if there are more or fewer of them than channels need.
    pub fn from_sums(channels: usize, sums: Vec<f32>) -> Option<Self> {
        let blocks = channels.div_ceil(BLOCK);
        (sums.len() == blocks * BLOCK * BLOCK).then_some(Self { channels, sums })
    }

    /// Channels of a row.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// `[blocks, 128, 128]`.
    pub fn sums(&self) -> &[f32] {
        &self.sums
    }

    /// Add rows of [`Moments::channels`] numbers.
    pub fn add(&mut self, rows: &[f32], cpu: &Cpu) {
        let Self { channels, sums } = self;
        SecondMoments { rows, channels: *channels, sums }.run(cpu.kernels());
    }

    /// Those of some channels; `None` where they do not begin with a block.
    pub(crate) fn part(&self, channels: &Range<usize>) -> Option<Self> {
        if !channels.start.is_multiple_of(BLOCK) || channels.end > self.channels {
            return None;
        }
        let blocks = channels.start / BLOCK..channels.end.div_ceil(BLOCK);
        let sums = &self.sums[blocks.start * BLOCK * BLOCK..blocks.end * BLOCK * BLOCK];
        Some(Self { channels: channels.len(), sums: sums.to_vec() })
    }

    /// What follows for weights.
    pub(crate) fn shares(&self) -> Shares {
        let blocks = self.sums.chunks_exact(BLOCK * BLOCK).enumerate();
        let block = |(block, sums): (usize, &[f32])| {
            let width = BLOCK.min(self.channels - block * BLOCK);
            shares(width, &|i, j| f64::from(sums[i.min(j) * BLOCK + i.max(j)]))
        };
        Shares { blocks: blocks.map(block).collect() }
    }
}

/// How much of each weight's error those after it make up for.
#[derive(Clone, Debug)]
pub(crate) struct Shares {
    /// Of each 128 channels `[128, 128]`, zero where neither goes with the other; `None` where nothing was seen.
    blocks: Vec<Option<Vec<f32>>>,
}

impl Shares {
    /// Those of a block.
    pub(crate) fn of(&self, block: usize) -> Option<&[f32]> {
        self.blocks.get(block)?.as_deref()
    }
}

/// Row `i` of the upper Cholesky factor of `H⁻¹`, divided by its diagonal, says what share of the error of weight `i` is taken
/// from each weight after it.
///
/// With `H = R Rᵀ` for an upper triangular `R`, that factor is `R⁻¹`.
fn shares(width: usize, h: &dyn Fn(usize, usize) -> f64) -> Option<Vec<f32>> {
    let mean = (0..width).map(|i| h(i, i)).sum::<f64>() / width.max(1) as f64;
    if !(mean.is_normal() && mean > 0.0) {
        return None;
    }
    // Columns of R from the last to the first; `r[j]` has those elements of column j that are not below the diagonal.
    let mut r: Vec<Vec<f64>> = vec![Vec::new(); width];
    for j in (0..width).rev() {
        let element = |i: usize, pivot: Option<f64>| {
            let known: f64 = r[j + 1..].iter().map(|column| column[i] * column[j]).sum();
            let damped = if i == j { h(i, j) + DAMPING * mean } else { h(i, j) };
            pivot.map_or_else(|| (damped - known).sqrt(), |pivot| (damped - known) / pivot)
        };
        let pivot = element(j, None);
        let mut column: Vec<f64> = (0..j).map(|i| element(i, Some(pivot))).collect();
        column.push(pivot);
        r[j] = column;
    }
    let mut shares = vec![0.0; BLOCK * BLOCK];
    // Columns of R⁻¹ from the diagonal upwards.
    for j in 0..width {
        let mut inverse = vec![0.0; j + 1];
        inverse[j] = 1.0 / r[j][j];
        for i in (0..j).rev() {
            let known: f64 = (i + 1..=j).map(|k| r[k][i] * inverse[k]).sum();
            inverse[i] = -known / r[i][i];
            shares[i * BLOCK + j] = -known as f32;
        }
    }
    shares.iter().all(|x| x.is_finite()).then_some(shares)
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, Moments, shares};
    use crate::Cpu;

    #[test]
    fn shares_of_two_channels_are_those_of_least_squares() {
        // With two channels, an error of the first is best made up for by −h₀₁ / h₁₁ of the second.
        let h = |i: usize, j: usize| [[2.0, 1.5], [1.5, 3.0]][i][j];
        let found = shares(2, &h).unwrap()[1];
        let damped = 3.0 + 0.01 * 2.5;
        assert!((f64::from(found) + 1.5 / damped).abs() < 1e-6, "{found}");
    }

    #[test]
    fn channels_that_say_nothing_share_nothing() {
        assert!(Moments::new(200).shares().of(0).is_none());
        let mut one = Moments::new(3);
        one.add(&[1.0, 0.0, 2.0, 1.0, 0.0, -2.0], &Cpu::detect(1));
        let found = one.shares();
        assert!(found.of(0).unwrap().iter().all(|share| *share == 0.0));
    }

    #[test]
    fn parts_begin_with_blocks() {
        let mut all = Moments::new(300);
        let rows: Vec<f32> = (0..900).map(|i| ((i * 7 % 11) as f32) - 5.0).collect();
        all.add(&rows, &Cpu::detect(1));
        let part = all.part(&(BLOCK..300)).unwrap();
        assert_eq!((part.channels(), part.sums()), (172, &all.sums()[BLOCK * BLOCK..]));
        assert!(all.part(&(64..300)).is_none());
    }
}
