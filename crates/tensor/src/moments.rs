//! How the channels that a layer reads go together, and what follows for rounding its weights.
//!
//! A layer's error is `Σ (w − ŵ)ᵢ (w − ŵ)ⱼ Hᵢⱼ`, where `H = Σ x xᵀ` over the rows that it reads. Rounding each weight to
//! the nearest code makes the diagonal's part small alone. Rounded one after the other, each weight can make up for the errors of
//! those before it (Frantar et al. 2022, GPTQ); those whose inputs are large come first, while there are many to make up for
//! them. That takes no byte and no time in what is packed: codes are others, units the same.
//!
//! `H` is kept in blocks along its diagonal, so that those of all layers of a model are found and kept together. Taps of a
//! convolution read the same pixels, shifted, and share one `H`.

use std::ops::Range;
use std::sync::Arc;

use kernels::moments::{BLOCK, SUMS, SecondMoments, place};

use crate::Cpu;
use crate::file::{Dtype, TensorView};

/// What is added to the diagonal, of its mean: numbers that were seen are few.
const DAMPING: f64 = 0.01;

/// `Σ x xᵀ` of the rows that a layer reads, for each 256 of its channels.
#[derive(Clone, Debug)]
pub struct Moments {
    /// Channels at the beginning of the first block that the layer does not read.
    skipped: usize,
    channels: usize,
    sums: Sums,
    /// What the channels were multiplied by after they were seen.
    factors: Option<Arc<[f32]>>,
}

/// `[blocks, SUMS]`.
#[derive(Clone, Debug)]
enum Sums {
    Growing(Arc<Vec<f32>>),
    /// As they lie in a file. Those of a large model would fill much of its memory.
    Stored(TensorView),
}

impl Moments {
    /// Those of no rows.
    pub fn new(channels: usize) -> Self {
        Self {
            skipped: 0,
            channels,
            sums: Sums::Growing(vec![0.0; channels.div_ceil(BLOCK) * SUMS].into()),
            factors: None,
        }
    }

    /// Those whose [`Moments::sums`] these are; `None` if they are no `f32`, or more or fewer than channels need.
    pub fn from_sums(channels: usize, sums: TensorView) -> Option<Self> {
        let is_aligned = bytemuck::try_cast_slice::<u8, f32>(sums.bytes()).is_ok();
        let fits = sums.dtype == Dtype::F32 && sums.count() == channels.div_ceil(BLOCK) * SUMS;
        let sums = Sums::Stored(sums);
        (fits && is_aligned).then_some(Self { skipped: 0, channels, sums, factors: None })
    }

    /// Channels of a row.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Sums of all blocks, in the order of [`kernels::moments::place`].
    pub fn sums(&self) -> &[f32] {
        match &self.sums {
            Sums::Growing(sums) => sums,
            Sums::Stored(view) => bytemuck::cast_slice(view.bytes()),
        }
    }

    /// Add rows of [`Moments::channels`] numbers.
    pub fn add(&mut self, rows: &[f32], cpu: &Cpu) {
        self.grow();
        let Sums::Growing(sums) = &mut self.sums else { unreachable!("they grow now") };
        let sums = Arc::make_mut(sums);
        SecondMoments { rows, channels: self.channels, sums }.run(cpu.kernels());
    }

    /// Takes them out of the file that they lie in.
    pub fn grow(&mut self) {
        if let Sums::Stored(_) = self.sums {
            self.sums = Sums::Growing(self.sums().to_vec().into());
        }
    }

    /// Those of the same rows where each channel is multiplied by its factor. The sums are shared.
    ///
    /// # Panics
    ///
    /// If there are more or fewer factors than channels.
    #[must_use]
    pub fn scaled(&self, factors: &Arc<[f32]>) -> Self {
        assert_eq!(factors.len(), self.channels, "there is a factor for each channel");
        Self { factors: Some(Arc::clone(factors)), ..self.clone() }
    }

