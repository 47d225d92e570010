//! How much better one of two is that drew the same pictures.

use std::fmt;

/// The mean difference of two scores of the same pictures, and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Gain {
    mean: f64,
    /// Half of the interval that holds the true mean in 95 of 100 cases.
    within: f64,
}

impl Gain {
    /// The first one's scores less the second one's; not a number where they have not drawn the same pictures.
    pub(super) fn new([ours, theirs]: [Vec<f64>; 2]) -> Self {
        /// Standard errors to each side.
        const WIDTH: f64 = 1.96;
        let count = ours.len() as f64;
        if ours.len() != theirs.len() || ours.len() < 2 {
            return Self { mean: f64::NAN, within: f64::NAN };
        }
        let differences = ours.iter().zip(&theirs).map(|(ours, theirs)| ours - theirs);
        let mean = differences.clone().sum::<f64>() / count;
        let variance = differences.map(|d| (d - mean).powi(2)).sum::<f64>() / (count - 1.0);
        Self { mean, within: WIDTH * (variance / count).sqrt() }
    }

    /// The lower end of the interval: above zero, the first one is better.
    pub(super) fn least(self) -> f64 {
        self.mean - self.within
    }
}

impl fmt::Display for Gain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:+.4} ± {:.4}", self.mean, self.within)
    }
}

#[cfg(test)]
mod tests {
    use super::Gain;

    #[test]
    fn a_gain_is_as_sure_as_its_pictures_agree() {
        let gain = Gain::new([vec![3.0, 5.0, 7.0, 9.0], vec![1.0, 3.0, 5.0, 7.0]]);
        assert_eq!((gain.mean, gain.least()), (2.0, 2.0));
        let gain = Gain::new([vec![1.0, -1.0, 2.0, -2.0], vec![0.0; 4]]);
        assert!(gain.mean == 0.0 && gain.least() < -1.5);
    }

    #[test]
    fn other_pictures_tell_nothing() {
        assert!(Gain::new([vec![1.0, 2.0], vec![1.0]]).least().is_nan());
        assert!(Gain::new([vec![], vec![]]).least().is_nan());
    }
}
