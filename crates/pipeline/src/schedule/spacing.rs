//! Which timesteps are taken: leading, trailing, evenly spaced, and LCM's distilled subset.
//!
//! Rounding is to even and sums are ordered as NumPy orders them.

use super::Spacing;

/// `count` numbers from 0 to `end`, both included, in double precision.
pub(super) fn ramp(end: f64, count: usize) -> Vec<f64> {
    let step = end / count.saturating_sub(1).max(1) as f64;
    let mut ramp: Vec<f64> = (0..count).map(|i| i as f64 * step).collect();
    if let Some(last) = ramp.last_mut().filter(|_| count > 1) {
        *last = end;
    }
    ramp
}

/// Falling timesteps for `steps` of `train` with nothing rounded to whole numbers but what the
/// spacing itself rounds. Leading steps are multiples of `train / steps`, plus the offset.
///
/// Trailing steps may be one more than asked for where `train / steps` is not exact; the extra one
/// lies before the first timestep of training, and diffusers takes it as well.
pub(super) fn falling(spacing: Spacing, train: usize, steps: usize, offset: usize) -> Vec<f64> {
    match spacing {
        Spacing::Linspace => {
            let mut all = ramp((train - 1) as f64, steps);
            all.reverse();
            all
        }
        Spacing::Leading => {
            let ratio = train / steps;
            (0..steps).rev().map(|i| (i * ratio + offset) as f64).collect()
        }
        Spacing::Trailing => trailing(train, train as f64 / steps as f64),
    }
}

/// As [`falling`], for samplers that look whole timesteps up in the training table.
pub(crate) fn integer(spacing: Spacing, train: usize, steps: usize, offset: usize) -> Vec<i64> {
    let timesteps = falling(spacing, train, steps, offset);
    // The extra trailing step is not in the table.
    let rounded = timesteps.iter().map(|t| t.round_ties_even() as i64);
    rounded.filter(|&t| t >= 0).collect()
}

/// For solvers that also count the level after the last step: `steps + 1` places, the last dropped.
pub(super) fn solver(spacing: Spacing, last: usize, train: usize, steps: usize) -> Vec<f64> {
    match spacing {
        Spacing::Linspace => {
            let all = ramp(last as f64 - 1.0, steps + 1);
            all.iter().skip(1).rev().map(|t| t.round_ties_even()).collect()
        }
        Spacing::Leading => {
            let ratio = last / (steps + 1);
            (1..=steps).rev().map(|i| (i * ratio) as f64).collect()
        }
        Spacing::Trailing => trailing(last, train as f64 / steps as f64),
    }
}

/// `start`, `start - ratio`, ... down to above zero, rounded, less one.
fn trailing(start: usize, ratio: f64) -> Vec<f64> {
    let start = start as f64;
    let count = (start / ratio).ceil() as usize;
    let step = (start - ratio) - start;
    (0..count).map(|i| (start + i as f64 * step).round_ties_even() - 1.0).collect()
}

/// Luo et al. 2023: `steps` of the `original` timesteps that the student was distilled on, evenly
/// spaced from the noisy end.
pub(crate) fn distilled(train: usize, original: usize, steps: usize) -> Vec<i64> {
    let ratio = train / original;
    let stride = original as f64 / steps as f64;
    let places = (0..steps).map(|i| (i as f64 * stride).floor() as usize);
    places.map(|i| ((original - i) * ratio) as i64 - 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spacings_of_ten_steps_in_table_two() {
        // Table 2 of Lin et al. 2024, counted from 0 instead of 1.
        let leading = [900, 800, 700, 600, 500, 400, 300, 200, 100, 0];
        assert_eq!(integer(Spacing::Leading, 1000, 10, 0), leading);
        let linspace = [999, 888, 777, 666, 555, 444, 333, 222, 111, 0];
        assert_eq!(integer(Spacing::Linspace, 1000, 10, 0), linspace);
        let trailing = [999, 899, 799, 699, 599, 499, 399, 299, 199, 99];
        assert_eq!(integer(Spacing::Trailing, 1000, 10, 0), trailing);
    }

    #[test]
    fn distilled_steps_of_latent_consistency() {
        assert_eq!(distilled(1000, 50, 4), [999, 759, 499, 259]);
        assert_eq!(distilled(1000, 50, 1), [999]);
    }
}
