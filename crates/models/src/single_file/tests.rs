//! Small checkpoints in the original layout, made up name by name, and what becomes of them.

use super::*;
use crate::Params;
use std::collections::BTreeMap;
use tensor::file::TensorView;

/// Names and shapes in the making. Every tensor counts its elements up from its serial number, so
/// that a tensor can be told from any other.
#[derive(Default)]
struct Stored(BTreeMap<String, Vec<usize>>);

/// A UNet's outline: channels and transformer depth of each level.
struct Outline {
    levels: &'static [(usize, usize)],
    layers: usize,
    middle: Option<usize>,
    text: usize,
    linear: bool,
}

const SD1: Outline = Outline {
    levels: &[(32, 1), (64, 1), (64, 0)],
    layers: 2,
    middle: Some(1),
    text: 24,
    linear: false,
};
const SD2: Outline = Outline { text: 64, linear: true, ..SD1 };
const XL: Outline = Outline {
    levels: &[(32, 0), (64, 2), (128, 3)],
    layers: 2,
    middle: Some(3),
    text: 88,
    linear: true,
};

impl Stored {
    fn put(&mut self, name: &str, shape: &[usize]) {
        self.0.insert(name.to_owned(), shape.to_vec());
    }

    /// A layer with weight and bias.
    fn layer(&mut self, name: &str, shape: &[usize]) {
        self.put(&format!("{name}.weight"), shape);
        self.put(&format!("{name}.bias"), &shape[..1]);
    }

    fn resnet(&mut self, name: &str, (from, to): (usize, usize)) {
        self.layer(&format!("{name}.in_layers.0"), &[from]);
        self.layer(&format!("{name}.in_layers.2"), &[to, from, 3, 3]);
        self.layer(&format!("{name}.emb_layers.1"), &[to, 8]);
        self.layer(&format!("{name}.out_layers.0"), &[to]);
        self.layer(&format!("{name}.out_layers.3"), &[to, to, 3, 3]);
        if from != to {
            self.layer(&format!("{name}.skip_connection"), &[to, from, 1, 1]);
        }
    }

    fn attention(&mut self, name: &str, outline: &Outline, (channels, depth): (usize, usize)) {
        let square: &[usize] =
            if outline.linear { &[channels, channels] } else { &[channels, channels, 1, 1] };
        self.layer(&format!("{name}.norm"), &[channels]);
        self.layer(&format!("{name}.proj_in"), square);
        self.layer(&format!("{name}.proj_out"), square);
        for block in 0..depth {
            let block = format!("{name}.transformer_blocks.{block}");
            self.put(&format!("{block}.attn1.to_k.weight"), &[channels, channels]);
            self.put(&format!("{block}.attn2.to_k.weight"), &[channels, outline.text]);
        }
    }

    fn unet(&mut self, outline: &Outline) {
        let prefix = "model.diffusion_model";
        self.layer(&format!("{prefix}.time_embed.0"), &[8, 32]);
        self.layer(&format!("{prefix}.time_embed.2"), &[8, 8]);
        self.layer(&format!("{prefix}.input_blocks.0.0"), &[outline.levels[0].0, 4, 3, 3]);
        self.layer(&format!("{prefix}.out.0"), &[outline.levels[0].0]);
        self.layer(&format!("{prefix}.out.2"), &[4, outline.levels[0].0, 3, 3]);
        let (mut number, mut before) = (1, outline.levels[0].0);
        for (i, &(channels, depth)) in outline.levels.iter().enumerate() {
            for _ in 0..outline.layers {
                let block = format!("{prefix}.input_blocks.{number}");
                self.resnet(&format!("{block}.0"), (before, channels));
                if depth > 0 {
                    self.attention(&format!("{block}.1"), outline, (channels, depth));
                }
                (number, before) = (number + 1, channels);
            }
            if i + 1 < outline.levels.len() {
                let down = format!("{prefix}.input_blocks.{number}.0.op");
                self.layer(&down, &[channels, channels, 3, 3]);
                number += 1;
            }
        }
        if let Some(depth) = outline.middle {
            self.resnet(&format!("{prefix}.middle_block.0"), (before, before));
            self.attention(&format!("{prefix}.middle_block.1"), outline, (before, depth));
            self.resnet(&format!("{prefix}.middle_block.2"), (before, before));
        }
        self.way_up(prefix, outline);
    }

