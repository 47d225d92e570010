//! What a caller asks for, and how it is told about progress.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tensor::program::{Program, Step};

use crate::schedule::{NoiseSchedule, SamplingMethod};

/// Pictures to draw. What is `None` comes from the model.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Prompts; each is drawn `pictures` times.
    pub prompts: Vec<String>,
    /// What not to draw; needs guidance.
    pub negative: Option<String>,
    /// Width in pixels.
    pub width: Option<usize>,
    /// Height in pixels.
    pub height: Option<usize>,
    /// Sampling steps.
    pub steps: Option<usize>,
    /// Guidance scale; 1 or less is none.
    pub guidance: Option<f32>,
    /// Seed of the first picture; picture `i` of the request uses `seed + i`.
    pub seed: u64,
    /// Pictures of each prompt.
    pub pictures: usize,
    /// Sampling method.
    pub method: Option<SamplingMethod>,
    /// Spacing of the noise levels.
    pub schedule: Option<NoiseSchedule>,
    /// Last layers of CLIP to leave out.
    pub clip_skip: usize,
    /// What happens to prompts that are longer than the encoder reads.
    pub overflow: Overflow,
    /// How the decoder works through the picture.
    pub decode: Decode,
}

/// What happens to prompts that are longer than the encoder reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The rest is cut off, with a warning.
    #[default]
    Cut,
    /// Chunks of 75 tokens are encoded apart and joined.
    Chunks,
}

/// How the decoder works through the picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Decode {
    /// All at once.
    #[default]
    Whole,
    /// In overlapping tiles that are blended, as `enable_vae_tiling` of diffusers does.
    Tiled,
}

/// A part of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Prompts to embeddings.
    Text,
    /// Noise to latents.
    Denoise,
    /// Latents to pixels.
    Decode,
}

/// What a caller is told while it waits.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Something in the request is not done as written.
    Warning(String),
    /// Weights are being read and packed: tensors done, and of how many.
    Loading(Phase, usize, usize),
    /// A part of the work goes on: operations done, and of how many.
    Working(Phase, usize, usize),
    /// A sampling step is done: which (from 1), of how many, and its time.
    Step(usize, usize, Duration),
    /// A phase is done.
    Done(Phase, Duration),
}

/// How a caller watches and stops the work.
#[derive(Clone, Copy, Default)]
pub struct Watch<'a> {
    /// Set by another thread to stop.
    pub cancel: Option<&'a AtomicBool>,
    /// Told about everything that happens.
    pub observer: Option<&'a dyn Fn(Event)>,
    /// Shown what each layer reads.
    pub tap: Option<&'a dyn Fn(&Reading<'_>)>,
}

/// Rows that a layer is about to multiply by its weight.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    /// The component of the layer.
    pub component: &'static str,
    /// All that is run with it.
    pub program: &'a Program,
    /// The layer.
    pub step: &'a Step,
    /// The first of the rows: where rows run in bands, they come band by band.
    pub first: usize,
    /// The rows.
    pub numbers: &'a [f32],
}

impl Watch<'_> {
    /// Tell the observer.
    pub fn tell(&self, event: Event) {
        if let Some(observer) = self.observer {
            observer(event);
        }
    }
}

impl Phase {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Denoise => "denoise",
            Self::Decode => "vae",
        }
    }
}

impl Request {
    /// Number of pictures in all.
    pub fn total(&self) -> usize {
        self.prompts.len() * self.pictures
    }

    /// The seed of picture `index`: seeds count up through the whole request.
    pub fn seed_of(&self, index: usize) -> u64 {
        self.seed.wrapping_add(index as u64)
    }
}
