//! The codes of a row together, by what its layer reads.
//!
//! What a row is off by counts as `Σ dᵢ dⱼ Hᵢⱼ` ([`crate::moments`]). Three steps make that small. Codes are found one after the
//! other, and those after it make up for the error of each (Frantar et al. 2022, GPTQ); the unit of the row becomes the best for its
//! codes, by least squares; each code is looked at again while all others stay.

use kernels::Cpu;
use kernels::quantize::{Carry, Codes, Improve, Times};

use super::Row;
use crate::moments::Shares;

/// How often each code is looked at again.
const PASSES: usize = 2;

/// How channels and taps go together.
#[derive(Debug)]
pub(super) struct Together {
    /// Of a row, padding included.
    channels: usize,
    /// Of channels, one block after the other.
    blocks: Vec<Shares>,
    taps: Shares,
}

/// A block of channels of one tap.
#[derive(Clone, Copy)]
struct At<'a> {
    /// Where its channels begin, among the weights of a row.
    first: usize,
    block: &'a Shares,
}

impl Together {
    /// Of rows `[taps, channels]`.
    pub(super) fn new(channels: usize, blocks: Vec<Shares>, taps: Shares) -> Self {
        Self { channels, blocks, taps }
    }

    /// Codes that are better together than the nearest, and a better unit for all.
    pub(super) fn encode(&self, cpu: &Cpu, codes: Codes, weights: &[f32], row: &mut Row) {
        self.carry(cpu, codes, weights.to_vec(), row);
        let mut known = self.refit(cpu, weights, row).into_iter();
        let mut all = self.off(weights, row);
        for (place, &tap) in self.taps.order.iter().enumerate() {
            // What one tap was improved by, others meet.
            let off = (place > 0).then(|| self.mixed(&all, place));
            for at in self.blocks(place) {
                let known = known.next().unwrap_or_default();
                let mut slopes = match &off {
                    Some(off) => {
                        let [slopes] = at.times(cpu, [&off[at.first % self.channels..]]);
                        slopes
                    }
                    None => known,
                };
                let (units, mut to) = (self.units(row, at), at.of(&row.codes[at.first..]));
                for _ in 0..PASSES {
                    cpu.eval(Improve {
                        slopes: &mut slopes,
                        units: &units,
                        codes,
                        moments: &at.block.moments,
                        to: &mut to,
                    });
                }
                at.write(row, &to);
            }
            self.off_of(tap, (weights, row), &mut all);
        }
    }

    /// One code after the other. What a tap is off by, the taps after it make up for, each channel by itself.
    fn carry(&self, cpu: &Cpu, codes: Codes, mut left: Vec<f32>, row: &mut Row) {
        let (channels, taps) = (self.channels, &self.taps);
        let mut off = vec![0.0; left.len()];
        for (place, &tap) in taps.order.iter().enumerate() {
            for at in self.blocks(place) {
                let mut weights = at.padded(&left[at.first..]);
                let (units, mut to) = (self.units(row, at), vec![0; at.block.order.len()]);
                cpu.eval(Carry {
                    weights: &mut weights,
                    units: &units,
                    codes,
                    shares: &at.block.rows,
                    to: &mut to,
                });
                at.write(row, &to);
            }
            self.off_of(tap, (&left, row), &mut off);
            let off = &off[tap * channels..][..channels];
            for (&share, &other) in taps.rows_after(place) {
                for (weight, off) in left[other * channels..].iter_mut().zip(off) {
                    *weight += share * off;
                }
            }
        }
    }

    /// The best unit for the codes that there are; what the blocks of the first tap make of what the row is off by then.
    fn refit(&self, cpu: &Cpu, weights: &[f32], row: &mut Row) -> Vec<Vec<f32>> {
        let off = self.off(weights, row);
        let all: Vec<f32> = off.iter().zip(weights).map(|(off, weight)| off + weight).collect();
        let (mut missed, mut whole) = (0.0, 0.0);
        let mut products = Vec::new();
        for place in 0..self.taps.order.len() {
            let mixed = [&off, &all].map(|numbers| self.mixed(numbers, place));
            for at in self.blocks(place) {
                let own = at.padded(&all[at.first..]);
                let both =
                    at.times(cpu, mixed.each_ref().map(|mixed| &mixed[at.first % self.channels..]));
                let met = |product: &[f32]| -> f64 {
                    own.iter().zip(product).map(|(a, b)| f64::from(a * b)).sum()
                };
                let energy = f64::from(self.taps.moments[place * self.taps.width + place]);
                missed += energy * met(&both[0]);
                whole += energy * met(&both[1]);
                if place == 0 {
                    products.push(both);
                }
            }
        }
        let better = (1.0 - missed / whole) as f32;
        let grown = if (0.5..2.0).contains(&better) { better - 1.0 } else { 0.0 };
        row.scale *= 1.0 + grown;
        // What the codes stand for grew by this share, and what they are off by with it.
        let off = |[mut off, all]: [Vec<f32>; 2]| {
            off.iter_mut().zip(all).for_each(|(off, all)| *off += grown * all);
            off
        };
        products.into_iter().map(off).collect()
    }

