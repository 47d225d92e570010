//! The autoencoder, alone or in a single file: its levels are numbered from the inside out on the
//! way up, and its attention is a set of 1×1 convolutions where diffusers has matrices.

use super::{Component, Error, Family, Walk, groups};
use serde_json::{Value, json};
use std::path::Path;
use tensor::file::{Checkpoint, Recipe};

const PREFIX: &str = "first_stage_model.";

const RESNET: [(&str, &str); 5] = [
    ("norm1", "norm1"),
    ("conv1", "conv1"),
    ("norm2", "norm2"),
    ("conv2", "conv2"),
    ("nin_shortcut", "conv_shortcut"),
];

const OUTSIDE: [(&str, &str); 3] =
    [("conv_in", "conv_in"), ("norm_out", "conv_norm_out"), ("conv_out", "conv_out")];

/// Attention in the original layout.
const ATTENTION: [(&str, &str); 5] =
    [("norm", "group_norm"), ("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0")];

/// Opens an autoencoder that stands alone, in the original or in the diffusers layout: a file, or
/// a folder of which only the weights are read. `family` decides the scale of its latents.
///
/// # Errors
///
/// A file that cannot be used, or that holds something else.
pub fn open_vae(path: &Path, family: Family) -> Result<Component, Error> {
    let stored = Checkpoint::open(path)?;
    let (walk, config) = if stored.names().any(|name| name.starts_with(PREFIX)) {
        translate(&stored, family)?
    } else if stored.contains("decoder.mid.block_1.conv1.weight") {
        translate_under(&stored, "", family)?
    } else if stored.contains("decoder.mid_block.resnets.0.conv1.weight") {
        let config = config(&Walk::new(&stored, ""), family)?;
        return Ok(Component { config, checkpoint: stored });
    } else {
        let place = stored.place().to_owned();
        return Err(Error::Incomplete { place, part: "autoencoder in a known layout" });
    };
    Ok(Component { config, checkpoint: walk.finish()?.0 })
}

/// The recipes and the configuration of the autoencoder in `stored`.
///
/// # Errors
///
/// Names or shapes that the layout does not have.
pub(super) fn translate(stored: &Checkpoint, family: Family) -> Result<(Walk<'_>, Value), Error> {
    if !stored.names().any(|name| name.starts_with(PREFIX)) {
        let place = stored.place().to_owned();
        return Err(Error::Incomplete { place, part: "autoencoder" });
    }
    translate_under(stored, PREFIX, family)
}

fn translate_under<'a>(
    stored: &'a Checkpoint,
    prefix: &str,
    family: Family,
) -> Result<(Walk<'a>, Value), Error> {
    let mut walk = Walk::new(stored, prefix);
    let levels = walk.count("decoder.up");
    for half in ["encoder", "decoder"] {
        walk.carry_parts(half, half, &OUTSIDE);
        carry_middle(&mut walk, half);
    }
    for level in 0..levels {
        let down = format!("encoder.down_blocks.{level}");
        carry_resnets(&mut walk, &format!("encoder.down.{level}.block"), &down);
        let from = format!("encoder.down.{level}.downsample.conv");
        walk.carry(&from, &format!("{down}.downsamplers.0.conv"));
        let up = format!("decoder.up_blocks.{}", levels - 1 - level);
        carry_resnets(&mut walk, &format!("decoder.up.{level}.block"), &up);
        let from = format!("decoder.up.{level}.upsample.conv");
        walk.carry(&from, &format!("{up}.upsamplers.0.conv"));
    }
    walk.carry("quant_conv", "quant_conv");
    walk.carry("post_quant_conv", "post_quant_conv");
    let config = config(&walk, family)?;
    Ok((walk, config))
}

fn carry_resnets(walk: &mut Walk<'_>, from: &str, to: &str) {
    for layer in 0..walk.count(from) {
        walk.carry_parts(&format!("{from}.{layer}"), &format!("{to}.resnets.{layer}"), &RESNET);
    }
}

fn carry_middle(walk: &mut Walk<'_>, half: &str) {
    for (old, new) in [("block_1", "resnets.0"), ("block_2", "resnets.1")] {
        let (from, to) = (format!("{half}.mid.{old}"), format!("{half}.mid_block.{new}"));
        walk.carry_parts(&from, &to, &RESNET);
    }
    for (old, new) in ATTENTION {
        for kind in ["weight", "bias"] {
            let from = format!("{half}.mid.attn_1.{old}.{kind}");
            let to = format!("{half}.mid_block.attentions.0.{new}.{kind}");
            if let Some(shape) = walk.shape(&from) {
                walk.make(&from, &to, |recipe| as_matrix(recipe, shape));
            }
        }
    }
}

/// A 1×1 convolution as the matrix that it is.
fn as_matrix(recipe: Recipe, shape: &[usize]) -> Recipe {
    match *shape {
        [outputs, inputs, 1, 1] => recipe.reshaped(&[outputs, inputs]),
        _ => recipe,
    }
}

/// The configuration, from the names of either layout.
fn config(walk: &Walk<'_>, family: Family) -> Result<Value, Error> {
    let original = walk.has("decoder.up.");
    let (levels, inner) = if original { ("up", "block") } else { ("up_blocks", "resnets") };
    let count = walk.count(&format!("decoder.{levels}"));
    let mut channels = (0..count)
        .map(|level| walk.size(&format!("decoder.{levels}.{level}.{inner}.0.conv2.weight"), 0))
        .collect::<Result<Vec<_>, _>>()?;
    if !original {
        channels.reverse();
    }
    // The way up has one layer more than is configured.
    let layers = walk.count(&format!("decoder.{levels}.0.{inner}")).saturating_sub(1);
    let scale = if family == Family::StableDiffusionXl { 0.13025 } else { 0.18215 };
    Ok(json!({
        "_class_name": "AutoencoderKL",
        "in_channels": walk.size("decoder.conv_out.weight", 0)?,
        "out_channels": walk.size("decoder.conv_out.weight", 0)?,
        "latent_channels": walk.size("decoder.conv_in.weight", 1)?,
        "block_out_channels": channels,
        "layers_per_block": layers,
        "down_block_types": vec!["DownEncoderBlock2D"; count],
        "up_block_types": vec!["UpDecoderBlock2D"; count],
        "norm_num_groups": groups(&channels),
        "act_fn": "silu",
        "use_quant_conv": walk.has("quant_conv."),
        "use_post_quant_conv": walk.has("post_quant_conv."),
        "mid_block_add_attention": walk.has("decoder.mid.attn_1.")
            || walk.has("decoder.mid_block.attentions.0."),
        "scaling_factor": scale,
    }))
}
