//! The configuration of each level: lists of equal length instead of numbers, lists and nested lists.

use super::Config;
use super::config::{Depth, MODEL};
use crate::Error;
use crate::config::{self, PerLevel};

/// What one level is made of.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Level {
    /// Its class in diffusers.
    pub(super) kind: String,
    /// Name of the field that says so.
    pub(super) field: &'static str,
    /// Channels of its results.
    pub(super) channels: usize,
    /// Number of heads.
    pub(super) heads: usize,
    /// Channels of the text's embedding.
    pub(super) context: usize,
    /// Whether the first attention reads the text, too.
    pub(super) only_cross: bool,
    /// Layers of the transformer behind each residual layer: as many entries as there are residual layers.
    pub(super) depths: Vec<usize>,
}

/// All levels, in the order in which they run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Layers {
    pub(super) down: Vec<Level>,
    /// Its `depths` has one entry.
    pub(super) middle: Option<Level>,
    pub(super) up: Vec<Level>,
}

impl Layers {
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        let n = config.block_out_channels.len();
        let layers = list("layers_per_block", &config.layers_per_block, n)?;
        let heads = list("attention_head_dim", &config.attention_head_dim, n)?;
        let context = list("cross_attention_dim", &config.cross_attention_dim, n)?;
        let only_cross = list("only_cross_attention", &config.only_cross_attention, n)?;
        let level = |field, kinds: &[String], i: usize, at: usize, depths| -> Result<_, Error> {
            let kind = kinds.get(i).cloned().unwrap_or_default();
            let (channels, heads, context, only_cross) =
                (config.block_out_channels[at], heads[at], context[at], only_cross[at]);
            if heads == 0 || heads > channels {
                let fault = "must be between one and the number of channels";
                return Err(config::fault(MODEL, "attention_head_dim", fault));
            }
            Ok(Level { kind, field, channels, heads, context, only_cross, depths })
        };
        length("down_block_types", config.down_block_types.len(), n)?;
        length("up_block_types", config.up_block_types.len(), n)?;
        let depth = Depths::new(config, n)?;
        let down = (0..n).map(|i| {
            let depths = depth.down(i, layers[i])?;
            level("down_block_types", &config.down_block_types, i, i, depths)
        });
        let up = (0..n).map(|i| {
            let at = n - 1 - i;
            let depths = depth.up(i, layers[at] + 1)?;
            level("up_block_types", &config.up_block_types, i, at, depths)
        });
        let middle = config.mid_block_type.as_ref().map(|kind| {
            let kinds = std::slice::from_ref(kind);
            level("mid_block_type", kinds, 0, n - 1, vec![depth.middle()?])
        });
        Ok(Self {
            down: down.collect::<Result<_, _>>()?,
            middle: middle.transpose()?,
            up: up.collect::<Result<_, _>>()?,
        })
    }
}

const DEPTH: &str = "transformer_layers_per_block";
const REVERSE_DEPTH: &str = "reverse_transformer_layers_per_block";

/// Numbers of transformer layers for each level, on the way down and up.
struct Depths {
    down: Vec<Depth>,
    up: Vec<Depth>,
}

impl Depths {
    fn new(config: &Config, levels: usize) -> Result<Self, Error> {
        let expand = |field, depth: &Depth| match depth {
            Depth::All(n) => Ok(vec![Depth::All(*n); levels]),
            Depth::Each(list) => length(field, list.len(), levels).map(|()| list.clone()),
        };
        let down = expand(DEPTH, &config.transformer_layers_per_block)?;
        let up = match &config.reverse_transformer_layers_per_block {
            Some(depth) => expand(REVERSE_DEPTH, depth)?,
            None if down.iter().any(|depth| matches!(depth, Depth::Each(_))) => {
                return Err(config::fault(
                    MODEL,
                    REVERSE_DEPTH,
                    "must be given where levels have lists",
                ));
            }
            None => down.iter().rev().cloned().collect(),
        };
        Ok(Self { down, up })
    }

