//! The configuration of a UNet: the fields of its `config.json`.

use serde::Deserialize;
use serde_json::{Value, json};
use tensor::graph::Activation;

use super::time::{Sinusoid, guidance_scale_embedding, timestep_projection};
use crate::Error;
use crate::config::{self, PerLevel, Rest};

/// Name of the class in error messages.
pub(super) const MODEL: &str = "UNet2DConditionModel";

/// Number of sizes that SDXL is told: original size, top left corner, target size.
const TIME_IDS: usize = 6;

/// Number of transformer layers.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(untagged)]
pub enum Depth {
    /// The same everywhere below.
    All(usize),
    /// One for each level, or for each transformer of a level.
    Each(Vec<Depth>),
}

/// Fields of `config.json`, by their names there; absent ones have the defaults of diffusers.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Channels of the noisy latents.
    pub in_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    /// Whether the sample is mapped from 0…1 to −1…1 first.
    pub center_input_sample: bool,
    /// Whether cosines come before sines in the embedding of time.
    pub flip_sin_to_cos: bool,
    /// Shift of the frequencies in the embedding of time.
    pub freq_shift: f32,
    /// Kind of each level on the way down.
    pub down_block_types: Vec<String>,
    /// Kind of the middle; `None` where there is none.
    #[serde(skip)]
    pub mid_block_type: Option<String>,
    /// Kind of each level on the way up.
    pub up_block_types: Vec<String>,
    /// Whether the first attention of each transformer layer reads the text, too.
    pub only_cross_attention: PerLevel<bool>,
    /// Channels of each level.
    pub block_out_channels: Vec<usize>,
    /// Residual layers of each level on the way down.
    pub layers_per_block: PerLevel<usize>,
    /// Padding of the convolutions that halve the size.
    pub downsample_padding: usize,
    /// Divides the sums in the middle.
    pub mid_block_scale_factor: f32,
    /// Activation function of the residual layers and the embedding of time.
    pub act_fn: String,
    /// Groups of the group normalisations.
    pub norm_num_groups: usize,
    /// ε of the group normalisations.
    pub norm_eps: f32,
    /// Channels of the text's embedding.
    pub cross_attention_dim: PerLevel<usize>,
    /// Layers of each transformer.
    pub transformer_layers_per_block: Depth,
    /// The same on the way up, innermost level first, where it differs.
    pub reverse_transformer_layers_per_block: Option<Depth>,
    /// Number of heads: its name is a mistake that all checkpoints share.
    pub attention_head_dim: PerLevel<usize>,
    /// Whether the projections around a transformer are stored as linear layers.
    pub use_linear_projection: bool,
    /// What is added to the embedding of time: nothing, or `text_time`.
    pub addition_embed_type: Option<String>,
    /// Channels of the embedding of each size.
    pub addition_time_embed_dim: Option<usize>,
    /// Channels of all embedded sizes and the text's summary together.
    pub projection_class_embeddings_input_dim: Option<usize>,
    /// Channels of the embedding of time, if not four times those of the first level.
    pub time_embedding_dim: Option<usize>,
    /// Applied to the sum of embeddings.
    pub time_embedding_act_fn: Option<String>,
    /// Applied to the embedding of time.
    pub timestep_post_act: Option<String>,
    /// Channels of the embedding of guidance.
    pub time_cond_proj_dim: Option<usize>,
    /// Kernel of the first convolution.
    pub conv_in_kernel: usize,
    /// Kernel of the last convolution.
    pub conv_out_kernel: usize,
    #[serde(flatten)]
    rest: Rest,
}

impl Default for Config {
    fn default() -> Self {
        let strings = |names: [&str; 4]| names.map(str::to_owned).to_vec();
        let (plain, cross) = ("DownBlock2D", "CrossAttnDownBlock2D");
        let (plain_up, cross_up) = ("UpBlock2D", "CrossAttnUpBlock2D");
        Self {
            in_channels: 4,
            out_channels: 4,
            center_input_sample: false,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            down_block_types: strings([cross, cross, cross, plain]),
            mid_block_type: Some("UNetMidBlock2DCrossAttn".into()),
            up_block_types: strings([plain_up, cross_up, cross_up, cross_up]),
            only_cross_attention: PerLevel::All(false),
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: PerLevel::All(2),
            downsample_padding: 1,
            mid_block_scale_factor: 1.0,
            act_fn: "silu".into(),
            norm_num_groups: 32,
            norm_eps: 1e-5,
            cross_attention_dim: PerLevel::All(1280),
            transformer_layers_per_block: Depth::All(1),
            reverse_transformer_layers_per_block: None,
            attention_head_dim: PerLevel::All(8),
            use_linear_projection: false,
            addition_embed_type: None,
            addition_time_embed_dim: None,
            projection_class_embeddings_input_dim: None,
            time_embedding_dim: None,
            time_embedding_act_fn: None,
            timestep_post_act: None,
            time_cond_proj_dim: None,
            conv_in_kernel: 3,
            conv_out_kernel: 3,
            rest: Rest::new(),
        }
    }
}

