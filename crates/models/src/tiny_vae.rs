//! `AutoencoderTiny` (TAESD): a small stand-in for an `AutoencoderKL`.
//!
//! Both halves are a plain list of layers, numbered in the checkpoint as they run.

mod config;

use tensor::Value;
use tensor::graph::{Activation, Padding};

pub use config::Config;

use crate::nn::{Bias, Conv2d, Window};
use crate::{Error, Params};

/// Latents are bent to −3…3 before decoding.
const MAGNITUDE: f32 = 3.0;

/// `y = relu(x + conv(f(conv(f(conv(x))))))`
#[derive(Clone, Debug)]
struct Block {
    convs: [Conv2d; 3],
    activation: Activation,
}

impl Block {
    fn load(params: &Params, channels: usize, activation: Activation) -> Result<Self, Error> {
        let conv = |i: usize| Conv2d::load(&params.at("conv").at(i), [channels, channels]);
        Ok(Self { convs: [conv(0)?, conv(2)?, conv(4)?], activation })
    }

    fn forward<'g>(&self, x: Value<'g>) -> Value<'g> {
        let [first, second, third] = &self.convs;
        let h = first.forward(x).activate(self.activation);
        let h = second.forward(h).activate(self.activation);
        (third.forward(h) + x).activate(Activation::Relu)
    }
}

/// One numbered layer of either half.
#[derive(Clone, Debug)]
enum Layer {
    Conv(Conv2d),
    Activation(Activation),
    Block(Block),
    /// Nearest neighbours.
    Upsample(usize),
}

impl Layer {
    fn forward<'g>(&self, x: Value<'g>) -> Value<'g> {
        match self {
            Self::Conv(conv) => conv.forward(x),
            Self::Activation(function) => x.activate(*function),
            Self::Block(block) => block.forward(x),
            Self::Upsample(factor) => x.upsample(factor * x.shape()[1], factor * x.shape()[2]),
        }
    }
}

/// A list of layers that knows the number of the next one.
struct Sequence {
    params: Params,
    layers: Vec<Layer>,
}

impl Sequence {
    fn new(params: &Params, half: &str) -> Self {
        Self { params: params.at(half).at("layers"), layers: Vec::new() }
    }

    fn next(&self) -> Params {
        self.params.at(self.layers.len())
    }

    fn conv(&mut self, shape: [usize; 2], stride: usize, bias: Bias) -> Result<(), Error> {
        let window = Window { kernel: 3, stride, padding: Padding::all(1) };
        let conv = Conv2d::with_window(&self.next(), shape, window, bias)?;
        self.layers.push(Layer::Conv(conv));
        Ok(())
    }

    fn blocks(&mut self, count: usize, channels: usize, f: Activation) -> Result<(), Error> {
        for _ in 0..count {
            let block = Block::load(&self.next(), channels, f)?;
            self.layers.push(Layer::Block(block));
        }
        Ok(())
    }
}

/// Latents → pictures.
#[derive(Clone, Debug)]
pub struct Decoder {
    layers: Vec<Layer>,
}

impl Decoder {
    /// The decoder of the autoencoder at this place.
    ///
    /// # Errors
    ///
    /// If a parameter is missing or its shape is another than the configuration says.
    pub fn load(params: &Params, config: &Config) -> Result<Self, Error> {
        let channels = &config.decoder_block_out_channels;
        let f = config.activation()?;
        let mut sequence = Sequence::new(params, "decoder");
        sequence.conv([channels[0], config.latent_channels], 1, Bias::Learned)?;
        sequence.layers.push(Layer::Activation(f));
        for (i, (&n, &blocks)) in channels.iter().zip(&config.num_decoder_blocks).enumerate() {
            sequence.blocks(blocks, n, f)?;
            if i + 1 < channels.len() {
                sequence.layers.push(Layer::Upsample(config.upsampling_scaling_factor));
                sequence.conv([n, n], 1, Bias::None)?;
            } else {
                sequence.conv([config.out_channels, n], 1, Bias::Learned)?;
            }
        }
        Ok(Self { layers: sequence.layers })
    }

    /// `2 layers(3 tanh(z / 3)) − 1`: latents `[batch, height, width, latent channels]` → pixels of about −1…1,
    /// `[batch, 8 height, 8 width, 3]` where there are four levels.
    #[track_caller]
    pub fn forward<'g>(&self, latents: Value<'g>) -> Value<'g> {
        let bent = latents.scale(1.0 / MAGNITUDE).activate(Activation::Tanh).scale(MAGNITUDE);
        let pixels = self.layers.iter().fold(bent, |x, layer| layer.forward(x));
        pixels.scale(2.0).offset(-1.0)
    }
}

/// Pictures → latents.
#[derive(Clone, Debug)]
pub struct Encoder {
    layers: Vec<Layer>,
}

impl Encoder {
    /// The encoder of the autoencoder at this place.
    ///
    /// # Errors
    ///
    /// If a parameter is missing or its shape is another than the configuration says.
    pub fn load(params: &Params, config: &Config) -> Result<Self, Error> {
        let channels = &config.encoder_block_out_channels;
        let f = config.activation()?;
        let mut sequence = Sequence::new(params, "encoder");
        for (i, (&n, &blocks)) in channels.iter().zip(&config.num_encoder_blocks).enumerate() {
            match i {
                0 => sequence.conv([n, config.in_channels], 1, Bias::Learned)?,
                _ => sequence.conv([n, n], 2, Bias::None)?,
            }
            sequence.blocks(blocks, n, f)?;
        }
        let last = channels[channels.len() - 1];
        sequence.conv([config.latent_channels, last], 1, Bias::Learned)?;
        Ok(Self { layers: sequence.layers })
    }

    /// `layers((x + 1) / 2)`: pixels of −1…1 `[batch, height, width, 3]` → latents `[batch, height / 8, width / 8,
    /// latent channels]` where there are four levels.
    #[track_caller]
    pub fn forward<'g>(&self, pixels: Value<'g>) -> Value<'g> {
        self.layers.iter().fold(pixels.offset(1.0).scale(0.5), |x, layer| layer.forward(x))
    }
}