    fn way_up(&mut self, prefix: &str, outline: &Outline) {
        let mut number = 0;
        for (i, &(channels, depth)) in outline.levels.iter().enumerate().rev() {
            for layer in 0..=outline.layers {
                let block = format!("{prefix}.output_blocks.{number}");
                self.resnet(&format!("{block}.0"), (2 * channels, channels));
                if depth > 0 {
                    self.attention(&format!("{block}.1"), outline, (channels, depth));
                }
                if layer == outline.layers && i > 0 {
                    let place = if depth > 0 { 2 } else { 1 };
                    let up = format!("{block}.{place}.conv");
                    self.layer(&up, &[channels, channels, 3, 3]);
                }
                number += 1;
            }
        }
    }

    fn vae(&mut self, prefix: &str) {
        for half in ["encoder", "decoder"] {
            let name = |part: &str| format!("{prefix}{half}.{part}");
            let outside = if half == "encoder" {
                ([32, 3, 3, 3], [8, 64, 3, 3])
            } else {
                ([64, 4, 3, 3], [3, 32, 3, 3])
            };
            self.layer(&name("conv_in"), &outside.0);
            self.layer(&name("conv_out"), &outside.1);
            self.layer(&name("norm_out"), &[outside.1[1]]);
            for part in ["q", "k", "v", "proj_out"] {
                self.layer(&name(&format!("mid.attn_1.{part}")), &[64, 64, 1, 1]);
            }
            self.layer(&name("mid.attn_1.norm"), &[64]);
            for block in ["block_1", "block_2"] {
                self.layer(&name(&format!("mid.{block}.conv1")), &[64, 64, 3, 3]);
            }
            let (levels, layers, sampler) =
                if half == "encoder" { ("down", 2, "downsample") } else { ("up", 3, "upsample") };
            for (level, channels) in [(0, 32), (1, 64)] {
                for layer in 0..layers {
                    let block = name(&format!("{levels}.{level}.block.{layer}.conv2"));
                    self.layer(&block, &[channels, channels, 3, 3]);
                }
            }
            let sampled = usize::from(half == "decoder");
            let sampler = name(&format!("{levels}.{sampled}.{sampler}.conv"));
            self.layer(&sampler, &[32, 32, 3, 3]);
        }
        self.layer(&format!("{prefix}quant_conv"), &[8, 8, 1, 1]);
        self.layer(&format!("{prefix}post_quant_conv"), &[4, 4, 1, 1]);
    }

    fn clip(&mut self, prefix: &str, width: usize) {
        self.put(&format!("{prefix}embeddings.token_embedding.weight"), &[10, width]);
        self.put(&format!("{prefix}embeddings.position_embedding.weight"), &[7, width]);
        self.layer(&format!("{prefix}encoder.layers.0.mlp.fc1"), &[4 * width, width]);
        self.layer(&format!("{prefix}encoder.layers.1.mlp.fc1"), &[4 * width, width]);
        self.layer(&format!("{prefix}final_layer_norm"), &[width]);
    }

    fn open_clip(&mut self, prefix: &str, width: usize) {
        self.put(&format!("{prefix}token_embedding.weight"), &[10, width]);
        self.put(&format!("{prefix}positional_embedding"), &[7, width]);
        self.put(&format!("{prefix}text_projection"), &[width, 16]);
        self.put(&format!("{prefix}logit_scale"), &[]);
        self.layer(&format!("{prefix}ln_final"), &[width]);
        for layer in 0..3 {
            let layer = format!("{prefix}transformer.resblocks.{layer}");
            self.put(&format!("{layer}.attn.in_proj_weight"), &[3 * width, width]);
            self.put(&format!("{layer}.attn.in_proj_bias"), &[3 * width]);
            self.layer(&format!("{layer}.attn.out_proj"), &[width, width]);
            self.layer(&format!("{layer}.mlp.c_fc"), &[4 * width, width]);
            self.layer(&format!("{layer}.mlp.c_proj"), &[width, 4 * width]);
            self.layer(&format!("{layer}.ln_1"), &[width]);
            self.layer(&format!("{layer}.ln_2"), &[width]);
        }
    }

    fn checkpoint(&self) -> Checkpoint {
        let view = |(serial, (name, shape)): (usize, (&String, &Vec<usize>))| {
            let count: usize = shape.iter().product();
            let values: Vec<f32> = (0..count).map(|i| (serial * 1000 + i) as f32).collect();
            (name.clone(), TensorView::from_f32(shape, &values))
        };
        Checkpoint::from_views("example", self.0.iter().enumerate().map(view))
    }
}

