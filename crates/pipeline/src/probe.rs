//! One layer in another format, everything else real: what becomes of the prediction and of the picture.
//!
//! Nothing before the changed layer is computed again. For each call of its network the values that the layer needs from
//! before it are kept, and moved on from layer to layer in the order in which the network runs them. What comes after the
//! network is computed whole: a text encoder's result goes through the UNet, the UNet's through the decoder.

mod decoder;
mod denoiser;
mod encoders;
mod network;
mod times;

use std::time::{Duration, Instant};

use quant::metrics::{self, Noise};
use quant::sensitivity::Effect;
use tensor::graph::NodeId;
use tensor::{Device, LayerFormat, Precision};

use crate::request::Watch;
use crate::text_to_image::Settings;
use crate::{Error, Plan, Request, TextToImage};
use decoder::{Decoded, Decoder};
use denoiser::{Denoised, Denoiser};
use encoders::Encoders;
use network::Network;
pub use times::Times;

/// Bytes that the weights of a whole plan may take to stay in memory for the next one.
const COMPARED: usize = 4 << 30;

/// A model with pictures that it drew, ready to be changed in one layer.
pub struct Probe<'a, 'w, D: Device> {
    encoders: Encoders<'a, 'w, D>,
    denoiser: Denoiser<'a, 'w, D>,
    decoder: Decoder<'a, 'w, D>,
    settings: Settings,
    layers: Vec<Layer>,
    /// What came of each picture with real numbers.
    real: Vec<(Denoised, Decoded)>,
    pace: Pace,
}

/// What drawing took.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    denoiser: Duration,
    decoder: Duration,
}

/// A layer that multiplies by a weight.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The component that it belongs to.
    pub component: &'static str,
    /// Its name.
    pub name: String,
    /// Its weights.
    pub weights: usize,
    node: NodeId,
    /// Where its format begins to matter.
    start: NodeId,
}

/// Where a component comes on the way from a prompt to its picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Encoder,
    Denoiser,
    Decoder,
}

/// What is looked at. A decoder predicts nothing: what it decodes stands for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The prediction of the first step of the first picture alone.
    Glance,
    /// The prediction of the first step.
    Prediction,
    /// The finished picture, too.
    Picture,
}

impl Look {
    /// How many of these pictures are looked at.
    fn count(self, pictures: usize) -> usize {
        if self == Self::Glance { pictures.min(1) } else { pictures }
    }
}

impl<'a, 'w, D: Device> Probe<'a, 'w, D> {
    /// Draw all pictures of a request with real numbers. If the pipeline's plan says that keys and values of first tokens are real,
    /// they are in all that is measured.
    ///
    /// # Errors
    ///
    /// If a component of the pipeline is not one of `f32`, and as [`TextToImage::draw`].
    pub fn new(
        pipeline: &'a TextToImage<'a, D>,
        request: &Request,
        watch: &'w Watch<'w>,
    ) -> Result<Self, Error> {
        let settings = pipeline.settings(request)?;
        let model = pipeline.model;
        if model.components().any(|of| pipeline.plan.component(of.name) != network::real()) {
            let fault =
                "formats are measured against real numbers; give a model that is not packed";
            return Err(Error::Request(fault.into()));
        }
        if settings.height.min(settings.width) < metrics::LEAST_SIDE {
            let fault =
                format!("pictures of less than {} pixels are not compared", metrics::LEAST_SIDE);
            return Err(Error::Request(fault));
        }
        let context = (&settings, watch);
        let encoders = Encoders::new(pipeline, request, context)?;
        let texts = encoders.texts();
        let mut denoiser = Denoiser::new(pipeline, request, &texts, context)?;
        let mut decoder = Decoder::new(pipeline, context)?;
        let networks = encoders.networks().chain([&denoiser.network, &decoder.network]);
        let layers = networks.flat_map(Network::layers).collect();
        let start = Instant::now();
        let denoised = denoiser.from(&texts, Look::Picture)?;
        let mut pace = Pace { denoiser: start.elapsed(), ..Pace::default() };
        denoiser.network.rest();
        let start = Instant::now();
        let latents = || denoised.iter().map(|picture| &picture.latents);
        let decoded = decoder.of(latents())?;
        pace.decoder = start.elapsed();
        decoder.judge_by(latents());
        let real = denoised.into_iter().zip(decoded).collect();
        Ok(Self { encoders, denoiser, decoder, settings, layers, real, pace })
    }

