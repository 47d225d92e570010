//! One layer in another format, everything else real: what becomes of the prediction and of the picture.
//!
//! Nothing before the changed layer is computed again. For each picture the values that its layer needs from before it
//! are kept, and moved on from layer to layer in the order in which the network runs them.

use std::time::{Duration, Instant};

use models::unet;
use quant::metrics::{self, Noise};
use quant::sensitivity::Effect;
use tensor::graph::{NodeId, Output, Part};
use tensor::program::{Numbers, Packing, PanelOrder, Program, Slot};
use tensor::{Control, Device, Held, LayerFormat, Precision, Recording, Session, Weight};

use crate::decode::Pictures;
use crate::denoise::{Condition, Geometry, record};
use crate::request::{Phase, Watch};
use crate::text_to_image::Settings;
use crate::trajectory::Trajectory;
use crate::{Error, Event, Picture, Plan, Request, TextToImage, text};

/// A network with pictures that it drew, ready to be changed in one layer.
pub struct Probe<'a, 'w, D: Device> {
    device: &'a D,
    network: Network,
    settings: Settings,
    layers: Vec<Layer>,
    samples: Vec<Sample>,
    /// The layer up to which values of all samples are kept.
    front: NodeId,
    weights: D::Weights,
    pace: Pace,
    pictures: Pictures<'a, 'w, D>,
    watch: &'w Watch<'w>,
}

/// What drawing took.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    network: Duration,
    /// Of the network.
    multiply_adds: u64,
    decoder: Duration,
}

/// A recorded network call of real numbers.
struct Network {
    recording: Recording,
    whole: Program,
    plan: tensor::Plan,
    geometry: Geometry,
    times: Vec<Vec<f32>>,
    channels: usize,
}

/// A layer that multiplies by a weight.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Its name.
    pub name: String,
    /// Its weights.
    pub weights: usize,
    node: NodeId,
    /// Where its format begins to matter.
    start: NodeId,
}

/// A picture, and what there is of it before the changed layer.
struct Sample {
    seed: u64,
    condition: Condition,
    /// What the network sees at the first step.
    input: Vec<f32>,
    /// What it predicts there.
    prediction: Vec<f32>,
    picture: Picture,
    /// What comes before the front.
    kept: Vec<Held>,
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The prediction of the first step.
    Prediction,
    /// The finished picture, too.
    Picture,
}

impl<'a, 'w, D: Device> Probe<'a, 'w, D> {
    /// Draw all pictures of a request with real numbers.
    ///
    /// # Errors
    ///
    /// If the pipeline's UNet is not one of `f32`, and as [`TextToImage::draw`].
    pub fn new(
        pipeline: &'a TextToImage<'a, D>,
        request: &Request,
        watch: &'w Watch<'w>,
    ) -> Result<Self, Error> {
        let settings = pipeline.settings(request)?;
        let plan = pipeline.plan.component(pipeline.model.unet.name);
        if plan != tensor::Plan::uniform(Precision::F32) {
            let fault =
                "formats are measured against real numbers; give a model that is not packed";
            return Err(Error::Request(fault.into()));
        }
        if settings.height.min(settings.width) < metrics::LEAST_SIDE {
            let fault =
                format!("pictures of less than {} pixels are not compared", metrics::LEAST_SIDE);
            return Err(Error::Request(fault));
        }
        let texts = text::encode(pipeline, request, &settings, watch)?;
        let config = unet::Config::read(&pipeline.model.unet.config)?;
        let tokens = texts.prompts.first().map_or(0, |text| text.tokens);
        let geometry = Geometry::new(pipeline.model, &settings, tokens);
        let recording = record(pipeline.model, &config, &geometry)?;
        let timesteps = settings.scheduler.sampler(settings.steps)?.timesteps().to_vec();
        let time = |step: &f32| config.time_projection(*step).repeat(geometry.batch);
        let network = Network {
            whole: Program::compile(&recording, &plan, pipeline.device),
            times: timesteps.iter().map(time).collect(),
            channels: config.in_channels(),
            recording,
            plan,
            geometry,
        };
        let mut probe = Self {
            device: pipeline.device,
            layers: network.layers(),
            front: NodeId::FIRST,
            network,
            samples: Vec::with_capacity(request.total()),
            weights: D::Weights::default(),
            pace: Pace::default(),
            pictures: Pictures::new(pipeline, request, (&settings, request.total()), watch)?,
            settings,
            watch,
        };
        probe.prepare(&probe.network.whole.clone())?;
        for index in 0..request.total() {
            let text = &texts.prompts[index / request.pictures];
            let condition =
                Condition::new(text, texts.negative.as_ref(), (&config, &probe.settings));
            let sample = probe.draw(condition, request.seed_of(index), (index, request.total()))?;
            probe.samples.push(sample);
        }
        Ok(probe)
    }

