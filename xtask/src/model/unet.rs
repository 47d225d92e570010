//! The UNet (`UNet2DConditionModel`): configuration and tensors.

use serde_json::{Value, json};

use super::list::{BRANCH, List, PLAIN, SHARP, Tensor};
use super::resnet::Resnet;

const LATENT: usize = 4;
const LAYERS: usize = 2;
/// Width of the sizes' and crops' sinusoidal embedding in SDXL.
const ADDED_TIME: usize = 256;

/// What distinguishes one UNet from another. Lists run from fine to coarse.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unet {
    /// Channels per level.
    pub(crate) channels: &'static [usize],
    /// Transformer layers per attention of each level; 0 for a level without attention.
    pub(crate) depth: &'static [usize],
    /// Attention heads, one number per level (diffusers calls them `attention_head_dim`).
    pub(crate) heads: &'static [usize],
    /// Width of the text embedding.
    pub(crate) cross: usize,
    /// How the transformer is entered and left.
    pub(crate) projection: Projection,
    /// Inputs of the embedding of pooled text and sizes (SDXL).
    pub(crate) added: Option<usize>,
    /// Width of the guidance embedding (latent consistency models).
    pub(crate) guidance: Option<usize>,
    /// Side of the latents it was trained on.
    pub(crate) sample_size: usize,
}

/// How a transformer's input and output are projected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Projection {
    /// 1×1 convolutions.
    Convolution,
    /// Matrices.
    Linear,
}

impl Unet {
    /// `config.json`.
    pub(crate) fn config(&self) -> Value {
        let one_head_count = self.heads.iter().all(|n| *n == self.heads[0]);
        let heads = if one_head_count { json!(self.heads[0]) } else { json!(self.heads) };
        let plain_depth = self.depth.iter().all(|n| *n <= 1);
        let depths: Vec<usize> = self.depth.iter().map(|n| (*n).max(1)).collect();
        let depth = if plain_depth { json!(1) } else { json!(depths) };
        let mut config = fixed_config();
        let own = json!({
            "addition_embed_type": self.added.map(|_| "text_time"),
            "addition_time_embed_dim": self.added.map(|_| ADDED_TIME),
            "attention_head_dim": heads,
            "block_out_channels": self.channels,
            "cross_attention_dim": self.cross,
            "down_block_types": self.block_types("DownBlock2D", "CrossAttnDownBlock2D"),
            "projection_class_embeddings_input_dim": self.added,
            "sample_size": self.sample_size,
            "time_cond_proj_dim": self.guidance,
            "transformer_layers_per_block": depth,
            "up_block_types": reversed(self.block_types("UpBlock2D", "CrossAttnUpBlock2D")),
            "use_linear_projection": self.projection == Projection::Linear,
        });
        if let (Value::Object(config), Value::Object(own)) = (&mut config, own) {
            config.extend(own);
        }
        config
    }

