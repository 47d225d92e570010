//! The text encoders of a single file: CLIP under the names that transformers gives it, or
//! `OpenCLIP` with query, key and value fused into one matrix.

use super::{Error, Family, Walk, head_width};
use serde_json::{Value, json};
use tensor::file::Checkpoint;

/// Layers of the `OpenCLIP` encoder of SD 2 without its last one, which SD 2 does not use and
/// some files leave out.
const PRUNED: usize = 23;

const OPEN_LAYER: [(&str, &str); 5] = [
    ("ln_1", "layer_norm1"),
    ("ln_2", "layer_norm2"),
    ("attn.out_proj", "self_attn.out_proj"),
    ("mlp.c_fc", "mlp.fc1"),
    ("mlp.c_proj", "mlp.fc2"),
];

/// The recipes and configurations of all text encoders in `stored`, in the pipeline's order.
///
/// # Errors
///
/// Names or shapes that the layouts do not have.
pub(super) fn text_encoders(
    stored: &Checkpoint,
    family: Family,
) -> Result<Vec<(Walk<'_>, Value)>, Error> {
    match family {
        Family::StableDiffusion1 => Ok(vec![clip(stored, "cond_stage_model.transformer.")?]),
        Family::StableDiffusion2 => {
            Ok(vec![open_clip(stored, "cond_stage_model.model.", Used::BeforeLast)?])
        }
        Family::StableDiffusionXl => Ok(vec![
            clip(stored, "conditioner.embedders.0.transformer.")?,
            open_clip(stored, "conditioner.embedders.1.model.", Used::All)?,
        ]),
    }
}

/// Which layers of an encoder are used.
#[derive(Clone, Copy, PartialEq)]
enum Used {
    All,
    BeforeLast,
}

fn clip<'a>(stored: &'a Checkpoint, prefix: &str) -> Result<(Walk<'a>, Value), Error> {
    let under = format!("{prefix}text_model.");
    let nested = stored.names().any(|name| name.starts_with(&under));
    let mut walk = Walk::new(stored, if nested { &under } else { prefix });
    for part in ["token_embedding", "position_embedding"] {
        walk.carry(&format!("embeddings.{part}"), &format!("text_model.embeddings.{part}"));
    }
    for part in ["encoder", "final_layer_norm"] {
        walk.carry(part, &format!("text_model.{part}"));
    }
    let config = json!({
        "architectures": ["CLIPTextModel"],
        "hidden_act": "quick_gelu",
        "num_hidden_layers": walk.count("encoder.layers"),
        "vocab_size": walk.size("embeddings.token_embedding.weight", 0)?,
        "max_position_embeddings": walk.size("embeddings.position_embedding.weight", 0)?,
        "intermediate_size": walk.size("encoder.layers.0.mlp.fc1.weight", 0)?,
    });
    let width = walk.size("embeddings.token_embedding.weight", 1)?;
    Ok((walk, with_width(config, width, width)))
}

fn open_clip<'a>(
    stored: &'a Checkpoint,
    prefix: &str,
    used: Used,
) -> Result<(Walk<'a>, Value), Error> {
    let mut walk = Walk::new(stored, prefix);
    let width = walk.size("token_embedding.weight", 1)?;
    let stored_layers = walk.count("transformer.resblocks");
    let layers = match used {
        Used::BeforeLast if stored_layers != PRUNED => stored_layers.saturating_sub(1),
        _ => stored_layers,
    };
    walk.carry("token_embedding", "text_model.embeddings.token_embedding");
    let position = "text_model.embeddings.position_embedding.weight";
    walk.make("positional_embedding", position, |recipe| recipe);
    walk.carry("ln_final", "text_model.final_layer_norm");
    for layer in 0..layers {
        carry_open_layer(&mut walk, layer, width);
    }
    let config = json!({
        "architectures": ["CLIPTextModel"],
        "hidden_act": "gelu",
        "num_hidden_layers": layers,
        "vocab_size": walk.size("token_embedding.weight", 0)?,
        "max_position_embeddings": walk.size("positional_embedding", 0)?,
        "intermediate_size": walk.size("transformer.resblocks.0.mlp.c_fc.weight", 0)?,
    });
    let mut config = with_width(config, width, width);
    if used == Used::All {
        config["architectures"] = json!(["CLIPTextModelWithProjection"]);
        config["projection_dim"] = json!(carry_projection(&mut walk)?);
    }
    Ok((walk, config))
}

fn carry_open_layer(walk: &mut Walk<'_>, layer: usize, width: usize) {
    let from = format!("transformer.resblocks.{layer}");
    let to = format!("text_model.encoder.layers.{layer}");
    walk.carry_parts(&from, &to, &OPEN_LAYER);
    for (place, part) in ["q_proj", "k_proj", "v_proj"].iter().enumerate() {
        for kind in ["weight", "bias"] {
            let rows = place * width..(place + 1) * width;
            let fused = format!("{from}.attn.in_proj_{kind}");
            let name = format!("{to}.self_attn.{part}.{kind}");
            walk.make(&fused, &name, |recipe| recipe.rows(rows));
        }
    }
}

/// The projection of the pooled text, which the original multiplies from the other side; says
/// how wide its result is.
fn carry_projection(walk: &mut Walk<'_>) -> Result<usize, Error> {
    const NAME: &str = "text_projection.weight";
    if walk.shape(NAME).is_some() {
        walk.make(NAME, NAME, |recipe| recipe);
        return walk.size(NAME, 0);
    }
    walk.make("text_projection", NAME, tensor::file::Recipe::transposed);
    walk.size("text_projection", 1)
}

/// Adds what follows from the width, and what is the same in all of them.
fn with_width(mut config: Value, width: usize, projection: usize) -> Value {
    config["hidden_size"] = json!(width);
    config["projection_dim"] = json!(projection);
    config["num_attention_heads"] = json!(width / head_width(&[width]));
    config["layer_norm_eps"] = json!(1e-5);
    config["bos_token_id"] = json!(49406);
    config["eos_token_id"] = json!(49407);
    config["model_type"] = json!("clip_text_model");
    config
}
