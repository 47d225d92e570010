//! A UNet that can be changed in one layer, and the pictures that it draws.

use models::unet;
use tensor::graph::NodeId;
use tensor::{Device, Held, LayerFormat, Plan, Session};

use super::network::{Inputs, Network, Rows, changed, real};
use super::{Layer, Look};
use crate::denoise::{Condition, Geometry, Texts, record};
use crate::first_token::FirstTokens;
use crate::request::{Phase, Watch};
use crate::text_to_image::Settings;
use crate::trajectory::Trajectory;
use crate::{Error, Request, TextToImage};

/// A UNet under a sampler, and the pictures by which it is judged.
pub(super) struct Denoiser<'a, 'w, D: Device> {
    pub(super) network: Network<'a, 'w, D>,
    config: unet::Config,
    settings: Settings,
    geometry: Geometry,
    /// What each call is told of its time.
    pub(super) times: Vec<Vec<f32>>,
    seeds: Vec<u64>,
    /// Pictures of each prompt.
    pictures: usize,
    /// For each picture, with real numbers.
    conditions: Vec<Condition>,
    /// Keys and values of texts' first tokens, where these are of real weights whatever a plan says.
    firsts: Option<FirstTokens<'a, D>>,
    watch: &'w Watch<'w>,
}

/// A picture before it is decoded.
pub(super) struct Denoised {
    /// What the network predicts at the first step.
    pub(super) prediction: Vec<f32>,
    /// The final latents; none where only the prediction was wanted.
    pub(super) latents: Vec<f32>,
}

/// What runs the calls of one picture: the first, and those after it.
struct Sessions<'a, D: Device> {
    first: Session<'a, D>,
    /// Later calls see another sample, so nothing of them is known.
    later: Option<Session<'a, D>>,
}

impl<'a, D: Device> Sessions<'a, D> {
    fn all(&mut self) -> impl Iterator<Item = &mut Session<'a, D>> {
        std::iter::once(&mut self.first).chain(&mut self.later)
    }
}

impl<'a, 'w, D: Device> Denoiser<'a, 'w, D> {
    /// A UNet that will draw the pictures of a request from these embeddings.
    pub(super) fn new(
        pipeline: &'a TextToImage<'a, D>,
        request: &Request,
        texts: &Texts,
        (settings, watch): (&Settings, &'w Watch<'w>),
    ) -> Result<Self, Error> {
        let model = pipeline.model;
        let config = unet::Config::read(&model.unet.config)?;
        let tokens = texts.prompts.first().map_or(0, |text| text.tokens);
        let geometry = Geometry::new(model, settings, tokens);
        let recording = record(model, &config, &geometry)?;
        let firsts = FirstTokens::new(pipeline, &recording)?;
        let network =
            Network::new(pipeline.device, &model.unet, recording, (Phase::Denoise, watch));
        let timesteps = settings.scheduler.sampler(settings.steps)?.timesteps().to_vec();
        let time = |step: &f32| config.time_projection(*step).repeat(geometry.batch);
        let mut denoiser = Self {
            network,
            times: timesteps.iter().map(time).collect(),
            config,
            settings: settings.clone(),
            geometry,
            seeds: (0..request.total()).map(|index| request.seed_of(index)).collect(),
            pictures: request.pictures,
            conditions: Vec::new(),
            firsts,
            watch,
        };
        denoiser.judge_by(texts)?;
        Ok(denoiser)
    }

    /// Judge it by the pictures of these embeddings.
    pub(super) fn judge_by(&mut self, texts: &Texts) -> Result<(), Error> {
        self.conditions = self.told(texts);
        let first =
            self.conditions.iter().enumerate().map(|(index, condition)| {
                Ok(self.inputs(condition, (0, &self.trajectory(index)?)))
            });
        let first = first.collect::<Result<_, Error>>()?;
        self.network.judge_by(first);
        Ok(())
    }

    /// What the network is told for each picture beside noise and time.
    fn told(&self, texts: &Texts) -> Vec<Condition> {
        let condition = |index: usize| {
            let text = &texts.prompts[index / self.pictures];
            Condition::new(text, texts.negative.as_ref(), (&self.config, &self.settings))
        };
        (0..self.seeds.len()).map(condition).collect()
    }

    /// The first noise of a picture.
    fn trajectory(&self, index: usize) -> Result<Trajectory, Error> {
        let Geometry { height, width, .. } = self.geometry;
        let count = self.config.in_channels() * height * width;
        Trajectory::new(&self.settings, self.seeds[index], count)
    }

    /// What goes into a call.
    fn inputs(&self, condition: &Condition, (call, way): (usize, &Trajectory)) -> Inputs {
        let numbers = condition.inputs().to_vec();
        let mut inputs = Inputs { numbers, ..Inputs::default() };
        inputs.numbers.push(("sample", self.geometry.input(&way.input(call))));
        inputs.numbers.push(("time", self.times[call].clone()));
        inputs
    }

