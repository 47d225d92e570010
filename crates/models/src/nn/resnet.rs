//! The residual layer that every UNet and every VAE is made of.

use tensor::Value;
use tensor::graph::Activation;

use super::{Bias, Conv2d, GroupNorm, Linear, Window};
use crate::{Error, Params};

/// Two convolutions around a shift by time, added to their input.
///
/// `h = conv1(f(norm1(x))) + time(f(t))`, `y = (conv2(f(norm2(h))) + skip(x)) / scale`; a VAE has no time.
#[derive(Clone, Debug)]
pub struct Resnet {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
    activation: Activation,
    output_scale: f32,
}

/// What all residual layers of a model have in common.
#[derive(Clone, Copy, Debug)]
pub struct ResnetConfig {
    /// Groups of both normalisations.
    pub groups: usize,
    /// ε of both normalisations.
    pub eps: f32,
    /// `f`.
    pub activation: Activation,
    /// Channels of the time embedding, where there is one.
    pub time: Option<usize>,
    /// The sum is divided by this.
    pub output_scale: f32,
}

impl Resnet {
    /// The layer at this place, from `inputs` to `outputs` channels.
    ///
    /// # Errors
    ///
    /// If a parameter is missing or its shape is another.
    pub fn load(
        params: &Params,
        [inputs, outputs]: [usize; 2],
        config: &ResnetConfig,
    ) -> Result<Self, Error> {
        let norm =
            |name, channels| GroupNorm::load(&params.at(name), channels, config.groups, config.eps);
        let time = |channels| {
            Linear::load(&params.at("time_emb_proj"), [outputs, channels], Bias::Learned)
        };
        let shortcut = || {
            let place = params.at("conv_shortcut");
            Conv2d::with_window(&place, [outputs, inputs], Window::same(1), Bias::Learned)
        };
        Ok(Self {
            norm1: norm("norm1", inputs)?,
            conv1: Conv2d::load(&params.at("conv1"), [outputs, inputs])?,
            time_emb_proj: config.time.map(time).transpose()?,
            norm2: norm("norm2", outputs)?,
            conv2: Conv2d::load(&params.at("conv2"), [outputs, outputs])?,
            conv_shortcut: (inputs != outputs).then(shortcut).transpose()?,
            activation: config.activation,
            output_scale: config.output_scale,
        })
    }

    /// `x [batch, height, width, inputs]`, `f(t) [batch, time channels]` → `[batch, height, width, outputs]`.
    ///
    /// The activation of the time embedding is the same for all layers, so it is taken outside.
    #[track_caller]
    pub fn forward<'g>(&self, x: Value<'g>, time: Option<Value<'g>>) -> Value<'g> {
        let skip = self.conv_shortcut.as_ref().map_or(x, |conv| conv.forward(x));
        // What is added is recorded before the convolution it is added to, so that the two can run as one operation.
        let shift = self.time_emb_proj.as_ref().zip(time).map(|(proj, time)| proj.forward(time));
        let h = self.conv1.forward(self.norm1.forward(x).activate(self.activation));
        let h = shift.map_or(h, |shift| h.add_shift(shift));
        let h = self.conv2.forward(self.norm2.forward(h).activate(self.activation));
        let y = h + skip;
        if self.output_scale == 1.0 { y } else { y.scale(1.0 / self.output_scale) }
    }
}
