//! Real weights to whole numbers.
//!
//! For a row of weights that share a unit `s`, the code of `w` is the nearest to `w / s`. Which `s` is
//! best is found by search: first `max |w| / L` (min-max), then smaller ones, each improved by least
//! squares (`s = Σ w q / Σ q²`, the best unit for given codes), and the one with the least squared
//! error is kept. So the result is never worse than min-max. Eight bits keep min-max: there is
//! nothing to gain from cutting.
//!
//! Groups share the unit of their channel up to a whole multiplier: each group's own best unit is
//! rounded to a multiple of one fifteenth (in 4 bits) of the largest.
//!
//! Where it is known what a layer reads ([`crate::moments`]), better codes and a better unit of the row are found from there
//! (`together`).

mod together;

use kernels::Cpu;
use kernels::quantize::{Codes, EncodeWeights, Fit, Fitted};
use together::Together;

use crate::Weight;
use crate::scheme::{Granularity, WeightBits, WeightScheme};

/// Elements that share a multiplier.
const GROUP: usize = kernels::format::int::GROUP;

/// The least unit: its inverse is finite.
const LEAST: f32 = 1e-37;

/// Fractions of the min-max unit that are tried.
const FRACTIONS: [f32; 10] = [1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.62, 0.54, 0.46];

/// A row as whole numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The unit of the row.
    pub scale: f32,
    /// Codes, in the order of the weights.
    pub codes: Vec<i8>,
    /// Multipliers of groups, in order; empty where the row has one unit.
    pub multipliers: Vec<i8>,
}

/// Turns rows of a weight into whole numbers.
#[derive(Debug)]
pub(crate) struct Quantizer<'a> {
    levels: Levels<'a>,
    granularity: Granularity,
    /// Of a row, padding included.
    channels: usize,
    /// Where it is known what is read.
    together: Option<Together>,
}

impl<'a> Quantizer<'a> {
    /// For rows `[taps, channels]` of `weight`, whose inputs may be fewer than `channels`.
    pub(crate) fn new(
        cpu: &'a Cpu,
        scheme: WeightScheme,
        (weight, channels): (&Weight, usize),
    ) -> Self {
        let moments = weight.moments().filter(|found| found.channels() == weight.shape()[1]);
        let taps = weight.shape()[2..].iter().product();
        let together = moments
            .map(|moments| Together::new(channels, moments.shares(cpu), moments.tap_shares(taps)));
        let levels = Levels { cpu, bits: scheme.bits };
        Self { levels, granularity: scheme.granularity, channels, together }
    }

    /// Quantize a row; all its weights are finite.
    pub(crate) fn row(&self, weights: &[f32]) -> Row {
        let Self { levels, channels, .. } = *self;
        let (scale, multipliers) = match self.granularity {
            Granularity::Channel => (levels.best_unit(weights), Vec::new()),
            Granularity::Group => levels.best_units(channels, weights),
        };
        let mut row = Row { scale, codes: vec![0; weights.len()], multipliers };
        let groups = weights.chunks(channels.max(1)).enumerate().flat_map(|(tap, weights)| {
            weights.chunks(GROUP).enumerate().map(move |(group, weights)| (tap, group, weights))
        });
        let mut first = 0;
        for (tap, group, weights) in groups {
            let unit = row.unit(channels, tap, group * GROUP);
            levels.encode(weights, unit, &mut row.codes[first..first + weights.len()]);
            first += weights.len();
        }
        if let Some(together) = &self.together {
            together.encode(levels.cpu, levels.codes(), weights, &mut row);
        }
        row
    }
}

impl Row {
    /// The unit of a weight.
    fn unit(&self, channels: usize, tap: usize, channel: usize) -> f32 {
        let multiplier = self.multipliers.get(tap * channels.div_ceil(GROUP) + channel / GROUP);
        multiplier.map_or(self.scale, |&multiplier| f32::from(multiplier) * self.scale)
    }

    /// What the codes stand for.
    pub fn dequantized(&self, channels: usize) -> Vec<f32> {
        self.multiplied(channels).map(|q| self.scale * q as f32).collect()
    }

