//! A decoder that can be changed in one layer, and the latents that it decodes.

use tensor::{Device, LayerFormat, Plan, Session};

use super::network::{Inputs, Network, changed, real};
use super::{Layer, Look};
use crate::decode;
use crate::denoise::channels_last;
use crate::request::{Phase, Watch};
use crate::text_to_image::Settings;
use crate::{Error, Picture, TextToImage};

/// A decoder, and the latents of the pictures by which it is judged. Pictures are decoded whole.
pub(super) struct Decoder<'a, 'w, D: Device> {
    pub(super) network: Network<'a, 'w, D>,
    net: decode::Decoder,
    /// Height and width in pixels.
    size: [usize; 2],
    /// Height and width in latents.
    latents: [usize; 2],
}

/// A picture as it was decoded, and as it is seen.
#[derive(Clone, Debug)]
pub(super) struct Decoded {
    /// `[height, width, 3]`, about −1…1.
    pub(super) pixels: Vec<f32>,
    pub(super) picture: Picture,
}

impl<'a, 'w, D: Device> Decoder<'a, 'w, D> {
    pub(super) fn new(
        pipeline: &'a TextToImage<'a, D>,
        (settings, watch): (&Settings, &'w Watch<'w>),
    ) -> Result<Self, Error> {
        let model = pipeline.model;
        let size = [settings.height, settings.width];
        let latents = size.map(|side| side / model.pixels_per_latent());
        let net = decode::Decoder::load(model)?;
        let recording = net.record(latents)?;
        let network = Network::new(pipeline.device, &model.vae, recording, (Phase::Decode, watch));
        Ok(Self { network, net, size, latents })
    }

    /// Judge it by the pictures of these latents, channels first.
    pub(super) fn judge_by<'l>(&mut self, latents: impl Iterator<Item = &'l Vec<f32>>) {
        let inputs = latents.map(|latents| self.inputs(latents)).collect();
        self.network.judge_by(inputs);
    }

    fn inputs(&self, latents: &[f32]) -> Inputs {
        let [height, width] = self.latents;
        let latents = self.net.unscale(&channels_last(latents, height * width));
        Inputs { numbers: vec![("latents", latents)], ..Inputs::default() }
    }

    /// All pictures where a layer has another format. What comes before it is not computed.
    pub(super) fn with(
        &mut self,
        layer: &Layer,
        format: LayerFormat,
        look: Look,
    ) -> Result<Vec<Decoded>, Error> {
        let mut session = self.network.from(layer, &changed(layer, format))?;
        let pictures = (0..look.count(self.network.calls().len())).map(|call| {
            self.network.resume(&mut session, call)?;
            self.decoded(&mut session)
        });
        let pictures = pictures.collect::<Result<_, Error>>()?;
        self.network.forget(&session);
        Ok(pictures)
    }

    /// The pictures of other latents with real numbers.
    pub(super) fn of<'l>(
        &mut self,
        latents: impl Iterator<Item = &'l Vec<f32>>,
    ) -> Result<Vec<Decoded>, Error> {
        self.by(&real(), latents)
    }

    /// The pictures of other latents by a plan.
    pub(super) fn by<'l>(
        &mut self,
        plan: &Plan,
        latents: impl Iterator<Item = &'l Vec<f32>>,
    ) -> Result<Vec<Decoded>, Error> {
        let mut session = self.network.whole(plan)?;
        let pictures = latents.map(|latents| {
            self.network.run(&mut session, &self.inputs(latents))?;
            self.decoded(&mut session)
        });
        let pictures = pictures.collect::<Result<_, Error>>()?;
        self.network.forget(&session);
        Ok(pictures)
    }

    fn decoded(&self, session: &mut Session<'a, D>) -> Result<Decoded, Error> {
        let pixels = self.network.read(session, "pixels")?.unwrap_or_default();
        let [height, width] = self.size;
        let picture = Picture::from_decoded(width, height, &pixels);
        Ok(Decoded { pixels, picture })
    }
}
