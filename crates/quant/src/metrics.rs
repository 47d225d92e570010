//! How far something is from what it should be.

/// Where differences vanish: two equal signals, in decibels.
pub const SAME: f64 = 150.0;

/// Sums of squares below this are lost beside any number that matters.
const NOTHING: f64 = 1e-60;

/// Sums of squares of a signal and of its error.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Noise {
    signal: f64,
    error: f64,
}

impl Noise {
    /// Take in a reference and what came instead of it.
    ///
    /// # Panics
    ///
    /// If they differ in length.
    pub fn add(&mut self, reference: &[f32], found: &[f32]) {
        assert_eq!(reference.len(), found.len(), "signals of one length");
        for (&reference, &found) in reference.iter().zip(found) {
            let (reference, found) = (f64::from(reference), f64::from(found));
            self.signal += reference * reference;
            self.error += (found - reference) * (found - reference);
        }
    }

    /// Signal-to-quantization-noise ratio in decibels, `10 log₁₀ (Σ r² / Σ (f − r)²)`, between minus and plus [`SAME`].
    pub fn sqnr(&self) -> f64 {
        decibels(self.signal, self.error)
    }
}

/// Peak signal-to-noise ratio of two pictures of 8 bits in decibels, at most [`SAME`].
///
/// # Panics
///
/// If they differ in length.
pub fn psnr(reference: &[u8], found: &[u8]) -> f64 {
    assert_eq!(reference.len(), found.len(), "pictures of one size");
    let apart = reference.iter().zip(found).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2));
    decibels(255.0 * 255.0 * reference.len() as f64, apart.sum())
}

fn decibels(signal: f64, error: f64) -> f64 {
    // A layer whose weights are all zero has no signal to compare with, and an error of next to nothing.
    if error < NOTHING { SAME } else { (10.0 * (signal / error).log10()).clamp(-SAME, SAME) }
}

/// Spearman's rank correlation of pairs; equal numbers share their ranks' mean. 0 where either side is all alike.
pub fn rank_correlation(pairs: &[(f64, f64)]) -> f64 {
    let ranks = |number: fn(&(f64, f64)) -> f64| -> Vec<f64> {
        let all: Vec<f64> = pairs.iter().map(number).collect();
        let rank = |x: &f64| {
            let below = all.iter().filter(|y| *y < x).count();
            let alike = all.iter().filter(|y| *y == x).count();
            below as f64 + (alike as f64 - 1.0) / 2.0
        };
        all.iter().map(rank).collect()
    };
    let (a, b) = (ranks(|pair| pair.0), ranks(|pair| pair.1));
    let mean = (pairs.len() as f64 - 1.0) / 2.0;
    let product = |a: &[f64], b: &[f64]| -> f64 {
        a.iter().zip(b).map(|(a, b)| (a - mean) * (b - mean)).sum()
    };
    let spread = (product(&a, &a) * product(&b, &b)).sqrt();
    if spread > 0.0 { product(&a, &b) / spread } else { 0.0 }
}

/// Pixels to each side of a window's centre.
const RADIUS: usize = 5;
/// Standard deviation of the window's weights, in pixels.
const DEVIATION: f64 = 1.5;

/// Pixels of the shortest side that can be compared by [`ssim`].
pub const LEAST_SIDE: usize = 2 * RADIUS + 1;

/// Structural similarity (Wang et al. 2004, equation 13) of two RGB pictures `[height, width, 3]`: windows of 11×11
/// pixels weighted by a Gaussian of 1.5, the mean over all windows that lie in the picture and over the channels.
/// Equal to scikit-image's with `gaussian_weights=True, use_sample_covariance=False`.
///
/// # Panics
///
/// If the sizes are not those of the pictures, or a side is shorter than a window.
pub fn ssim(reference: &[u8], found: &[u8], [height, width]: [usize; 2]) -> f64 {
    assert!(reference.len() == found.len() && found.len() == height * width * 3, "one size");
    assert!(height.min(width) >= LEAST_SIDE, "pictures larger than a window");
    let plane = |picture: &[u8], channel: usize| -> Vec<f64> {
        picture.iter().skip(channel).step_by(3).map(|&x| f64::from(x)).collect()
    };
    let channels = (0..3).map(|c| likeness(&plane(reference, c), &plane(found, c), width));
    channels.sum::<f64>() / 3.0
}

