//! Prompts → pictures.
//!
//! Networks are loaded, used for all pictures of a request and released in turn, so that no two of them are in memory
//! together: text encoders, then UNet, then decoder.

use std::time::Instant;

use tensor::Device;

use crate::model::{Default, Defaults, Model};
use crate::request::{Phase, Request, Watch};
use crate::schedule::{NoiseSchedule, SamplingMethod, SchedulerConfig};
use crate::{Error, Event, Picture, Plan, decode, denoise, text};

/// The way from prompts to pictures: a model, a device, and the format of each layer.
#[derive(Debug)]
pub struct TextToImage<'a, D: Device> {
    pub(crate) device: &'a D,
    pub(crate) model: &'a Model,
    pub(crate) plan: &'a Plan,
    pub(crate) room: Option<usize>,
}

/// A request with nothing left open.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Sampling steps.
    pub steps: usize,
    /// Guidance scale.
    pub guidance: f32,
    /// The sampling method, where it is not that of the model's configuration.
    pub method: Option<SamplingMethod>,
    /// The spacing of the noise levels, where it is not that of the model's configuration.
    pub schedule: Option<NoiseSchedule>,
    /// The scheduler that comes of both.
    pub scheduler: SchedulerConfig,
    /// What the model wants, whether it was overridden or not.
    pub defaults: Defaults,
}

/// A picture of a request.
#[derive(Clone, Debug)]
pub struct Drawn<'a> {
    /// Its number, from 0.
    pub index: usize,
    /// Its prompt.
    pub prompt: &'a str,
    /// Its seed.
    pub seed: u64,
    /// What it was decoded from: `[channels, height, width]`, at the sampler's scale.
    pub latents: &'a [f32],
    /// The picture.
    pub picture: Picture,
}

impl<'a, D: Device> TextToImage<'a, D> {
    /// Draw with this model on this device.
    pub fn new(device: &'a D, model: &'a Model, plan: &'a Plan) -> Self {
        Self { device, model, plan, room: None }
    }

    /// The same within this many bytes for weights and values, beside what the process takes already. Where weights
    /// of a packed model do not all fit, they are read while they are needed.
    #[must_use]
    pub fn within(&self, room: usize) -> Self {
        let Self { device, model, plan, .. } = *self;
        Self { device, model, plan, room: Some(room) }
    }

    /// Whether the model's weights can be read piece by piece.
    pub fn is_packed(&self) -> bool {
        self.model.packed.is_some()
    }

    /// Fill in what a request leaves open, and check the rest.
    ///
    /// # Errors
    ///
    /// If the size, the steps or the scheduler are not possible with this model.
    pub fn settings(&self, request: &Request) -> Result<Settings, Error> {
        let defaults = self.model.defaults();
        let Default { value: [height, width], .. } = defaults.size;
        let mut scheduler = self.model.scheduler()?;
        let (method, schedule) = match request.method {
            // A spacing that a model wants for its own method need not be possible with another.
            Some(method) => (Some(method), request.schedule),
            None => (defaults.method.value, request.schedule.or(defaults.schedule)),
        };
        if let Some(method) = method {
            scheduler = scheduler.with_method(method)?;
        }
        if let Some(schedule) = schedule {
            scheduler = scheduler.with_schedule(schedule)?;
        }
        let settings = Settings {
            width: self.side("width", request.width.unwrap_or(width))?,
            height: self.side("height", request.height.unwrap_or(height))?,
            steps: request.steps.unwrap_or(defaults.steps.value),
            guidance: request.guidance.unwrap_or(defaults.guidance.value),
            method,
            schedule,
            scheduler: scheduler.with_eta(0.0)?,
            defaults,
        };
        if !settings.guidance.is_finite() {
            return Err(Error::Request("the guidance scale must be a finite number".into()));
        }
        settings.scheduler.sampler(settings.steps)?;
        Ok(settings)
    }

