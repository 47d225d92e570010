//! Convolution over height and width.

use tensor::graph::Padding;
use tensor::{Value, Weight};

use super::Bias;
use crate::{Error, Params};

/// What a convolution sees of its input, and which pixels it looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Height and width of the kernel.
    pub kernel: usize,
    /// Step over the input.
    pub stride: usize,
    /// Zeros around the input.
    pub padding: Padding,
}

impl Window {
    /// An odd kernel that keeps the size of its input.
    pub fn same(kernel: usize) -> Self {
        Self { kernel, stride: 1, padding: Padding::all((kernel - 1) / 2) }
    }
}

/// `y[p] = Σ W[d] x[stride · p + d] + b`, zeros beyond the edges.
#[derive(Clone, Debug)]
pub struct Conv2d {
    /// `[outputs, inputs, kernel, kernel]`.
    weight: Weight,
    /// `[outputs]`.
    bias: Option<Weight>,
    window: Window,
}

impl Conv2d {
    /// The 3×3 convolution at this place that keeps its input's size, with a bias: `shape` is `[outputs, inputs]`.
    ///
    /// # Errors
    ///
    /// If a parameter is missing or its shape is another.
    pub fn load(params: &Params, shape: [usize; 2]) -> Result<Self, Error> {
        Self::with_window(params, shape, Window::same(3), Bias::Learned)
    }

    /// The convolution at this place with another window, with or without a bias.
    ///
    /// # Errors
    ///
    /// If a parameter is missing or its shape is another.
    pub fn with_window(
        params: &Params,
        [outputs, inputs]: [usize; 2],
        window: Window,
        bias: Bias,
    ) -> Result<Self, Error> {
        let weight = params.weight("weight", &[outputs, inputs, window.kernel, window.kernel])?;
        Ok(Self { weight, bias: bias.load(params, outputs)?, window })
    }

    /// `[batch, height, width, inputs]` → `[batch, height / stride, width / stride, outputs]`.
    #[track_caller]
    pub fn forward<'g>(&self, x: Value<'g>) -> Value<'g> {
        x.conv2d(&self.weight, self.bias.as_ref(), self.window.stride, self.window.padding)
    }
}
