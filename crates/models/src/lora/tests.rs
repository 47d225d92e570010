//! Corrections under every kind of name, and files that must not be half understood.

use super::*;
use proptest::prelude::*;
use tensor::file::TensorView;

const RANK: usize = 2;

/// A UNet's and a text encoder's layers of which each name form is tried.
fn component(part: Part) -> Checkpoint {
    let linear: &[(&str, &[usize])] = match part {
        Part::Unet => &[
            ("conv_in", &[4, 3, 3, 3]),
            ("time_embedding.linear_1", &[4, 3]),
            ("down_blocks.0.resnets.0.conv1", &[4, 4, 3, 3]),
            ("down_blocks.0.resnets.1.conv1", &[4, 4, 3, 3]),
            ("down_blocks.0.downsamplers.0.conv", &[4, 4, 3, 3]),
            ("down_blocks.1.resnets.0.conv1", &[4, 4, 3, 3]),
            ("down_blocks.1.resnets.1.conv1", &[4, 4, 3, 3]),
            ("down_blocks.1.attentions.0.proj_in", &[4, 4, 1, 1]),
            ("down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", &[4, 4]),
            ("down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0", &[4, 4]),
            ("down_blocks.1.attentions.1.transformer_blocks.0.attn1.to_q", &[4, 4]),
            ("mid_block.resnets.0.conv1", &[4, 4, 3, 3]),
            ("mid_block.resnets.1.conv2", &[4, 4, 3, 3]),
            ("mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj", &[4, 4]),
            ("up_blocks.0.resnets.0.conv1", &[4, 4, 3, 3]),
            ("up_blocks.0.resnets.1.conv_shortcut", &[4, 4, 1, 1]),
            ("up_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k", &[4, 6]),
            ("up_blocks.0.upsamplers.0.conv", &[4, 4, 3, 3]),
            ("up_blocks.1.resnets.0.conv1", &[4, 4, 3, 3]),
            ("up_blocks.1.upsamplers.0.conv", &[4, 4, 3, 3]),
        ],
        _ => &[
            ("text_model.encoder.layers.0.self_attn.q_proj", &[4, 4]),
            ("text_model.encoder.layers.0.self_attn.out_proj", &[4, 4]),
            ("text_model.encoder.layers.0.mlp.fc1", &[4, 4]),
            ("text_projection", &[4, 4]),
        ],
    };
    let zeros = |(name, shape): &(&str, &[usize])| {
        let count = shape.iter().product();
        (format!("{name}.weight"), TensorView::from_f32(shape, &vec![0.0; count]))
    };
    Checkpoint::from_views("model", linear.iter().map(zeros))
}

/// A file that corrects one layer of `shape` by all ones times `RANK`, under names as given.
fn file(down: &str, up: &str, alpha: Option<(&str, f32)>, shape: &[usize]) -> Checkpoint {
    let (mut down_shape, mut up_shape) = (shape.to_vec(), vec![shape[0], RANK]);
    down_shape[0] = RANK;
    up_shape.resize(shape.len(), 1);
    let ones = |shape: &[usize]| TensorView::from_f32(shape, &vec![1.0; shape.iter().product()]);
    let mut views = vec![(down.to_owned(), ones(&down_shape)), (up.to_owned(), ones(&up_shape))];
    views.extend(alpha.map(|(name, value)| (name.to_owned(), TensorView::from_f32(&[], &[value]))));
    Checkpoint::from_views("lora", views)
}

fn sorted(stored: Checkpoint) -> Result<Lora, Error> {
    Lora::sort(stored, names::Notes::default())
}