fn family_example(family: Family) -> Stored {
    let mut stored = Stored::default();
    stored.vae("first_stage_model.");
    match family {
        Family::StableDiffusion1 => {
            stored.unet(&SD1);
            stored.clip("cond_stage_model.transformer.text_model.", 24);
        }
        Family::StableDiffusion2 => {
            stored.unet(&SD2);
            stored.open_clip("cond_stage_model.model.", 64);
        }
        Family::StableDiffusionXl => {
            stored.unet(&XL);
            stored.layer("model.diffusion_model.label_emb.0.0", &[8, 16 + 6 * 4]);
            stored.layer("model.diffusion_model.label_emb.0.2", &[8, 8]);
            stored.clip("conditioner.embedders.0.transformer.text_model.", 24);
            stored.open_clip("conditioner.embedders.1.model.", 64);
        }
    }
    stored
}

fn apart(stored: &Stored) -> Result<SingleFile, Error> {
    let notes = scheduler::Notes { file_name: "example", metadata: &BTreeMap::new() };
    SingleFile::take_apart(&stored.checkpoint(), &notes, Options::default())
}

/// That each named tensor of `component` holds what the stored one of the other name holds.
fn assert_pairs(stored: &Stored, component: &Component, pairs: &[(&str, &str)]) {
    let original = stored.checkpoint();
    for (new, old) in pairs {
        let found = component.checkpoint.tensor(new).unwrap().to_f32();
        assert_eq!(found, original.tensor(old).unwrap().to_f32(), "{new} from {old}");
    }
}

/// That `config` has these fields.
fn assert_fields(config: &Value, fields: &Value) {
    for (name, value) in fields.as_object().unwrap() {
        assert_eq!(&config[name], value, "{name}");
    }
}

#[test]
fn sd1_is_taken_apart() {
    let stored = family_example(Family::StableDiffusion1);
    let model = apart(&stored).unwrap();
    assert_eq!((model.family, model.unread.len()), (Family::StableDiffusion1, 0));
    assert_fields(
        &model.unet.config,
        &json!({
            "in_channels": 4, "out_channels": 4, "layers_per_block": 2,
            "block_out_channels": [32, 64, 64],
            "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
            "mid_block_type": "UNetMidBlock2DCrossAttn",
            "cross_attention_dim": 24, "attention_head_dim": 8, "use_linear_projection": false,
            "transformer_layers_per_block": 1, "norm_num_groups": 32,
            "reverse_transformer_layers_per_block": null, "addition_embed_type": null,
        }),
    );
    let p = |name: &str| format!("model.diffusion_model.{name}");
    assert_pairs(
        &stored,
        &model.unet,
        &[
            ("conv_in.weight", &p("input_blocks.0.0.weight")),
            ("time_embedding.linear_2.bias", &p("time_embed.2.bias")),
            ("down_blocks.0.resnets.1.conv1.weight", &p("input_blocks.2.0.in_layers.2.weight")),
            ("down_blocks.0.downsamplers.0.conv.weight", &p("input_blocks.3.0.op.weight")),
            (
                "down_blocks.1.resnets.0.conv_shortcut.bias",
                &p("input_blocks.4.0.skip_connection.bias"),
            ),
            ("down_blocks.2.resnets.1.norm2.weight", &p("input_blocks.8.0.out_layers.0.weight")),
            (
                "down_blocks.1.attentions.1.transformer_blocks.0.attn2.to_k.weight",
                &p("input_blocks.5.1.transformer_blocks.0.attn2.to_k.weight"),
            ),
            ("mid_block.resnets.1.time_emb_proj.weight", &p("middle_block.2.emb_layers.1.weight")),
            ("mid_block.attentions.0.proj_in.weight", &p("middle_block.1.proj_in.weight")),
            ("up_blocks.0.upsamplers.0.conv.weight", &p("output_blocks.2.1.conv.weight")),
            ("up_blocks.1.upsamplers.0.conv.weight", &p("output_blocks.5.2.conv.weight")),
            ("up_blocks.2.resnets.2.conv2.weight", &p("output_blocks.8.0.out_layers.3.weight")),
            ("up_blocks.2.attentions.0.norm.bias", &p("output_blocks.6.1.norm.bias")),
            ("conv_norm_out.weight", &p("out.0.weight")),
        ],
    );
    let text = &model.text_encoders[0];
    assert_fields(&text.config, &json!({"hidden_act": "quick_gelu", "num_hidden_layers": 2}));
    let name = "text_model.encoder.layers.1.mlp.fc1.bias";
    assert_pairs(&stored, text, &[(name, &format!("cond_stage_model.transformer.{name}"))]);
    assert_fields(
        &model.scheduler,
        &json!({"_class_name": "PNDMScheduler", "prediction_type": "epsilon"}),
    );
}

