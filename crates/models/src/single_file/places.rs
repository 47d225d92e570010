//! Where the UNet's layers are in the original layout and in that of diffusers.

use super::Walk;
use tensor::file::Checkpoint;

/// The parts of a residual layer: original, diffusers.
pub(super) const RESNET: [(&str, &str); 6] = [
    ("in_layers.0", "norm1"),
    ("in_layers.2", "conv1"),
    ("emb_layers.1", "time_emb_proj"),
    ("out_layers.0", "norm2"),
    ("out_layers.3", "conv2"),
    ("skip_connection", "conv_shortcut"),
];

/// The layers around the blocks: original, diffusers.
pub(super) const OUTSIDE: [(&str, &str); 8] = [
    ("time_embed.0", "time_embedding.linear_1"),
    ("time_embed.2", "time_embedding.linear_2"),
    ("time_embed.cond_proj", "time_embedding.cond_proj"),
    ("label_emb.0.0", "add_embedding.linear_1"),
    ("label_emb.0.2", "add_embedding.linear_2"),
    ("input_blocks.0.0", "conv_in"),
    ("out.0", "conv_norm_out"),
    ("out.2", "conv_out"),
];

/// The original place of every part of the UNet in `unet`, which has diffusers names: pairs of
/// prefixes, diffusers first. Corrections are often named by original places.
pub(crate) fn original_places(unet: &Checkpoint) -> Vec<(String, String)> {
    let walk = Walk::new(unet, "");
    let outside = OUTSIDE.iter().map(|(old, new)| ((*new).to_owned(), (*old).to_owned()));
    let mut places: Vec<_> = outside.collect();
    let mut number = 1;
    for level in 0..walk.count("down_blocks") {
        let block = format!("down_blocks.{level}");
        for layer in 0..walk.count(&format!("{block}.resnets")) {
            add_layer(&mut places, (&block, layer), &format!("input_blocks.{number}"));
            number += 1;
        }
        if walk.has(&format!("{block}.downsamplers.")) {
            let sampler = format!("{block}.downsamplers.0.conv");
            places.push((sampler, format!("input_blocks.{number}.0.op")));
            number += 1;
        }
    }
    add_layer(&mut places, ("mid_block", 0), "middle_block");
    add_resnet(&mut places, "mid_block.resnets.1", "middle_block.2");
    add_way_up(&mut places, &walk);
    places
}

fn add_way_up(places: &mut Vec<(String, String)>, walk: &Walk<'_>) {
    let mut number = 0;
    for level in 0..walk.count("up_blocks") {
        let block = format!("up_blocks.{level}");
        let layers = walk.count(&format!("{block}.resnets"));
        for layer in 0..layers {
            add_layer(places, (&block, layer), &format!("output_blocks.{}", number + layer));
        }
        number += layers;
        // The upsampling comes last in its block, behind the attention if there is one.
        let place = if walk.has(&format!("{block}.attentions.")) { 2 } else { 1 };
        let last = number.saturating_sub(1);
        let original = format!("output_blocks.{last}.{place}.conv");
        places.push((format!("{block}.upsamplers.0.conv"), original));
    }
}

/// A residual layer and the attention behind it.
fn add_layer(places: &mut Vec<(String, String)>, (block, layer): (&str, usize), original: &str) {
    add_resnet(places, &format!("{block}.resnets.{layer}"), &format!("{original}.0"));
    places.push((format!("{block}.attentions.{layer}"), format!("{original}.1")));
}

fn add_resnet(places: &mut Vec<(String, String)>, name: &str, original: &str) {
    let part = |(old, new): &(&str, &str)| (format!("{name}.{new}"), format!("{original}.{old}"));
    places.extend(RESNET.iter().map(part));
}