#[test]
fn every_kind_of_name_finds_its_layer() {
    let (unet, first, second) = (Part::Unet, Part::TextEncoder, Part::SecondTextEncoder);
    let attention = "down_blocks.1.attentions.0.transformer_blocks.0.attn1";
    let cases: &[(Part, &str, &str, &str)] = &[
        (unet, "unet.{}.lora_A.weight", attention, "to_q"),
        (unet, "unet.{}.lora_A.default.weight", attention, "to_q"),
        (unet, "base_model.model.{}.lora_A.weight", attention, "to_q"),
        (unet, "unet.{}.lora.down.weight", attention, "to_q"),
        (unet, "unet.{}.lora.down.weight", attention, "to_out.0"),
        (unet, "{}_lora.down.weight", &format!("{attention}.processor"), "to_q"),
        (unet, "unet.{}_lora.down.weight", &format!("{attention}.processor"), "to_out"),
        (unet, "lora_unet_{}.lora_down.weight", attention, "to_out.0"),
        (unet, "lora_unet_{}.lora_down.weight", "down_blocks.1.attentions.0", "proj_in"),
        (unet, "model.diffusion_model.{}.lora_A.weight", "input_blocks.4.1", "proj_in"),
        (unet, "diffusion_model.{}.lora_down.weight", "input_blocks.4.1", "proj_in"),
        (
            first,
            "text_encoder.{}.lora_linear_layer.down.weight",
            "text_model.encoder.layers.0.self_attn",
            "q_proj",
        ),
        (
            first,
            "text_encoder.{}_lora.down.weight",
            "text_model.encoder.layers.0.self_attn",
            "to_out",
        ),
        (first, "text_encoder.{}.lora_A.weight", "encoder.layers.0.mlp", "fc1"),
        (first, "lora_te_{}.lora_down.weight", "text_model.encoder.layers.0.mlp", "fc1"),
        (first, "lora_te1_{}.lora_down.weight", "text_model.encoder.layers.0.self_attn", "q_proj"),
        (second, "lora_te2_{}.lora_down.weight", "text_model.encoder.layers.0.self_attn", "q_proj"),
        (second, "text_encoder_2.{}.lora.down.weight", "text_model.encoder.layers.0.mlp", "fc1"),
    ];
    for (part, form, place, layer) in cases {
        let mut module = format!("{place}.{layer}");
        if form.starts_with("lora_") {
            module = module.replace('.', "_");
        }
        let down = form.replace("{}", &module);
        let up = down
            .replace("down", "up")
            .replace("lora_A", "lora_B")
            .replace("up_blocks", "down_blocks");
        let shape: &[usize] = if *layer == "proj_in" { &[4, 4, 1, 1] } else { &[4, 4] };
        let lora = sorted(file(&down, &up, None, shape)).unwrap();
        assert_eq!(lora.parts(), [*part], "{down}");
        let merged =
            lora.merge(*part, component(*part), 0.5).unwrap_or_else(|e| panic!("{down}: {e}"));
        let layer = layer.strip_suffix(".0").unwrap_or(layer).replace("to_out", "out");
        let changed: Vec<&str> = merged
            .names()
            .filter(|name| merged.tensor(name).unwrap().to_f32().iter().all(|&v| v == 1.0))
            .collect();
        assert!(changed.len() == 1 && changed[0].contains(&layer), "{down}: {changed:?}");
    }
}

#[test]
fn original_places_are_known() {
    let unet = component(Part::Unet);
    let table = Table::of(Part::Unet, &unet);
    for (original, weight) in [
        ("input_blocks_0_0", "conv_in"),
        ("time_embed_0", "time_embedding.linear_1"),
        ("input_blocks_2_0_in_layers_2", "down_blocks.0.resnets.1.conv1"),
        ("input_blocks_3_0_op", "down_blocks.0.downsamplers.0.conv"),
        ("input_blocks_4_0_in_layers_2", "down_blocks.1.resnets.0.conv1"),
        ("input_blocks_4_1_proj_in", "down_blocks.1.attentions.0.proj_in"),
        (
            "input_blocks_5_1_transformer_blocks_0_attn1_to_q",
            "down_blocks.1.attentions.1.transformer_blocks.0.attn1.to_q",
        ),
        ("middle_block_0_in_layers_2", "mid_block.resnets.0.conv1"),
        ("middle_block_2_out_layers_3", "mid_block.resnets.1.conv2"),
        (
            "middle_block_1_transformer_blocks_0_ff_net_0_proj",
            "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj",
        ),
        ("output_blocks_1_0_skip_connection", "up_blocks.0.resnets.1.conv_shortcut"),
        (
            "output_blocks_1_1_transformer_blocks_0_attn2_to_k",
            "up_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k",
        ),
        ("output_blocks_1_2_conv", "up_blocks.0.upsamplers.0.conv"),
        ("output_blocks_2_0_in_layers_2", "up_blocks.1.resnets.0.conv1"),
        ("output_blocks_2_1_conv", "up_blocks.1.upsamplers.0.conv"),
    ] {
        assert_eq!(table.weight(original), Some(&*format!("{weight}.weight")), "{original}");
    }
    assert_eq!(table.weight("input_blocks_9_0_in_layers_2"), None);
}