    /// Those of some channels.
    pub(crate) fn part(&self, channels: &Range<usize>) -> Self {
        let blocks = channels.start / BLOCK..channels.end.div_ceil(BLOCK);
        let sums = self.sums()[blocks.start * SUMS..blocks.end * SUMS].to_vec();
        self.drop_pages();
        let factors = self.factors.as_ref().map(|all| all[channels.clone()].into());
        let (skipped, channels) = (channels.start % BLOCK, channels.len());
        Self { skipped, channels, sums: Sums::Growing(sums.into()), factors }
    }

    /// What follows for weights, block by block.
    pub(crate) fn shares(&self, cpu: &kernels::Cpu) -> Vec<Shares> {
        let all = self.sums();
        let mut blocks: Vec<Shares> = vec![Shares::default(); all.len() / SUMS];
        let end = self.skipped + self.channels;
        cpu.threads.run_pieces(&mut blocks, 1, |block, shares| {
            let sums = &all[block * SUMS..][..SUMS];
            let channels =
                if block == 0 { self.skipped } else { 0 }..BLOCK.min(end - block * BLOCK);
            let first = (block * BLOCK + channels.start) - self.skipped;
            let factor =
                |i: usize| self.factors.as_ref().map_or(1.0, |all| f64::from(all[first + i]));
            let h = |i: usize, j: usize| {
                let factor = factor(i) * factor(j);
                let (i, j) = (channels.start + i, channels.start + j);
                factor * f64::from(sums[place(i.min(j), i.max(j))])
            };
            shares[0] = Shares::new(channels.len(), &h);
        });
        self.drop_pages();
        blocks
    }

    /// Takes what lies in a file out of memory. It stays readable.
    fn drop_pages(&self) {
        if let Sums::Stored(view) = &self.sums {
            view.drop_pages();
        }
    }
}

impl PartialEq for Moments {
    fn eq(&self, other: &Self) -> bool {
        let what = |of: &Self| (of.skipped, of.channels, of.factors.clone());
        what(self) == what(other) && self.sums() == other.sums()
    }
}

/// In which order the weights of a block are rounded, and how much of each one's error those after it make up for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shares {
    /// Places in the block, those with the largest inputs first.
    pub(crate) order: Vec<usize>,
    /// `[weights, width]` in that order, rows made a multiple of 16 long with zeros; empty where nothing was seen.
    pub(crate) rows: Vec<f32>,
    /// Of a row.
    pub(crate) width: usize,
}

impl Shares {
    /// Row `i` of the upper Cholesky factor of `H⁻¹`, divided by its diagonal, says what share of the error of weight `i` is
    /// taken from each weight after it. With `H = R Rᵀ` for an upper triangular `R`, that factor is `R⁻¹`.
    fn new(count: usize, h: &dyn Fn(usize, usize) -> f64) -> Self {
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by(|&i, &j| h(j, j).total_cmp(&h(i, i)));
        let mean = (0..count).map(|i| h(i, i)).sum::<f64>() / count.max(1) as f64;
        let width = count.next_multiple_of(16);
        if !(mean.is_normal() && mean > 0.0) {
            return Self { order, rows: Vec::new(), width };
        }
        let factor = factor(count, &|i, j| {
            let damped = if i == j { DAMPING * mean } else { 0.0 };
            h(order[i], order[j]) + damped
        });
        let mut rows = vec![0.0; count * width];
        for j in 0..count {
            // Column j of the inverse, from the diagonal upwards.
            let mut inverse = vec![0.0; j + 1];
            inverse[j] = 1.0 / factor[j * count + j];
            for i in (0..j).rev() {
                let known = dot(&factor[i * count..][i + 1..=j], &inverse[i + 1..]);
                inverse[i] = -known / factor[i * count + i];
                rows[i * width + j] = -known as f32;
            }
        }
        if !rows.iter().all(|x| x.is_finite()) {
            rows.clear();
        }
        Self { order, rows, width }
    }
}

