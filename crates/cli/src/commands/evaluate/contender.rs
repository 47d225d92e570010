//! One model's pictures, how near they are to the original's, and what they cost.

use std::collections::BTreeMap;
use std::iter;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Result, ensure};
use pipeline::concepts::Scorer;
use pipeline::memory::Layer;
use pipeline::similarity::{Fit, Judge};
use pipeline::{Drawn, Model, Picture, Plan, Request, TextToImage, Watch, pack};
use quant::metrics::{self, Noise};
use serde::Serialize;
use tensor::{Cpu, LayerFormat};

use crate::report::{Details, Progress};

/// A model that draws all pictures.
#[derive(Debug, Serialize)]
pub(crate) struct Contender {
    pub(crate) name: String,
    /// Of its file; of the file that it would be packed into where it is not packed.
    pub(crate) bytes: u64,
    /// Bytes in use at the same time, as planned.
    pub(crate) planned_peak: usize,
    /// Wall time of one picture, loading included.
    pub(crate) seconds: f64,
    /// None for the reference.
    pub(crate) mean: Option<Likeness>,
    /// The least of each score.
    pub(crate) worst: Option<Likeness>,
    /// How well the pictures fit their prompts: the mean cosine of a CLIP's embeddings, times 100.
    pub(crate) fit: Option<f64>,
    /// The share of pictures that the CLIP finds nearer to their own prompt than to all others.
    pub(crate) r_precision: Option<f64>,
    /// Concept accuracy: the share of pictures in which the scorer finds all objects that their prompts name.
    pub(crate) concepts: Option<f64>,
    pub(crate) pictures: Vec<Scored>,
    /// Stored bits of each layer's weights, in the order in which a picture needs them.
    pub(crate) bits: Vec<LayerBits>,
    #[serde(skip)]
    pub(crate) drawn: Vec<Picture>,
    #[serde(skip)]
    latents: Vec<Vec<f32>>,
}

/// How near a picture is to the original's.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Likeness {
    pub(crate) ssim: f64,
    /// In decibels.
    pub(crate) psnr: f64,
    /// Of the latents, in decibels.
    pub(crate) sqnr: f64,
}

/// A picture and its scores.
#[derive(Debug, Serialize)]
pub(crate) struct Scored {
    pub(crate) prompt: String,
    pub(crate) seed: u64,
    #[serde(flatten)]
    pub(crate) likeness: Likeness,
}

/// What a weight of a layer takes.
#[derive(Debug, Serialize)]
pub(crate) struct LayerBits {
    pub(crate) component: &'static str,
    pub(crate) layer: String,
    pub(crate) format: String,
    /// Units included.
    pub(crate) bits: f64,
}

/// What a CLIP makes of the prompts, each different one once.
#[derive(Debug)]
pub(crate) struct Prompts {
    embeddings: Vec<Vec<f32>>,
    /// Where each prompt of the request is among them.
    places: Vec<usize>,
}

impl Prompts {
    /// Have a CLIP read the prompts.
    pub(crate) fn read(judge: &mut Judge<'_, Cpu>, prompts: &[String]) -> Result<Self> {
        let (mut embeddings, mut places, mut known) = (Vec::new(), Vec::new(), BTreeMap::new());
        for prompt in prompts {
            let place = *known.entry(prompt).or_insert(embeddings.len());
            if place == embeddings.len() {
                embeddings.push(judge.text(prompt)?);
            }
            places.push(place);
        }
        Ok(Self { embeddings, places })
    }
}

