//! Factors change no picture, and are where texts are read.

use std::path::Path;

use models::nn::FACTORS;
use tensor::{Cpu, Precision};

use crate::model::Extras;
use crate::moments::Gatherer;
use crate::{Model, Plan, Request, TextToImage, Watch};

#[test]
fn pictures_stay_the_same() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let (cpu, plan) = (Cpu::detect(2), Plan::float(Precision::F32));
    for name in ["models/pocket-turbo", "testdata/pipelines/tiny-sd15"] {
        let open = || Model::open(&root.join(name), &Extras::default()).unwrap();
        let (model, smooth) = (open(), open().smoothed(&cpu).unwrap());
        assert_eq!(model.fingerprint().unwrap(), smooth.fingerprint().unwrap());
        let own = |model: &Model| -> Vec<String> {
            let names = model.unet.weights.names();
            names.filter(|name| name.ends_with(FACTORS)).map(str::to_owned).collect()
        };
        assert!(own(&model).is_empty());
        let read = smooth.unet.weights.names();
        let read =
            read.filter(|name| name.contains("attn2.to_k.w") || name.contains("attn2.to_v.w"));
        assert_eq!(own(&smooth).len(), read.count(), "{name}");
        let latents = |model: &Model| {
            let request = Request {
                prompts: vec!["a fox".to_owned()],
                pictures: 1,
                steps: Some(1),
                width: Some(64),
                height: Some(64),
                ..Request::default()
            };
            TextToImage::new(&cpu, model, &plan).latents(&request, &Watch::default()).unwrap()
        };
        assert_eq!(latents(&model), latents(&smooth), "{name}");
    }
}

#[test]
fn norms_take_factors_in_where_it_is_known_what_layers_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let (cpu, plan) = (Cpu::detect(2), Plan::float(Precision::F32));
    let open = || Model::open(&root.join("models/pocket-turbo"), &Extras::default()).unwrap();
    let request = Request {
        prompts: vec!["a fox".to_owned()],
        pictures: 1,
        steps: Some(1),
        width: Some(64),
        height: Some(64),
        ..Request::default()
    };
    let model = open();
    let pipeline = TextToImage::new(&cpu, &model, &plan);
    let mut gatherer = Gatherer::new(&pipeline, &request).unwrap();
    gatherer.advance(&Watch::default()).unwrap();
    let found = gatherer.found().clone();
    let smooth = open().with_moments(found).smoothed(&cpu).unwrap();
    let changed = |layer: &str| {
        let weights = &smooth.unet.weights;
        let name = format!("up_blocks.2.attentions.1.{layer}.weight");
        weights.tensor(&name).unwrap().to_f32() != weights.unscaled(&name).unwrap().to_f32()
    };
    assert!(changed("norm") && changed("proj_in") && !changed("proj_out"));
    let latents = |model: &Model| {
        TextToImage::new(&cpu, model, &plan).latents(&request, &Watch::default()).unwrap()
    };
    assert_eq!(latents(&model), latents(&smooth));
}

#[test]
fn factors_share_what_columns_differ_by() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let cpu = Cpu::detect(2);
    let model = Model::open(&root.join("models/pocket-turbo"), &Extras::default()).unwrap();
    let layer = "up_blocks.2.attentions.1.transformer_blocks.0.attn2.to_v";
    let spread = |model: &Model| {
        let weight = model.unet.weights.tensor(&format!("{layer}.weight")).unwrap();
        let mut columns = vec![0.0_f32; weight.shape[1]];
        for row in weight.to_f32().chunks_exact(columns.len()) {
            columns.iter_mut().zip(row).for_each(|(most, x)| *most = most.max(x.abs()));
        }
        columns.sort_by(f32::total_cmp);
        columns[columns.len() - 1] / columns[columns.len() / 4]
    };
    let before = spread(&model);
    let after = spread(&model.smoothed(&cpu).unwrap());
    assert!(before > 20.0 && after < before / 3.0, "{before} {after}");
}
