//! First tokens are right in every element of a batch, for every kind of text, and never those of another model.

use std::path::Path;

use quant::calibration::{self, Rule};
use tensor::{Cpu, Held, Precision, Span};

use super::{FirstTokens, multiple, readers};
use crate::calibrate::Calibrator;
use crate::denoise::{Condition, Geometry, record};
use crate::model::Extras;
use crate::phases::Programs;
use crate::plan::{FirstToken, Known};
use crate::request::{Overflow, Phase};
use crate::stage::Stage;
use crate::{Error, Model, Plan, Request, TextToImage, Watch, memory, pack, text};

fn open(name: &str) -> Model {
    let pipelines = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/pipelines");
    Model::open(&pipelines.join(name), &Extras::default()).unwrap()
}

fn request(prompt: &str) -> Request {
    let prompts = vec![prompt.to_owned()];
    let (width, height) = (Some(64), Some(64));
    Request { prompts, width, height, pictures: 1, guidance: Some(1.0), ..Request::default() }
}

/// A static plan with ranges from one picture.
fn plan(model: &Model) -> Plan {
    let (cpu, real, watch) = (Cpu::detect(2), Plan::float(Precision::F32), Watch::default());
    let pipeline = TextToImage::new(&cpu, model, &real);
    let mut calibrator = Calibrator::new(&pipeline, &request("a fox"), &watch).unwrap();
    let header = calibrator.header(&pipeline).unwrap();
    calibrator.advance().unwrap();
    let found = calibrator.found(&header);
    let ranges = found.ranges(Rule::Extremes, calibration::FirstToken::Apart).into_iter();
    let ranges = ranges.map(|(reads, [low, high])| (reads, Span::new(low, high).unwrap()));
    let known =
        Known { ranges: ranges.collect(), first_token: FirstToken::Float, ..Known::default() };
    let scheme = "w8a8s".parse().unwrap();
    Plan::float(Precision::F32).with_component("unet", scheme).with_known("unet", known)
}

/// What a text, and a negative one before it, becomes: embeddings, tokens, and the values that are handed over by layer,
/// without and with first tokens replaced.
struct Prompted {
    texts: Vec<f32>,
    tokens: usize,
    before: Vec<Vec<f32>>,
    after: Vec<Vec<f32>>,
}

fn prompted(model: &Model, plan: &Plan, request: &Request) -> Result<Prompted, Error> {
    let (cpu, watch) = (Cpu::detect(2), Watch::default());
    let pipeline = TextToImage::new(&cpu, model, plan);
    let settings = pipeline.settings(request)?;
    let texts = text::encode(&pipeline, request, &settings, &watch)?;
    let config = models::unet::Config::read(&model.unet.config)?;
    let geometry = Geometry::new(model, &settings, texts.prompts[0].tokens);
    let recording = record(model, &config, &geometry)?;
    let programs = Programs::compile(&recording, &plan.component("unet"), &cpu);
    let condition =
        Condition::new(&texts.prompts[0], texts.negative.as_ref(), (&config, &settings));
    let mut stage = Stage::new(&pipeline, &model.unet, (Phase::Denoise, &watch));
    let load = memory::load_of_texts(1, 0);
    let mut sessions = stage.sessions(programs.prompt, load)?;
    condition.write(&mut sessions[0])?;
    let before = stage.hold(&mut sessions[0])?;
    let mut after = before.clone();
    let mut firsts = FirstTokens::new(&pipeline, &recording)?.expect("the plan wants them");
    firsts.replace(&condition, &mut after, &watch)?;
    let of_readers = |values: &[Held]| {
        let all = readers(&recording).into_iter();
        let value = |result: &str| values.iter().find(|value| value.name() == result);
        all.filter_map(|reader| value(&reader.node.to_string()).map(Held::numbers)).collect()
    };
    let (texts, tokens) = condition.texts();
    let (before, after) = (of_readers(&before), of_readers(&after));
    Ok(Prompted { texts: texts.to_vec(), tokens, before, after })
}

/// Row `row` of `rows` in each of the values.
fn rows(values: &[Vec<f32>], rows: usize, row: usize) -> Vec<Vec<f32>> {
    let of = |value: &Vec<f32>| value.chunks_exact(value.len() / rows).nth(row).unwrap().to_vec();
    values.iter().map(of).collect()
}

/// The same text alone, in real numbers.
fn real(model: &Model, request: &Request) -> Prompted {
    let known = Known { first_token: FirstToken::Float, ..Known::default() };
    let layers = std::collections::BTreeMap::new();
    let plan = Plan::float(Precision::F32).with_layers("unet", layers).with_known("unet", known);
    prompted(model, &plan, request).unwrap()
}

#[test]
fn each_element_of_a_batch_has_its_own_first_token() {
    for name in ["tiny-sdxl-turbo", "tiny-sd15"] {
        let model = open(name);
        let plan = plan(&model);
        let alone = |prompt: &str| prompted(&model, &plan, &request(prompt)).unwrap();
        let (fox, blurry) = (alone("a fox"), alone("blurry"));
        let guided =
            Request { guidance: Some(3.0), negative: Some("blurry".into()), ..request("a fox") };
        let both = prompted(&model, &plan, &guided).unwrap();
        assert!(!both.after.is_empty());
        for token in [0, 1, 2, 40, 76] {
            assert_eq!(rows(&both.after, 154, token), rows(&blurry.after, 77, token), "{name}");
            assert_eq!(rows(&both.after, 154, 77 + token), rows(&fox.after, 77, token), "{name}");
        }
        // First tokens are those of real numbers, and nothing else is touched.
        let exact = real(&model, &request("a fox"));
        assert_eq!(rows(&fox.after, 77, 0), rows(&exact.before, 77, 0), "{name}");
        assert_ne!(rows(&fox.before, 77, 0), rows(&exact.before, 77, 0), "{name}");
        for token in 1..77 {
            assert_eq!(rows(&fox.after, 77, token), rows(&fox.before, 77, token), "{name}");
        }
    }
}