#[test]
fn sd2_reads_text_before_the_last_layer() {
    let stored = family_example(Family::StableDiffusion2);
    let model = apart(&stored).unwrap();
    assert_eq!(model.family, Family::StableDiffusion2);
    let text = &model.text_encoders[0];
    assert_fields(
        &text.config,
        &json!({
            "architectures": ["CLIPTextModel"], "hidden_act": "gelu", "num_hidden_layers": 2,
            "hidden_size": 64, "num_attention_heads": 1, "intermediate_size": 256,
        }),
    );
    let fused = stored
        .checkpoint()
        .tensor("cond_stage_model.model.transformer.resblocks.1.attn.in_proj_weight")
        .unwrap()
        .to_f32();
    let key =
        text.checkpoint.tensor("text_model.encoder.layers.1.self_attn.k_proj.weight").unwrap();
    assert_eq!(key.to_f32(), fused[64 * 64..2 * 64 * 64]);
    assert!(!text.checkpoint.names().any(|name| name.contains("layers.2.")));
    assert!(model.unread.iter().any(|name| name.ends_with("logit_scale")));
    assert_fields(&model.unet.config, &json!({"attention_head_dim": [1, 2, 2]}));
    assert_fields(&model.scheduler, &json!({"prediction_type": "v_prediction"}));
}

#[test]
fn sdxl_has_two_text_encoders_and_sizes() {
    let stored = family_example(Family::StableDiffusionXl);
    let model = apart(&stored).unwrap();
    assert_eq!(model.text_encoders.len(), 2);
    assert_fields(
        &model.unet.config,
        &json!({
            "transformer_layers_per_block": [1, 2, 3], "addition_embed_type": "text_time",
            "addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 40,
            "attention_head_dim": [1, 1, 2],
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "use_linear_projection": true,
        }),
    );
    let second = &model.text_encoders[1];
    assert_fields(
        &second.config,
        &json!({
            "architectures": ["CLIPTextModelWithProjection"], "num_hidden_layers": 3,
            "projection_dim": 16,
        }),
    );
    let projection = second.checkpoint.tensor("text_projection.weight").unwrap();
    let stored_projection =
        stored.checkpoint().tensor("conditioner.embedders.1.model.text_projection").unwrap();
    assert_eq!(projection.shape, [16, 64]);
    assert_eq!(projection.to_f32()[1], stored_projection.to_f32()[16]);
    assert_fields(&model.vae.config, &json!({"scaling_factor": 0.13025}));
    assert_fields(&model.index, &json!({"force_zeros_for_empty_prompt": true}));
}

#[test]
fn autoencoders_are_read_in_any_layout() {
    let mut stored = Stored::default();
    stored.vae("");
    let folder = tempfile::tempdir().unwrap();
    let open = |checkpoint: &Checkpoint| {
        let path = folder.path().join("vae.safetensors");
        save(checkpoint, &path);
        open_vae(&path, Family::StableDiffusion1).unwrap()
    };
    let original = open(&stored.checkpoint());
    assert_fields(
        &original.config,
        &json!({
            "block_out_channels": [32, 64], "layers_per_block": 2, "latent_channels": 4,
            "in_channels": 3, "scaling_factor": 0.18215, "use_quant_conv": true,
            "mid_block_add_attention": true, "norm_num_groups": 32,
        }),
    );
    assert_pairs(
        &stored,
        &original,
        &[
            ("decoder.up_blocks.0.resnets.2.conv2.weight", "decoder.up.1.block.2.conv2.weight"),
            ("decoder.up_blocks.0.upsamplers.0.conv.bias", "decoder.up.1.upsample.conv.bias"),
            ("encoder.down_blocks.1.resnets.0.conv2.bias", "encoder.down.1.block.0.conv2.bias"),
            (
                "encoder.down_blocks.0.downsamplers.0.conv.bias",
                "encoder.down.0.downsample.conv.bias",
            ),
            (
                "decoder.mid_block.attentions.0.to_out.0.weight",
                "decoder.mid.attn_1.proj_out.weight",
            ),
            ("decoder.mid_block.attentions.0.group_norm.weight", "decoder.mid.attn_1.norm.weight"),
        ],
    );
    let query = "decoder.mid_block.attentions.0.to_q.weight";
    assert_eq!(original.checkpoint.shape(query), Some(&[64, 64][..]));
    let again = open(&original.checkpoint);
    assert_eq!(again.config, original.config);
    assert!(again.checkpoint.names().eq(original.checkpoint.names()));
}

