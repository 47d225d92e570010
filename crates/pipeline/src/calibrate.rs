//! Pictures drawn in single precision while what each layer reads is looked at.
//!
//! The network is run as a whole at every sampling step, so that keys and values of texts and embeddings of times are seen,
//! too. Everything is in `f32`, whose results are the same on every machine, and pictures are taken one by one: what is found
//! depends on the model and the request alone.

use std::collections::{BTreeMap, HashMap};

use models::unet;
use quant::calibration::{BATCH, Branch, Calibration, Header, Observed, Seen, Tokens, VERSION};
use tensor::graph::Kind;
use tensor::program::{Matmul, Op, Program, Step};
use tensor::{Control, Device, Plan, Precision, Recording, Session};

use crate::denoise::{Condition, Geometry, Texts, record};
use crate::request::{Phase, Watch};
use crate::text_to_image::Settings;
use crate::trajectory::Trajectory;
use crate::{Error, Event, Model, Request, TextToImage, text};

/// Pictures that are drawn, and what was seen so far.
pub struct Calibrator<'a, 'w, D: Device> {
    session: Session<'a, D>,
    weights: D::Weights,
    settings: Settings,
    geometry: Geometry,
    texts: Texts,
    config: unet::Config,
    times: Vec<Vec<f32>>,
    sites: HashMap<String, Site>,
    request: Request,
    found: Found,
    watch: &'w Watch<'w>,
}

/// A layer, and how what it reads is divided.
#[derive(Clone, Debug)]
struct Site {
    /// Its place among all layers, as the network runs them.
    place: usize,
    /// Tokens of what an encoder reads at once, where it reads texts.
    period: Option<usize>,
    /// Channels of the first of two values that it reads side by side.
    cut: Option<usize>,
}

/// What was seen of each layer, by its place and the order of its parts.
#[derive(Debug, Default)]
struct Found {
    done: usize,
    seen: BTreeMap<Key, Seen>,
}

/// The place of a layer, the first channel, which prediction and which tokens.
type Key = (usize, usize, Branch, Tokens);

impl<'a, 'w, D: Device> Calibrator<'a, 'w, D> {
    /// Make ready to draw the pictures of a request, after those that `before` tells of.
    ///
    /// # Errors
    ///
    /// If the pipeline's plan is not one of `f32`, a file is unsound, memory is short, or the watch says to stop.
    pub fn new(
        pipeline: &'a TextToImage<'a, D>,
        request: &Request,
        watch: &'w Watch<'w>,
    ) -> Result<Self, Error> {
        let settings = pipeline.settings(request)?;
        let model = pipeline.model;
        if pipeline.plan.component(model.unet.name) != Plan::uniform(Precision::F32) {
            let fault = "ranges are those of real numbers; give a model that is not packed";
            return Err(Error::Request(fault.into()));
        }
        let texts = text::encode(pipeline, request, &settings, watch)?;
        let config = unet::Config::read(&model.unet.config)?;
        let tokens = texts.prompts.first().map_or(0, |text| text.tokens);
        let geometry = Geometry::new(model, &settings, tokens);
        let recording = record(model, &config, &geometry)?;
        let plan = Plan::uniform(Precision::F32);
        let program = Program::compile(&recording, &plan, pipeline.device);
        let timesteps = settings.scheduler.sampler(settings.steps)?.timesteps().to_vec();
        let time = |step: &f32| config.time_projection(*step).repeat(geometry.batch);
        let loading = |done, total| watch.tell(Event::Loading(Phase::Denoise, done, total));
        let control = Control { cancel: watch.cancel, progress: Some(&loading) };
        let mut weights = D::Weights::default();
        pipeline.device.prepare(&mut weights, &program, &control)?;
        let period = model.encoders.first().map_or(1, |encoder| encoder.tokenizer.limit());
        Ok(Self {
            session: Session::with_program(pipeline.device, program)?,
            weights,
            sites: sites(&recording, period),
            times: timesteps.iter().map(time).collect(),
            settings,
            geometry,
            texts,
            config,
            request: request.clone(),
            found: Found::default(),
            watch,
        })
    }

    /// What the request came to.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Go on after the pictures that a file of unfinished work tells of, if its layers are those of the network.
    pub fn resume(&mut self, before: &Calibration) {
        let mut found = Found { done: before.header.done, ..Found::default() };
        for seen in &before.seen {
            let (layer, channels) = seen.reads.split_once(':').unwrap_or((&seen.reads, "0-"));
            let first = channels.split('-').next().and_then(|first| first.parse().ok());
            let (Some(site), Some(first)) = (self.sites.get(layer), first) else { return };
            found.seen.insert((site.place, first, seen.branch, seen.tokens), seen.clone());
        }
        self.found = found;
    }

