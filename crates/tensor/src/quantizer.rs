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

use crate::scheme::{Granularity, WeightBits, WeightScheme};

/// Elements that share a multiplier.
const GROUP: usize = kernels::format::int::GROUP;

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
    pub multipliers: Vec<u8>,
}

impl Row {
    /// Quantize `weights`, `[taps, channels]`; all are finite.
    pub fn new(scheme: WeightScheme, channels: usize, weights: &[f32]) -> Self {
        let levels = Levels(scheme.bits);
        if scheme.granularity == Granularity::Channel {
            let scale = levels.best_unit(weights);
            let codes = weights.iter().map(|&w| levels.code(w, scale)).collect();
            return Self { scale, codes, multipliers: Vec::new() };
        }
        let groups = || weights.chunks(channels.max(1)).flat_map(|tap| tap.chunks(GROUP));
        let units: Vec<f32> = groups().map(|group| levels.best_unit(group)).collect();
        let most = levels.multipliers();
        let scale = units.iter().fold(0.0_f32, |most, &unit| most.max(unit)) / f32::from(most);
        let scale = if scale < f32::MIN_POSITIVE { 1.0 } else { scale };
        let mut codes = Vec::with_capacity(weights.len());
        let mut multipliers = Vec::with_capacity(units.len());
        for (group, unit) in groups().zip(units) {
            let near = (unit / scale).round().clamp(1.0, most.into());
            let candidates = [near, (near - 1.0).max(1.0), (near + 1.0).min(most.into())];
            let error = |m: f32| levels.error(group, m * scale);
            let best = candidates.into_iter().min_by(|a, b| error(*a).total_cmp(&error(*b)));
            let best = best.unwrap_or(1.0);
            codes.extend(group.iter().map(|&w| levels.code(w, best * scale)));
            multipliers.push(best as u8);
        }
        Self { scale, codes, multipliers }
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
        let groups = channels.div_ceil(GROUP);
        self.codes.iter().enumerate().map(move |(i, &code)| {
            let group = i / channels * groups + i % channels / GROUP;
            i32::from(code) * self.multipliers.get(group).map_or(1, |&m| i32::from(m))
        })
    }
}

/// The codes of a number of bits.
#[derive(Clone, Copy)]
struct Levels(WeightBits);

impl Levels {
    /// The code nearest to `w / unit`.
    #[inline]
    fn code(self, w: f32, unit: f32) -> i8 {
        let x = w / unit;
        match self.0 {
            // The odd numbers: halve the distance from −3 to 3.
            WeightBits::Two => 2 * (((x + 3.0) / 2.0).round_ties_even().clamp(0.0, 3.0) as i8) - 3,
            WeightBits::Four => x.round_ties_even().clamp(-8.0, 7.0) as i8,
            WeightBits::Eight => x.round_ties_even().clamp(-127.0, 127.0) as i8,
        }
    }

    /// The greatest multiplier with which all codes fit 8 bits.
    fn multipliers(self) -> u8 {
        match self.0 {
            WeightBits::Two => 42,
            WeightBits::Four => 15,
            WeightBits::Eight => 1,
        }
    }

    /// Squared error of `weights` in units of `unit`.
    fn error(self, weights: &[f32], unit: f32) -> f32 {
        weights.iter().map(|&w| (w - unit * f32::from(self.code(w, unit))).powi(2)).sum()
    }

    /// The unit of least squares for the codes that `unit` gives.
    fn refined(self, weights: &[f32], unit: f32) -> f32 {
        let (mut products, mut squares) = (0.0, 0.0);
        for &w in weights {
            let q = f32::from(self.code(w, unit));
            products += w * q;
            squares += q * q;
        }
        if squares > 0.0 && products > 0.0 { products / squares } else { unit }
    }

    /// The unit with the least squared error among those that are tried.
    fn best_unit(self, weights: &[f32]) -> f32 {
        let largest = weights.iter().fold(0.0_f32, |most, w| most.max(w.abs()));
        let start = largest / self.0.most() as f32;
        if start < f32::MIN_POSITIVE {
            return 1.0;
        }
        if self.0 == WeightBits::Eight {
            return start;
        }
        let mut best = (self.error(weights, start), start);
        for fraction in FRACTIONS {
            let unit = self.refined(weights, start * fraction);
            let error = self.error(weights, unit);
            if error < best.0 {
                best = (error, unit);
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
            let row = Row::new(scheme(bits, Granularity::Channel), weights.len(), &weights);
            let largest = weights.iter().fold(0.0_f32, |most, w| most.max(w.abs()));
            let unit = largest / bits.most() as f32;
            let plain = if unit > 0.0 { Levels(bits).error(&weights, unit) } else { 0.0 };
            prop_assert!(error(&weights, &row, weights.len()) <= f64::from(plain) * 1.0001 + 1e-9);
        }

        #[test]
        fn eight_bits_are_within_half_a_unit(
            weights in prop::collection::vec(-1e3_f32..1e3, 1..200),
        ) {
            let row = Row::new(scheme(WeightBits::Eight, Granularity::Channel), 8, &weights);
            for (w, back) in weights.iter().zip(row.dequantized(8)) {
                prop_assert!((w - back).abs() <= 0.5001 * row.scale, "{w} became {back}");
            }
        }

        #[test]
        fn multiplied_codes_fit_eight_bits(
            bits in bits(),
            weights in prop::collection::vec(-2.0_f32..2.0, 256),
        ) {
            let row = Row::new(scheme(bits, Granularity::Group), 128, &weights);
            prop_assert_eq!(row.multipliers.len(), 4);
            for (i, &code) in row.codes.iter().enumerate() {
                let multiplier = i32::from(row.multipliers[i / 64]);
                prop_assert!((i32::from(code) * multiplier).abs() <= 127);
            }
        }
    }

    #[test]
    fn groups_help_where_they_differ() {
        let weights: Vec<f32> = (0..256)
            .map(|i| (i as f32 * 0.37).sin() * if i < 64 { 1.0 } else { 0.1 })
            .collect();
        let of = |granularity| Row::new(scheme(WeightBits::Four, granularity), 256, &weights);
        let [one, many] = [Granularity::Channel, Granularity::Group]
            .map(|granularity| error(&weights, &of(granularity), 256));
        assert!(many < one / 2.0, "{many} against {one}");
    }

    #[test]
    fn zeros_and_least_numbers_are_no_trouble() {
        for weights in [vec![0.0; 64], vec![f32::MIN_POSITIVE / 4.0; 64]] {
            for bits in [WeightBits::Two, WeightBits::Four, WeightBits::Eight] {
                for granularity in [Granularity::Channel, Granularity::Group] {
                    let row = Row::new(scheme(bits, granularity), 64, &weights);
                    assert!(row.dequantized(64).iter().all(|x| x.is_finite()));
                }
            }
        }
    }
}