#[test]
fn strength_is_alpha_over_rank() {
    let names = ["lora_unet_conv_in.lora_down.weight", "lora_unet_conv_in.lora_up.weight"];
    let first = |lora: &Lora, strength| {
        let merged = lora.merge(Part::Unet, component(Part::Unet), strength).unwrap();
        merged.tensor("conv_in.weight").unwrap().to_f32()[0]
    };
    let alpha = Some(("lora_unet_conv_in.alpha", 1.0));
    let with = sorted(file(names[0], names[1], alpha, &[4, 3, 3, 3])).unwrap();
    assert_eq!(first(&with, 1.0), 1.0);
    assert_eq!(first(&with, -0.5), -0.5);
    let without = || file(names[0], names[1], None, &[4, 3, 3, 3]);
    assert_eq!(first(&sorted(without()).unwrap(), 1.0), 2.0);
    for (note, expected) in [
        (r#"{"unet.lora_alpha":4,"unet.r":2}"#, 4.0),
        (r#"{"unet.lora_alpha":4,"unet.alpha_pattern":{"conv_in":6}}"#, 6.0),
        (r#"{"text_encoder.lora_alpha":4}"#, 2.0),
        (r#"{"unet.lora_alpha":4,"unet.use_rslora":true}"#, 2.0 * 4.0 / 2.0_f32.sqrt()),
        ("not JSON", 2.0),
    ] {
        let key = "lora_adapter_metadata".to_owned();
        let notes = names::Notes::read(&[(key, note.to_owned())].into());
        assert_eq!(first(&Lora::sort(without(), notes).unwrap(), 1.0), expected, "{note}");
    }
    let broken = Some(("lora_unet_conv_in.alpha", f32::NAN));
    let lora = sorted(file(names[0], names[1], broken, &[4, 3, 3, 3])).unwrap();
    assert!(lora.merge(Part::Unet, component(Part::Unet), 1.0).is_err());
}

/// The files of `testdata/lora` hold the same corrections under diffusers' and kohya's names.
#[test]
fn whole_files_agree_under_either_name() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata");
    for (stem, pipeline) in [("tiny-sd15", "tiny-sd15"), ("tiny-sdxl", "tiny-sdxl-turbo")] {
        let open =
            |kind: &str| Lora::open(&data.join(format!("lora/{stem}-{kind}.safetensors"))).unwrap();
        let (plain, kohya) = (open("diffusers"), open("kohya"));
        assert_eq!(plain.parts(), kohya.parts());
        for part in plain.parts() {
            let folder = match part {
                Part::Unet => "unet",
                Part::TextEncoder => "text_encoder",
                Part::SecondTextEncoder => "text_encoder_2",
            };
            let base =
                Checkpoint::open(data.join("pipelines").join(pipeline).join(folder)).unwrap();
            let merged = [&plain, &kohya].map(|lora| lora.merge(part, base.clone(), 0.7).unwrap());
            let read = |checkpoint: &Checkpoint, name: &str| {
                checkpoint.tensor(name).map_or(Vec::new(), |view| view.to_f32())
            };
            let mut changed = 0;
            for name in base.names() {
                let [plain, kohya] = merged.each_ref().map(|merged| read(merged, name));
                let far = plain.iter().zip(&kohya).any(|(a, b)| (a - b).abs() > 1e-6);
                assert!(!far, "{stem}: {name}");
                changed += usize::from(plain != read(&base, name));
            }
            assert_eq!(changed, plain.layers.keys().filter(|(of, _)| *of == part).count());
        }
    }
}

#[test]
fn what_is_not_understood_is_an_error() {
    let one = |name: &str| {
        let view = TensorView::from_f32(&[1, 1], &[1.0]);
        Checkpoint::from_views("lora", [(name.to_owned(), view)])
    };
    for (name, part) in [
        ("lora_unet_conv_in.dora_scale", "DoRA"),
        ("unet.conv_in.lora_magnitude_vector", "DoRA"),
        ("lora_unet_conv_in.hada_w1_a", "LoHa"),
        ("lora_unet_conv_in.lokr_w1", "LoKr"),
        ("lora_unet_conv_in.lora_mid.weight", "third matrix"),
        ("lora_unet_conv_in.diff", "full difference"),
        ("unet.conv_in.lora_B.bias", "biases"),
        ("emb_params", "unknown meaning"),
    ] {
        let error = sorted(one(name)).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains(name), "{error}");
    }
    assert!(matches!(sorted(Checkpoint::from_views("lora", [])), Err(Error::Empty { .. })));
    let merge = |name: &str| {
        let lora = sorted(one(name)).unwrap();
        lora.merge(Part::Unet, component(Part::Unet), 1.0).unwrap_err().to_string()
    };
    let stranger = merge("lora_unet_nowhere.lora_down.weight");
    assert!(stranger.contains("`nowhere`") && stranger.contains("UNet"), "{stranger}");
    let half = merge("lora_unet_conv_in.lora_down.weight");
    assert!(half.contains("no up matrix for `conv_in`"), "{half}");
    let names = ["unet.conv_in.lora.down.weight", "unet.conv_in.lora.up.weight"];
    let misfit = sorted(file(names[0], names[1], None, &[5, 5])).unwrap();
    let error = misfit.merge(Part::Unet, component(Part::Unet), 1.0).unwrap_err().to_string();
    assert!(error.contains("`conv_in.weight`") && error.contains("does not fit"), "{error}");
    let second = sorted(one("lora_te2_text_projection.lora_up.weight")).unwrap();
    let absent = second.check(&[Part::Unet, Part::TextEncoder]).unwrap_err().to_string();
    assert!(absent.contains("second text encoder"), "{absent}");
}

proptest! {
    #[test]
    fn any_name_is_sorted_or_refused(name in r"[a-z_.0-9AB]{0,60}", ending in 0..6_usize) {
        let endings = [".lora_down.weight", ".lora_A.x.weight", ".alpha", "", ".lora_A.", "_lora.up.weight"];
        let _ = names::parse(&format!("{name}{}", endings[ending]));
    }
}
