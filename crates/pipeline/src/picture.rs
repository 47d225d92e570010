//! A finished picture.

/// 8-bit RGB, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `[height, width, 3]`.
    pub rgb: Vec<u8>,
}

impl Picture {
    /// Round what a decoder made, `[height, width, 3]` with values about −1…1.
    ///
    /// Half-way values go to the even neighbour, as in NumPy, so that a picture equals that of diffusers.
    pub fn from_decoded(width: usize, height: usize, decoded: &[f32]) -> Self {
        let level = |x: &f32| ((x * 0.5 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
        Self { width, height, rgb: decoded.iter().map(level).collect() }
    }

    /// The largest and the mean difference to a picture of the same size, in levels.
    pub fn difference(&self, other: &Self) -> Option<(u8, f64)> {
        if (self.width, self.height) != (other.width, other.height) {
            return None;
        }
        let apart = self.rgb.iter().zip(&other.rgb).map(|(a, b)| a.abs_diff(*b));
        let sum: f64 = apart.clone().map(f64::from).sum();
        Some((apart.max().unwrap_or(0), sum / self.rgb.len() as f64))
    }
}
