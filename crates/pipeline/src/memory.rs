//! What a picture will need, phase by phase, before anything is loaded.

use models::Params;
use models::clip::{TextConfig, TextModel};
use models::unet::{self, UNet};
use tensor::program::Step;
use tensor::{Device, LayerFormat, Program, Recording};

use crate::decode::Decoder;
use crate::model::Component;
use crate::phases::Programs;
use crate::text_to_image::Settings;
use crate::{Error, Model, Request, TextToImage, denoise, text};

/// What one network, or a part of it that is loaded alone, needs while it is in memory. They are loaded and released in
/// turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resident {
    /// The network, or the part of it that depends on less than the rest.
    pub name: &'static str,
    /// Bytes of its weights, in the form in which they stay in memory.
    pub weights: usize,
    /// Bytes of the arena of one call.
    pub arena: usize,
    /// Operations of one call.
    pub operations: usize,
    /// Multiply-adds of one call.
    pub multiply_adds: u64,
    /// Layers with a weight matrix, in the order in which they run.
    pub layers: Vec<Layer>,
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
        self.weights + self.arena
    }
}

/// A program of a picture and whose weights it reads.
pub(crate) struct Part<'a> {
    pub(crate) component: &'a Component,
    /// As in [`Resident::name`].
    name: &'static str,
    pub(crate) program: Program,
}

impl<'a, D: Device> TextToImage<'a, D> {
    /// What each network of a picture will need, in the order in which they run.
    ///
    /// # Errors
    ///
    /// If the model does not fit its configuration.
    pub fn memory(&self, request: &Request, settings: &Settings) -> Result<Vec<Resident>, Error> {
        let parts = self.parts(request, settings)?;
        Ok(parts.iter().map(|part| self.resident(part)).collect())
    }

    /// All programs of a picture, in the order in which they run.
    pub(crate) fn parts(
        &self,
        request: &Request,
        settings: &Settings,
    ) -> Result<Vec<Part<'a>>, Error> {
        let model = self.model;
        let mut all = Vec::new();
        for encoder in &model.encoders {
            let component = &encoder.component;
            let program = self.compile(component, &text::recording(self, request, encoder)?);
            all.push(Part { component, name: component.name, program });
        }
        let Programs { prompt, time, step } = Programs::compile(
            &denoise::recording(self, settings)?,
            &self.plan.component(model.unet.name),
            self.device,
        );
        let names = ["unet prompt", "unet time", model.unet.name];
        for (name, program) in names.into_iter().zip([prompt, time, step]) {
            all.push(Part { component: &model.unet, name, program });
        }
        let scale = model.pixels_per_latent();
        let size = [settings.height / scale, settings.width / scale];
        let program = self.compile(&model.vae, &Decoder::load(model)?.record(size)?);
        all.push(Part { component: &model.vae, name: model.vae.name, program });
        Ok(all)
    }

    fn compile(&self, component: &Component, recording: &Recording) -> Program {
        Program::compile(recording, &self.plan.component(component.name), self.device)
    }

    fn resident(&self, part: &Part<'_>) -> Resident {
        let Part { component, name, program } = part;
        Resident {
            name,
            weights: program.slots.iter().map(|slot| self.device.resident_bytes(slot)).sum(),
            arena: program.arena,
            operations: program.steps.len(),
            multiply_adds: program.multiply_adds(),
            layers: self.layers(program, &self.plan.component(component.name)),
        }
    }

    fn layers(&self, program: &Program, plan: &tensor::Plan) -> Vec<Layer> {
        let layer = |step: &Step| {
            let kernel = self.device.kernel(&step.op, program)?;
            let slots = program.slots.iter().filter(|slot| slot.weight.layer() == step.name);
            let bytes = slots.map(|slot| self.device.resident_bytes(slot)).sum();
            let name = step.name.clone();
            Some(Layer { format: plan.layer(&name), name, bytes, kernel })
        };
        program.steps.iter().filter_map(layer).collect()
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
