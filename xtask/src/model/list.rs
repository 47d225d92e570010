//! The list of a component's tensors: names, shapes and how they are drawn.
//!
//! Random weights say something about speed and memory only if the activations they produce look
//! like a trained network's. Every matrix therefore has a deviation of `gain / sqrt(inputs)`:
//! a gain of 1 keeps the deviation of its input. Layers that end a residual branch get less, so
//! that fifty branches in a row do not explode.

/// A tensor to be written, with the distribution of its values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tensor {
    /// Name in the checkpoint, with a full stop between parts.
    pub(crate) name: String,
    /// Sizes as `PyTorch` stores them: outputs first.
    pub(crate) shape: Vec<usize>,
    /// Mean of the values.
    pub(crate) mean: f32,
    /// Standard deviation of the values.
    pub(crate) deviation: f32,
}

impl Tensor {
    /// Number of values.
    pub(crate) fn count(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Gain of a layer that passes its input on.
pub(crate) const PLAIN: f32 = 1.0;
/// Gain of the last layer of a residual branch.
pub(crate) const BRANCH: f32 = 0.3;
/// Gain of queries and keys: peaked enough that attention does not average everything away.
pub(crate) const SHARP: f32 = 1.0;

const NORM_DEVIATION: f32 = 0.1;
const BIAS_DEVIATION: f32 = 0.05;

/// Builds a list of tensors layer by layer.
#[derive(Debug, Default)]
pub(crate) struct List(pub(crate) Vec<Tensor>);

impl List {
    /// A matrix or convolution without bias; `shape` starts with outputs, the rest are inputs.
    pub(crate) fn weight(&mut self, layer: &str, shape: &[usize], gain: f32) {
        let inputs: usize = shape[1..].iter().product();
        let deviation = gain / (inputs as f32).sqrt();
        self.push(format!("{layer}.weight"), shape, (0.0, deviation));
    }

    /// A matrix or convolution with bias.
    pub(crate) fn layer(&mut self, layer: &str, shape: &[usize], gain: f32) {
        self.weight(layer, shape, gain);
        self.push(format!("{layer}.bias"), &shape[..1], (0.0, BIAS_DEVIATION * gain));
    }

    /// A 3×3 convolution with bias, `[outputs, inputs]`.
    pub(crate) fn conv3(&mut self, layer: &str, [outputs, inputs]: [usize; 2], gain: f32) {
        self.layer(layer, &[outputs, inputs, 3, 3], gain);
    }

    /// A normalisation with scale and shift.
    pub(crate) fn norm(&mut self, layer: &str, channels: usize) {
        self.push(format!("{layer}.weight"), &[channels], (1.0, NORM_DEVIATION));
        self.push(format!("{layer}.bias"), &[channels], (0.0, NORM_DEVIATION));
    }

    /// An embedding table, `[entries, width]`.
    pub(crate) fn table(&mut self, layer: &str, shape: [usize; 2], deviation: f32) {
        self.push(format!("{layer}.weight"), &shape, (0.0, deviation));
    }

    fn push(&mut self, name: String, shape: &[usize], (mean, deviation): (f32, f32)) {
        self.0.push(Tensor { name, shape: shape.to_vec(), mean, deviation });
    }
}