    /// The layers, as the network runs them.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// What the request came to.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How long measuring one format of a layer should take, going by how long drawing took.
    pub fn estimate(&self, layer: &Layer, look: Look) -> Duration {
        let after = self.network.whole.steps.iter().filter(|step| step.node >= layer.start);
        let after: u64 = after.map(|step| step.op.multiply_adds()).sum();
        let whole = self.network.whole.multiply_adds();
        let pictures = self.samples.len() as u64;
        let calls = match look {
            Look::Prediction => after,
            Look::Picture => after + (self.network.times.len() as u64 - 1) * whole,
        };
        let share = (pictures * calls) as f64 / self.pace.multiply_adds.max(1) as f64;
        let network = self.pace.network.mul_f64(share);
        if look == Look::Picture { network + self.pace.decoder } else { network }
    }

    /// Bytes of a layer's weights in this format, as a packed file holds them.
    pub fn bytes(&self, layer: &Layer, format: LayerFormat) -> usize {
        let (weight, order) = self.network.weight(layer);
        let numbers = match format {
            LayerFormat::Float(precision) => Numbers::Float(precision),
            LayerFormat::Integer(scheme) => Numbers::Integer(scheme.weights),
        };
        let packing = Packing::Panels(order, numbers);
        self.device.resident_bytes(&Slot { weight: weight.clone(), packing })
    }

    /// What becomes of the network when a layer has another format. Layers are best taken in the order of
    /// [`Probe::layers`]: one that comes before the last one makes the pictures start anew.
    ///
    /// # Errors
    ///
    /// If a weight cannot be read, memory is short, numbers go astray, or the watch says to stop.
    pub fn measure(
        &mut self,
        layer: &Layer,
        format: LayerFormat,
        look: Look,
    ) -> Result<Effect, Error> {
        self.go_to(layer.start)?;
        let mut plan = self.network.plan.clone();
        plan.layers.insert(layer.name.clone(), format);
        self.effect(&plan, look)
    }

    /// How far off a layer's own result is in each of these formats, in decibels over all pictures.
    ///
    /// # Errors
    ///
    /// As [`Probe::measure`].
    pub fn own_error(&mut self, layer: &Layer, formats: &[LayerFormat]) -> Result<Vec<f64>, Error> {
        self.go_to(layer.start)?;
        let exact = self.outputs(layer, LayerFormat::Float(Precision::F32))?;
        let all = formats.iter().map(|format| {
            let mut noise = Noise::default();
            for (exact, found) in exact.iter().zip(self.outputs(layer, *format)?) {
                noise.add(exact, &found);
            }
            Ok(noise.sqnr())
        });
        all.collect()
    }

    /// What a layer computes for each picture at the first step.
    fn outputs(&mut self, layer: &Layer, format: LayerFormat) -> Result<Vec<Vec<f32>>, Error> {
        let mut plan = self.network.plan.clone();
        plan.layers.insert(layer.name.clone(), format);
        let given = self.network.recording.live_before(layer.start);
        let outputs = [layer.node.into()];
        let part = Part { outputs: &outputs, given: &given };
        let program = Program::compile_part(&self.network.recording, part, &plan, self.device);
        self.prepare(&program)?;
        let mut session = Session::with_program(self.device, program)?;
        let control = Control { cancel: self.watch.cancel, progress: None };
        let mut all = Vec::with_capacity(self.samples.len());
        for sample in &self.samples {
            session.restore(&sample.kept)?;
            sample.write(&mut session, (&self.network, 0), &sample.input)?;
            session.run(&self.weights, &control)?;
            // The last layer's result is the network's, and has its name.
            let name = session.program().outputs.first().map(|port| port.name.clone());
            all.push(session.read(&name.unwrap_or_default())?);
        }
        let program = session.program().clone();
        self.device.forget(&mut self.weights, &program, &self.network.whole);
        Ok(all)
    }