    /// A side of the picture that latents can make.
    fn side(&self, name: &str, pixels: usize) -> Result<usize, Error> {
        const LARGEST: usize = 16_384;
        let grain = self.model.pixels_per_latent().max(8);
        if pixels > LARGEST {
            return Err(Error::Request(format!(
                "{name} {pixels} is too large; the most is {LARGEST}"
            )));
        }
        if pixels == 0 || !pixels.is_multiple_of(grain) {
            let below = (pixels / grain).max(1) * grain;
            let nearest = format!("use {below} or {}", below + grain);
            return Err(Error::Request(format!(
                "{name} {pixels} is not a multiple of {grain}; {nearest}"
            )));
        }
        Ok(pixels)
    }

    /// How much larger the first token of the first prompt is than all others, by what is greatest in each.
    ///
    /// # Errors
    ///
    /// As [`TextToImage::draw`].
    pub fn first_token_ratio(&self, request: &Request, watch: &Watch<'_>) -> Result<f64, Error> {
        let prompts = request.prompts.iter().take(1).cloned().collect();
        let request = Request { prompts, ..request.clone() };
        let texts = text::encode(self, &request, &self.settings(&request)?, watch)?;
        let text = texts.prompts.first().ok_or_else(|| Error::Request("no prompt".into()))?;
        let (first, others) = text.context.split_at(text.context.len() / text.tokens);
        let most = |numbers: &[f32]| numbers.iter().fold(f32::MIN_POSITIVE, |a, b| a.max(b.abs()));
        Ok(f64::from(most(first) / most(others)))
    }

    /// Final latents of all pictures of a request, `[channels, height, width]` each, at the sampler's scale.
    ///
    /// # Errors
    ///
    /// If a file is unsound, memory is short, numbers go astray, or the watch says to stop.
    pub fn latents(&self, request: &Request, watch: &Watch<'_>) -> Result<Vec<Vec<f32>>, Error> {
        let settings = self.settings(request)?;
        let texts = timed(watch, Phase::Text, || text::encode(self, request, &settings, watch))?;
        timed(watch, Phase::Denoise, || denoise::run(self, request, &settings, (&texts, watch)))
    }

    /// Draw all pictures of a request and hand each over as soon as it is decoded. The outer error is ours, the inner
    /// one that of `deliver`, which ends the work.
    ///
    /// # Errors
    ///
    /// If a file is unsound, memory is short, numbers go astray, or the watch says to stop.
    pub fn draw<E>(
        &self,
        request: &Request,
        watch: &Watch<'_>,
        deliver: &mut dyn FnMut(Drawn<'_>) -> Result<(), E>,
    ) -> Result<Result<(), E>, Error> {
        let settings = self.settings(request)?;
        let latents = self.latents(request, watch)?;
        let mut result = Ok(());
        timed(watch, Phase::Decode, || {
            decode::run(self, request, &settings, (&latents, watch), &mut |index, picture| {
                let (prompt, seed) =
                    (&request.prompts[index / request.pictures], request.seed_of(index));
                let latents = &latents[index];
                result = deliver(Drawn { index, prompt, seed, latents, picture });
                result.is_ok()
            })
        })?;
        Ok(result)
    }
}

impl Settings {
    /// The same request with nothing left to a model's defaults, so that other models draw the same.
    pub fn fixed(&self, request: &Request) -> Request {
        Request {
            width: Some(self.width),
            height: Some(self.height),
            steps: Some(self.steps),
            guidance: Some(self.guidance),
            method: self.method,
            schedule: self.schedule,
            ..request.clone()
        }
    }

    /// Whether two predictions are made per step and combined (classifier-free guidance).
    pub(crate) fn is_guided(&self, model: &Model) -> bool {
        self.guidance > 1.0 && model.unet.config["time_cond_proj_dim"].is_null()
    }
}

fn timed<T>(
    watch: &Watch<'_>,
    phase: Phase,
    work: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    let start = Instant::now();
    let result = work()?;
    watch.tell(Event::Done(phase, start.elapsed()));
    Ok(result)
}
