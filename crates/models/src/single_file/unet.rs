//! The UNet of a single file: a flat list of numbered input and output blocks, sorted back into
//! levels.
//!
//! Going down, block 0 is the first convolution; each block after it is a residual layer, perhaps
//! with attention, or a downsampling that ends its level. Going up, a block is a residual layer,
//! perhaps with attention, and the last of each level but the outermost also upsamples.

use super::places::{OUTSIDE, RESNET};
use super::{Error, Family, Walk, groups, head_width};
use serde_json::{Value, json};
use tensor::file::Checkpoint;

const PREFIX: &str = "model.diffusion_model.";

/// What one level is made of.
#[derive(Default)]
struct Level {
    channels: usize,
    /// For each residual layer, how many transformer blocks follow it.
    depths: Vec<usize>,
}

impl Level {
    fn attends(&self) -> bool {
        attend(&self.depths)
    }
}

/// Whether any layer of a level has attention.
fn attend(depths: &[usize]) -> bool {
    depths.iter().any(|&depth| depth > 0)
}

/// The recipes and the configuration of the UNet in `stored`.
///
/// # Errors
///
/// Names or shapes that the layout does not have.
pub(super) fn translate<'a>(
    stored: &'a Checkpoint,
    family: Family,
    assumed: &mut Vec<String>,
) -> Result<(Walk<'a>, Value), Error> {
    let mut walk = Walk::new(stored, PREFIX);
    for (old, new) in OUTSIDE {
        walk.carry(old, new);
    }
    let down = carry_down(&mut walk)?;
    let middle = carry_middle(&mut walk);
    let up = carry_up(&mut walk);
    let mut config = outside_config(&walk, stored)?;
    levels_config(&mut config, &down, &up, middle);
    heads_config(&mut config, &down, family, &walk, assumed)?;
    Ok((walk, config))
}

/// Carries the way down over and says what its levels are.
fn carry_down(walk: &mut Walk<'_>) -> Result<Vec<Level>, Error> {
    let mut levels = vec![Level::default()];
    for i in 1..walk.count("input_blocks") {
        let (from, level) = (format!("input_blocks.{i}"), levels.len() - 1);
        if walk.has(&format!("{from}.0.op.")) {
            walk.carry(
                &format!("{from}.0.op"),
                &format!("down_blocks.{level}.downsamplers.0.conv"),
            );
            levels.push(Level::default());
            continue;
        }
        let channels = walk.size(&format!("{from}.0.out_layers.3.weight"), 0)?;
        let layer = levels[level].depths.len();
        let depth = carry_layer(walk, &from, &format!("down_blocks.{level}"), layer);
        levels[level].channels = channels;
        levels[level].depths.push(depth);
    }
    Ok(levels)
}

/// Carries the middle over and says how deep its attention is, if there is a middle.
fn carry_middle(walk: &mut Walk<'_>) -> Option<usize> {
    if !walk.has("middle_block.") {
        return None;
    }
    let depth = walk.count("middle_block.1.transformer_blocks");
    walk.carry_parts("middle_block.0", "mid_block.resnets.0", &RESNET);
    if depth > 0 {
        walk.carry("middle_block.1", "mid_block.attentions.0");
    } else {
        walk.carry_parts("middle_block.1", "mid_block.resnets.1", &RESNET);
    }
    walk.carry_parts("middle_block.2", "mid_block.resnets.1", &RESNET);
    Some(depth)
}

/// Carries the way up over and says, from the innermost level out, how deep its attentions are.
fn carry_up(walk: &mut Walk<'_>) -> Vec<Vec<usize>> {
    let mut levels = vec![Vec::new()];
    let count = walk.count("output_blocks");
    for i in 0..count {
        let (from, level) = (format!("output_blocks.{i}"), levels.len() - 1);
        let to = format!("up_blocks.{level}");
        let layer = levels[level].len();
        let depth = carry_layer(walk, &from, &to, layer);
        levels[level].push(depth);
        let samplers = [1, 2].map(|place| format!("{from}.{place}.conv"));
        if let Some(sampler) = samplers.iter().find(|place| walk.has(&format!("{place}."))) {
            walk.carry(sampler, &format!("{to}.upsamplers.0.conv"));
            levels.push(Vec::new());
        }
    }
    levels
}

/// Carries one residual layer and the attention behind it; says how deep that is.
fn carry_layer(walk: &mut Walk<'_>, from: &str, to: &str, layer: usize) -> usize {
    walk.carry_parts(&format!("{from}.0"), &format!("{to}.resnets.{layer}"), &RESNET);
    let depth = walk.count(&format!("{from}.1.transformer_blocks"));
    if depth > 0 {
        walk.carry(&format!("{from}.1"), &format!("{to}.attentions.{layer}"));
    }
    depth
}

