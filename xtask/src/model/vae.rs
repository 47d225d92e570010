//! The picture decoder and encoder (`AutoencoderKL`): configuration and tensors.

use serde_json::{Value, json};

use super::list::{BRANCH, List, PLAIN, SHARP, Tensor};
use super::resnet::Resnet;

const CHANNELS: [usize; 4] = [128, 256, 512, 512];
const LATENT: usize = 4;
const LAYERS: usize = 2;
/// One step of an untrained UNet leaves most of the noise in: latents fifteen times too large,
/// and divided by the scaling factor on top. This brings them back to where layers work.
const LATENT_GAIN: f32 = 0.1;

/// What distinguishes one VAE from another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Vae {
    /// Side of the pictures it was trained on, in pixels.
    pub(crate) sample_size: usize,
    /// Factor between its latents and the UNet's.
    pub(crate) scaling_factor: f64,
}

impl Vae {
    /// `config.json`.
    pub(crate) fn config(&self) -> Value {
        json!({
            "_class_name": "AutoencoderKL",
            "_diffusers_version": "0.24.0",
            "act_fn": "silu",
            "block_out_channels": CHANNELS,
            "down_block_types": (["DownEncoderBlock2D"; 4]),
            "force_upcast": true,
            "in_channels": 3,
            "latent_channels": LATENT,
            "layers_per_block": LAYERS,
            "norm_num_groups": 32,
            "out_channels": 3,
            "sample_size": self.sample_size,
            "scaling_factor": self.scaling_factor,
            "up_block_types": (["UpDecoderBlock2D"; 4]),
        })
    }

    /// All tensors; every published VAE of this family has the same.
    pub(crate) fn tensors() -> Vec<Tensor> {
        let mut list = List::default();
        encoder(&mut list);
        decoder(&mut list);
        list.layer("quant_conv", &[2 * LATENT, 2 * LATENT, 1, 1], PLAIN);
        list.layer("post_quant_conv", &[LATENT, LATENT, 1, 1], LATENT_GAIN);
        list.0
    }
}

fn encoder(list: &mut List) {
    let widest = CHANNELS[3];
    let mut inputs = CHANNELS[0];
    list.conv3("encoder.conv_in", [inputs, 3], PLAIN);
    for (level, outputs) in CHANNELS.into_iter().enumerate() {
        let at = format!("encoder.down_blocks.{level}");
        resnets(list, &at, [inputs, outputs, LAYERS]);
        if level < 3 {
            list.conv3(&format!("{at}.downsamplers.0.conv"), [outputs, outputs], PLAIN);
        }
        inputs = outputs;
    }
    middle(list, "encoder.mid_block");
    list.norm("encoder.conv_norm_out", widest);
    list.conv3("encoder.conv_out", [2 * LATENT, widest], PLAIN);
}

fn decoder(list: &mut List) {
    let mut inputs = CHANNELS[3];
    list.conv3("decoder.conv_in", [inputs, LATENT], PLAIN);
    middle(list, "decoder.mid_block");
    for (level, outputs) in CHANNELS.into_iter().rev().enumerate() {
        let at = format!("decoder.up_blocks.{level}");
        resnets(list, &at, [inputs, outputs, LAYERS + 1]);
        if level < 3 {
            list.conv3(&format!("{at}.upsamplers.0.conv"), [outputs, outputs], PLAIN);
        }
        inputs = outputs;
    }
    list.norm("decoder.conv_norm_out", CHANNELS[0]);
    list.conv3("decoder.conv_out", [3, CHANNELS[0]], PLAIN);
}

fn resnets(list: &mut List, at: &str, [inputs, outputs, count]: [usize; 3]) {
    for index in 0..count {
        let inputs = if index == 0 { inputs } else { outputs };
        let resnet = Resnet { inputs, outputs, time: None };
        resnet.list(list, &format!("{at}.resnets.{index}"));
    }
}

fn middle(list: &mut List, at: &str) {
    let width = CHANNELS[3];
    resnets(list, at, [width, width, 2]);
    let at = format!("{at}.attentions.0");
    list.norm(&format!("{at}.group_norm"), width);
    for (name, gain) in [("to_q", SHARP), ("to_k", SHARP), ("to_v", PLAIN), ("to_out.0", BRANCH)] {
        list.layer(&format!("{at}.{name}"), &[width, width], gain);
    }
}