impl Contender {
    /// Draw all pictures of a request.
    pub(crate) fn draw(
        name: &str,
        (model, plan): (&Model, &Plan),
        request: &Request,
        (cpu, cancel): (&Cpu, &AtomicBool),
    ) -> Result<Self> {
        let progress = Progress::new(Details::None);
        let observer = |event| progress.tell(event);
        let watch = Watch { cancel: Some(cancel), observer: Some(&observer), ..Watch::default() };
        let pipeline = TextToImage::new(cpu, model, plan);
        let settings = pipeline.settings(request)?;
        let memory = pipeline.memory(request, &settings)?;
        let bytes = match &model.packed {
            Some(packed) => std::fs::metadata(packed.file.path())?.len(),
            None => pack::bytes(model, plan, cpu)?,
        };
        let bits = memory.iter().flat_map(|part| {
            part.layers.iter().filter_map(|layer| LayerBits::new(part.component, layer, model))
        });
        let mut contender = Self {
            name: name.to_owned(),
            bytes,
            planned_peak: memory.iter().map(pipeline::memory::Resident::peak).max().unwrap_or(0),
            seconds: 0.0,
            mean: None,
            worst: None,
            fit: None,
            r_precision: None,
            concepts: None,
            pictures: Vec::new(),
            bits: bits.collect(),
            drawn: Vec::with_capacity(request.total()),
            latents: Vec::with_capacity(request.total()),
        };
        let start = Instant::now();
        pipeline.draw(request, &watch, &mut |drawn: Drawn<'_>| {
            contender.latents.push(drawn.latents.to_vec());
            contender.drawn.push(drawn.picture);
            Ok::<(), anyhow::Error>(())
        })??;
        contender.seconds = start.elapsed().as_secs_f64() / request.total() as f64;
        progress.finish();
        Ok(contender)
    }

    /// Have a CLIP say how well the pictures fit their prompts.
    pub(crate) fn judge(&mut self, judge: &mut Judge<'_, Cpu>, prompts: &Prompts) -> Result<()> {
        let count = self.drawn.len() / prompts.places.len();
        let own = prompts.places.iter().flat_map(|place| iter::repeat_n(*place, count));
        let seen = self.drawn.iter().zip(own);
        let seen: Vec<_> =
            seen.map(|(picture, own)| Ok((judge.picture(picture)?, own))).collect::<Result<_>>()?;
        let Fit { similarity, r_precision } = Fit::new(&seen, &prompts.embeddings);
        (self.fit, self.r_precision) = (Some(100.0 * similarity), r_precision);
        Ok(())
    }

    /// Have a scorer say in how many pictures the objects of their prompts are.
    pub(crate) fn recognize(
        &mut self,
        scorer: &mut Scorer<'_, Cpu>,
        request: &Request,
    ) -> Result<()> {
        let mut right = 0_usize;
        for (index, picture) in self.drawn.iter().enumerate() {
            let prompt = &request.prompts[index / request.pictures];
            right += usize::from(scorer.is_right(picture, prompt)?);
        }
        self.concepts = Some(right as f64 / self.drawn.len() as f64);
        Ok(())
    }

    /// Score all pictures against those of the reference.
    pub(crate) fn compare(&mut self, reference: &Self, request: &Request) -> Result<()> {
        for (index, (own, theirs)) in self.drawn.iter().zip(&reference.drawn).enumerate() {
            let size = [own.height, own.width];
            ensure!(
                size == [theirs.height, theirs.width],
                "the models draw pictures of other sizes"
            );
            ensure!(
                size.iter().min() >= Some(&metrics::LEAST_SIDE),
                "the pictures are too small to compare"
            );
            let mut noise = Noise::default();
            noise.add(&reference.latents[index], &self.latents[index]);
            let likeness = Likeness {
                ssim: metrics::ssim(&theirs.rgb, &own.rgb, size),
                psnr: metrics::psnr(&theirs.rgb, &own.rgb),
                sqnr: noise.sqnr(),
            };
            let prompt = request.prompts[index / request.pictures].clone();
            self.pictures.push(Scored { prompt, seed: request.seed_of(index), likeness });
        }
        let each =
            |score: fn(&Likeness) -> f64| self.pictures.iter().map(move |p| score(&p.likeness));
        let count = self.pictures.len() as f64;
        let mean = |score: fn(&Likeness) -> f64| each(score).sum::<f64>() / count;
        let least = |score: fn(&Likeness) -> f64| each(score).fold(f64::INFINITY, f64::min);
        let of = |all: &dyn Fn(fn(&Likeness) -> f64) -> f64| Likeness {
            ssim: all(|l| l.ssim),
            psnr: all(|l| l.psnr),
            sqnr: all(|l| l.sqnr),
        };
        (self.mean, self.worst) = (Some(of(&mean)), Some(of(&least)));
        Ok(())
    }
}

impl LayerBits {
    fn new(component: &'static str, layer: &Layer, model: &Model) -> Option<Self> {
        let of = model.components().find(|of| of.name == component)?;
        let shape = of.weights.shape(&format!("{}.weight", layer.name))?;
        let weights: usize = shape.iter().product();
        let format = match layer.format {
            LayerFormat::Float(_) => quant::sensitivity::FLOAT.to_owned(),
            other => other.to_string(),
        };
        let bits = 8.0 * layer.bytes as f64 / weights.max(1) as f64;
        Some(Self { component, layer: layer.name.clone(), format, bits })
    }
}
