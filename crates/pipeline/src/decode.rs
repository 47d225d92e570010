//! Latents → pictures.

mod tiles;

use models::Params;
use models::{tiny_vae, vae};
use tensor::{Device, Graph, Recording, Session};

use crate::denoise::channels_last;
use crate::memory::Load;
use crate::request::{Decode, Phase, Request, Watch};
use crate::stage::Stage;
use crate::text_to_image::Settings;
use crate::{Error, Model, Picture, TextToImage};

/// Decode latents one by one and hand each picture over; stop when `deliver` says so.
pub(crate) fn run<D: Device>(
    pipeline: &TextToImage<'_, D>,
    request: &Request,
    settings: &Settings,
    (latents, watch): (&[Vec<f32>], &Watch<'_>),
    deliver: &mut dyn FnMut(usize, Picture) -> bool,
) -> Result<(), Error> {
    let total = latents.len();
    let mut pictures = Pictures::new(pipeline, request, (settings, total), watch)?;
    for (index, latents) in latents.iter().enumerate() {
        if !deliver(index, pictures.decode(latents, (index, total))?) {
            break;
        }
    }
    Ok(())
}

/// A decoder in memory.
pub(crate) struct Pictures<'a, 'w, D: Device> {
    sessions: Sessions<'a, 'w, D>,
    how: Decode,
    scale: usize,
    /// Height and width in pixels.
    size: [usize; 2],
}

impl<'a, 'w, D: Device> Pictures<'a, 'w, D> {
    /// Make ready to decode while the latents of this many pictures are kept.
    pub(crate) fn new(
        pipeline: &'a TextToImage<'a, D>,
        request: &Request,
        (settings, total): (&Settings, usize),
        watch: &'w Watch<'w>,
    ) -> Result<Self, Error> {
        let sessions = Sessions {
            stage: Stage::new(pipeline, &pipeline.model.vae, (Phase::Decode, watch)),
            decoder: Decoder::load(pipeline.model)?,
            kept: kept(settings, total),
            made: None,
        };
        let size = [settings.height, settings.width];
        Ok(Self { sessions, how: request.decode, scale: pipeline.model.pixels_per_latent(), size })
    }

    /// The picture of latents, channels first; the `index`th of `total`.
    pub(crate) fn decode(
        &mut self,
        latents: &[f32],
        (index, total): (usize, usize),
    ) -> Result<Picture, Error> {
        let Self { sessions, how, scale, size: [height, width] } = self;
        let size = [*height / *scale, *width / *scale];
        let latents = channels_last(latents, size[0] * size[1]);
        let pixels = match how {
            Decode::Tiled => {
                tiles::decode(&latents, size, *scale, &mut |tile, size, (part, parts)| {
                    sessions.decode(tile, size, (index * parts + part, total * parts))
                })?
            }
            Decode::Whole => sessions.decode(&latents, size, (index, total))?,
        };
        Ok(Picture::from_decoded(*width, *height, &pixels))
    }
}

/// Bytes beside the network: the latents of all pictures, and one picture as real numbers, pixels and file.
pub(crate) fn kept(settings: &Settings, pictures: usize) -> usize {
    let pixels = settings.width * settings.height;
    // At least eight pixels in a row share latents of at most 16 channels.
    pixels * 20 + pictures * pixels
}

/// The size of what is decoded at once, in latents.
pub(crate) fn size_at_once(size: [usize; 2], how: Decode) -> [usize; 2] {
    match how {
        Decode::Whole => size,
        Decode::Tiled => size.map(|side| side.min(tiles::TILE)),
    }
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
    pub(crate) fn unscale(&self, latents: &[f32]) -> Vec<f32> {
        match self {
            Self::Kl(_, config) => config.unscale(latents),
            Self::Tiny(_, config) => config.unscale(latents),
        }
    }
}

/// A session for the size that came up last. Memory for several would be of no use: most tiles are alike.
struct Sessions<'a, 'w, D: Device> {
    stage: Stage<'a, 'w, D>,
    decoder: Decoder,
    kept: usize,
    made: Option<([usize; 2], Vec<Session<'a, D>>)>,
}

impl<D: Device> Sessions<'_, '_, D> {
    /// Latents `[height, width, channels]` → pixels `[height · scale, width · scale, 3]`, about −1…1.
    fn decode(
        &mut self,
        latents: &[f32],
        size: [usize; 2],
        part: (usize, usize),
    ) -> Result<Vec<f32>, Error> {
        let sessions = match self.made.take() {
            Some((of, sessions)) if of == size => sessions,
            other => {
                drop(other);
                let program = self.stage.compile(&self.decoder.record(size)?);
                self.stage.sessions(program, Load { together: 1, kept: self.kept })?
            }
        };
        let (_, sessions) = self.made.insert((size, sessions));
        sessions[0].write("latents", &self.decoder.unscale(latents))?;
        Ok(self.stage.run(sessions, "pixels", part)?.swap_remove(0))
    }
}
