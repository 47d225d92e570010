//! What a picture will need, phase by phase, before anything is loaded.

use models::Params;
use models::clip::{TextConfig, TextModel};
use models::unet::{self, UNet};
use tensor::program::{Residency, Step};
use tensor::{Device, LayerFormat, Program, Recording};

use crate::decode::{self, Decoder};
use crate::model::Component;
use crate::phases::Programs;
use crate::request::Decode;
use crate::text_to_image::Settings;
use crate::{Error, Model, Request, TextToImage, denoise, text};

/// Prompts that are encoded together: their encoder is then read once for all of them.
const TEXTS_TOGETHER: usize = 8;

/// Pictures that are denoised together where weights flow, so that these are read once for all of them.
const PICTURES_TOGETHER: usize = 8;

/// What one network, or a part of it that is loaded alone, needs while it is in memory. They are loaded and released in
/// turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resident {
    /// The network, or the part of it that depends on less than the rest.
    pub name: &'static str,
    /// The component that it is a part of.
    pub component: &'static str,
    /// Bytes of its weights in memory at a time, in the form in which they are used.
    pub weights: usize,
    /// Bytes of weights that are read from their file in each run, since not all of them stay.
    pub streamed: usize,
    /// Bytes of the arenas of all calls that run together.
    pub arena: usize,
    /// Bytes beside the network that wait for it or come from it.
    pub kept: usize,
    /// Calls that run together.
    pub together: usize,
    /// Operations of one call.
    pub operations: usize,
    /// Multiply-adds of one call.
    pub multiply_adds: u64,
    /// Layers with a weight matrix, in the order in which they run.
    pub layers: Vec<Layer>,
}

/// How much is asked of a program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Calls that run together, each with memory of its own.
    pub(crate) together: usize,
    /// Bytes that are kept beside.
    pub(crate) kept: usize,
}

/// A layer with a weight matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Its name in the checkpoint.
    pub name: String,
    /// What its numbers are.
    pub format: LayerFormat,
    /// Bytes of its weight and bias in memory.
    pub bytes: usize,
    /// What multiplies in it.
    pub kernel: String,
}

impl Resident {
    /// Bytes in use at the same time.
    pub fn peak(&self) -> usize {
        self.weights + self.arena + self.kept
    }
}

/// Encode this many texts.
pub(crate) fn load_of_texts(texts: usize, kept: usize) -> Load {
    Load { together: texts.min(TEXTS_TOGETHER), kept }
}

/// A program of a picture, whose weights it reads, and how much is asked of it.
pub(crate) struct Part<'a> {
    pub(crate) component: &'a Component,
    /// As in [`Resident::name`].
    name: &'static str,
    pub(crate) program: Program,
    load: Load,
}

impl<'a, D: Device> TextToImage<'a, D> {
    /// What each network of a request will need, in the order in which they run.
    ///
    /// # Errors
    ///
    /// If the model does not fit its configuration, or the request into the room that there is.
    pub fn memory(&self, request: &Request, settings: &Settings) -> Result<Vec<Resident>, Error> {
        let parts = self.parts(request, settings)?;
        let all: Vec<_> = parts.iter().map(|part| self.resident(part)).collect();
        let least = |part: &Result<Resident, Error>| match part {
            Err(Error::Room { least }) => Some(*least),
            _ => None,
        };
        match all.iter().filter_map(least).max() {
            Some(least) => Err(Error::Room { least }),
            None => all.into_iter().collect(),
        }
    }