/// The upper triangular `R`, row by row, with `R Rᵀ = h`.
fn factor(count: usize, h: &dyn Fn(usize, usize) -> f64) -> Vec<f64> {
    let mut rows = vec![0.0; count * count];
    for j in (0..count).rev() {
        for i in (0..=j).rev() {
            let after = |row: usize| &rows[row * count + j + 1..(row + 1) * count];
            let left = h(i, j) - dot(after(i), after(j));
            let pivot = rows[j * count + j];
            rows[i * count + j] = if i == j { left.sqrt() } else { left / pivot };
        }
    }
    rows
}

/// `Σ a b`, in eight sums that need not wait for each other.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a.0.iter().zip(b.0) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    let rest = a.1.iter().zip(b.1).map(|(a, b)| a * b);
    sums.into_iter().chain(rest).sum()
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, Moments, SUMS, Shares};
    use crate::Cpu;

    #[test]
    fn shares_of_two_channels_are_those_of_least_squares() {
        // An error of the larger is best made up for by −h₀₁ / h₀₀ of the smaller.
        let h = |i: usize, j: usize| [[2.0, 1.5], [1.5, 3.0]][i][j];
        let found = Shares::new(2, &h);
        let damped = 2.0 + 0.01 * 2.5;
        assert_eq!(found.order, [1, 0]);
        assert!((f64::from(found.rows[1]) + 1.5 / damped).abs() < 1e-6, "{found:?}");
    }

    #[test]
    fn channels_that_say_nothing_share_nothing() {
        let cpu = Cpu::detect(1);
        let nothing = Moments::new(300).shares(cpu.kernels());
        assert!(nothing.iter().all(|block| block.rows.is_empty()));
        let mut one = Moments::new(3);
        one.add(&[1.0, 0.0, 2.0, 1.0, 0.0, -2.0], &cpu);
        assert!(one.shares(cpu.kernels())[0].rows.iter().all(|share| *share == 0.0));
    }

    #[test]
    fn factors_are_as_if_the_rows_had_them() {
        let cpu = Cpu::detect(1);
        let factors: Vec<f32> = (0..300).map(|i| [0.25, 2.0, 1.0][i % 3]).collect();
        let rows: Vec<f32> = (0..2 * 300).map(|i| ((i * 7 % 11) as f32) - 5.0).collect();
        let scaled: Vec<f32> =
            rows.iter().zip(factors.iter().cycle()).map(|(x, f)| x * f).collect();
        let of = |rows: &[f32]| {
            let mut all = Moments::new(300);
            all.add(rows, &cpu);
            all
        };
        let shares = |of: &Moments| {
            let blocks = of.shares(cpu.kernels()).into_iter();
            blocks.map(|block| (block.order, block.rows)).collect::<Vec<_>>()
        };
        let (after, before) = (of(&rows).scaled(&factors.into()), of(&scaled));
        assert_eq!(shares(&after), shares(&before));
        assert_eq!(shares(&after.part(&(270..300))), shares(&before.part(&(270..300))));
        assert_ne!(shares(&after), shares(&of(&rows)));
    }

    #[test]
    fn a_part_has_the_blocks_of_its_channels() {
        let cpu = Cpu::detect(1);
        let rows: Vec<f32> = (0..3 * 600).map(|i| ((i * 7 % 11) as f32) - 5.0).collect();
        let mut all = Moments::new(600);
        all.add(&rows, &cpu);
        let part = all.part(&(320..600));
        assert_eq!((part.channels(), part.sums()), (280, &all.sums()[SUMS..]));
        let widths =
            part.shares(cpu.kernels()).iter().map(|block| block.order.len()).collect::<Vec<_>>();
        assert_eq!(widths, [2 * BLOCK - 320, 600 - 2 * BLOCK]);
        // The same as if the layer had read nothing else.
        let own: Vec<f32> =
            rows.chunks(600).flat_map(|row| &row[320..2 * BLOCK]).copied().collect();
        let mut alone = Moments::new(2 * BLOCK - 320);
        alone.add(&own, &cpu);
        let [first, alone] = [part, alone].map(|of| of.shares(cpu.kernels())[0].rows.clone());
        assert_eq!(first, alone);
    }
}
