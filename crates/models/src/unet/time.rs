//! Numbers → embeddings: sines and cosines on the host, then two linear layers.

use tensor::Value;
use tensor::graph::Activation;

use crate::nn::{Bias, Linear};
use crate::{Error, Params};

/// `y = g(W₂ f(W₁ (x + C c) + b₁) + b₂)`
#[derive(Clone, Debug)]
pub(super) struct TimeEmbedding {
    linear_1: Linear,
    cond_proj: Option<Linear>,
    linear_2: Linear,
    config: TimeEmbeddingConfig,
}

/// Options of a [`TimeEmbedding`].
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeEmbeddingConfig {
    /// Channels of `c`, where there is a condition.
    pub(super) condition: Option<usize>,
    /// `f`.
    pub(super) activation: Activation,
    /// `g`, where there is one.
    pub(super) post_activation: Option<Activation>,
}

impl TimeEmbedding {
    /// The layer at this place, of shape `[outputs, inputs]`.
    pub(super) fn load(
        params: &Params,
        [outputs, inputs]: [usize; 2],
        config: TimeEmbeddingConfig,
    ) -> Result<Self, Error> {
        let cond_proj = |n| Linear::load(&params.at("cond_proj"), [inputs, n], Bias::None);
        Ok(Self {
            linear_1: Linear::load(&params.at("linear_1"), [outputs, inputs], Bias::Learned)?,
            cond_proj: config.condition.map(cond_proj).transpose()?,
            linear_2: Linear::load(&params.at("linear_2"), [outputs, outputs], Bias::Learned)?,
            config,
        })
    }

    /// `x [batch, inputs]` and `c [batch, condition channels]` → `[batch, outputs]`.
    #[track_caller]
    pub(super) fn forward<'g>(&self, x: Value<'g>, condition: Option<Value<'g>>) -> Value<'g> {
        let x = match (&self.cond_proj, condition) {
            (Some(proj), Some(condition)) => proj.forward(condition) + x,
            _ => x,
        };
        let y = self.linear_2.forward(self.linear_1.forward(x).activate(self.config.activation));
        self.config.post_activation.map_or(y, |function| y.activate(function))
    }
}

/// Options of [`timestep_projection`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sinusoid {
    /// Number of sines and cosines together.
    pub channels: usize,
    /// Whether the cosines come first.
    pub flip_sin_to_cos: bool,
    /// Taken from the number of frequencies before they are spaced.
    pub freq_shift: f32,
}

/// `sin(t ωᵢ)` and `cos(t ωᵢ)` with `ωᵢ = 10000^(−i / (n − shift))`, where n is half the number of channels
/// (Vaswani et al. 2017, section 3.5).
///
/// Each operation is rounded to `f32` as the reference implementation does it: sines of large arguments depend on it.
pub fn timestep_projection(timestep: f32, options: Sinusoid) -> Vec<f32> {
    let half = options.channels / 2;
    let log = -(10_000_f64.ln() as f32);
    let frequencies = (0..half).map(|i| exp(log * i as f32 / (half as f32 - options.freq_shift)));
    let angles: Vec<f64> = frequencies.map(|w| f64::from(timestep * w)).collect();
    waves(&angles, options.channels, options.flip_sin_to_cos)
}

/// Embedding of a guidance scale `w` for models that learned guidance: sines, then cosines, of `1000 w ωᵢ` with
/// `ωᵢ = 10000^(−i / (n − 1))`, where n is half the number of channels (Luo et al. 2023).
pub fn guidance_scale_embedding(w: f32, channels: usize) -> Vec<f32> {
    let half = channels / 2;
    let step = (10_000_f64.ln() as f32) / (half as f32 - 1.0);
    let angles: Vec<f64> =
        (0..half).map(|i| f64::from(w * 1000.0 * exp(i as f32 * -step))).collect();
    waves(&angles, channels, false)
}

/// The exponential, rounded once.
fn exp(x: f32) -> f32 {
    f64::from(x).exp() as f32
}

/// Sines and cosines side by side, and a zero where the number of channels is odd.
fn waves(angles: &[f64], channels: usize, cosines_first: bool) -> Vec<f32> {
    let sines = angles.iter().map(|a| a.sin() as f32);
    let cosines = angles.iter().map(|a| a.cos() as f32);
    let mut waves: Vec<f32> =
        if cosines_first { cosines.chain(sines).collect() } else { sines.chain(cosines).collect() };
    waves.resize(channels, 0.0);
    waves
}

#[cfg(test)]
mod tests {
    use super::{Sinusoid, guidance_scale_embedding, timestep_projection};

    #[test]
    fn projections_equal_the_definition() {
        let options = Sinusoid { channels: 6, flip_sin_to_cos: true, freq_shift: 0.0 };
        let y = timestep_projection(10.0, options);
        let w = [1.0, 10_000_f64.powf(-1.0 / 3.0), 10_000_f64.powf(-2.0 / 3.0)];
        for i in 0..3 {
            assert!((f64::from(y[i]) - (10.0 * w[i]).cos()).abs() < 1e-6);
            assert!((f64::from(y[3 + i]) - (10.0 * w[i]).sin()).abs() < 1e-6);
        }
        let y = timestep_projection(
            10.0,
            Sinusoid { channels: 7, flip_sin_to_cos: false, freq_shift: 1.0 },
        );
        assert!((f64::from(y[1]) - (10.0_f64 * 0.01).sin()).abs() < 1e-6);
        assert_eq!((y.len(), y[6]), (7, 0.0));
    }

    #[test]
    fn guidance_embedding_equals_the_definition() {
        let y = guidance_scale_embedding(0.004, 4);
        let expected = [4.0_f64.sin(), 0.0004_f64.sin(), 4.0_f64.cos(), 0.0004_f64.cos()];
        for (a, b) in y.iter().zip(expected) {
            assert!((f64::from(*a) - b).abs() < 1e-6, "{a} {b}");
        }
    }
}