impl Config {
    /// Read `config.json`.
    ///
    /// # Errors
    ///
    /// If a field cannot be read, or is set to something that is not implemented.
    pub fn read(json: &Value) -> Result<Self, Error> {
        let mut config: Self = config::read(MODEL, json)?;
        // Here null is not the default: it means that there is no middle.
        if let Some(name) = json.get("mid_block_type") {
            config.mid_block_type = name.as_str().map(str::to_owned);
        }
        config.rest.remove("mid_block_type");
        // Options that change nothing here, or nothing at the one value that they may have.
        let neutral = [
            ("addition_embed_type_num_heads", json!(null)),
            ("attention_type", json!("default")),
            ("dropout", json!(null)),
            ("resnet_out_scale_factor", json!(null)),
            ("resnet_skip_time_act", json!(null)),
            ("resnet_time_scale_shift", json!("default")),
            ("sample_size", json!(null)),
            ("time_embedding_type", json!("positional")),
            ("upcast_attention", json!(null)),
        ];
        config::refuse(MODEL, &config.rest, &neutral)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), Error> {
        self.check_sizes()?;
        match self.addition_embed_type.as_deref() {
            None => Ok(()),
            Some("text_time") if self.text_embed_channels().is_some() => Ok(()),
            Some("text_time") => {
                let field = "projection_class_embeddings_input_dim";
                Err(config::fault(MODEL, field, "must exceed six times addition_time_embed_dim"))
            }
            Some(other) => {
                let advice = "implemented is text_time";
                Err(config::unsupported(MODEL, "addition_embed_type", other, advice))
            }
        }
    }

    fn check_sizes(&self) -> Result<(), Error> {
        let within = |field, sizes: &[usize], range| {
            config::within(MODEL, field, sizes.iter().copied(), range)
        };
        let layers = match &self.layers_per_block {
            PerLevel::All(n) => std::slice::from_ref(n),
            PerLevel::Each(list) => list,
        };
        within(
            "the length of block_out_channels",
            &[self.block_out_channels.len()],
            config::LEVELS,
        )?;
        within("block_out_channels", &self.block_out_channels, config::CHANNELS)?;
        within("layers_per_block", layers, 0..=1000)?;
        within("in_channels", &[self.in_channels], config::CHANNELS)?;
        within("out_channels", &[self.out_channels], config::CHANNELS)?;
        within("norm_num_groups", &[self.norm_num_groups], config::CHANNELS)?;
        within("conv_in_kernel", &[self.conv_in_kernel], 1..=64)?;
        within("conv_out_kernel", &[self.conv_out_kernel], 1..=64)?;
        within("downsample_padding", &[self.downsample_padding], 0..=64)?;
        let embeddings = [
            ("addition_time_embed_dim", self.addition_time_embed_dim),
            ("time_embedding_dim", self.time_embedding_dim),
            ("time_cond_proj_dim", self.time_cond_proj_dim),
        ];
        embeddings
            .iter()
            .try_for_each(|(field, size)| within(field, size.as_slice(), config::CHANNELS))
    }

    /// Sines and cosines of a timestep: the input `time` of the network, for one picture.
    pub fn time_projection(&self, timestep: f32) -> Vec<f32> {
        timestep_projection(timestep, self.sinusoid(self.block_out_channels[0]))
    }

    /// Sines and cosines of SDXL's six sizes: the input `time_ids` of the network, for one picture.
    pub fn time_ids(&self, sizes: &[f32; TIME_IDS]) -> Vec<f32> {
        let options = self.sinusoid(self.addition_time_embed_dim.unwrap_or(0));
        sizes.iter().flat_map(|&size| timestep_projection(size, options)).collect()
    }

    /// The embedding of a guidance scale: the input `timestep_cond` of the network, for one picture. `None` for models
    /// that did not learn guidance.
    pub fn guidance_embedding(&self, w: f32) -> Option<Vec<f32>> {
        self.time_cond_proj_dim.map(|channels| guidance_scale_embedding(w, channels))
    }

    /// Channels of the noisy latents.
    pub fn in_channels(&self) -> usize {
        self.in_channels
    }

    /// Whether the network reads `text_embeds` and `time_ids`.
    pub fn has_text_time(&self) -> bool {
        self.text_embed_channels().is_some()
    }

    /// Channels of the text's summary.
    pub fn text_embed_channels(&self) -> Option<usize> {
        self.text_time_channels()?.checked_sub(self.time_ids_channels()).filter(|&n| n > 0)
    }

    /// Channels of the text's summary and the embedded sizes together.
    pub(super) fn text_time_channels(&self) -> Option<usize> {
        self.addition_embed_type.as_ref().and(self.projection_class_embeddings_input_dim)
    }

    /// Channels of the embedded sizes.
    pub(super) fn time_ids_channels(&self) -> usize {
        TIME_IDS * self.addition_time_embed_dim.unwrap_or(0)
    }

    /// Channels of the embedding of time.
    pub(super) fn time_channels(&self) -> usize {
        self.time_embedding_dim.unwrap_or(4 * self.block_out_channels[0])
    }

    /// Channels of the text's embedding.
    pub fn context_channels(&self) -> usize {
        match &self.cross_attention_dim {
            PerLevel::All(n) => *n,
            PerLevel::Each(list) => list.iter().copied().max().unwrap_or(0),
        }
    }

    /// The activation function of the residual layers.
    pub(super) fn activation(&self) -> Result<Activation, Error> {
        config::activation(MODEL, "act_fn", &self.act_fn)
    }

    /// An activation function that may be absent.
    pub(super) fn optional_activation(
        &self,
        field: &'static str,
    ) -> Result<Option<Activation>, Error> {
        let name = match field {
            "timestep_post_act" => &self.timestep_post_act,
            _ => &self.time_embedding_act_fn,
        };
        name.as_ref().map(|name| config::activation(MODEL, field, name)).transpose()
    }

    fn sinusoid(&self, channels: usize) -> Sinusoid {
        let (flip_sin_to_cos, freq_shift) = (self.flip_sin_to_cos, self.freq_shift);
        Sinusoid { channels, flip_sin_to_cos, freq_shift }
    }
}