/// The fields that do not depend on the levels.
fn outside_config(walk: &Walk<'_>, stored: &Checkpoint) -> Result<Value, Error> {
    let mut config = json!({
        "_class_name": "UNet2DConditionModel",
        "in_channels": walk.size("input_blocks.0.0.weight", 1)?,
        "out_channels": walk.size("out.2.weight", 0)?,
        "act_fn": "silu",
        "center_input_sample": false,
        "flip_sin_to_cos": true,
        "freq_shift": 0,
        "norm_eps": 1e-5,
        "downsample_padding": 1,
        "mid_block_scale_factor": 1,
    });
    if let Some(shape) = walk.shape("time_embed.cond_proj.weight") {
        config["time_cond_proj_dim"] = json!(shape.last());
    }
    if walk.has("label_emb.0.0.") {
        let width = walk.size("label_emb.0.0.weight", 1)?;
        config["projection_class_embeddings_input_dim"] = json!(width);
        if let Some(pooled) = pooled_width(stored) {
            // Beside the pooled text, six numbers (sizes and crop) of equal width.
            config["addition_embed_type"] = json!("text_time");
            config["addition_time_embed_dim"] = json!(width.saturating_sub(pooled) / 6);
        } else {
            config["class_embed_type"] = json!("projection");
        }
    }
    Ok(config)
}

/// How many numbers SDXL's second text encoder says about the text as a whole.
fn pooled_width(stored: &Checkpoint) -> Option<usize> {
    let shape = |name: &str| stored.shape(&format!("conditioner.embedders.1.model.{name}"));
    let turned = shape("text_projection").and_then(<[usize]>::last);
    turned.or_else(|| shape("text_projection.weight")?.first()).copied()
}

/// The fields that list the levels.
fn levels_config(config: &mut Value, down: &[Level], up: &[Vec<usize>], middle: Option<usize>) {
    let channels: Vec<usize> = down.iter().map(|level| level.channels).collect();
    let kind = |way: &str, depths: &[usize]| {
        let attention = if attend(depths) { "CrossAttn" } else { "" };
        format!("{attention}{way}Block2D")
    };
    let down_types: Vec<String> = down.iter().map(|level| kind("Down", &level.depths)).collect();
    let up_types: Vec<String> = up.iter().map(|depths| kind("Up", depths)).collect();
    let layers: Vec<usize> = down.iter().map(|level| level.depths.len()).collect();
    config["norm_num_groups"] = json!(groups(&channels));
    config["block_out_channels"] = json!(channels);
    config["down_block_types"] = json!(down_types);
    config["up_block_types"] = json!(up_types);
    config["layers_per_block"] = one_or_list(&layers);
    config["mid_block_type"] = match middle {
        None => Value::Null,
        Some(0) => json!("UNetMidBlock2D"),
        Some(_) => json!("UNetMidBlock2DCrossAttn"),
    };
    let depths = depths(down, middle);
    let found: Vec<Value> = up.iter().map(|depths| one_or_list(depths)).collect();
    // A level without attention says nothing about depth, whatever the other way has there.
    let differs = |(found, expected): (&Value, &Value)| *found != json!(0) && found != expected;
    if found.iter().zip(depths.iter().rev()).any(differs) {
        config["reverse_transformer_layers_per_block"] = json!(found);
    }
    config["transformer_layers_per_block"] =
        if depths.iter().all(|depth| *depth == json!(1)) { json!(1) } else { json!(depths) };
}

/// How many transformer blocks each level has, one number where its layers agree. The innermost
/// level's number is also the middle's, so where that level does not attend it states the
/// middle's; a level that does not attend at all states one, as configurations do.
fn depths(down: &[Level], middle: Option<usize>) -> Vec<Value> {
    let innermost = down.len() - 1;
    let depth = |(i, level): (usize, &Level)| match middle {
        Some(middle) if !level.attends() && i == innermost && middle > 0 => json!(middle),
        _ if !level.attends() => json!(1),
        _ => one_or_list(&level.depths),
    };
    down.iter().enumerate().map(depth).collect()
}

/// A number if all are equal, else the list.
fn one_or_list(numbers: &[usize]) -> Value {
    match numbers {
        [first, rest @ ..] if rest.iter().all(|number| number == first) => json!(first),
        _ => json!(numbers),
    }
}

/// How the channels are shared among heads, which no shape shows.
fn heads_config(
    config: &mut Value,
    down: &[Level],
    family: Family,
    walk: &Walk<'_>,
    assumed: &mut Vec<String>,
) -> Result<(), Error> {
    let linear = match first_attention(walk) {
        Some(attention) => {
            let text = format!("{attention}.transformer_blocks.0.attn2.to_k.weight");
            config["cross_attention_dim"] = json!(walk.size(&text, 1)?);
            walk.shape(&format!("{attention}.proj_in.weight")).is_some_and(|s| s.len() == 2)
        }
        None => family != Family::StableDiffusion1,
    };
    config["use_linear_projection"] = json!(linear);
    if family == Family::StableDiffusion1 {
        config["attention_head_dim"] = json!(8);
        assumed.push("8 attention heads in each layer, as in SD 1".to_owned());
    } else {
        let attending = down.iter().filter(|level| level.attends());
        let width = head_width(&attending.map(|level| level.channels).collect::<Vec<_>>());
        let heads: Vec<usize> = down.iter().map(|level| (level.channels / width).max(1)).collect();
        config["attention_head_dim"] = json!(heads);
        assumed.push(format!("attention heads of width {width}"));
    }
    Ok(())
}

/// Any transformer of the UNet.
fn first_attention(walk: &Walk<'_>) -> Option<String> {
    let down = (1..walk.count("input_blocks")).map(|i| format!("input_blocks.{i}.1"));
    down.chain(["middle_block.1".to_owned()])
        .find(|place| walk.has(&format!("{place}.transformer_blocks.0.")))
}
