//! One call of one network on inputs by the names of diffusers, for timing and comparison.

use models::Params;
use models::unet::{self, UNet};
use tensor::file::Checkpoint;
use tensor::{Device, Graph, Recording, Session};

use crate::decode::Decoder;
use crate::denoise::{channels_first, channels_last};
use crate::{Error, Model};

/// A call and its inputs.
#[derive(Clone, Debug)]
pub struct Call {
    /// What is computed.
    pub recording: Recording,
    /// Inputs by the names of the recording.
    pub inputs: Vec<(&'static str, Vec<f32>)>,
}

/// One UNet step on `sample [1, channels, height, width]`, `timestep [1]`, `encoder_hidden_states` and, for SDXL,
/// `text_embeds` and `time_ids [1, 6]`.
///
/// # Errors
///
/// If an input is missing or the model does not fit its configuration.
pub fn unet(model: &Model, inputs: &Checkpoint) -> Result<Call, Error> {
    let config = unet::Config::read(&model.unet.config)?;
    let net = UNet::load(&Params::new(&model.unet.weights), &config)?;
    let sample = inputs.tensor("sample")?;
    let context = inputs.tensor("encoder_hidden_states")?;
    let [_, _, height, width] = sizes(&sample.shape, "sample")?;
    let [_, tokens, _] = sizes(&context.shape, "encoder_hidden_states")?;
    let graph = Graph::new();
    let recorded = net.inputs(&graph, [1, height, width], tokens);
    let prediction = net.forward(&recorded);
    let recording = graph.finish(&[("prediction", prediction)]).map_err(tensor::Error::from)?;
    let time = inputs.tensor("timestep")?.to_f32();
    let mut values = vec![
        ("sample", channels_last(&sample.to_f32(), height * width)),
        ("time", config.time_projection(time.first().copied().unwrap_or_default())),
        ("encoder_hidden_states", context.to_f32()),
    ];
    if config.has_text_time() {
        values.push(("text_embeds", inputs.tensor("text_embeds")?.to_f32()));
        let ids = inputs.tensor("time_ids")?.to_f32();
        let ids = <[f32; 6]>::try_from(ids.as_slice());
        let ids = ids.map_err(|_| Error::Request("time_ids must be six numbers".into()))?;
        values.push(("time_ids", config.time_ids(&ids)));
    }
    Ok(Call { recording, inputs: values })
}

/// One decoding of `latents [1, channels, height, width]`, already brought to the decoder's scale.
///
/// # Errors
///
/// If the input is missing or the model does not fit its configuration.
pub fn vae(model: &Model, inputs: &Checkpoint) -> Result<Call, Error> {
    let latents = inputs.tensor("latents")?;
    let [_, _, height, width] = sizes(&latents.shape, "latents")?;
    let recording = Decoder::load(model)?.record([height, width])?;
    let values = channels_last(&latents.to_f32(), height * width);
    Ok(Call { recording, inputs: vec![("latents", values)] })
}

/// The result of a call `[1, channels, height, width]`, and its shape.
///
/// # Errors
///
/// If the session has no output.
pub fn output<D: Device>(session: &Session<'_, D>) -> Result<(Vec<f32>, Vec<usize>), Error> {
    let none = || Error::Request("the program has no output".into());
    let port = session.program().outputs.first().ok_or_else(none)?;
    let [batch, height, width, channels] = sizes(&port.shape, "the output")?;
    let numbers = session.read(&port.name)?;
    Ok((channels_first(&numbers, height * width), vec![batch, channels, height, width]))
}

fn sizes<const N: usize>(shape: &[usize], name: &str) -> Result<[usize; N], Error> {
    let fault = || Error::Request(format!("{name} has shape {shape:?}, not {N} dimensions"));
    <[usize; N]>::try_from(shape).map_err(|_| fault())
}