/// Writes `checkpoint` as one file.
fn save(checkpoint: &Checkpoint, path: &Path) {
    let views: Vec<_> =
        checkpoint.names().map(|name| (name, checkpoint.tensor(name).unwrap())).collect();
    let mut header = serde_json::Map::new();
    let mut data: Vec<u8> = Vec::new();
    for (name, view) in &views {
        let start = data.len();
        data.extend_from_slice(view.bytes());
        let place = [start, data.len()];
        let entry = json!({"dtype": "F32", "shape": view.shape, "data_offsets": place});
        header.insert((*name).to_owned(), entry);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let file = [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat();
    std::fs::write(path, file).unwrap();
}

/// Every file of `testdata/single` as networks: nothing missing, nothing left over.
#[test]
fn whole_files_become_networks() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/single");
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let model = SingleFile::open(&entry.unwrap().path(), Options::default()).unwrap();
        let leftover = |component: &Component,
                        load: &dyn Fn(&Params) -> Result<(), crate::Error>| {
            let params = Params::new(&component.checkpoint);
            load(&params).unwrap();
            params.unread()
        };
        let unet = leftover(&model.unet, &|params| {
            let config = crate::unet::Config::read(&model.unet.config)?;
            crate::unet::UNet::load(params, &config).map(drop)
        });
        let vae = leftover(&model.vae, &|params| {
            let config = crate::vae::Config::read(&model.vae.config)?;
            crate::vae::Encoder::load(params, &config)?;
            crate::vae::Decoder::load(params, &config).map(drop)
        });
        assert_eq!((unet, vae), (vec![], vec![]));
        for encoder in &model.text_encoders {
            let text = leftover(encoder, &|params| {
                let config = crate::clip::TextConfig::read(&encoder.config)?;
                crate::clip::TextModel::load(params, &config).map(drop)
            });
            assert_eq!(text, Vec::<String>::new());
        }
        files += 1;
    }
    assert!(files > 0, "no files to read");
}

#[test]
fn uneven_networks_keep_their_shape() {
    let mut stored = family_example(Family::StableDiffusionXl);
    let dropped = ["middle_block.", "output_blocks.1.1.transformer_blocks.2."];
    stored.0.retain(|name, _| !dropped.iter().any(|part| name.contains(part)));
    let config = apart(&stored).unwrap().unet.config;
    assert_fields(
        &config,
        &json!({
            "mid_block_type": null, "transformer_layers_per_block": [1, 2, 3],
            "reverse_transformer_layers_per_block": [[3, 2, 3], 2, 0],
        }),
    );
}

#[test]
fn notes_and_options_decide_what_names_cannot() {
    let stored = family_example(Family::StableDiffusion2).checkpoint();
    let scheduler = |file_name: &str, note: Option<&str>, prediction: Option<Prediction>| {
        let note = note.map(|note| ("modelspec.prediction_type".to_owned(), note.to_owned()));
        let notes = scheduler::Notes { file_name, metadata: &note.into_iter().collect() };
        SingleFile::take_apart(&stored, &notes, Options { prediction }).unwrap().scheduler
    };
    let turbo = scheduler("sd_turbo", None, None);
    assert_fields(&turbo, &json!({"prediction_type": "epsilon", "timestep_spacing": "trailing"}));
    assert_eq!(scheduler::sample_size(Family::StableDiffusion2, &turbo), 64);
    assert_eq!(
        apart(&family_example(Family::StableDiffusion2)).unwrap().unet.config["sample_size"],
        96
    );
    let noted = scheduler("x", Some("epsilon"), None);
    assert_fields(&noted, &json!({"prediction_type": "epsilon", "timestep_spacing": "leading"}));
    let told = scheduler("x", Some("epsilon"), Some(Prediction::Velocity));
    assert_fields(&told, &json!({"prediction_type": "v_prediction"}));
}

#[test]
fn other_files_are_refused_by_name() {
    let mut refiner = family_example(Family::StableDiffusionXl);
    refiner.0.retain(|name, _| !name.contains("embedders.1."));
    let mut flux = Stored::default();
    flux.put("double_blocks.0.img_attn.proj.weight", &[1]);
    let mut textless = family_example(Family::StableDiffusion1);
    textless.0.retain(|name, _| !name.starts_with("cond_stage"));
    let mut blind = family_example(Family::StableDiffusion1);
    blind.0.retain(|name, _| !name.starts_with("first_stage"));
    let mut short = family_example(Family::StableDiffusion1);
    short.0.remove("model.diffusion_model.out.2.weight");
    for (stored, part) in [
        (refiner, "refiner"),
        (flux, "Flux"),
        (textless, "no text encoder"),
        (blind, "no autoencoder"),
        (short, "no tensor `model.diffusion_model.out.2.weight`"),
        (Stored::default(), "not a Stable Diffusion checkpoint"),
    ] {
        let error = apart(&stored).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}
