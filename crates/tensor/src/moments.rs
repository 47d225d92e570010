//! How the channels that a layer reads go together, and what follows for rounding its weights.
//!
//! A layer's error is `Σ (w − ŵ)ᵢ (w − ŵ)ⱼ Hᵢⱼ`, where `H = Σ x xᵀ` over the rows that it reads. Rounding each weight to
//! the nearest code makes the diagonal's part small alone. Rounded one after the other, each weight can make up for the errors of
//! those before it (Frantar et al. 2022, GPTQ). What is left of the error of each counts as much as its input is unknown when those
//! after it are known: the last one's whole input, of the first hardly anything. The order is chosen from the last on, always the one
//! of which least is unknown, as in sorted QR decompositions (Wübben et al. 2003). That takes no byte and no time in what is packed.
//!
//! `H` is kept in blocks along its diagonal, so that those of all layers of a model are found and kept together. Taps of a
//! convolution read the same pixels, shifted, and share one `H`; how much they go together is another matrix, of taps, in which all
//! channels are summed up. `H` of two channels of two taps is then taken to be the product of both.

use std::ops::Range;
use std::sync::Arc;

pub use kernels::moments::Blocks;
use kernels::moments::{SecondMoments, TapMoments};

use crate::Cpu;
use crate::device::cpu::geometry;
use crate::file::{Dtype, TensorView};
use crate::program::Matmul;

/// What is added to the diagonal, as a part of its mean, at least: other pictures differ.
const DAMPING: f64 = 0.001;

/// As many rows of nothing but noise are added to those that were seen: what was found from few is less certain.
const NOISE: f64 = 32.0;

/// `Σ x xᵀ` of the rows that a layer reads, for each block of its channels.
#[derive(Clone, Debug)]
pub struct Moments {
    blocks: Blocks,
    /// Channels at the beginning of the first block that the layer does not read.
    skipped: usize,
    channels: usize,
    /// That were seen.
    rows: u64,
    sums: Sums,
    /// What the channels were multiplied by after they were seen.
    factors: Option<Arc<[f32]>>,
    /// `[taps, taps]` of a convolution, all channels together; empty where there is one tap.
    taps: Vec<f32>,
}

/// Those of all blocks.
#[derive(Clone, Debug)]
enum Sums {
    Growing(Arc<Vec<f32>>),
    /// As they lie in a file. Those of a large model would fill much of its memory.
    Stored(TensorView),
}

impl Moments {
    /// Those of no rows, of blocks that these channels are cut into.
    pub fn new(blocks: Blocks) -> Self {
        let sums = vec![0.0; blocks.count() * blocks.sums()];
        Self::of((0, blocks), Sums::Growing(sums.into()))
    }

    fn of((rows, blocks): (u64, Blocks), sums: Sums) -> Self {
        let (skipped, channels) = (0, blocks.channels());
        Self { blocks, skipped, channels, rows, sums, factors: None, taps: Vec::new() }
    }

    /// Those of so many rows whose [`Moments::sums`] these are; `None` if they are no `f32`, or more or fewer than blocks need.
    pub fn from_sums((rows, blocks): (u64, Blocks), sums: TensorView) -> Option<Self> {
        let is_aligned = bytemuck::try_cast_slice::<u8, f32>(sums.bytes()).is_ok();
        let fits = sums.dtype == Dtype::F32 && sums.count() == blocks.count() * blocks.sums();
        (fits && is_aligned).then(|| Self::of((rows, blocks), Sums::Stored(sums)))
    }

    /// Channels of a row.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Rows that were added.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Sums of all blocks, in the order of [`Blocks::place`].
    pub fn sums(&self) -> &[f32] {
        match &self.sums {
            Sums::Growing(sums) => sums,
            Sums::Stored(view) => bytemuck::cast_slice(view.bytes()),
        }
    }

    /// Add rows of [`Moments::channels`] numbers.
    pub fn add(&mut self, rows: &[f32], cpu: &Cpu) {
        self.grow();
        self.rows += (rows.len() / self.channels.max(1)) as u64;
        let Sums::Growing(sums) = &mut self.sums else { unreachable!("they grow now") };
        let sums = Arc::make_mut(sums);
        SecondMoments { rows, blocks: self.blocks, sums }.run(cpu.kernels());
    }

    /// The mean square of each channel.
    pub fn energies(&self) -> Vec<f32> {
        let (sums, rows) = (self.sums(), self.rows.max(1) as f32);
        let factor = |i: usize| self.factors.as_ref().map_or(1.0, |all| all[i]);
        let energy = |i: usize| {
            let (block, at) = ((self.skipped + i) / self.size(), (self.skipped + i) % self.size());
            factor(i).powi(2) * sums[block * self.blocks.sums() + self.blocks.place(at, at)] / rows
        };
        (0..self.channels).map(energy).collect()
    }