    fn down(&self, level: usize, layers: usize) -> Result<Vec<usize>, Error> {
        each(DEPTH, &self.down[level], layers)
    }

    fn up(&self, level: usize, layers: usize) -> Result<Vec<usize>, Error> {
        each(REVERSE_DEPTH, &self.up[level], layers)
    }

    /// The middle has one transformer; of a list for the innermost level it takes the first number.
    fn middle(&self) -> Result<usize, Error> {
        let first = match self.down.last() {
            Some(Depth::Each(list)) => list.first(),
            all => all,
        };
        match first {
            Some(Depth::All(n)) => Ok(*n),
            _ => Err(config::fault(MODEL, DEPTH, "has no number for the middle")),
        }
    }
}

/// One number for each of `layers` transformers.
fn each(field: &'static str, depth: &Depth, layers: usize) -> Result<Vec<usize>, Error> {
    match depth {
        Depth::All(n) => Ok(vec![*n; layers]),
        Depth::Each(list) => {
            length(field, list.len(), layers)?;
            let number = |depth: &Depth| match depth {
                Depth::All(n) => Ok(*n),
                Depth::Each(_) => Err(config::fault(MODEL, field, "is nested too deeply")),
            };
            list.iter().map(number).collect()
        }
    }
}

fn list<T: Copy>(field: &str, values: &PerLevel<T>, levels: usize) -> Result<Vec<T>, Error> {
    let fault = || config::fault(MODEL, field, &format!("must be a number or a list of {levels}"));
    values.list(levels).ok_or_else(fault)
}

fn length(field: &str, found: usize, expected: usize) -> Result<(), Error> {
    if found == expected {
        return Ok(());
    }
    Err(config::fault(MODEL, field, &format!("has {found} entries where {expected} are needed")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Config, Layers};

    fn layers(json: &serde_json::Value) -> Result<Layers, crate::Error> {
        Layers::new(&Config::read(json)?)
    }

    #[test]
    fn numbers_and_lists_are_spread_over_levels() {
        let json = json!({
            "block_out_channels": [32, 64],
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
            "layers_per_block": [1, 2],
            "attention_head_dim": [2, 4],
            "transformer_layers_per_block": [1, [2, 3]],
            "reverse_transformer_layers_per_block": [[4, 5, 6], 1],
        });
        let layers = layers(&json).unwrap();
        let depths: Vec<&[usize]> = layers.down.iter().map(|level| &*level.depths).collect();
        assert_eq!(depths, [&[1][..], &[2, 3]]);
        let depths: Vec<&[usize]> = layers.up.iter().map(|level| &*level.depths).collect();
        assert_eq!(depths, [&[4, 5, 6][..], &[1, 1]]);
        assert_eq!((layers.up[0].heads, layers.up[0].channels), (4, 64));
        assert_eq!(layers.middle.unwrap().depths, [2]);
    }

    #[test]
    fn contradictions_are_named() {
        let message = |json| layers(&json).unwrap_err().to_string();
        let text = message(json!({"block_out_channels": [32, 64]}));
        assert!(text.contains("down_block_types in config.json has 4 entries"), "{text}");
        let text = message(json!({"layers_per_block": u64::MAX}));
        assert!(text.contains("layers_per_block in config.json must lie between"), "{text}");
        let text = message(json!({"conv_in_kernel": 0}));
        assert!(text.contains("conv_in_kernel in config.json must lie between"), "{text}");
        let text = message(json!({"transformer_layers_per_block": [1, 1, 1, [1, 1]]}));
        assert!(
            text.contains("reverse_transformer_layers_per_block in config.json must"),
            "{text}"
        );
        let text = message(json!({"class_embed_type": "timestep"}));
        assert!(
            text.contains("class_embed_type is \"timestep\", which is not implemented"),
            "{text}"
        );
    }
}
