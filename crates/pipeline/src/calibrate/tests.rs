//! What is seen is what layers read, divided as it should be, and the same however the work is done.

use std::path::Path;

use quant::calibration::{Branch, Calibration, Seen, Tokens};
use tensor::{Cpu, Precision};

use super::Calibrator;
use crate::model::Extras;
use crate::noise::Generator;
use crate::{Model, Plan, Request, TextToImage, Watch};

fn model(name: &str) -> Model {
    let pipelines = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/pipelines");
    Model::open(&pipelines.join(name), &Extras::default()).unwrap()
}

fn request() -> Request {
    let prompts = ["a fox", "a house", "a red boat"].map(str::to_owned).into();
    Request {
        prompts,
        width: Some(64),
        height: Some(64),
        pictures: 1,
        seed: 5,
        ..Request::default()
    }
}

/// All pictures; after each of them the work is written down, dropped and read again, if `interrupted`.
fn calibrated(model: &Model, request: &Request, threads: usize, interrupted: bool) -> Calibration {
    let (cpu, plan, watch) = (Cpu::detect(threads), Plan::float(Precision::F32), Watch::default());
    let pipeline = TextToImage::new(&cpu, model, &plan);
    let mut calibrator = Calibrator::new(&pipeline, request, &watch).unwrap();
    let header = calibrator.header(&pipeline).unwrap();
    while calibrator.advance().unwrap() < request.total() {
        if interrupted {
            let text = calibrator.found(&header).to_text();
            calibrator = Calibrator::new(&pipeline, request, &watch).unwrap();
            calibrator.resume(&Calibration::from_text(&text).unwrap());
        }
    }
    calibrator.found(&header)
}

fn of<'a>(found: &'a Calibration, reads: &str) -> Vec<&'a Seen> {
    found.seen.iter().filter(|seen| seen.reads == reads).collect()
}

#[test]
fn neither_threads_nor_interruptions_change_a_byte() {
    let model = model("tiny-sdxl-turbo");
    let request = Request { steps: Some(2), ..request() };
    let once = calibrated(&model, &request, 1, false).to_text();
    assert!(once == calibrated(&model, &request, 3, false).to_text());
    assert!(once == calibrated(&model, &request, 2, true).to_text());
}

#[test]
fn the_first_layer_reads_the_noise() {
    let model = model("tiny-sdxl-turbo");
    let found = calibrated(&model, &request(), 2, false);
    let [seen] = of(&found, "conv_in")[..] else { panic!("one prediction is made") };
    let (cpu, plan) = (Cpu::detect(1), Plan::default());
    let settings = TextToImage::new(&cpu, &model, &plan).settings(&request()).unwrap();
    let sampler = settings.scheduler.sampler(settings.steps).unwrap();
    let mut expected = [f32::INFINITY, f32::NEG_INFINITY];
    for seed in 5..8 {
        let noise = Generator::new(seed).normal(4 * 8 * 8);
        let first: Vec<f32> = noise.iter().map(|x| x * sampler.init_noise_sigma()).collect();
        for x in sampler.scale_input(0, &first) {
            expected = [expected[0].min(x), expected[1].max(x)];
        }
    }
    assert_eq!(seen.observed.extremes, expected);
    assert_eq!((seen.observed.rows, seen.observed.most.len()), (3 * 64, 4));
    // Every layer of the network is there.
    let names = model.unet.weights.names().filter(|name| {
        name.ends_with(".weight") && model.unet.weights.shape(name).is_some_and(|s| s.len() > 1)
    });
    let ranges =
        found.ranges(quant::calibration::Rule::Extremes, quant::calibration::FirstToken::Apart);
    for name in names {
        assert!(ranges.contains_key(name.trim_end_matches(".weight")), "{name}");
    }
}

#[test]
fn predictions_tokens_and_halves_are_told_apart() {
    let model = model("tiny-sdxl-turbo");
    let guided = Request { guidance: Some(3.0), negative: Some("blurry".into()), ..request() };
    let found = calibrated(&model, &guided, 2, false);
    let reader = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k";
    let keys = of(&found, reader);
    let parts: Vec<_> = keys.iter().map(|s| (s.branch, s.tokens, s.observed.rows)).collect();
    assert_eq!(
        parts,
        [
            (Branch::Negative, Tokens::First, 3),
            (Branch::Negative, Tokens::Others, 3 * 76),
            (Branch::Text, Tokens::First, 3),
            (Branch::Text, Tokens::Others, 3 * 76),
        ]
    );
    // All texts begin alike.
    assert_eq!(keys[0].observed.extremes, keys[2].observed.extremes);
    assert_eq!(keys[2].observed.extremes, keys[2].observed.average.unwrap());
    assert_ne!(keys[1].observed.extremes, keys[3].observed.extremes);
    // A prompt that was not given is zeros in this kind of model.
    let zeros = Request { negative: None, ..guided };
    let found = calibrated(&model, &zeros, 2, false);
    assert_eq!(of(&found, reader)[0].observed.extremes, [0.0, 0.0]);

    let shortcut = "up_blocks.0.resnets.0.conv_shortcut";
    let halves: Vec<_> = found.seen.iter().filter(|s| s.reads.starts_with(shortcut)).collect();
    assert_eq!(halves.len(), 4);
    let [first, .., last] = &halves[..] else { panic!("halves for each prediction") };
    assert_eq!(first.reads, format!("{shortcut}:0-24"));
    assert!(last.reads.starts_with(&format!("{shortcut}:24-")));
    assert!(of(&found, "down_blocks.1.resnets.0.conv1").len() == 2);
}