    /// Sums of all pairs of taps, if there are several.
    pub fn taps(&self) -> &[f32] {
        &self.taps
    }

    /// The same with these [`Moments::taps`]; `None` if they are not those of a square of taps.
    #[must_use]
    pub fn with_taps(self, taps: Vec<f32>) -> Option<Self> {
        (taps.len().isqrt().pow(2) == taps.len()).then_some(Self { taps, ..self })
    }

    /// Add the pixels that a convolution reads, as its taps meet them.
    ///
    /// # Panics
    ///
    /// If they are fewer than the product reads.
    pub fn add_taps(&mut self, image: &[f32], product: &Matmul, cpu: &Cpu) {
        let kernels::matmul::Geometry::Conv(conv) = geometry(product) else { return };
        let taps = conv.kernel.iter().product::<usize>();
        if taps > 1 {
            self.taps.resize(taps * taps, 0.0);
            TapMoments { image, conv: &conv, sums: &mut self.taps }.run(cpu.kernels());
        }
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
        let (size, length) = (self.size(), self.blocks.sums());
        let (first, end) = (channels.start / size, channels.end.div_ceil(size));
        let sums = self.sums()[first * length..end * length].to_vec();
        self.drop_pages();
        let factors = self.factors.as_ref().map(|all| all[channels.clone()].into());
        let (skipped, channels) = (channels.start % size, channels.len());
        let (sums, taps) = (Sums::Growing(sums.into()), self.taps.clone());
        Self { blocks: self.blocks, skipped, channels, rows: self.rows, sums, factors, taps }
    }

    /// Channels of a block.
    fn size(&self) -> usize {
        self.blocks.size()
    }

    /// What follows for weights, block by block.
    pub(crate) fn shares(&self, cpu: &kernels::Cpu) -> Vec<Shares> {
        let (all, size, length) = (self.sums(), self.size(), self.blocks.sums());
        let mut blocks: Vec<Shares> = vec![Shares::default(); all.len() / length];
        let end = self.skipped + self.channels;
        cpu.threads.run_pieces(&mut blocks, 1, |block, shares| {
            let sums = &all[block * length..][..length];
            let channels = if block == 0 { self.skipped } else { 0 }..size.min(end - block * size);
            let first = (block * size + channels.start) - self.skipped;
            let factor =
                |i: usize| self.factors.as_ref().map_or(1.0, |all| f64::from(all[first + i]));
            let h = |i: usize, j: usize| {
                let factor = factor(i) * factor(j);
                let (i, j) = (channels.start + i, channels.start + j);
                factor * f64::from(sums[self.blocks.place(i.min(j), i.max(j))])
            };
            shares[0] = Shares::new(channels.len(), self.damping(), &h);
        });
        self.drop_pages();
        blocks
    }

    /// What is added to the diagonal, as a part of its mean.
    fn damping(&self) -> f64 {
        DAMPING.max(NOISE / self.rows.max(1) as f64)
    }

    /// What follows for the taps of a kernel, each channel by itself; nothing if another number of taps was seen.
    pub(crate) fn tap_shares(&self, taps: usize) -> Shares {
        let energy: f32 = self.taps.iter().step_by(taps + 1).sum();
        let is_seen = self.taps.len() == taps * taps && energy.is_normal();
        let one = |t, u| f64::from(u8::from(t == u));
        let h = |t: usize, u: usize| {
            if is_seen { f64::from(self.taps[t * taps + u]) } else { one(t, u) }
        };
        Shares::new(taps, self.damping(), &h)
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
        let what = |of: &Self| (of.blocks, of.skipped, of.channels, of.rows, of.factors.clone());
        what(self) == what(other) && self.taps == other.taps && self.sums() == other.sums()
    }
}

/// In which order the weights of a block are rounded, and how much of each one's error those after it make up for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shares {
    /// Places in the block, in the order of rounding.
    pub(crate) order: Vec<usize>,
    /// `[weights, width]` in that order, rows made a multiple of 16 long with zeros; empty where nothing was seen.
    pub(crate) rows: Vec<f32>,
    /// `H` in that order, likewise.
    pub(crate) moments: Vec<f32>,
    /// Of a row.
    pub(crate) width: usize,
}