    /// All programs of a request, in the order in which they run.
    pub(crate) fn parts(
        &self,
        request: &Request,
        settings: &Settings,
    ) -> Result<Vec<Part<'a>>, Error> {
        let model = self.model;
        let prompts = request.prompts.len().max(1);
        let texts = prompts + usize::from(settings.is_guided(model));
        let waiting = texts * text::context_bytes(model)?;
        let programs = Programs::compile(
            &denoise::recording(self, settings)?,
            &self.plan.component(model.unet.name),
            self.device,
        );
        let mut all = Vec::new();
        for encoder in &model.encoders {
            let component = &encoder.component;
            let program = self.compile(component, &text::recording(self, request, encoder)?);
            let load = load_of_texts(texts, waiting);
            all.push(Part { component, name: component.name, program, load });
        }
        let times = settings.scheduler.sampler(settings.steps)?.timesteps().len();
        let group = programs.group(times).min(prompts);
        let [before, step] =
            self.loads(&programs, (waiting, times), [group, group * request.pictures.max(1)]);
        let Programs { prompt, time, step: program } = programs;
        let names = ["unet prompt", "unet time", model.unet.name];
        let parts = names.into_iter().zip([prompt, time, program]).zip([before, before, step]);
        for ((name, program), load) in parts {
            all.push(Part { component: &model.unet, name, program, load });
        }
        let load = Load { together: 1, kept: decode::kept(settings, request.total()) };
        let program = self.decoding(settings, request.decode)?;
        all.push(Part { component: &model.vae, name: model.vae.name, program, load });
        Ok(all)
    }

    /// What is asked of the programs of a group of prompts and its pictures, while embeddings of `waiting` bytes wait: of
    /// those before the steps, and of the steps. Pictures are denoised one by one, unless weights would be read for each.
    pub(crate) fn loads(
        &self,
        programs: &Programs,
        (waiting, times): (usize, usize),
        [group, pictures]: [usize; 2],
    ) -> [Load; 2] {
        let given = programs.given_bytes(times);
        let before = Load { together: 1, kept: waiting + group * given };
        // The values of the prompt that is being drawn lie in the arena.
        let load = |together| Load { together, kept: waiting + (group - 1) * given };
        let flows = |load| {
            let residency = self.residency(&programs.step, load);
            residency.map(|residency| !residency.flowing.is_empty()).ok()
        };
        if flows(load(1)) != Some(true) {
            return [before, load(1)];
        }
        let most = (1..=pictures.min(PICTURES_TOGETHER)).rev().map(load);
        [before, most.into_iter().find(|load| flows(*load).is_some()).unwrap_or(load(1))]
    }

    /// Where the weights of a program should be while it runs.
    pub(crate) fn residency(&self, program: &Program, load: Load) -> Result<Residency, Error> {
        let beside = load.together * program.arena + load.kept;
        let room = self.room.map(|room| room.saturating_sub(beside));
        let residency = program.residency(room, self.device);
        residency.map_err(|least| Error::Room { least: least + beside })
    }

    fn decoding(&self, settings: &Settings, how: Decode) -> Result<Program, Error> {
        let scale = self.model.pixels_per_latent();
        let size = [settings.height / scale, settings.width / scale];
        let recording = Decoder::load(self.model)?.record(decode::size_at_once(size, how))?;
        Ok(self.compile(&self.model.vae, &recording))
    }

    fn compile(&self, component: &Component, recording: &Recording) -> Program {
        Program::compile(recording, &self.plan.component(component.name), self.device)
    }

    fn resident(&self, part: &Part<'_>) -> Result<Resident, Error> {
        let Part { component, name, program, load } = part;
        let residency = self.residency(program, *load)?;
        Ok(Resident {
            name,
            component: component.name,
            weights: residency.bytes(),
            streamed: residency.streamed,
            arena: load.together * program.arena,
            kept: load.kept,
            together: load.together,
            operations: program.steps.len(),
            multiply_adds: program.multiply_adds(),
            layers: self.layers(program, &self.plan.component(component.name)),
        })
    }

    fn layers(&self, program: &Program, plan: &tensor::Plan) -> Vec<Layer> {
        let layer = |step: &Step| {
            let kernel = self.device.kernel(&step.op, program)?;
            let slots = program.slots.iter().filter(|slot| slot.weight.layer() == step.name);
            let bytes = slots.map(|slot| self.device.resident_bytes(slot)).sum();
            let name = step.name.clone();
            Some(Layer { format: plan.layer(&name), name, bytes, kernel })
        };
        let mut layers: Vec<Layer> = program.steps.iter().filter_map(layer).collect();
        // A layer that reads two halves has a product for each.
        layers.dedup_by(|a, b| a.name == b.name);
        layers
    }
}

/// Tensors of a component that no layer of the network reads.
///
/// # Errors
///
/// If the component does not fit its configuration.
pub fn unread(model: &Model, component: &Component) -> Result<Vec<String>, Error> {
    let params = Params::new(&component.weights);
    match component.name {
        "unet" => {
            UNet::load(&params, &unet::Config::read(&component.config)?)?;
        }
        "vae" => {
            Decoder::load_from(&params, model)?;
            // The encoder's half of a VAE is there for other tasks.
            let decoder =
                |name: &String| !name.starts_with("encoder.") && !name.starts_with("quant_conv.");
            return Ok(params.unread().into_iter().filter(decoder).collect());
        }
        _ => {
            TextModel::load(&params, &TextConfig::read(&component.config)?)?;
        }
    }
    Ok(params.unread())
}