    /// What becomes of the network when all numbers are rounded to 16 bits.
    ///
    /// # Errors
    ///
    /// As [`Probe::measure`].
    pub fn rounding(&mut self) -> Result<Effect, Error> {
        self.apart(&tensor::Plan::uniform(Precision::Bf16))
    }

    /// What becomes of the network with all formats of a plan together.
    ///
    /// # Errors
    ///
    /// As [`Probe::measure`].
    pub fn compare(&mut self, plan: &Plan) -> Result<Effect, Error> {
        self.apart(&plan.clone().with_precision(Precision::F32).component("unet"))
    }

    /// Run all pictures by another plan for the whole network. Its weights are never in memory together with real ones.
    fn apart(&mut self, plan: &tensor::Plan) -> Result<Effect, Error> {
        self.go_to(NodeId::FIRST)?;
        self.weights = D::Weights::default();
        self.effect(plan, Look::Picture)
    }

    /// Run all pictures by another plan, from the front on.
    fn effect(&mut self, plan: &tensor::Plan, look: Look) -> Result<Effect, Error> {
        let given = self.network.recording.live_before(self.front);
        let outputs = self.network.recording.outputs().iter();
        let outputs: Vec<Output> = outputs.map(|(_, node)| (*node).into()).collect();
        let part = Part { outputs: &outputs, given: &given };
        let program = Program::compile_part(&self.network.recording, part, plan, self.device);
        self.prepare(&program)?;
        let mut session = Session::with_program(self.device, program)?;
        // Later steps see another sample, so nothing of them is known.
        let later = look == Look::Picture && self.network.times.len() > 1;
        let whole = later.then(|| Program::compile(&self.network.recording, plan, self.device));
        let mut whole = match whole {
            Some(program) => {
                self.prepare(&program)?;
                Some(Session::with_program(self.device, program)?)
            }
            None => None,
        };
        let (mut noise, mut likeness) = (Noise::default(), 0.0);
        for (index, sample) in self.samples.iter().enumerate() {
            session.restore(&sample.kept)?;
            sample.write(&mut session, (&self.network, 0), &sample.input)?;
            let prediction = self.predict(&mut session)?;
            noise.add(&sample.prediction, &prediction);
            if look == Look::Prediction {
                continue;
            }
            let mut way = self.network.trajectory(&self.settings, sample.seed)?;
            way.advance(0, &prediction);
            if let Some(session) = &mut whole {
                for call in 1..way.calls() {
                    let input = self.network.geometry.input(&way.input(call));
                    sample.write(session, (&self.network, call), &input)?;
                    way.advance(call, &self.predict(session)?);
                }
            }
            let place = (index, self.samples.len());
            let picture = self.pictures.decode(&way.finish(), place)?;
            let size = [picture.height, picture.width];
            likeness += metrics::ssim(&sample.picture.rgb, &picture.rgb, size);
        }
        let (first, whole) = (session.program().clone(), whole.map(|s| s.program().clone()));
        for program in [Some(first), whole].into_iter().flatten() {
            self.device.forget(&mut self.weights, &program, &self.network.whole);
        }
        let ssim = (look == Look::Picture).then(|| likeness / self.samples.len() as f64);
        Ok(Effect { sqnr: noise.sqnr(), ssim })
    }

    /// Draw a picture with real numbers.
    fn draw(
        &mut self,
        condition: Condition,
        seed: u64,
        place: (usize, usize),
    ) -> Result<Sample, Error> {
        let mut way = self.network.trajectory(&self.settings, seed)?;
        let input = self.network.geometry.input(&way.input(0));
        let picture = Picture { width: 0, height: 0, rgb: Vec::new() };
        let (prediction, kept) = (Vec::new(), Vec::new());
        let mut sample = Sample { seed, condition, input, prediction, picture, kept };
        let mut session = Session::with_program(self.device, self.network.whole.clone())?;
        let start = Instant::now();
        for call in 0..way.calls() {
            let input = self.network.geometry.input(&way.input(call));
            sample.write(&mut session, (&self.network, call), &input)?;
            let prediction = self.predict(&mut session)?;
            way.advance(call, &prediction);
            if call == 0 {
                sample.prediction = prediction;
            }
            self.pace.multiply_adds += self.network.whole.multiply_adds();
        }
        self.pace.network += start.elapsed();
        let start = Instant::now();
        sample.picture = self.pictures.decode(&way.finish(), place)?;
        self.pace.decoder += start.elapsed();
        Ok(sample)
    }

