//! Scorer: which objects a picture shows, and in which order.
//!
//! A small convolutional network, trained on renders alone (`tools/train/scorer`): levels that halve the picture, one
//! convolution over what is left, and an answer for each of two objects. Batch normalisation is part of the weights.

use serde::Deserialize;
use tensor::graph::{Activation, Padding};
use tensor::{Graph, Value};

use crate::config::{self, CHANNELS, LEVELS};
use crate::nn::{Bias, Conv2d, Linear, Window};
use crate::{Error, Params};

/// Name of the class in error messages.
const MODEL: &str = "Scorer";

/// Fields of `config.json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    /// Pixels of a picture's side.
    pub image_size: usize,
    /// Channels of each level, outermost first.
    pub channels: Vec<usize>,
    /// Channels behind all levels.
    pub hidden_size: usize,
    /// Names of the objects that it knows.
    pub objects: Vec<String>,
}

impl Config {
    /// Read `config.json`.
    ///
    /// # Errors
    ///
    /// If a field cannot be read, or sizes do not fit each other.
    pub fn read(json: &serde_json::Value) -> Result<Self, Error> {
        let config: Self = config::read(MODEL, json)?;
        let widths = config.channels.iter().copied().chain([config.hidden_size]);
        config::within(MODEL, "channels", widths, CHANNELS)?;
        config::within(MODEL, "the number of channels", [config.channels.len()], LEVELS)?;
        config::within(MODEL, "the number of objects", [config.objects.len()], CHANNELS)?;
        config::within(MODEL, "image_size", [config.side() << config.channels.len()], 1..=1 << 12)?;
        if config.side() << config.channels.len() != config.image_size {
            let fault = format!("cannot be halved {} times", config.channels.len());
            return Err(config::fault(MODEL, "image_size", &fault));
        }
        Ok(config)
    }

    /// Pixels of a side behind all levels.
    fn side(&self) -> usize {
        self.image_size >> self.channels.len()
    }
}

/// Pictures → objects.
#[derive(Clone, Debug)]
pub struct Scorer {
    body: Vec<Conv2d>,
    middle: Conv2d,
    first: Linear,
    second: Linear,
    image_size: usize,
}

/// What a picture shows.
#[derive(Clone, Copy, Debug)]
pub struct Output<'g> {
    /// `[batch, objects]`: how much speaks for each as the only object, the left or the upper one.
    pub first: Value<'g>,
    /// `[batch, objects + 1]`: the same of the other object; the last one says that there is none.
    pub second: Value<'g>,
}

impl Scorer {
    /// The scorer at this place.
    ///
    /// # Errors
    ///
    /// If a parameter is missing or its shape is another than the configuration says.
    pub fn load(params: &Params, config: &Config) -> Result<Self, Error> {
        let mut body = Vec::new();
        let mut before = 3;
        for (level, &width) in config.channels.iter().enumerate() {
            let kernel = if level == 0 { 5 } else { 3 };
            let halves = Window { stride: 2, ..Window::same(kernel) };
            let mut layer = |inputs, window| {
                let params = params.at("body").at(body.len());
                body.push(Conv2d::with_window(&params, [width, inputs], window, Bias::Learned)?);
                Ok::<_, Error>(())
            };
            layer(before, halves)?;
            if level > 0 {
                layer(width, Window::same(3))?;
            }
            before = width;
        }
        let whole = Window { kernel: config.side(), stride: 1, padding: Padding::all(0) };
        let (hidden, count) = (config.hidden_size, config.objects.len());
        let middle = params.at("middle");
        let head = |name, count| Linear::load(&params.at(name), [count, hidden], Bias::Learned);
        Ok(Self {
            body,
            middle: Conv2d::with_window(&middle, [hidden, before], whole, Bias::Learned)?,
            first: head("first", count)?,
            second: head("second", count + 1)?,
            image_size: config.image_size,
        })
    }

    /// Where `batch` pictures go, as numbers of −1…1: `pixels`, `[batch, image_size, image_size, 3]`.
    pub fn input<'g>(&self, graph: &'g Graph, batch: usize) -> Value<'g> {
        graph.input("pixels", [batch, self.image_size, self.image_size, 3])
    }

    /// `head(relu(middle(body(x))))`, where `body` is `relu(conv(…relu(conv(x))))`.
    #[track_caller]
    pub fn forward<'g>(&self, pixels: Value<'g>) -> Output<'g> {
        let relu = |x: Value<'g>| x.activate(Activation::Relu);
        let seen = self.body.iter().fold(pixels, |x, conv| relu(conv.forward(x)));
        let whole = relu(self.middle.forward(seen));
        let shape = whole.shape();
        let whole = whole.reshape([shape[0], shape[3]]);
        Output { first: self.first.forward(whole), second: self.second.forward(whole) }
    }
}