    /// What all weights of a row are off by.
    fn off(&self, weights: &[f32], row: &Row) -> Vec<f32> {
        let mut off = vec![0.0; weights.len()];
        for &tap in &self.taps.order {
            self.off_of(tap, (weights, row), &mut off);
        }
        off
    }

    /// What those of a tap are off by, in their places among all.
    fn off_of(&self, tap: usize, (weights, row): (&[f32], &Row), to: &mut [f32]) {
        let some = tap * self.channels..(tap + 1) * self.channels;
        let codes = row.multiplied_of(self.channels, tap);
        for ((to, w), code) in to[some.clone()].iter_mut().zip(&weights[some]).zip(codes) {
            *to = row.scale * code as f32 - w;
        }
    }

    /// Numbers of all taps as one of them meets them.
    fn mixed(&self, numbers: &[f32], place: usize) -> Vec<f32> {
        let taps = &self.taps;
        let met = &taps.moments[place * taps.width..];
        let mut mixed = vec![0.0; self.channels];
        for (&other, share) in taps.order.iter().zip(met) {
            let share = share / met[place];
            for (to, number) in mixed.iter_mut().zip(&numbers[other * self.channels..]) {
                *to += share * number;
            }
        }
        mixed
    }

    /// Blocks of which something was seen.
    fn blocks(&self, place: usize) -> impl Iterator<Item = At<'_>> {
        let mut first = self.taps.order[place] * self.channels;
        let all = self.blocks.iter().map(move |block| {
            let at = At { first, block };
            first += block.order.len();
            at
        });
        all.filter(|at| !at.block.rows.is_empty())
    }

    fn units(&self, row: &Row, at: At<'_>) -> Vec<f32> {
        let (tap, first) = (at.first / self.channels, at.first % self.channels);
        let unit = |place: &usize| row.unit(self.channels, tap, first + place);
        at.block.order.iter().map(unit).collect()
    }
}

impl At<'_> {
    /// Some of these, in the block's order.
    fn of<T: Copy>(&self, numbers: &[T]) -> Vec<T> {
        self.block.order.iter().map(|&place| numbers[place]).collect()
    }

    /// The same, with zeros after them.
    fn padded(&self, numbers: &[f32]) -> Vec<f32> {
        let mut some = self.of(numbers);
        some.resize(self.block.width, 0.0);
        some
    }

    /// What the block makes of rows of them.
    fn times<const N: usize>(&self, cpu: &Cpu, numbers: [&[f32]; N]) -> [Vec<f32>; N] {
        let numbers = numbers.map(|numbers| self.of(numbers));
        let mut products = numbers.each_ref().map(|_| vec![0.0; self.block.width]);
        let (numbers, matrix) = (numbers.each_ref().map(Vec::as_slice), &self.block.moments[..]);
        cpu.eval(Times { numbers, matrix, to: products.each_mut().map(Vec::as_mut_slice) });
        products
    }

    fn write(&self, row: &mut Row, codes: &[i8]) {
        for (&place, &code) in self.block.order.iter().zip(codes) {
            row.codes[self.first + place] = code;
        }
    }
}

#[cfg(test)]
mod tests {
    use kernels::Cpu;

    use super::super::{Levels, Quantizer};
    use super::Together;
    use crate::moments::{Blocks, Moments};
    use crate::scheme::{Granularity, WeightBits};

    const SIDE: usize = 40;
    const CHANNELS: usize = 40;

