//! What the names in a file of corrections mean: which component, which layer, which matrix.

use std::collections::BTreeMap;

/// A component of a pipeline that may be corrected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The network that is run at each step.
    Unet,
    /// The text encoder, or the first of two.
    TextEncoder,
    /// The second text encoder of SDXL.
    SecondTextEncoder,
}

impl std::fmt::Display for Part {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Unet => "UNet",
            Self::TextEncoder => "text encoder",
            Self::SecondTextEncoder => "second text encoder",
        })
    }
}

/// What a tensor is to its layer's correction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Up,
    Down,
    Alpha,
}

/// Endings of the two matrices and of α, each after the layer's name.
const ENDINGS: [(&str, Role); 14] = [
    (".lora_down.weight", Role::Down),
    (".lora_up.weight", Role::Up),
    (".lora_linear_layer.down.weight", Role::Down),
    (".lora_linear_layer.up.weight", Role::Up),
    (".lora.down.weight", Role::Down),
    (".lora.up.weight", Role::Up),
    // The attention processors of older diffusers: `….processor.to_q_lora.down.weight`.
    ("_lora.down.weight", Role::Down),
    ("_lora.up.weight", Role::Up),
    (".lora_linear_layer.alpha", Role::Alpha),
    (".lora.alpha", Role::Alpha),
    ("_lora.alpha", Role::Alpha),
    (".alpha", Role::Alpha),
    (".lora_A.weight", Role::Down),
    (".lora_B.weight", Role::Up),
];

/// Parts of names that belong to other kinds of corrections; those with a dot are endings.
const UNSUPPORTED: [(&str, &str); 12] = [
    ("dora_scale", "DoRA"),
    ("lora_magnitude_vector", "DoRA"),
    ("hada_", "LoHa"),
    ("lokr_", "LoKr"),
    ("lora_mid", "LoCon with a third matrix"),
    ("oft_blocks", "OFT"),
    ("oft_diag", "OFT"),
    (".diff", "a full difference"),
    (".w_norm", "a full difference"),
    (".on_input", "IA3"),
    (".diff_b", "a difference of biases"),
    (".bias", "a difference of biases"),
];

/// How names begin, component by component.
const PREFIXES: [(&str, Part); 8] = [
    ("lora_unet_", Part::Unet),
    ("lora_te1_", Part::TextEncoder),
    ("lora_te2_", Part::SecondTextEncoder),
    ("lora_te_", Part::TextEncoder),
    ("unet.", Part::Unet),
    ("diffusion_model.", Part::Unet),
    ("text_encoder_2.", Part::SecondTextEncoder),
    ("text_encoder.", Part::TextEncoder),
];

/// The component, the layer's name in it, and the role of the tensor `name`; or the kind of
/// correction that it would take instead.
pub(super) fn parse(name: &str) -> Result<(Part, String, Role), &'static str> {
    let (layer, role) = role(name).ok_or_else(|| kind(name))?;
    let layer = layer.strip_prefix("base_model.model.").unwrap_or(layer);
    let layer = layer.strip_prefix("model.diffusion_model.").unwrap_or(layer);
    let known =
        PREFIXES.iter().find_map(|(prefix, part)| Some((layer.strip_prefix(prefix)?, part)));
    // The first files of this kind had corrections of the UNet only, under its own names.
    let (module, part) = known.unwrap_or((layer, &Part::Unet));
    let module = module.strip_prefix("base_model.model.").unwrap_or(module);
    Ok((*part, module.to_owned(), role))
}

fn role(name: &str) -> Option<(&str, Role)> {
    if unsupported(name).is_some() {
        return None;
    }
    if let Some(known) =
        ENDINGS.iter().find_map(|(ending, role)| Some((name.strip_suffix(ending)?, *role)))
    {
        return Some(known);
    }
    // peft puts an adapter's name between: `….lora_A.default.weight`.
    let between = |matrix: &str, role| {
        let (layer, rest) = name.split_once(matrix)?;
        rest.ends_with(".weight").then_some((layer, role))
    };
    between(".lora_A.", Role::Down).or_else(|| between(".lora_B.", Role::Up))
}

fn kind(name: &str) -> &'static str {
    unsupported(name).unwrap_or("a tensor of unknown meaning")
}

fn unsupported(name: &str) -> Option<&'static str> {
    let is = |part: &str| {
        if part.starts_with('.') { name.ends_with(part) } else { name.contains(part) }
    };
    UNSUPPORTED.iter().find(|(part, _)| is(part)).map(|(_, kind)| *kind)
}

/// What diffusers notes about the strength of corrections in a file's metadata, as JSON.
#[derive(Debug, Default)]
pub(super) struct Notes(serde_json::Map<String, serde_json::Value>);

impl Notes {
    /// Finds the notes in a file's metadata; none are none.
    pub(super) fn read(metadata: &BTreeMap<String, String>) -> Self {
        let text = metadata.get("lora_adapter_metadata").map_or("", String::as_str);
        Self(serde_json::from_str(text).unwrap_or_default())
    }

    /// Alpha over rank (or over its root, "rank-stabilised") of a layer, if it is noted.
    pub(super) fn scale(&self, part: Part, module: &str, rank: f32) -> Option<f32> {
        let prefix = match part {
            Part::Unet => "unet.",
            Part::TextEncoder => "text_encoder.",
            Part::SecondTextEncoder => "text_encoder_2.",
        };
        let note = |key: &str| self.0.get(&format!("{prefix}{key}")).or_else(|| self.0.get(key));
        let own = note("alpha_pattern").and_then(serde_json::Value::as_object).and_then(|layers| {
            let of = |pattern: &str| {
                module.strip_suffix(pattern).is_some_and(|r| r.is_empty() || r.ends_with('.'))
            };
            layers.iter().find(|(pattern, _)| of(pattern)).map(|(_, alpha)| alpha)
        });
        let alpha = own.or_else(|| note("lora_alpha"))?.as_f64()? as f32;
        let root = note("use_rslora").and_then(serde_json::Value::as_bool).unwrap_or(false);
        Some(alpha / if root { rank.sqrt() } else { rank })
    }
}