/// The mean structural similarity of two planes.
fn likeness(x: &[f64], y: &[f64], width: usize) -> f64 {
    const C1: f64 = 0.01 * 255.0 * 0.01 * 255.0;
    const C2: f64 = 0.03 * 255.0 * 0.03 * 255.0;
    let product = |a: &[f64], b: &[f64]| -> Vec<f64> {
        let products: Vec<f64> = a.iter().zip(b).map(|(a, b)| a * b).collect();
        blurred(&products, width)
    };
    let (mx, my) = (blurred(x, width), blurred(y, width));
    let (xx, yy, xy) = (product(x, x), product(y, y), product(x, y));
    let all = (0..mx.len()).map(|i| {
        let (mx, my) = (mx[i], my[i]);
        let (vx, vy, cov) = (xx[i] - mx * mx, yy[i] - my * my, xy[i] - mx * my);
        ((2.0 * mx * my + C1) * (2.0 * cov + C2)) / ((mx * mx + my * my + C1) * (vx + vy + C2))
    });
    all.sum::<f64>() / mx.len() as f64
}

/// The weighted mean of each window that lies in the plane.
fn blurred(plane: &[f64], width: usize) -> Vec<f64> {
    let weights = weights();
    let rows = plane.chunks_exact(width).flat_map(|row| {
        row.windows(weights.len())
            .map(|window| window.iter().zip(&weights).map(|(x, w)| x * w).sum::<f64>())
    });
    let rows: Vec<f64> = rows.collect();
    let width = width - 2 * RADIUS;
    let height = rows.len() / width - 2 * RADIUS;
    let mut out = vec![0.0; height * width];
    for (y, out) in out.chunks_exact_mut(width).enumerate() {
        for (row, weight) in rows[y * width..].chunks_exact(width).zip(&weights) {
            for (sum, x) in out.iter_mut().zip(row) {
                *sum += weight * x;
            }
        }
    }
    out
}

/// A Gaussian that sums to one.
fn weights() -> [f64; 2 * RADIUS + 1] {
    let bell = |i: usize| (-0.5 * ((i as f64 - RADIUS as f64) / DEVIATION).powi(2)).exp();
    let weights: [f64; 2 * RADIUS + 1] = std::array::from_fn(bell);
    let sum: f64 = weights.iter().sum();
    weights.map(|w| w / sum)
}

#[cfg(test)]
mod tests {
    use super::{Noise, SAME, psnr, rank_correlation, ssim};

    #[test]
    fn equal_signals_are_as_near_as_can_be() {
        let mut noise = Noise::default();
        noise.add(&[1.0, -2.0], &[1.0, -2.0]);
        assert_eq!(noise.sqnr(), SAME);
        assert_eq!(psnr(&[1, 2, 3], &[1, 2, 3]), SAME);
        let picture: Vec<u8> = (0..12 * 13 * 3).map(|i| (i * 7 % 251) as u8).collect();
        assert!((ssim(&picture, &picture, [12, 13]) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn decibels_are_those_of_the_definition() {
        let mut noise = Noise::default();
        noise.add(&[3.0, 4.0], &[3.0, 4.5]);
        assert!((noise.sqnr() - 20.0).abs() < 1e-9);
        let of_zeros = |found: f32| {
            let mut noise = Noise::default();
            noise.add(&[0.0], &[found]);
            noise.sqnr()
        };
        assert_eq!((of_zeros(1e-36), of_zeros(1.0)), (SAME, -SAME));
        // A tenth of the full range everywhere.
        assert!((psnr(&[0; 6], &[51; 6]) - 13.979_400_086_720_377).abs() < 1e-9);
    }

    #[test]
    fn ranks_alone_count() {
        let risen: Vec<(f64, f64)> = (0..9).map(|i| (f64::from(i), f64::from(i).exp())).collect();
        assert!((rank_correlation(&risen) - 1.0).abs() < 1e-12);
        let fallen: Vec<(f64, f64)> = risen.iter().map(|(a, b)| (*a, -b)).collect();
        assert!((rank_correlation(&fallen) + 1.0).abs() < 1e-12);
        // Ranks 0, 1.5, 1.5, 3 beside 0, 2, 1, 3, by hand.
        let tied = [(1.0, 1.0), (2.0, 3.0), (2.0, 2.0), (5.0, 9.0)];
        assert!((rank_correlation(&tied) - 4.5 / (4.5_f64 * 5.0).sqrt()).abs() < 1e-12);
        assert_eq!(rank_correlation(&[(1.0, 2.0), (1.0, 3.0)]), 0.0);
    }

    #[test]
    fn similarity_is_that_of_scikit_image() {
        // The pictures and the number of tools/reference/metrics.py.
        let picture = |factor: usize, modulus: usize| -> Vec<u8> {
            (0..20 * 24 * 3).map(|i| (i * factor % modulus) as u8).collect()
        };
        let found = ssim(&picture(7, 251), &picture(7, 239), [20, 24]);
        assert!((found - SSIM).abs() < 1e-9, "{found}");
    }

    const SSIM: f64 = 0.060_863_099_936_722_98;
}