    /// The layers of all components, in the order in which a picture needs them.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// What the request came to.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How long drawing one picture took.
    pub fn pace(&self) -> Duration {
        (self.pace.denoiser + self.pace.decoder) / self.real.len().max(1) as u32
    }

    /// How long measuring one format of a layer should take, going by how long drawing took.
    pub fn estimate(&self, layer: &Layer, look: Look) -> Duration {
        let share = |part: u64, of: &Network<'_, '_, D>| {
            part as f64 / of.whole.multiply_adds().max(1) as f64
        };
        // Encoders keep the pace of the UNet.
        let denoiser = &self.denoiser.network;
        let steps = self.denoiser.times.len() as f64;
        let calls = match look {
            Look::Glance | Look::Prediction => 0.0,
            Look::Picture => steps - 1.0,
        };
        let looked_at = look.count(self.real.len()) as f64 / self.real.len().max(1) as f64;
        let first = match Place::of(layer) {
            Place::Decoder => {
                let share = share(self.decoder.network.after(layer), &self.decoder.network);
                return self.pace.decoder.mul_f64(share * looked_at);
            }
            Place::Denoiser => share(denoiser.after(layer), denoiser),
            Place::Encoder => {
                let texts = self.network(layer).calls().len() as f64 / self.real.len() as f64;
                // All texts are read, whatever is looked at.
                1.0 + texts / looked_at * share(self.network(layer).after(layer), denoiser)
            }
        };
        let drawing = self.pace.denoiser.mul_f64(looked_at * (first + calls) / steps);
        if look == Look::Picture { drawing + self.pace.decoder } else { drawing }
    }

    /// Bytes of a layer's weights in this format, as a packed file holds them.
    pub fn bytes(&self, layer: &Layer, format: LayerFormat) -> usize {
        self.network(layer).bytes(layer, format)
    }

    fn network(&self, layer: &Layer) -> &Network<'a, 'w, D> {
        match Place::of(layer) {
            Place::Encoder => self.encoders.network(layer.component),
            Place::Denoiser => &self.denoiser.network,
            Place::Decoder => &self.decoder.network,
        }
    }

    /// What becomes of the model when a layer has another format. Layers are best taken in the order of
    /// [`Probe::layers`]: one that comes before the last one makes the pictures start anew.
    ///
    /// The signal-to-noise ratio is that of the first prediction; for a layer of the decoder, that of the decoded
    /// picture before it is rounded to levels.
    ///
    /// # Errors
    ///
    /// If a weight cannot be read, memory is short, numbers go astray, or the watch says to stop.
    pub fn measure(
        &mut self,
        layer: &Layer,
        format: LayerFormat,
        look: Look,
    ) -> Result<Effect, Error> {
        self.make_room_for(layer);
        let denoised = match Place::of(layer) {
            Place::Decoder => {
                let found = self.decoder.with(layer, format, look)?;
                let ssim = (look == Look::Picture).then(|| self.likeness(&found));
                return Ok(Effect { ssim, sqnr: self.noise_of_pixels(&found) });
            }
            Place::Denoiser => self.denoiser.with(layer, format, look)?,
            Place::Encoder => {
                let texts = self.encoders.with(layer, format)?;
                self.encoders.network_mut(layer.component).rest();
                self.denoiser.from(&texts, look)?
            }
        };
        let decoded = match look {
            Look::Glance | Look::Prediction => None,
            Look::Picture => {
                self.denoiser.network.rest();
                Some(self.decoder.of(denoised.iter().map(|p| &p.latents))?)
            }
        };
        Ok(self.effect(&denoised, decoded.as_deref()))
    }

    /// Compute all that comes before a layer's network anew, and let go of what is kept within it. What measuring the layer finds
    /// is the same, and takes as long as if nothing were ever kept.
    ///
    /// # Errors
    ///
    /// As [`Probe::measure`].
    pub fn start_anew(&mut self, layer: &Layer) -> Result<(), Error> {
        self.networks_mut().for_each(Network::start_anew);
        let place = Place::of(layer);
        if place == Place::Encoder {
            return Ok(());
        }
        self.denoiser.network.rest();
        let texts = self.encoders.by(&|_| network::real(), false)?;
        self.denoiser.judge_by(&texts)?;
        if place == Place::Decoder {
            let denoised = self.denoiser.from(&texts, Look::Picture)?;
            self.denoiser.network.release();
            self.decoder.judge_by(denoised.iter().map(|picture| &picture.latents));
        }
        Ok(())
    }