    /// Pixels that are like their neighbours, in channels that are like the next: noise, blurred.
    fn image() -> Vec<f32> {
        let noise = |channel: usize, x: usize, y: usize| {
            let seed = (channel * 7919 + x * 104_729 + y * 1_299_709 + 1) as u32;
            let hash = seed.wrapping_mul(2_654_435_761);
            (hash ^ (hash >> 15)).wrapping_mul(2_246_822_519) as f32 / u32::MAX as f32 - 0.5
        };
        let number = |i: usize| {
            let (channel, x, y) = (i % CHANNELS, i / CHANNELS % SIDE, i / CHANNELS / SIDE);
            let near = (0..27).map(|k| noise(channel + k / 9, x + k % 3, y + k / 3 % 3));
            near.sum::<f32>()
        };
        (0..SIDE * SIDE * CHANNELS).map(number).collect()
    }

    fn weights(row: usize) -> Vec<f32> {
        let number = |i: usize| (((i + 11 * row) * 53 % 97) as f32 / 48.0 - 1.0) * 0.3;
        (0..9 * CHANNELS).map(number).collect()
    }

    /// The square of what a convolution of 3×3 taps is off by, its weights `[taps, channels]`.
    fn error(image: &[f32], off: &[f32]) -> f64 {
        let inner = (0..SIDE - 2).flat_map(|y| (0..SIDE - 2).map(move |x| (y, x)));
        let result = |(y, x): (usize, usize)| {
            let meets = |i: usize| {
                let (tap, channel) = (i / CHANNELS, i % CHANNELS);
                image[((y + tap / 3) * SIDE + x + tap % 3) * CHANNELS + channel]
            };
            off.iter().enumerate().map(|(i, off)| off * meets(i)).sum::<f32>()
        };
        inner.map(|at| f64::from(result(at)).powi(2)).sum()
    }

    fn taps(image: &[f32]) -> Vec<f32> {
        let mut sums = vec![0.0; 81];
        for (y, x) in (0..SIDE - 2).flat_map(|y| (0..SIDE - 2).map(move |x| (y, x))) {
            let pixel = |tap: usize| {
                let first = ((y + tap / 3) * SIDE + x + tap % 3) * CHANNELS;
                &image[first..first + CHANNELS]
            };
            for (pair, sum) in sums.iter_mut().enumerate() {
                let products = pixel(pair / 9).iter().zip(pixel(pair % 9));
                *sum += products.map(|(a, b)| a * b).sum::<f32>();
            }
        }
        sums
    }

    #[test]
    fn what_goes_together_is_made_up_for() {
        let cpu = crate::Cpu::detect(1);
        let kernels: &Cpu = cpu.kernels();
        let image = image();
        let mut moments = Moments::new(Blocks::new(CHANNELS, 256));
        // As often as if there were many like it.
        (0..100).for_each(|_| moments.add(&image, &cpu));
        let with_taps = moments.clone().with_taps(taps(&image)).unwrap();
        for (bits, granularity) in [
            (WeightBits::Four, Granularity::Group),
            (WeightBits::Eight, Granularity::Channel),
            (WeightBits::Four, Granularity::Channel),
        ] {
            let levels = Levels { cpu: kernels, bits };
            let error = |together: Option<&Moments>| {
                let together = together.map(|moments| {
                    Together::new(CHANNELS, moments.shares(kernels), moments.tap_shares(9))
                });
                let quantizer = Quantizer { levels, granularity, channels: CHANNELS, together };
                let of_row = |row| {
                    let weights = weights(row);
                    let back = quantizer.row(&weights).dequantized(CHANNELS);
                    let off: Vec<f32> = back.iter().zip(&weights).map(|(b, w)| b - w).collect();
                    error(&image, &off)
                };
                (0..8).map(of_row).sum::<f64>()
            };
            let (nearest, channels) = (error(None), error(Some(&moments)));
            let all = error(Some(&with_taps));
            assert!(channels < 0.9 * nearest && all < 0.8 * channels, "{nearest} {channels} {all}");
        }
    }

    #[test]
    fn what_was_never_seen_is_rounded_to_the_nearest() {
        let cpu = crate::Cpu::detect(1);
        let kernels = cpu.kernels();
        let weights = weights(0);
        let unseen = Moments::new(Blocks::new(CHANNELS, 256)).with_taps(vec![0.0; 81]).unwrap();
        let row = |together| {
            let levels = Levels { cpu: kernels, bits: WeightBits::Four };
            let granularity = Granularity::Group;
            Quantizer { levels, granularity, channels: CHANNELS, together }.row(&weights)
        };
        let together = Together::new(CHANNELS, unseen.shares(kernels), unseen.tap_shares(9));
        assert_eq!(row(Some(together)), row(None));
    }
}
