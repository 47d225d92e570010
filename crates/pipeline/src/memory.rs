//! What a picture will need, phase by phase, before anything is loaded.

use models::Params;
use models::clip::{TextConfig, TextModel};
use models::unet::{self, UNet};
use tensor::{Device, Program, Recording};

use crate::decode::Decoder;
use crate::model::Component;
use crate::text_to_image::Settings;
use crate::{Error, Model, Request, TextToImage, denoise, text};

/// What one network needs while it is in memory. Networks are loaded and released in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resident {
    /// The network.
    pub name: &'static str,
    /// Bytes of its weights, in the form in which they stay in memory.
    pub weights: usize,
    /// Bytes of the arena of one call.
    pub arena: usize,
    /// Operations of one call.
    pub operations: usize,
    /// Multiply-adds of one call.
    pub multiply_adds: u64,
    /// Layers with a weight matrix, and the precision of each.
    pub layers: Vec<(String, tensor::LayerFormat)>,
}

impl Resident {
    /// Bytes in use at the same time.
    pub fn peak(&self) -> usize {
        self.weights + self.arena
    }
}

impl<D: Device> TextToImage<'_, D> {
    /// What each network of a picture will need, in the order in which they run.
    ///
    /// # Errors
    ///
    /// If the model does not fit its configuration.
    pub fn memory(&self, request: &Request, settings: &Settings) -> Result<Vec<Resident>, Error> {
        let mut plan = Vec::new();
        for encoder in &self.model.encoders {
            let recording = text::recording(self, request, encoder)?;
            plan.push(self.resident(encoder.component.name, &recording));
        }
        let recording = denoise::recording(self, settings)?;
        plan.push(self.resident(self.model.unet.name, &recording));
        let scale = self.model.pixels_per_latent();
        let size = [settings.height / scale, settings.width / scale];
        plan.push(self.resident(self.model.vae.name, &Decoder::load(self.model)?.record(size)?));
        Ok(plan)
    }

    fn resident(&self, name: &'static str, recording: &Recording) -> Resident {
        let scratch = |op: &_, program: &_| self.device.scratch(op, program);
        let program = Program::compile(recording, self.plan, &scratch);
        let layers = recording.nodes().iter().filter_map(tensor::graph::Node::weight);
        let layers = layers.map(|w| (w.layer().to_owned(), self.plan.layer(w.layer()))).collect();
        Resident {
            name,
            weights: program.slots.iter().map(|slot| self.device.resident_bytes(slot)).sum(),
            arena: program.arena,
            operations: program.steps.len(),
            multiply_adds: program.multiply_adds(),
            layers,
        }
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
