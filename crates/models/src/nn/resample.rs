//! Convolutions that change the size of an image.

use tensor::Value;
use tensor::graph::Padding;

use super::{Bias, Conv2d, Window};
use crate::{Error, Params};

/// `y = conv(x)` with stride 2.
#[derive(Clone, Debug)]
pub struct Downsample {
    conv: Conv2d,
}

impl Downsample {
    /// The layer at this place. A padding of 0 means one row below and one column to the right.
    ///
    /// # Errors
    ///
    /// If a parameter is missing or its shape is another.
    pub fn load(params: &Params, channels: usize, padding: usize) -> Result<Self, Error> {
        let padding = match padding {
            0 => Padding { top: 0, left: 0, bottom: 1, right: 1 },
            n => Padding::all(n),
        };
        let window = Window { kernel: 3, stride: 2, padding };
        let shape = [channels, channels];
        Ok(Self { conv: Conv2d::with_window(&params.at("conv"), shape, window, Bias::Learned)? })
    }

    /// `[batch, height, width, channels]` → half the height and width (rounded up, where the padding is 1).
    #[track_caller]
    pub fn forward<'g>(&self, x: Value<'g>) -> Value<'g> {
        self.conv.forward(x)
    }
}

/// `y = conv(resize(x))` with nearest neighbours.
#[derive(Clone, Debug)]
pub struct Upsample {
    conv: Conv2d,
}

impl Upsample {
    /// The layer at this place.
    ///
    /// # Errors
    ///
    /// If a parameter is missing or its shape is another.
    pub fn load(params: &Params, channels: usize) -> Result<Self, Error> {
        Ok(Self { conv: Conv2d::load(&params.at("conv"), [channels, channels])? })
    }

    /// `[batch, height, width, channels]` → twice the height and width.
    #[track_caller]
    pub fn forward<'g>(&self, x: Value<'g>) -> Value<'g> {
        let shape = x.shape();
        self.to_size(x, [2 * shape[1], 2 * shape[2]])
    }

    /// `[batch, height, width, channels]` → another height and width.
    #[track_caller]
    pub fn to_size<'g>(&self, x: Value<'g>, [height, width]: [usize; 2]) -> Value<'g> {
        self.conv.forward(x.upsample(height, width))
    }
}