    /// Keep what comes before another node, for all pictures.
    fn go_to(&mut self, front: NodeId) -> Result<(), Error> {
        if front == self.front {
            return Ok(());
        }
        if front < self.front {
            self.front = NodeId::FIRST;
            self.samples.iter_mut().for_each(|sample| sample.kept.clear());
        }
        let recording = &self.network.recording;
        let (given, wanted) = (recording.live_before(self.front), recording.live_before(front));
        let outputs: Vec<Output> =
            wanted.iter().filter(|id| !given.contains(id)).map(|id| (*id).into()).collect();
        let part = Part { outputs: &outputs, given: &given };
        let program = Program::compile_part(recording, part, &self.network.plan, self.device);
        self.prepare(&program)?;
        let mut session = Session::with_program(self.device, program)?;
        let control = Control { cancel: self.watch.cancel, progress: None };
        let names: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        for sample in &mut self.samples {
            session.restore(&sample.kept)?;
            sample.write(&mut session, (&self.network, 0), &sample.input)?;
            session.run(&self.weights, &control)?;
            sample.kept.retain(|value| names.iter().any(|name| name == value.name()));
            sample.kept.extend(session.hold()?);
        }
        self.front = front;
        Ok(())
    }

    fn prepare(&mut self, program: &Program) -> Result<(), Error> {
        let loading = |done, total| self.watch.tell(Event::Loading(Phase::Denoise, done, total));
        let control = Control { cancel: self.watch.cancel, progress: Some(&loading) };
        Ok(self.device.prepare(&mut self.weights, program, &control)?)
    }

    fn predict(&self, session: &mut Session<'a, D>) -> Result<Vec<f32>, Error> {
        let control = Control { cancel: self.watch.cancel, progress: None };
        session.run(&self.weights, &control)?;
        let output = session.read("prediction")?;
        if !output.iter().all(|x| x.is_finite()) {
            session.diagnose(&self.weights, &control)?;
        }
        Ok(self.network.geometry.prediction(&output, self.settings.guidance))
    }
}

impl Network {
    /// The layers that multiply by a weight.
    fn layers(&self) -> Vec<Layer> {
        let nodes = self.recording.nodes().iter().filter_map(|node| node.weight());
        let layer = |weight: &tensor::Weight| {
            let name = weight.layer().to_owned();
            let node = self.recording.layer(&name).expect("it was found in the recording");
            let start = self.recording.start_of(node);
            Layer { name, weights: weight.elements(), node, start }
        };
        nodes.map(layer).collect()
    }

    /// A layer's weight, and the order in which its outputs are packed.
    fn weight(&self, layer: &Layer) -> (&Weight, PanelOrder) {
        let found = self.whole.slots.iter().find_map(|slot| match slot.packing {
            Packing::Panels(order, _) if slot.weight.layer() == layer.name => {
                Some((&slot.weight, order))
            }
            _ => None,
        });
        found.expect("every layer has a weight")
    }

    /// The first noise of a seed.
    fn trajectory(&self, settings: &Settings, seed: u64) -> Result<Trajectory, Error> {
        let Geometry { height, width, .. } = self.geometry;
        Trajectory::new(settings, seed, self.channels * height * width)
    }
}

impl Sample {
    /// Set those inputs that a program reads.
    fn write<D: Device>(
        &self,
        session: &mut Session<'_, D>,
        (network, call): (&Network, usize),
        input: &[f32],
    ) -> Result<(), Error> {
        for (name, numbers) in [("sample", input), ("time", &network.times[call])] {
            if session.program().input(name).is_some() {
                session.write(name, numbers)?;
            }
        }
        self.condition.write(session)
    }
}

#[cfg(test)]
mod tests;
