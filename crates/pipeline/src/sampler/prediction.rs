//! From what a model predicts to the clean sample and the noise.

use crate::schedule::Prediction;

/// The two factors of `x_t = signal x_0 + noise e`, with `signal² + noise² = 1`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mix {
    /// Factor on the clean sample, `sqrt(a)`.
    pub(super) signal: f32,
    /// Factor on the noise, `sqrt(1 - a)`.
    pub(super) noise: f32,
}

impl Mix {
    /// From a cumulative alpha.
    pub(super) fn of_alpha(alpha_cumprod: f32) -> Self {
        Self { signal: alpha_cumprod.sqrt(), noise: (1.0 - alpha_cumprod).sqrt() }
    }

    /// From a ratio of noise to signal.
    pub(super) fn of_sigma(sigma: f32) -> Self {
        let signal = 1.0 / (sigma * sigma + 1.0).sqrt();
        Self { signal, noise: sigma * signal }
    }

    /// Half the logarithm of the signal-to-noise ratio.
    pub(super) fn lambda(self) -> f32 {
        ln(self.signal) - ln(self.noise)
    }

    /// The clean sample that a prediction at sample `x` stands for.
    pub(super) fn clean(self, prediction: Prediction, output: &[f32], x: &[f32]) -> Vec<f32> {
        let Self { signal, noise } = self;
        match prediction {
            Prediction::Epsilon => pairs(x, output, |x, e| (x - noise * e) / signal),
            Prediction::Velocity => pairs(x, output, |x, v| signal * x - noise * v),
            Prediction::Sample => output.to_vec(),
        }
    }

    /// The noise that a prediction at sample `x` stands for.
    pub(super) fn noise(self, prediction: Prediction, output: &[f32], x: &[f32]) -> Vec<f32> {
        let Self { signal, noise } = self;
        match prediction {
            Prediction::Epsilon => output.to_vec(),
            Prediction::Velocity => pairs(x, output, |x, v| signal * v + noise * x),
            Prediction::Sample => pairs(x, output, |x, clean| (x - signal * clean) / noise),
        }
    }
}

/// The clean sample when the sample is `x_0 + sigma e`, as in Karras et al. 2022.
pub(super) fn clean_at_sigma(
    prediction: Prediction,
    sigma: f32,
    output: &[f32],
    x: &[f32],
) -> Vec<f32> {
    let scale = sigma * sigma + 1.0;
    match prediction {
        Prediction::Epsilon => pairs(x, output, |x, e| x - sigma * e),
        Prediction::Velocity => {
            let out = -sigma / scale.sqrt();
            pairs(x, output, |x, v| v * out + x / scale)
        }
        Prediction::Sample => output.to_vec(),
    }
}

/// The input of a model that was trained on samples of unit variance.
pub(super) fn scaled(sigma: f32, sample: &[f32]) -> Vec<f32> {
    let norm = (sigma * sigma + 1.0).sqrt();
    sample.iter().map(|x| x / norm).collect()
}

/// A function of two slices, value by value.
pub(super) fn pairs(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> Vec<f32> {
    a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect()
}

/// Correctly rounded logarithm, the same on every machine.
pub(super) fn ln(x: f32) -> f32 {
    f64::from(x).ln() as f32
}

/// Correctly rounded exponential.
pub(super) fn exp(x: f32) -> f32 {
    f64::from(x).exp() as f32
}

/// Correctly rounded `exp(x) - 1`.
pub(super) fn exp_m1(x: f32) -> f32 {
    f64::from(x).exp_m1() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predictions_agree_on_the_same_sample() {
        let mix = Mix::of_alpha(0.7);
        let (clean, noise) = (0.3, -1.2);
        let x = [mix.signal * clean + mix.noise * noise];
        let velocity = [mix.signal * noise - mix.noise * clean];
        let cases = [
            (Prediction::Epsilon, [noise]),
            (Prediction::Velocity, velocity),
            (Prediction::Sample, [clean]),
        ];
        for (prediction, output) in cases {
            assert!((mix.clean(prediction, &output, &x)[0] - clean).abs() < 1e-6);
            assert!((mix.noise(prediction, &output, &x)[0] - noise).abs() < 1e-6);
        }
    }
}