    /// Draw the next picture, if there is one. The answer is the number of those that are done.
    ///
    /// # Errors
    ///
    /// If memory is short, numbers go astray, or the watch says to stop.
    pub fn advance(&mut self) -> Result<usize, Error> {
        let index = self.found.done;
        if index >= self.request.total() {
            return Ok(index);
        }
        let text = &self.texts.prompts[index / self.request.pictures];
        let negative = self.texts.negative.as_ref();
        let condition = Condition::new(text, negative, (&self.config, &self.settings));
        let Geometry { height, width, .. } = self.geometry;
        let count = self.config.in_channels() * height * width;
        let mut way = Trajectory::new(&self.settings, self.request.seed_of(index), count)?;
        let control = Control { cancel: self.watch.cancel, progress: None };
        for call in 0..way.calls() {
            condition.write(&mut self.session)?;
            for (name, numbers) in
                [("sample", &self.geometry.input(&way.input(call))), ("time", &self.times[call])]
            {
                if self.session.program().input(name).is_some() {
                    self.session.write(name, numbers)?;
                }
            }
            let calls = self.times.len();
            let place = (call, calls, self.geometry.batch);
            let (sites, found) = (&self.sites, &mut self.found);
            self.session.tap(&self.weights, &control, &mut |step, first, numbers| {
                if let (Op::Matmul(product), Some(site)) = (&step.op, sites.get(&step.name)) {
                    found.take(step, (site, product), (first, numbers), place);
                }
            })?;
            let output = self.session.read("prediction")?;
            if !output.iter().all(|x| x.is_finite()) {
                self.session.diagnose(&self.weights, &control)?;
            }
            way.advance(call, &self.geometry.prediction(&output, self.settings.guidance));
        }
        self.found.done += 1;
        let is_last = self.found.done == self.request.total();
        if is_last || self.found.done.is_multiple_of(BATCH) {
            self.found.seen.values_mut().for_each(|seen| seen.observed.end_batch());
        }
        Ok(self.found.done)
    }

    /// What was drawn, before the first picture.
    ///
    /// # Errors
    ///
    /// If a file cannot be read.
    pub fn header(&self, pipeline: &TextToImage<'_, D>) -> Result<Header, Error> {
        let tokens = self.sites.values().find_map(|site| site.period).unwrap_or(1);
        header((pipeline.model, tokens), &self.request, &self.settings)
    }

    /// All that was seen so far.
    pub fn found(&self, header: &Header) -> Calibration {
        let header = Header { done: self.found.done, ..header.clone() };
        Calibration { header, seen: self.found.seen.values().cloned().collect() }
    }
}

/// What is drawn, before the first picture; `tokens` are those that an encoder of the model reads at once.
pub(crate) fn header(
    (model, tokens): (&Model, usize),
    request: &Request,
    settings: &Settings,
) -> Result<Header, Error> {
    Ok(Header {
        version: VERSION,
        model: model.name.clone(),
        fingerprint: model.fingerprint()?,
        prompts: request.prompts.clone(),
        pictures: request.pictures,
        seed: request.seed,
        width: settings.width,
        height: settings.height,
        steps: settings.steps,
        guidance: settings.guidance,
        method: settings.method.map(|method| method.name().to_owned()),
        schedule: settings.schedule.map(|schedule| schedule.name().to_owned()),
        sampler: settings.scheduler.family().name().to_owned(),
        timesteps: settings.scheduler.sampler(settings.steps)?.timesteps().to_vec(),
        tokens,
        done: 0,
    })
}

impl Found {
    /// Take in some of the rows that a layer reads, from row `first` on, in one of `calls` calls.
    fn take(
        &mut self,
        step: &Step,
        (site, product): (&Site, &Matmul),
        (first, numbers): (usize, &[f32]),
        (call, calls, batch): (usize, usize, usize),
    ) {
        let width = product.inputs;
        let rows = product.input_rows();
        // Layers of which a batch shares one row belong to the prompt.
        let branches: &[(Branch, usize)] = match batch {
            2 if rows.is_multiple_of(2) => &[(Branch::Negative, 0), (Branch::Text, 1)],
            _ => &[(Branch::Text, 0)],
        };
        let of_branch = rows / branches.len();
        let tokens: &[Tokens] = match site.period {
            Some(_) => &[Tokens::First, Tokens::Others],
            None => &[Tokens::All],
        };
        let ends = [0, site.cut.unwrap_or(width), width];
        let halves = ends.windows(2).map(|ends| ends[0]..ends[1]).filter(|half| !half.is_empty());
        for (channels, &(branch, number), &tokens) in halves.flat_map(|half| {
            let of = move |branch| tokens.iter().map(move |tokens| (branch, tokens));
            branches.iter().flat_map(of).map(move |(b, t)| (half.clone(), b, t))
        }) {
            let belongs = |row: usize| {
                let is_first = site.period.is_some_and(|n| (row % of_branch).is_multiple_of(n));
                row / of_branch == number
                    && (tokens == Tokens::All || is_first == (tokens == Tokens::First))
            };
            let own = (first..).zip(numbers.chunks_exact(width)).filter(|(row, _)| belongs(*row));
            let mut own = own.map(|(_, numbers)| &numbers[channels.clone()]).peekable();
            if own.peek().is_none() {
                continue;
            }
            let key = (site.place, channels.start, branch, tokens);
            let seen = self.seen.entry(key).or_insert_with(|| Seen {
                reads: match site.cut {
                    Some(_) => format!("{}:{}-{}", step.name, channels.start, channels.end),
                    None => step.name.clone(),
                },
                branch,
                tokens,
                observed: Observed::new(channels.len(), calls),
            });
            seen.observed.add(call, own);
        }
    }
}

/// The layers of a recording.
fn sites(recording: &Recording, period: usize) -> HashMap<String, Site> {
    let layers = recording.nodes().iter().filter_map(|node| Some((node, node.weight()?)));
    let site = |(place, (node, weight)): (usize, (&tensor::graph::Node, &tensor::Weight))| {
        let read = node.inputs.first().map(|id| recording.node(*id));
        let is_text = read.is_some_and(
            |read| matches!(&read.kind, Kind::Input { name } if name == Condition::TEXTS),
        );
        let beside = read.filter(|read| {
            matches!(read.kind, Kind::ConcatChannels) && matches!(node.kind, Kind::Conv2d { .. })
        });
        let cut = beside.and_then(|read| read.inputs.first());
        let cut = cut.map(|id| recording.node(*id).shape.channels());
        (weight.layer().to_owned(), Site { place, period: is_text.then_some(period), cut })
    };
    layers.enumerate().map(site).collect()
}

#[cfg(test)]
mod tests;