#[test]
fn texts_that_say_nothing_are_right() {
    let model = open("tiny-sdxl-turbo");
    let plan = plan(&model);
    // A negative prompt that was not given is zeros in this kind of model, and so are its keys and values.
    let guided = Request { guidance: Some(3.0), ..request("a fox") };
    let both = prompted(&model, &plan, &guided).unwrap();
    let fox = prompted(&model, &plan, &request("a fox")).unwrap();
    for token in [0, 1, 76] {
        assert!(rows(&both.after, 154, token).iter().flatten().all(|x| *x == 0.0));
        assert_eq!(rows(&both.after, 154, 77 + token), rows(&fox.after, 77, token));
    }
    // An empty one that was given begins like all others.
    let empty = Request { negative: Some(String::new()), ..guided };
    let both = prompted(&model, &plan, &empty).unwrap();
    assert_eq!(rows(&both.after, 154, 0), rows(&fox.after, 77, 0));
    assert_eq!(both.texts[..72], fox.texts[..72]);
}

#[test]
fn every_part_of_a_long_text_begins_with_one() {
    let model = open("tiny-sdxl-turbo");
    let plan = plan(&model);
    let long = Request { overflow: Overflow::Chunks, ..request(&"a red fox ".repeat(40)) };
    let found = prompted(&model, &plan, &long).unwrap();
    assert!(found.tokens > 77);
    let exact = real(&model, &request("a fox"));
    for start in (0..found.tokens).step_by(77) {
        assert_eq!(rows(&found.after, found.tokens, start), rows(&exact.before, 77, 0));
    }
}

fn packed(model: &Model, plan: &Plan) -> Model {
    let out = (Vec::new(), &tensor::Control::default());
    let bytes = pack::pack(model, plan, &Cpu::detect(2), out).unwrap();
    assert_eq!(bytes.len() as u64, pack::bytes(model, plan, &Cpu::detect(2)).unwrap());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    Model::open(file.path(), &Extras::default()).unwrap()
}

#[test]
fn a_packed_model_knows_its_own_first_token_and_no_other() {
    let model = open("tiny-sdxl-turbo");
    let original = plan(&model);
    let file = packed(&model, &original);
    let plan = file.packed.as_ref().unwrap().plan.clone();
    assert!(plan.component("unet") == original.component("unet"));
    assert_eq!(plan.first_token(), FirstToken::Float);
    let own = |request: &Request| {
        // Weights of the file are in 16 bits where they are real, and so are its encoders here.
        let found = prompted(&file, &plan, request);
        found.map(|found| rows(&found.after, 77, 0))
    };
    let exact = rows(&real(&model, &request("a fox")).before, 77, 0);
    let near = |found: Vec<Vec<f32>>| {
        found
            .iter()
            .zip(&exact)
            .all(|(a, b)| multiple(b, a).is_some_and(|factor| (factor - 1.0).abs() < 0.01))
    };
    assert!(near(own(&request("a fox")).unwrap()));
    assert!(near(own(&request("")).unwrap()));
    // A weighted prompt scales all its tokens, the first one, too.
    let weighted = own(&request("a (fox:1.5)")).unwrap();
    let factor = multiple(&exact[0], &weighted[0]).unwrap();
    assert!((factor - 1.0).abs() > 1e-4);
    let found = prompted(&file, &plan, &request("a (fox:1.5)")).unwrap();
    let plain = prompted(&file, &plan, &request("a fox")).unwrap();
    let of_texts = multiple(&plain.texts[..72], &found.texts[..72]).unwrap();
    assert!((of_texts - factor).abs() < 0.01);
    // Another layer of the encoder makes another first token.
    let skipped = Request { clip_skip: 1, ..request("a fox") };
    let fault = own(&skipped).unwrap_err().to_string();
    assert!(fault.contains("--clip-skip"), "{fault}");
    // Where ranges are found while it runs, it is as good as its weights.
    let dynamic = Plan::uniform("w8a8".parse().unwrap(), Precision::F32);
    let dynamic = packed(&model, &dynamic.with_first_token(FirstToken::Float));
    let plan_of = |file: &Model| file.packed.as_ref().unwrap().plan.clone();
    let found = prompted(&dynamic, &plan_of(&dynamic), &skipped).unwrap();
    assert_eq!(found.after, found.before);
    let found = prompted(&dynamic, &plan_of(&dynamic), &request("a fox")).unwrap();
    assert_ne!(found.after, found.before);
    // The original model computes it, and the second model of a process is no different from the first.
    assert!(prompted(&model, &original, &skipped).is_ok());
    assert_eq!(own(&request("a fox")).unwrap(), own(&request("a fox")).unwrap());
}

#[test]
fn multiples_are_told_from_others() {
    let known = [3.0, -4.0, 0.5];
    assert_eq!(multiple(&known, &known), Some(1.0));
    assert_eq!(multiple(&known, &known.map(|x| 1.5 * x)), Some(1.5));
    assert!(multiple(&known, &[3.01, -4.0, 0.48]).is_some());
    assert_eq!(multiple(&known, &[3.0, 4.0, 0.5]), None);
    assert_eq!(multiple(&known, &known.map(|x| -x)), Some(-1.0));
    assert_eq!(multiple(&known, &[3.0, -4.0]), None);
}
