//! Keeping a predicted clean sample in range.

use crate::schedule::Limit;

impl Limit {
    /// Limits the clean samples of `images` pictures that lie one after the other.
    pub(super) fn apply(self, clean: &mut [f32], images: usize) {
        match self {
            Self::None => {}
            Self::Clip(range) => clean.iter_mut().for_each(|x| *x = x.clamp(-range, range)),
            Self::Threshold { ratio, max } => {
                let size = clean.len().div_ceil(images.max(1)).max(1);
                clean.chunks_mut(size).for_each(|image| threshold(image, ratio, max));
            }
        }
    }
}

/// Clips to a quantile of the magnitudes, at least 1 and at most `max`, and divides by it.
fn threshold(image: &mut [f32], ratio: f32, max: f32) {
    let bound = quantile(image.iter().map(|x| x.abs()).collect(), ratio).max(1.0).min(max);
    for x in image {
        *x = x.max(-bound).min(bound) / bound;
    }
}

/// The quantile with linear interpolation between neighbours.
fn quantile(mut values: Vec<f32>, ratio: f32) -> f32 {
    if values.is_empty() {
        return 0.0;
    }
    values.sort_unstable_by(f32::total_cmp);
    let place = ratio * (values.len() - 1) as f32;
    let low = place.floor();
    let (below, above) = (values[low as usize], values[place.ceil() as usize]);
    (place - low).mul_add(above - below, below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_interpolated() {
        assert_eq!(quantile(vec![3.0, 1.0, 2.0], 0.75), 2.5);
        assert_eq!(quantile(vec![4.0], 0.995), 4.0);
    }

    #[test]
    fn each_image_has_its_own_threshold() {
        let mut clean = [0.5, -0.25, 4.0, -2.0];
        Limit::Threshold { ratio: 1.0, max: 10.0 }.apply(&mut clean, 2);
        assert_eq!(clean, [0.5, -0.25, 1.0, -0.5]);
    }
}