    /// The sum of all codes times their multipliers.
    pub fn sum(&self, channels: usize) -> i32 {
        self.multiplied(channels).sum()
    }

    fn multiplied(&self, channels: usize) -> impl Iterator<Item = i32> {
        let taps = self.codes.len() / channels.max(1);
        (0..taps).flat_map(move |tap| self.multiplied_of(channels, tap))
    }

    /// The codes of a tap times their multipliers.
    fn multiplied_of(&self, channels: usize, tap: usize) -> impl Iterator<Item = i32> {
        let first = tap * channels.div_ceil(GROUP);
        let groups = self.codes[tap * channels..][..channels].chunks(GROUP).enumerate();
        groups.flat_map(move |(group, codes)| {
            let multiplier = self.multipliers.get(first + group).map_or(1, |&m| i32::from(m));
            codes.iter().map(move |&code| multiplier * i32::from(code))
        })
    }
}

/// The codes of a number of bits, and what finds them.
#[derive(Clone, Copy, Debug)]
struct Levels<'a> {
    cpu: &'a Cpu,
    bits: WeightBits,
}

impl Levels<'_> {
    fn codes(self) -> Codes {
        match self.bits {
            WeightBits::Two => Codes::Odd,
            WeightBits::Four => Codes::Whole(-8, 7),
            WeightBits::Eight => Codes::Whole(-127, 127),
        }
    }

    /// Of units: four bits have a code more below zero than above, which is of use on the side where weights are larger.
    fn signs(self) -> &'static [f32] {
        if self.bits == WeightBits::Four { &[1.0, -1.0] } else { &[1.0] }
    }

    /// The greatest multiplier with which all codes fit 8 bits.
    fn multipliers(self) -> i8 {
        match self.bits {
            WeightBits::Two => 42,
            WeightBits::Four => 15,
            WeightBits::Eight => 1,
        }
    }

    fn fit(self, weights: &[f32], unit: f32) -> Fitted {
        self.cpu.eval(Fit { weights, unit, codes: self.codes() })
    }

    fn encode(self, weights: &[f32], unit: f32, to: &mut [i8]) {
        let fit = Fit { weights, unit, codes: self.codes() };
        self.cpu.eval(EncodeWeights { fit, to });
    }

    /// The unit of a row `[taps, channels]`, and the multipliers of its groups.
    fn best_units(self, channels: usize, weights: &[f32]) -> (f32, Vec<i8>) {
        let groups = || weights.chunks(channels.max(1)).flat_map(|tap| tap.chunks(GROUP));
        let units: Vec<f32> = groups().map(|group| self.best_unit(group)).collect();
        let most = self.multipliers();
        let scale =
            units.iter().fold(0.0_f32, |most, &unit| most.max(unit.abs())) / f32::from(most);
        let scale = if scale < LEAST { self.unit_of_zeros() } else { scale };
        let multiplier = |(group, unit): (&[f32], f32)| {
            let near = (unit / scale).abs().round();
            let candidates =
                [near, near - 1.0, near + 1.0].map(|m| m.clamp(1.0, most.into()).copysign(unit));
            let errors = candidates.map(|m| (self.fit(group, m * scale).error, m));
            let best = errors.into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
            best.map_or(1, |(_, multiplier)| multiplier as i8)
        };
        let multipliers = groups().zip(units).map(multiplier).collect();
        (scale, multipliers)
    }

    /// The unit of weights that are all zero: two bits have no code for that, so theirs is next to nothing.
    fn unit_of_zeros(self) -> f32 {
        if self.bits == WeightBits::Two { LEAST } else { 1.0 }
    }

    /// The unit with the least squared error among those that are tried.
    fn best_unit(self, weights: &[f32]) -> f32 {
        let largest = weights.iter().fold(0.0_f32, |most, w| most.max(w.abs()));
        let start = largest / self.bits.most() as f32;
        if start < LEAST {
            return self.unit_of_zeros();
        }
        if self.bits == WeightBits::Eight {
            return start;
        }
        let mut best = (self.fit(weights, start).error, start);
        for fraction in self.signs().iter().flat_map(|sign| FRACTIONS.map(|f| sign * f)) {
            let Fitted { products, squares, .. } = self.fit(weights, start * fraction);
            if products * fraction > 0.0 {
                let unit = products / squares;
                let error = self.fit(weights, unit).error;
                if error < best.0 {
                    best = (error, unit);
                }
            }
        }
        best.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scheme(bits: WeightBits, granularity: Granularity) -> WeightScheme {
        WeightScheme { bits, granularity }
    }

    fn row(scheme: WeightScheme, channels: usize, weights: &[f32]) -> Row {
        let (bits, granularity) = (scheme.bits, scheme.granularity);
        let levels = Levels { cpu: &Cpu::detect(1), bits };
        Quantizer { levels, granularity, channels, together: None }.row(weights)
    }

    fn error(weights: &[f32], row: &Row, channels: usize) -> f64 {
        let back = row.dequantized(channels);
        weights.iter().zip(back).map(|(&w, b)| f64::from(w - b).powi(2)).sum()
    }

    fn bits() -> impl Strategy<Value = WeightBits> {
        prop_oneof![Just(WeightBits::Two), Just(WeightBits::Four), Just(WeightBits::Eight)]
    }

    proptest! {
        #[test]
        fn the_search_is_never_worse_than_min_max(
            bits in bits(),
            weights in prop::collection::vec(-2.0_f32..2.0, 1..200),
        ) {
            let cpu = Cpu::detect(1);
            let row = row(scheme(bits, Granularity::Channel), weights.len(), &weights);
            let largest = weights.iter().fold(0.0_f32, |most, w| most.max(w.abs()));
            let unit = largest / bits.most() as f32;
            let levels = Levels { cpu: &cpu, bits };
            let plain = if unit > 0.0 { levels.fit(&weights, unit).error } else { 0.0 };
            prop_assert!(error(&weights, &row, weights.len()) <= f64::from(plain) * 1.0001 + 1e-9);
        }

        #[test]
        fn eight_bits_are_within_half_a_unit(
            weights in prop::collection::vec(-1e3_f32..1e3, 1..200),
        ) {
            let row = row(scheme(WeightBits::Eight, Granularity::Channel), 8, &weights);
            for (w, back) in weights.iter().zip(row.dequantized(8)) {
                prop_assert!((w - back).abs() <= 0.5001 * row.scale, "{w} became {back}");
            }
        }

        #[test]
        fn multiplied_codes_fit_eight_bits(
            bits in bits(),
            weights in prop::collection::vec(-2.0_f32..2.0, 256),
        ) {
            let row = row(scheme(bits, Granularity::Group), 128, &weights);
            prop_assert_eq!(row.multipliers.len(), 4);
            for (i, &code) in row.codes.iter().enumerate() {
                let multiplier = i32::from(row.multipliers[i / 64]);
                prop_assert!((i32::from(code) * multiplier).abs() <= 127);
            }
        }
    }

    #[test]
    fn groups_help_where_they_differ() {
        let weights: Vec<f32> =
            (0..256).map(|i| (i as f32 * 0.37).sin() * if i < 64 { 1.0 } else { 0.1 }).collect();
        let of = |granularity| row(scheme(WeightBits::Four, granularity), 256, &weights);
        let [one, many] = [Granularity::Channel, Granularity::Group]
            .map(|granularity| error(&weights, &of(granularity), 256));
        assert!(many < one / 2.0, "{many} against {one}");
    }

    #[test]
    fn zeros_and_least_numbers_are_no_trouble() {
        for weights in [vec![0.0; 64], vec![f32::MIN_POSITIVE / 4.0; 64]] {
            for bits in [WeightBits::Two, WeightBits::Four, WeightBits::Eight] {
                for granularity in [Granularity::Channel, Granularity::Group] {
                    let row = row(scheme(bits, granularity), 64, &weights);
                    assert!(row.dequantized(64).iter().all(|x| x.abs() < 1e-30));
                }
            }
        }
    }
}