    /// How far off a layer's own result is in this format, in decibels over all its calls.
    ///
    /// # Errors
    ///
    /// As [`Probe::measure`].
    pub fn own_error(&mut self, layer: &Layer, format: LayerFormat) -> Result<f64, Error> {
        self.make_room_for(layer);
        let network = match Place::of(layer) {
            Place::Encoder => self.encoders.network_mut(layer.component),
            Place::Denoiser => return self.denoiser.own_error(layer, format),
            Place::Decoder => &mut self.decoder.network,
        };
        network.own_error(layer, format, None)
    }

    /// What becomes of the pictures when all numbers are rounded to 16 bits.
    ///
    /// # Errors
    ///
    /// As [`Probe::measure`].
    pub fn rounding(&mut self) -> Result<Effect, Error> {
        self.by(&|_| tensor::Plan::uniform(Precision::Bf16))
    }

    /// What becomes of the pictures with all formats of a plan together. Weights stay for the next plan, which need not round
    /// again what it has in common with this one.
    ///
    /// # Errors
    ///
    /// As [`Probe::measure`].
    pub fn compare(&mut self, plan: &Plan) -> Result<Effect, Error> {
        let plan = plan.clone().with_precision(Precision::F32);
        self.by(&|component| plan.component(component))
    }

    /// Draw all pictures by other plans for all components. Their weights are never in memory together with real ones.
    fn by(&mut self, plan: &dyn Fn(&str) -> tensor::Plan) -> Result<Effect, Error> {
        self.keep_for(plan);
        let networks =
            self.encoders.networks().chain([&self.denoiser.network, &self.decoder.network]);
        let may_stay = networks.map(Network::kept_bytes).sum::<usize>() <= COMPARED;
        let texts = self.encoders.by(plan, may_stay)?;
        let denoised = self.denoiser.by(&plan("unet"), &texts, Look::Picture)?;
        if !may_stay {
            self.denoiser.network.release();
        }
        let latents = denoised.iter().map(|picture| &picture.latents);
        let decoded = self.decoder.by(&plan("vae"), latents)?;
        Ok(self.effect(&denoised, Some(&decoded)))
    }

    fn keep_for(&mut self, plan: &dyn Fn(&str) -> tensor::Plan) {
        self.networks_mut().for_each(|network| network.keep_for(&plan(network.component())));
    }

    fn networks_mut(&mut self) -> impl Iterator<Item = &mut Network<'a, 'w, D>> {
        let networks = self.encoders.networks_mut();
        networks.chain([&mut self.denoiser.network, &mut self.decoder.network])
    }

    /// Let go of the weights that measuring this layer does not need, and of what was kept for layers of other components: before
    /// the last layer of SDXL's decoder that is 134 MB for each picture of 512x512.
    fn make_room_for(&mut self, layer: &Layer) {
        self.keep_for(&|_| network::real());
        self.encoders.release_others(layer.component);
        let others = self.networks_mut().filter(|network| network.component() != layer.component);
        others.for_each(Network::start_anew);
        match Place::of(layer) {
            Place::Encoder => {
                self.denoiser.network.rest();
                self.decoder.network.rest();
            }
            Place::Denoiser => self.decoder.network.rest(),
            Place::Decoder => self.denoiser.network.release(),
        }
    }

    /// How far predictions, and pictures where there are any, are from real ones.
    fn effect(&self, denoised: &[Denoised], decoded: Option<&[Decoded]>) -> Effect {
        let mut noise = Noise::default();
        for ((real, _), found) in self.real.iter().zip(denoised) {
            noise.add(&real.prediction, &found.prediction);
        }
        Effect { sqnr: noise.sqnr(), ssim: decoded.map(|decoded| self.likeness(decoded)) }
    }

    /// The signal-to-noise ratio of decoded pictures in decibels.
    fn noise_of_pixels(&self, decoded: &[Decoded]) -> f64 {
        let mut noise = Noise::default();
        for ((_, real), found) in self.real.iter().zip(decoded) {
            noise.add(&real.pixels, &found.pixels);
        }
        noise.sqnr()
    }

    /// The mean structural similarity to real pictures.
    fn likeness(&self, decoded: &[Decoded]) -> f64 {
        let each = self.real.iter().zip(decoded).map(|((_, real), found)| {
            let size = [found.picture.height, found.picture.width];
            metrics::ssim(&real.picture.rgb, &found.picture.rgb, size)
        });
        each.sum::<f64>() / decoded.len() as f64
    }
}

impl Place {
    fn of(layer: &Layer) -> Self {
        match layer.component {
            "unet" => Self::Denoiser,
            "vae" => Self::Decoder,
            _ => Self::Encoder,
        }
    }
}

#[cfg(test)]
mod tests;
