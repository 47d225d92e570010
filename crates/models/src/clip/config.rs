//! The configurations of CLIP: the fields of `config.json` that matter for its arithmetic.
//!
//! Files of this family hold dozens of fields about training and generation, so that fields without a meaning here
//! cannot be told from options that are not implemented, and are passed over.

use serde::Deserialize;
use serde_json::Value;
use tensor::graph::Activation;

use crate::Error;
use crate::config;

/// What both towers have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct TowerConfig {
    pub(super) hidden_size: usize,
    pub(super) intermediate_size: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) eps: f32,
    pub(super) activation: Activation,
}

/// Fields of a text encoder's `config.json`, by their names there; absent ones have the defaults of transformers.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default)]
pub struct TextConfig {
    /// Entries of the token table.
    pub vocab_size: usize,
    /// Channels.
    pub hidden_size: usize,
    /// Channels inside the feed-forward layers.
    pub intermediate_size: usize,
    /// Channels of the projected summary.
    pub projection_dim: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of heads.
    pub num_attention_heads: usize,
    /// Most tokens of a text.
    pub max_position_embeddings: usize,
    /// Activation function of the feed-forward layers.
    pub hidden_act: String,
    /// ε of the normalisations.
    pub layer_norm_eps: f32,
    /// The token that ends a text.
    pub eos_token_id: u32,
    /// Classes that the checkpoint was made for.
    pub architectures: Vec<String>,
}

impl Default for TextConfig {
    fn default() -> Self {
        Self {
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            projection_dim: 512,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: "quick_gelu".into(),
            layer_norm_eps: 1e-5,
            eos_token_id: 49407,
            architectures: Vec::new(),
        }
    }
}

impl TextConfig {
    /// Read `config.json`.
    ///
    /// # Errors
    ///
    /// If a field cannot be read, or the activation function is not implemented.
    pub fn read(json: &Value) -> Result<Self, Error> {
        let config: Self = config::read("CLIPTextModel", json)?;
        config.tower()?;
        Ok(config)
    }

    /// The position of the token that stands for the whole text.
    ///
    /// It is the first one that ends a text. Early configurations name a wrong one, 2; there it is the token with the
    /// greatest number, as in transformers.
    pub fn eos_position(&self, ids: &[u32]) -> u32 {
        let first = |of: u32| ids.iter().position(|&id| id == of).unwrap_or(0);
        let at = match self.eos_token_id {
            2 => first(ids.iter().copied().max().unwrap_or(0)),
            id => first(id),
        };
        at as u32
    }

    pub(super) fn tower(&self) -> Result<TowerConfig, Error> {
        let config = TowerConfig {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            eps: self.layer_norm_eps,
            activation: config::activation("CLIPTextModel", "hidden_act", &self.hidden_act)?,
        };
        config.check("CLIPTextModel")
    }
}

/// Fields of a vision tower's `config.json`, by their names there; absent ones have the defaults of transformers.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default)]
pub struct VisionConfig {
    /// Channels.
    pub hidden_size: usize,
    /// Channels inside the feed-forward layers.
    pub intermediate_size: usize,
    /// Channels of the projected summary.
    pub projection_dim: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of heads.
    pub num_attention_heads: usize,
    /// Channels of a picture.
    pub num_channels: usize,
    /// Height and width of a picture.
    pub image_size: usize,
    /// Height and width of a patch.
    pub patch_size: usize,
    /// Activation function of the feed-forward layers.
    pub hidden_act: String,
    /// ε of the normalisations.
    pub layer_norm_eps: f32,
}

impl Default for VisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            projection_dim: 512,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 32,
            hidden_act: "quick_gelu".into(),
            layer_norm_eps: 1e-5,
        }
    }
}

impl VisionConfig {
    /// Read `config.json`.
    ///
    /// # Errors
    ///
    /// If a field cannot be read, or the activation function is not implemented.
    pub fn read(json: &Value) -> Result<Self, Error> {
        let config: Self = config::read("CLIPVisionModel", json)?;
        config.tower()?;
        Ok(config)
    }

    /// Tokens of a picture: one for each patch, and one before them that stands for the whole picture.
    pub(super) fn tokens(&self) -> usize {
        (self.image_size / self.patch_size).pow(2) + 1
    }

    pub(super) fn tower(&self) -> Result<TowerConfig, Error> {
        let size = [self.image_size];
        config::within("CLIPVisionModel", "image_size", size, 1..=1 << 15)?;
        if self.patch_size == 0 || self.image_size < self.patch_size {
            let fault = "must be between one and image_size";
            return Err(config::fault("CLIPVisionModel", "patch_size", fault));
        }
        let config = TowerConfig {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            eps: self.layer_norm_eps,
            activation: config::activation("CLIPVisionModel", "hidden_act", &self.hidden_act)?,
        };
        config.check("CLIPVisionModel")
    }
}

impl TowerConfig {
    fn check(self, model: &'static str) -> Result<Self, Error> {
        let sizes = [self.hidden_size, self.intermediate_size];
        config::within(model, "hidden_size or intermediate_size", sizes, config::CHANNELS)?;
        if self.heads == 0 || !self.hidden_size.is_multiple_of(self.heads) {
            let fault = "must divide hidden_size";
            return Err(config::fault(model, "num_attention_heads", fault));
        }
        Ok(self)
    }
}

/// Fields of the `config.json` of both towers together.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipConfig {
    /// The text tower.
    pub text: TextConfig,
    /// The vision tower.
    pub vision: VisionConfig,
    /// Channels in which texts and pictures are compared.
    pub projection_dim: usize,
}

impl ClipConfig {
    /// Read `config.json`.
    ///
    /// # Errors
    ///
    /// If a field cannot be read, or an activation function is not implemented.
    pub fn read(json: &Value) -> Result<Self, Error> {
        // Early files repeat a tower's fields under a second name, which has precedence.
        let tower = |early: &str, name: &str| {
            let found =
                [early, name].into_iter().map(|key| &json[key]).find(|value| !value.is_null());
            found.cloned().unwrap_or_else(|| Value::Object(serde_json::Map::new()))
        };
        let projection_dim = match &json["projection_dim"] {
            Value::Null => 512,
            value => value
                .as_u64()
                .ok_or_else(|| config::fault("CLIPModel", "projection_dim", "is not a number"))?
                as usize,
        };
        Ok(Self {
            text: TextConfig::read(&tower("text_config_dict", "text_config"))?,
            vision: VisionConfig::read(&tower("vision_config_dict", "vision_config"))?,
            projection_dim,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{ClipConfig, TextConfig};

    #[test]
    fn the_end_of_a_text_is_found_as_in_transformers() {
        let early = TextConfig { eos_token_id: 2, ..TextConfig::default() };
        assert_eq!(early.eos_position(&[49406, 5, 49407, 49407]), 2);
        assert_eq!(early.eos_position(&[49406, 5, 49407, 0]), 2);
        let late = TextConfig { eos_token_id: 7, ..TextConfig::default() };
        assert_eq!(late.eos_position(&[9, 8, 7, 7]), 2);
        assert_eq!(late.eos_position(&[9, 8]), 0);
    }

    #[test]
    fn early_fields_have_precedence() {
        let json = json!({
            "text_config": {"hidden_size": 64, "num_attention_heads": 4},
            "text_config_dict": {"hidden_size": 128},
            "vision_config": {"image_size": 64},
            "projection_dim": 32,
        });
        let config = ClipConfig::read(&json).unwrap();
        assert_eq!((config.text.hidden_size, config.text.num_attention_heads), (128, 8));
        assert_eq!((config.vision.image_size, config.projection_dim), (64, 32));
    }
}