    fn block_types(&self, plain: &'static str, crossed: &'static str) -> Vec<&'static str> {
        self.depth.iter().map(|depth| if *depth == 0 { plain } else { crossed }).collect()
    }

    /// All tensors.
    pub(crate) fn tensors(&self) -> Vec<Tensor> {
        let mut list = List::default();
        self.embeddings(&mut list);
        list.conv3("conv_in", [self.channels[0], LATENT], PLAIN);
        let skips = self.down(&mut list);
        self.middle(&mut list);
        self.up(&mut list, skips);
        list.norm("conv_norm_out", self.channels[0]);
        list.conv3("conv_out", [LATENT, self.channels[0]], 1.5 * PLAIN);
        list.0
    }

    fn time(&self) -> usize {
        4 * self.channels[0]
    }

    fn embeddings(&self, list: &mut List) {
        let (narrow, wide) = (self.channels[0], self.time());
        list.layer("time_embedding.linear_1", &[wide, narrow], 1.5 * PLAIN);
        list.layer("time_embedding.linear_2", &[wide, wide], 1.5 * PLAIN);
        if let Some(guidance) = self.guidance {
            list.weight("time_embedding.cond_proj", &[narrow, guidance], PLAIN);
        }
        if let Some(added) = self.added {
            list.layer("add_embedding.linear_1", &[wide, added], 1.5 * PLAIN);
            list.layer("add_embedding.linear_2", &[wide, wide], PLAIN);
        }
    }

    /// The way down; returns the channels of the skip connections, the last one on top.
    fn down(&self, list: &mut List) -> Vec<usize> {
        let mut inputs = self.channels[0];
        let mut skips = vec![inputs];
        for (level, outputs) in self.channels.iter().copied().enumerate() {
            let at = format!("down_blocks.{level}");
            for index in 0..LAYERS {
                self.resnet(list, &format!("{at}.resnets.{index}"), [inputs, outputs]);
                self.attention(list, &format!("{at}.attentions.{index}"), level);
                inputs = outputs;
                skips.push(outputs);
            }
            if level + 1 < self.channels.len() {
                list.conv3(&format!("{at}.downsamplers.0.conv"), [outputs, outputs], PLAIN);
                skips.push(outputs);
            }
        }
        skips
    }

    fn middle(&self, list: &mut List) {
        let coarsest = self.channels.len() - 1;
        let width = self.channels[coarsest];
        self.resnet(list, "mid_block.resnets.0", [width, width]);
        // The middle has a transformer even where its level has none.
        let depth = self.depth[coarsest].max(1);
        self.transformer(list, "mid_block.attentions.0", [width, depth]);
        self.resnet(list, "mid_block.resnets.1", [width, width]);
    }

    /// The way up, where each residual block also reads the skip connection on top.
    fn up(&self, list: &mut List, mut skips: Vec<usize>) {
        let mut inputs = self.channels[self.channels.len() - 1];
        for (index, level) in (0..self.channels.len()).rev().enumerate() {
            let (at, outputs) = (format!("up_blocks.{index}"), self.channels[level]);
            for layer in 0..=LAYERS {
                let skip = skips.pop().unwrap_or_default();
                self.resnet(list, &format!("{at}.resnets.{layer}"), [inputs + skip, outputs]);
                self.attention(list, &format!("{at}.attentions.{layer}"), level);
                inputs = outputs;
            }
            if level > 0 {
                list.conv3(&format!("{at}.upsamplers.0.conv"), [outputs, outputs], PLAIN);
            }
        }
    }

    fn resnet(&self, list: &mut List, at: &str, [inputs, outputs]: [usize; 2]) {
        Resnet { inputs, outputs, time: Some(self.time()) }.list(list, at);
    }

    fn attention(&self, list: &mut List, at: &str, level: usize) {
        if self.depth[level] > 0 {
            self.transformer(list, at, [self.channels[level], self.depth[level]]);
        }
    }

    fn transformer(&self, list: &mut List, at: &str, [width, depth]: [usize; 2]) {
        let shape: &[usize] = match self.projection {
            Projection::Convolution => &[width, width, 1, 1],
            Projection::Linear => &[width, width],
        };
        list.norm(&format!("{at}.norm"), width);
        list.layer(&format!("{at}.proj_in"), shape, PLAIN);
        for index in 0..depth {
            let at = format!("{at}.transformer_blocks.{index}");
            list.norm(&format!("{at}.norm1"), width);
            attention(list, &format!("{at}.attn1"), [width, width]);
            list.norm(&format!("{at}.norm2"), width);
            attention(list, &format!("{at}.attn2"), [width, self.cross]);
            list.norm(&format!("{at}.norm3"), width);
            list.layer(&format!("{at}.ff.net.0.proj"), &[8 * width, width], PLAIN);
            list.layer(&format!("{at}.ff.net.2"), &[width, 4 * width], BRANCH);
        }
        list.layer(&format!("{at}.proj_out"), shape, BRANCH);
    }
}

fn attention(list: &mut List, at: &str, [width, context]: [usize; 2]) {
    list.weight(&format!("{at}.to_q"), &[width, width], SHARP);
    list.weight(&format!("{at}.to_k"), &[width, context], SHARP);
    list.weight(&format!("{at}.to_v"), &[width, context], PLAIN);
    list.layer(&format!("{at}.to_out.0"), &[width, width], BRANCH);
}

fn reversed(mut names: Vec<&'static str>) -> Vec<&'static str> {
    names.reverse();
    names
}

/// Fields that are the same in all three families.
fn fixed_config() -> Value {
    json!({
        "_class_name": "UNet2DConditionModel",
        "_diffusers_version": "0.24.0",
        "act_fn": "silu",
        "addition_embed_type_num_heads": 64,
        "attention_type": "default",
        "center_input_sample": false,
        "class_embed_type": null,
        "class_embeddings_concat": false,
        "conv_in_kernel": 3,
        "conv_out_kernel": 3,
        "cross_attention_norm": null,
        "downsample_padding": 1,
        "dropout": 0.0,
        "dual_cross_attention": false,
        "encoder_hid_dim": null,
        "encoder_hid_dim_type": null,
        "flip_sin_to_cos": true,
        "freq_shift": 0,
        "in_channels": LATENT,
        "layers_per_block": LAYERS,
        "mid_block_only_cross_attention": null,
        "mid_block_scale_factor": 1,
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "norm_eps": 1e-5,
        "norm_num_groups": 32,
        "num_attention_heads": null,
        "num_class_embeds": null,
        "only_cross_attention": false,
        "out_channels": LATENT,
        "resnet_out_scale_factor": 1.0,
        "resnet_skip_time_act": false,
        "resnet_time_scale_shift": "default",
        "reverse_transformer_layers_per_block": null,
        "time_embedding_act_fn": null,
        "time_embedding_dim": null,
        "time_embedding_type": "positional",
        "timestep_post_act": null,
        "upcast_attention": null,
    })
}
