//! Noise → latents: the UNet under a sampler.

use std::time::Instant;

use models::Params;
use models::unet::{self, UNet};
use tensor::{Device, Graph, Recording, Session};

use crate::noise::Generator;
use crate::request::{Phase, Request, Watch};
use crate::sampler::Call;
use crate::stage::Stage;
use crate::text::Conditioning;
use crate::text_to_image::Settings;
use crate::{Error, Event, Model, TextToImage};

/// What each picture of a request is drawn from: its prompt's embedding, and that of the negative prompt.
pub(crate) struct Texts {
    /// One for each prompt.
    pub(crate) prompts: Vec<Conditioning>,
    /// Where two predictions are combined.
    pub(crate) negative: Option<Conditioning>,
}

/// Denoise all pictures of a request: latents `[height / scale, width / scale, channels]`, channels first, each.
pub(crate) fn run<D: Device>(
    pipeline: &TextToImage<'_, D>,
    request: &Request,
    settings: &Settings,
    (texts, watch): (&Texts, &Watch<'_>),
) -> Result<Vec<Vec<f32>>, Error> {
    let config = unet::Config::read(&pipeline.model.unet.config)?;
    let tokens = texts.prompts.first().map_or(0, |text| text.tokens);
    let geometry = Geometry::new(pipeline.model, settings, tokens);
    let mut stage = Stage::new(pipeline, &pipeline.model.unet, (Phase::Denoise, watch));
    let session = stage.session(&record(pipeline.model, &config, &geometry)?)?;
    let mut denoiser = Denoiser { stage, session, config, geometry, settings };
    let mut latents = Vec::with_capacity(request.total());
    for index in 0..request.total() {
        let text = &texts.prompts[index / request.pictures];
        denoiser.condition(text, texts.negative.as_ref())?;
        latents.push(denoiser.picture(request.seed_of(index), (index, request.total()), watch)?);
    }
    Ok(latents)
}

/// The recording of one model call for a prompt that fits the encoder.
pub(crate) fn recording<D: Device>(
    pipeline: &TextToImage<'_, D>,
    settings: &Settings,
) -> Result<Recording, Error> {
    let model = pipeline.model;
    let config = unet::Config::read(&model.unet.config)?;
    let tokens = model.encoders.first().map_or(0, |encoder| encoder.tokenizer.limit());
    record(model, &config, &Geometry::new(model, settings, tokens))
}

/// Sizes of one model call.
#[derive(Clone, Copy, Debug)]
struct Geometry {
    /// Two under guidance.
    batch: usize,
    /// Latent rows.
    height: usize,
    /// Latents in a row.
    width: usize,
    /// Tokens of the context.
    tokens: usize,
}

impl Geometry {
    fn new(model: &Model, settings: &Settings, tokens: usize) -> Self {
        let scale = model.pixels_per_latent();
        let (height, width) = (settings.height / scale, settings.width / scale);
        Self { batch: if settings.is_guided(model) { 2 } else { 1 }, height, width, tokens }
    }
}

/// Record one model call.
fn record(model: &Model, config: &unet::Config, geometry: &Geometry) -> Result<Recording, Error> {
    let Geometry { batch, height, width, tokens } = *geometry;
    let net = UNet::load(&Params::new(&model.unet.weights), config)?;
    let graph = Graph::new();
    let inputs = net.inputs(&graph, [batch, height, width], tokens);
    let prediction = net.forward(&inputs);
    graph.finish(&[("prediction", prediction)]).map_err(|e| Error::Engine(e.into()))
}

struct Denoiser<'a, 'w, D: Device> {
    stage: Stage<'a, 'w, D>,
    session: Session<'a, D>,
    config: unet::Config,
    geometry: Geometry,
    settings: &'a Settings,
}

impl<D: Device> Denoiser<'_, '_, D> {
    /// Set what stays the same during all steps of a picture.
    fn condition(
        &mut self,
        text: &Conditioning,
        negative: Option<&Conditioning>,
    ) -> Result<(), Error> {
        // The negative prompt's half of a batch comes first.
        let halves = || negative.into_iter().chain([text]);
        let context: Vec<f32> = halves().flat_map(|half| half.context.iter().copied()).collect();
        self.session.write("encoder_hidden_states", &context)?;
        if self.config.has_text_time() {
            let pooled: Vec<f32> = halves().flat_map(|half| half.pooled.iter().copied()).collect();
            let (width, height) = (self.settings.width as f32, self.settings.height as f32);
            // Original size, top left corner of the crop, target size.
            let ids = self.config.time_ids(&[height, width, 0.0, 0.0, height, width]);
            self.session.write("text_embeds", &pooled)?;
            self.session.write("time_ids", &ids.repeat(self.geometry.batch))?;
        }
        if let Some(embedding) = self.config.guidance_embedding(self.settings.guidance - 1.0) {
            self.session.write("timestep_cond", &embedding.repeat(self.geometry.batch))?;
        }
        Ok(())
    }

    /// Denoise one picture.
    fn picture(
        &mut self,
        seed: u64,
        (index, total): (usize, usize),
        watch: &Watch<'_>,
    ) -> Result<Vec<f32>, Error> {
        let Geometry { height, width, .. } = self.geometry;
        let mut noise = Generator::new(seed);
        let mut sampler = self.settings.scheduler.sampler(self.settings.steps)?;
        let first = noise.normal(self.config.in_channels() * height * width);
        let mut sample: Vec<f32> = first.iter().map(|x| x * sampler.init_noise_sigma()).collect();
        let calls = sampler.timesteps().to_vec();
        for (i, &timestep) in calls.iter().enumerate() {
            let start = Instant::now();
            let input = sampler.scale_input(i, &sample);
            let part = (index * calls.len() + i, total * calls.len());
            let output = self.predict(&input, timestep, part)?;
            let call = Call { index: i, output: &output, sample: &sample, images: 1 };
            sample = sampler.step(call, &mut |n| noise.normal(n));
            watch.tell(Event::Step(part.0 + 1, part.1, start.elapsed()));
        }
        Ok(sample)
    }

    /// The model's prediction for one picture, channels first, guided where the settings say so.
    fn predict(
        &mut self,
        sample: &[f32],
        timestep: f32,
        part: (usize, usize),
    ) -> Result<Vec<f32>, Error> {
        let Geometry { batch, height, width, .. } = self.geometry;
        let pixels = height * width;
        let time = self.config.time_projection(timestep);
        self.session.write("time", &time.repeat(batch))?;
        self.session.write("sample", &channels_last(sample, pixels).repeat(batch))?;
        let output = self.stage.run(&mut self.session, "prediction", part)?;
        let mut halves =
            output.chunks_exact(output.len() / batch).map(|half| channels_first(half, pixels));
        let first = halves.next().unwrap_or_default();
        Ok(match halves.next() {
            None => first,
            Some(text) => combine(&first, &text, self.settings.guidance),
        })
    }
}

/// Classifier-free guidance: `negative + scale · (text − negative)` (Ho & Salimans 2022, equation 6).
fn combine(negative: &[f32], text: &[f32], scale: f32) -> Vec<f32> {
    negative.iter().zip(text).map(|(n, t)| n + scale * (t - n)).collect()
}

/// `[channels, pixels]` → `[pixels, channels]`.
pub(crate) fn channels_last(planes: &[f32], pixels: usize) -> Vec<f32> {
    transposed(planes, planes.len() / pixels, pixels)
}

/// `[pixels, channels]` → `[channels, pixels]`.
pub(crate) fn channels_first(numbers: &[f32], pixels: usize) -> Vec<f32> {
    transposed(numbers, pixels, numbers.len() / pixels)
}

fn transposed(numbers: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..rows * columns).map(|i| numbers[(i % rows) * columns + i / rows]).collect()
}

#[cfg(test)]
mod tests {
    use super::{channels_first, channels_last, combine};

    #[test]
    fn layouts_are_inverse() {
        let planes: Vec<f32> = (0..4 * 6).map(|i| i as f32).collect();
        let pixels = channels_last(&planes, 6);
        assert_eq!(pixels[..5], [0.0, 6.0, 12.0, 18.0, 1.0]);
        assert_eq!(channels_first(&pixels, 6), planes);
    }

    #[test]
    fn guidance_of_one_is_the_text_alone() {
        assert_eq!(combine(&[1.0, -2.0], &[3.0, 5.0], 1.0), [3.0, 5.0]);
        assert_eq!(combine(&[1.0, -2.0], &[3.0, 5.0], 2.0), [5.0, 12.0]);
    }
}
