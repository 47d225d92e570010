//! Latents → pictures.

mod tiles;

use std::slice;

use models::Params;
use models::{tiny_vae, vae};
use tensor::{Device, Graph, Recording, Session};

use crate::denoise::channels_last;
use crate::request::{Decode, Phase, Request, Watch};
use crate::stage::Stage;
use crate::text_to_image::Settings;
use crate::{Error, Model, Picture, TextToImage};

/// Decode latents one by one and hand each picture over; stop when `deliver` says so.
pub(crate) fn run<D: Device>(
    pipeline: &TextToImage<'_, D>,
    request: &Request,
    settings: &Settings,
    (latents, watch): (Vec<Vec<f32>>, &Watch<'_>),
    deliver: &mut dyn FnMut(usize, Picture) -> bool,
) -> Result<(), Error> {
    let decoder = Decoder::load(pipeline.model)?;
    let scale = pipeline.model.pixels_per_latent();
    let size = [settings.height / scale, settings.width / scale];
    let mut sessions = Sessions {
        stage: Stage::new(pipeline, &pipeline.model.vae, (Phase::Decode, watch)),
        decoder,
        made: Vec::new(),
    };
    let total = latents.len();
    for (index, latents) in latents.into_iter().enumerate() {
        let latents = channels_last(&latents, size[0] * size[1]);
        let pixels = match request.decode {
            Decode::Tiled => {
                tiles::decode(&latents, size, scale, &mut |tile, size, (part, parts)| {
                    sessions.decode(tile, size, (index * parts + part, total * parts))
                })?
            }
            Decode::Whole => sessions.decode(&latents, size, (index, total))?,
        };
        let picture = Picture::from_decoded(settings.width, settings.height, &pixels);
        if !deliver(index, picture) {
            break;
        }
    }
    Ok(())
}

/// Either kind of autoencoder, with what it does to latents before decoding.
pub(crate) enum Decoder {
    /// `AutoencoderKL`.
    Kl(Box<vae::Decoder>, vae::Config),
    /// `AutoencoderTiny`.
    Tiny(tiny_vae::Decoder, tiny_vae::Config),
}

impl Decoder {
    pub(crate) fn load(model: &Model) -> Result<Self, Error> {
        Self::load_from(&Params::new(&model.vae.weights), model)
    }

    /// Load from the names of `params`, which then knows those that were not read.
    pub(crate) fn load_from(params: &Params, model: &Model) -> Result<Self, Error> {
        let component = &model.vae;
        Ok(if model.has_tiny_vae() {
            let config = tiny_vae::Config::read(&component.config)?;
            Self::Tiny(tiny_vae::Decoder::load(params, &config)?, config)
        } else {
            let config = vae::Config::read(&component.config)?;
            Self::Kl(Box::new(vae::Decoder::load(params, &config)?), config)
        })
    }

    /// Record the decoding of latents of this height and width.
    pub(crate) fn record(&self, [height, width]: [usize; 2]) -> Result<Recording, Error> {
        let graph = Graph::new();
        let pixels =
            match self {
                Self::Kl(net, config) => net
                    .forward(graph.input("latents", [1, height, width, config.latent_channels()])),
                Self::Tiny(net, config) => net
                    .forward(graph.input("latents", [1, height, width, config.latent_channels()])),
            };
        graph.finish(&[("pixels", pixels)]).map_err(|e| Error::Engine(e.into()))
    }

    /// Bring latents from the sampler's scale to the decoder's.
    fn unscale(&self, latents: &[f32]) -> Vec<f32> {
        match self {
            Self::Kl(_, config) => config.unscale(latents),
            Self::Tiny(_, config) => config.unscale(latents),
        }
    }
}

/// A session for each size that came up.
struct Sessions<'a, 'w, D: Device> {
    stage: Stage<'a, 'w, D>,
    decoder: Decoder,
    made: Vec<([usize; 2], Session<'a, D>)>,
}

impl<D: Device> Sessions<'_, '_, D> {
    /// Latents `[height, width, channels]` → pixels `[height · scale, width · scale, 3]`, about −1…1.
    fn decode(
        &mut self,
        latents: &[f32],
        size: [usize; 2],
        part: (usize, usize),
    ) -> Result<Vec<f32>, Error> {
        if !self.made.iter().any(|(of, _)| *of == size) {
            let recording = self.decoder.record(size)?;
            self.made.push((size, self.stage.session_of(&recording)?));
        }
        let session = self.made.iter_mut().find(|(of, _)| *of == size).map(|(_, s)| s);
        let session = session.expect("the session was just made");
        session.write("latents", &self.decoder.unscale(latents))?;
        Ok(self.stage.run(slice::from_mut(session), "pixels", part)?.swap_remove(0))
    }
}