impl Shares {
    /// Row `i` of the upper Cholesky factor of `H⁻¹`, divided by its diagonal, says what share of the error of weight `i` is
    /// taken from each weight after it. With `H = R Rᵀ` for an upper triangular `R`, that factor is `R⁻¹`.
    fn new(count: usize, damping: f64, h: &dyn Fn(usize, usize) -> f64) -> Self {
        let mean = (0..count).map(|i| h(i, i)).sum::<f64>() / count.max(1) as f64;
        let width = count.next_multiple_of(16);
        let mut order: Vec<usize> = (0..count).collect();
        if !(mean.is_normal() && mean > 0.0) {
            return Self { order, width, ..Self::default() };
        }
        let h = |i: usize, j: usize| h(i, j) + if i == j { damping * mean } else { 0.0 };
        let factor = factor(&mut order, &h);
        let (mut rows, mut moments) = (vec![0.0; count * width], vec![0.0; count * width]);
        for j in 0..count {
            // Column j of the inverse, from the diagonal upwards.
            let mut inverse = vec![0.0; j + 1];
            inverse[j] = 1.0 / factor[j * count + j];
            for i in (0..j).rev() {
                let known = dot(&factor[i * count..][i + 1..=j], &inverse[i + 1..]);
                inverse[i] = -known / factor[i * count + i];
                rows[i * width + j] = -known as f32;
            }
            for (i, &place) in order.iter().enumerate() {
                moments[i * width + j] = h(place, order[j]) as f32;
            }
        }
        if !rows.iter().chain(&moments).all(|x| x.is_finite()) {
            rows.clear();
        }
        Self { order, rows, moments, width }
    }

    /// What the weights after one take of its error, and their places.
    pub(crate) fn rows_after(&self, place: usize) -> impl Iterator<Item = (&f32, &usize)> {
        let row = self.rows.iter().skip(place * self.width);
        row.zip(&self.order).skip(place + 1)
    }
}

/// The upper triangular `R`, row by row, with `R Rᵀ = h` in the order that is found with it: from the last on, each is the one of
/// which least is unknown when those after it are known. So what nothing makes up for is small.
fn factor(order: &mut [usize], h: &dyn Fn(usize, usize) -> f64) -> Vec<f64> {
    let count = order.len();
    let mut rows = vec![0.0; count * count];
    let mut unknown: Vec<f64> = order.iter().map(|&i| h(i, i)).collect();
    for j in (0..count).rev() {
        let least = (0..=j).min_by(|&a, &b| unknown[a].total_cmp(&unknown[b])).unwrap_or(j);
        order.swap(least, j);
        unknown.swap(least, j);
        if least < j {
            let (above, below) = rows.split_at_mut(j * count);
            above[least * count..][..count].swap_with_slice(&mut below[..count]);
        }
        let (above, below) = rows.split_at_mut(j * count);
        let last = &mut below[..count];
        last[j] = unknown[j].sqrt();
        for (i, row) in above.chunks_exact_mut(count).enumerate() {
            row[j] = (h(order[i], order[j]) - dot(&row[j + 1..], &last[j + 1..])) / last[j];
            unknown[i] -= row[j] * row[j];
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
    use super::{Blocks, Moments, Shares};
    use crate::Cpu;

    #[test]
    fn shares_of_two_channels_are_those_of_least_squares() {
        // An error of the larger is best made up for by −h₀₁ / h₀₀ of the smaller.
        let h = |i: usize, j: usize| [[2.0, 1.5], [1.5, 3.0]][i][j];
        let found = Shares::new(2, 0.01, &h);
        let damped = 2.0 + 0.01 * 2.5;
        assert_eq!(found.order, [1, 0]);
        assert!((f64::from(found.rows[1]) + 1.5 / damped).abs() < 1e-6, "{found:?}");
    }

    #[test]
    fn channels_that_say_nothing_share_nothing() {
        let cpu = Cpu::detect(1);
        let nothing = Moments::new(Blocks::new(300, 256)).shares(cpu.kernels());
        assert!(nothing.iter().all(|block| block.rows.is_empty()));
        let mut one = Moments::new(Blocks::new(3, 256));
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
            let mut all = Moments::new(Blocks::new(300, 256));
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
        let mut all = Moments::new(Blocks::new(600, 256));
        all.add(&rows, &cpu);
        let part = all.part(&(320..600));
        assert_eq!((part.channels(), part.sums()), (280, &all.sums()[all.blocks.sums()..]));
        let widths =
            part.shares(cpu.kernels()).iter().map(|block| block.order.len()).collect::<Vec<_>>();
        assert_eq!(widths, [448 - 320, 600 - 448]);
        // The same as if the layer had read nothing else.
        let own: Vec<f32> = rows.chunks(600).flat_map(|row| &row[320..448]).copied().collect();
        let mut alone = Moments::new(Blocks::new(448 - 320, 256));
        alone.add(&own, &cpu);
        let [first, alone] = [part, alone].map(|of| of.shares(cpu.kernels())[0].rows.clone());
        assert_eq!(first, alone);
    }
}