    /// Draw all pictures where a layer has another format. What comes before it at the first step is not computed.
    pub(super) fn with(
        &mut self,
        layer: &Layer,
        format: LayerFormat,
        look: Look,
    ) -> Result<Vec<Denoised>, Error> {
        let plan = changed(layer, format);
        let (first, later, values);
        if let Some(exact) = self.exact(layer) {
            (first, values) = self.network.behind(layer, &plan, &exact)?;
            later = self.later(&real(), &[layer.node], look)?;
        } else {
            (first, values) = (self.network.from(layer, &plan)?, Vec::new());
            later = self.later(&plan, &[], look)?;
        }
        let mut sessions = Sessions { first, later };
        let pictures = (0..look.count(self.seeds.len())).map(|index| {
            if let Some(numbers) = values.get(index) {
                // A text's keys and values are the same in all calls.
                let name = layer.node.to_string();
                sessions.all().try_for_each(|session| session.write(&name, numbers))?;
            }
            self.network.resume(&mut sessions.first, index)?;
            self.finished((index, &self.conditions[index]), &mut sessions, look)
        });
        let pictures = pictures.collect::<Result<_, Error>>()?;
        self.forget(&sessions);
        Ok(pictures)
    }

    /// How far off a layer's own result is in this format, in decibels over all first calls.
    pub(super) fn own_error(&mut self, layer: &Layer, format: LayerFormat) -> Result<f64, Error> {
        let exact = self.exact(layer);
        self.network.own_error(layer, format, exact.as_ref())
    }

    /// Of a layer that reads texts, the rows that are those of real weights in every format.
    fn exact(&self, layer: &Layer) -> Option<Rows> {
        let firsts = self.firsts.as_ref()?;
        let condition = self.conditions.first()?;
        let (_, tokens) = condition.texts();
        let of = condition.batch() * tokens;
        let reads = firsts.readers().any(|node| node == layer.node);
        reads.then(|| Rows { rows: firsts.rows_of(condition), of })
    }

    /// Draw all pictures with real numbers from these embeddings.
    pub(super) fn from(&mut self, texts: &Texts, look: Look) -> Result<Vec<Denoised>, Error> {
        self.by(&real(), texts, look)
    }

    /// Draw all pictures by a plan from these embeddings.
    pub(super) fn by(
        &mut self,
        plan: &Plan,
        texts: &Texts,
        look: Look,
    ) -> Result<Vec<Denoised>, Error> {
        // With real numbers, first tokens are what they should be.
        let firsts = self.firsts.as_ref().filter(|_| *plan != real());
        let given: Vec<NodeId> = firsts.into_iter().flat_map(FirstTokens::readers).collect();
        let mut read = (!given.is_empty()).then(|| self.network.up_to(plan, &given)).transpose()?;
        let first = self.network.given(plan, &given)?;
        let mut sessions = Sessions { first, later: self.later(plan, &given, look)? };
        let mut pictures = Vec::new();
        let told = self.told(texts).into_iter().take(look.count(self.seeds.len()));
        for (index, condition) in told.enumerate() {
            let inputs = self.inputs(&condition, (0, &self.trajectory(index)?));
            if let Some(read) = &mut read {
                let values = self.read(read, &inputs, &condition)?;
                sessions.all().try_for_each(|session| session.restore(&values))?;
            }
            self.network.run(&mut sessions.first, &inputs)?;
            pictures.push(self.finished((index, &condition), &mut sessions, look)?);
        }
        if let Some(read) = &read {
            self.network.forget(read);
        }
        self.forget(&sessions);
        Ok(pictures)
    }

    /// Keys and values of a picture's texts, with those of first tokens from real weights.
    fn read(
        &mut self,
        session: &mut Session<'a, D>,
        inputs: &Inputs,
        condition: &Condition,
    ) -> Result<Vec<Held>, Error> {
        self.network.run(session, inputs)?;
        let mut values = session.hold()?;
        if let Some(firsts) = &mut self.firsts {
            firsts.replace(condition, &mut values, self.watch)?;
        }
        Ok(values)
    }

    /// What runs the calls after the first, if they are wanted, given the results of some layers.
    fn later(
        &mut self,
        plan: &Plan,
        given: &[NodeId],
        look: Look,
    ) -> Result<Option<Session<'a, D>>, Error> {
        let wanted = look == Look::Picture && self.times.len() > 1;
        wanted.then(|| self.network.given(plan, given)).transpose()
    }

    fn forget(&mut self, sessions: &Sessions<'a, D>) {
        self.network.forget(&sessions.first);
        sessions.later.iter().for_each(|session| self.network.forget(session));
    }

    /// A picture whose first call was just run.
    fn finished(
        &self,
        (index, condition): (usize, &Condition),
        sessions: &mut Sessions<'a, D>,
        look: Look,
    ) -> Result<Denoised, Error> {
        let prediction = self.prediction(&mut sessions.first)?;
        if look != Look::Picture {
            return Ok(Denoised { prediction, latents: Vec::new() });
        }
        let mut way = self.trajectory(index)?;
        way.advance(0, &prediction);
        if let Some(session) = &mut sessions.later {
            for call in 1..way.calls() {
                self.network.run(session, &self.inputs(condition, (call, &way)))?;
                way.advance(call, &self.prediction(session)?);
            }
        }
        Ok(Denoised { prediction, latents: way.finish() })
    }

    fn prediction(&self, session: &mut Session<'a, D>) -> Result<Vec<f32>, Error> {
        let output = self.network.read(session, "prediction")?.unwrap_or_default();
        Ok(self.geometry.prediction(&output, self.settings.guidance))
    }
}
