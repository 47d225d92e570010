//! Noise → latents: the UNet under a sampler.

use std::ops::Range;
use std::time::Instant;

use models::Params;
use models::unet::{self, UNet};
use tensor::{Device, Graph, Recording, Session};

use crate::phases::{self, Given, Programs};
use crate::request::{Phase, Request, Watch};
use crate::stage::Stage;
use crate::text::Conditioning;
use crate::text_to_image::Settings;
use crate::trajectory::Trajectory;
use crate::{Error, Event, Model, TextToImage, text};

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
    let model = pipeline.model;
    let config = unet::Config::read(&model.unet.config)?;
    let tokens = texts.prompts.first().map_or(0, |text| text.tokens);
    let geometry = Geometry::new(model, settings, tokens);
    let recording = record(model, &config, &geometry)?;
    let programs =
        Programs::compile(&recording, &pipeline.plan.component(model.unet.name), pipeline.device);
    let timesteps = settings.scheduler.sampler(settings.steps)?.timesteps().to_vec();
    let times: Vec<Vec<f32>> = timesteps
        .iter()
        .map(|timestep| config.time_projection(*timestep).repeat(geometry.batch))
        .collect();
    let group = programs.group(times.len());
    let waiting = (texts.prompts.len() + texts.negative.iter().len()) * text::context_bytes(model)?;
    let mut latents = Vec::with_capacity(request.total());
    for (i, prompts) in texts.prompts.chunks(group).enumerate() {
        let conditions: Vec<Condition> = prompts
            .iter()
            .map(|text| Condition::new(text, texts.negative.as_ref(), (&config, settings)))
            .collect();
        let first = i * group * request.pictures;
        let pictures = first..first + conditions.len() * request.pictures;
        let counts = (waiting, times.len());
        let [before, load] = pipeline.loads(&programs, counts, [conditions.len(), pictures.len()]);
        let call = (&recording, &programs);
        let given = phases::given(pipeline, call, (&conditions, &times), (before, watch))?;
        let mut stage = Stage::new(pipeline, &model.unet, (Phase::Denoise, watch));
        let sessions = stage.sessions(programs.step.clone(), load)?;
        let channels = config.in_channels();
        let mut denoiser = Denoiser { stage, sessions, given, channels, geometry, settings };
        while latents.len() < pictures.end {
            let next = latents.len()..pictures.end.min(latents.len() + load.together);
            latents.extend(denoiser.pictures(request, (next, first), watch)?);
        }
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
pub(crate) struct Geometry {
    /// Two under guidance.
    pub(crate) batch: usize,
    /// Latent rows.
    pub(crate) height: usize,
    /// Latents in a row.
    pub(crate) width: usize,
    /// Tokens of the context.
    tokens: usize,
}

impl Geometry {
    pub(crate) fn new(model: &Model, settings: &Settings, tokens: usize) -> Self {
        let scale = model.pixels_per_latent();
        let (height, width) = (settings.height / scale, settings.width / scale);
        Self { batch: if settings.is_guided(model) { 2 } else { 1 }, height, width, tokens }
    }

    /// What the network is given for a sample, channels first: the same for each half of a batch.
    pub(crate) fn input(&self, sample: &[f32]) -> Vec<f32> {
        channels_last(sample, self.height * self.width).repeat(self.batch)
    }

    /// What the network's output predicts, channels first: guided where the halves of a batch differ.
    pub(crate) fn prediction(&self, output: &[f32], guidance: f32) -> Vec<f32> {
        let halves = output.chunks_exact(output.len() / self.batch);
        let mut halves = halves.map(|half| channels_first(half, self.height * self.width));
        let first = halves.next().unwrap_or_default();
        match halves.next() {
            None => first,
            Some(text) => combine(&first, &text, guidance),
        }
    }
}

/// Record one model call.
pub(crate) fn record(
    model: &Model,
    config: &unet::Config,
    geometry: &Geometry,
) -> Result<Recording, Error> {
    let Geometry { batch, height, width, tokens } = *geometry;
    let net = UNet::load(&Params::new(&model.unet.weights), config)?;
    let graph = Graph::new();
    let inputs = net.inputs(&graph, [batch, height, width], tokens);
    let prediction = net.forward(&inputs);
    graph.finish(&[("prediction", prediction)]).map_err(|e| Error::Engine(e.into()))
}

/// The inputs of a model call that neither noise nor time change.
#[derive(Debug)]
pub(crate) struct Condition {
    inputs: Vec<(&'static str, Vec<f32>)>,
    /// Two under guidance.
    batch: usize,
    /// Of each text.
    tokens: usize,
}

impl Condition {
    /// The name of the input that embeddings of texts go to.
    pub(crate) const TEXTS: &str = "encoder_hidden_states";

    pub(crate) fn new(
        text: &Conditioning,
        negative: Option<&Conditioning>,
        (config, settings): (&unet::Config, &Settings),
    ) -> Self {
        // The negative prompt's half of a batch comes first.
        let halves = || negative.into_iter().chain([text]);
        let of_halves = |part: fn(&Conditioning) -> &Vec<f32>| -> Vec<f32> {
            halves().flat_map(|half| part(half).iter().copied()).collect()
        };
        let batch = halves().count();
        let mut inputs = vec![(Self::TEXTS, of_halves(|half| &half.context))];
        if config.has_text_time() {
            let (width, height) = (settings.width as f32, settings.height as f32);
            // Original size, top left corner of the crop, target size.
            let ids = config.time_ids(&[height, width, 0.0, 0.0, height, width]);
            inputs.push(("text_embeds", of_halves(|half| &half.pooled)));
            inputs.push(("time_ids", ids.repeat(batch)));
        }
        if let Some(embedding) = config.guidance_embedding(settings.guidance - 1.0) {
            inputs.push(("timestep_cond", embedding.repeat(batch)));
        }
        Self { inputs, batch, tokens: text.tokens }
    }

    /// Elements of a batch: the text, and before it the negative prompt under guidance.
    pub(crate) fn batch(&self) -> usize {
        self.batch
    }

    /// The embeddings of all texts of a batch, `[batch, tokens, channels]`, and the number of tokens.
    pub(crate) fn texts(&self) -> (&[f32], usize) {
        // They are the first of all inputs.
        (self.inputs.first().map_or(&[], |(_, numbers)| numbers), self.tokens)
    }

    /// Their names and numbers.
    pub(crate) fn inputs(&self) -> &[(&'static str, Vec<f32>)] {
        &self.inputs
    }

    /// Set those inputs that a program reads.
    pub(crate) fn write<D: Device>(&self, session: &mut Session<'_, D>) -> Result<(), Error> {
        for (name, numbers) in &self.inputs {
            if session.program().input(name).is_some() {
                session.write(name, numbers)?;
            }
        }
        Ok(())
    }
}

struct Denoiser<'a, 'w, D: Device> {
    stage: Stage<'a, 'w, D>,
    /// One for each picture that is drawn together with others.
    sessions: Vec<Session<'a, D>>,
    /// For each prompt of the group.
    given: Vec<Given>,
    /// Of latents.
    channels: usize,
    geometry: Geometry,
    settings: &'a Settings,
}

impl<D: Device> Denoiser<'_, '_, D> {
    /// Denoise some pictures together; `first` is the first picture of the group.
    fn pictures(
        &mut self,
        request: &Request,
        (pictures, first): (Range<usize>, usize),
        watch: &Watch<'_>,
    ) -> Result<Vec<Vec<f32>>, Error> {
        let Geometry { height, width, .. } = self.geometry;
        let prompt = |index: usize| (index - first) / request.pictures;
        let mut running = Vec::with_capacity(pictures.len());
        for (index, session) in pictures.clone().zip(&mut self.sessions) {
            let given = &mut self.given[prompt(index)];
            given.write_prompt(session)?;
            if prompt(index + 1) != prompt(index) {
                given.release_prompt();
            }
            let count = self.channels * height * width;
            running.push(Trajectory::new(self.settings, request.seed_of(index), count)?);
        }
        let calls = running.first().map_or(0, Trajectory::calls);
        for i in 0..calls {
            let start = Instant::now();
            for ((index, session), picture) in
                pictures.clone().zip(&mut self.sessions).zip(&running)
            {
                self.given[prompt(index)].write_time(i, session)?;
                session.write("sample", &self.geometry.input(&picture.input(i)))?;
            }
            let part = pictures.start * calls + i * pictures.len();
            let outputs = self.predict(pictures.len(), (part, request.total() * calls))?;
            for (output, picture) in outputs.iter().zip(&mut running) {
                picture.advance(i, output);
            }
            let done = part + pictures.len();
            watch.tell(Event::Step(done, request.total() * calls, start.elapsed()));
        }
        Ok(running.into_iter().map(Trajectory::finish).collect())
    }

    /// The predictions for the first `count` pictures, channels first, guided where the settings say so.
    fn predict(&mut self, count: usize, part: (usize, usize)) -> Result<Vec<Vec<f32>>, Error> {
        let outputs = self.stage.run(&mut self.sessions[..count], "prediction", part)?;
        let guidance = self.settings.guidance;
        Ok(outputs.iter().map(|output| self.geometry.prediction(output, guidance)).collect())
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
