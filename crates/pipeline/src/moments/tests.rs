//! What is found is what layers read, each value once, and the same however the work is done; weights are better for it.

use std::path::Path;

use tensor::{Control, Cpu, Precision, Scheme};

use super::{Found, Gatherer};
use crate::model::Extras;
use crate::{Model, Plan, Request, TextToImage, Watch, pack};

fn model() -> Model {
    let pipelines = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/pipelines");
    Model::open(&pipelines.join("tiny-sdxl-turbo"), &Extras::default()).unwrap()
}

fn request(pictures: usize) -> Request {
    let prompts = (0..pictures).map(|i| format!("picture {i}")).collect();
    let (pictures, steps, side) = (1, Some(1), Some(64));
    Request { prompts, pictures, steps, width: side, height: side, ..Request::default() }
}

fn gathered(cpu: &Cpu, model: &Model, pictures: usize, between: impl Fn(Found) -> Found) -> Found {
    let plan = Plan::float(Precision::F32);
    let pipeline = TextToImage::new(cpu, model, &plan);
    let mut done = 0;
    let mut found = None;
    while done < pictures {
        let mut gatherer = Gatherer::new(&pipeline, &request(pictures)).unwrap();
        if let Some(found) = found {
            gatherer = gatherer.after(found);
        }
        done = gatherer.advance(&Watch::default()).unwrap();
        found = Some(between(gatherer.found().clone()));
    }
    found.unwrap()
}

#[test]
fn work_that_was_interrupted_ends_with_the_same_bytes() {
    let (cpu, model, folder) = (Cpu::detect(2), model(), tempfile::tempdir().unwrap());
    let path = folder.path().join("moments.safetensors");
    let through_file = |found: Found| {
        found.write(&path).unwrap();
        Found::read(&path).unwrap()
    };
    let whole = gathered(&cpu, &model, 10, |found| found);
    let parts = gathered(&Cpu::detect(1), &model, 10, through_file);
    assert!(whole == parts && whole.header.done == 10);
    let bytes = std::fs::read(&path).unwrap();
    whole.write(&path).unwrap();
    assert!(std::fs::read(&path).unwrap() == bytes);
}

#[test]
fn every_layer_is_seen_and_what_is_read_by_several_once() {
    let (cpu, model) = (Cpu::detect(2), model());
    let found = gathered(&cpu, &model, 1, |found| found);
    let components = found.sums.keys().map(|(component, _)| component.as_str());
    let components: std::collections::BTreeSet<&str> = components.collect();
    assert_eq!(components.len(), 4, "{components:?}");
    let (same, sums) = (&found.same, &found.sums);
    let keys = |from: &str, to: &str| {
        let ends = |name: &super::Name, end: &str| name.0 == "unet" && name.1.ends_with(end);
        same.iter().any(|(name, first)| ends(name, from) && ends(first, to))
    };
    assert!(keys("attn1.to_k", "attn1.to_q") && keys("attn1.to_v", "attn1.to_q"), "{same:?}");
    let numbers = sums.values().flat_map(tensor::moments::Moments::sums);
    assert!(numbers.copied().all(f32::is_finite));
}

#[test]
fn other_pictures_are_not_gone_on_with() {
    let (cpu, model) = (Cpu::detect(2), model());
    let plan = Plan::float(Precision::F32);
    let pipeline = TextToImage::new(&cpu, &model, &plan);
    let one = gathered(&cpu, &model, 1, |found| found);
    let other = Gatherer::new(&pipeline, &request(2)).unwrap().after(one);
    assert_eq!(other.found().header.done, 0);
}

#[test]
fn weights_are_rounded_by_what_was_found() {
    let cpu = Cpu::detect(2);
    let plan = Plan::uniform("w4a16".parse::<Scheme>().unwrap(), Precision::F32);
    let real = Plan::float(Precision::F32);
    let latents = |model: &Model, plan: &Plan| {
        let pipeline = TextToImage::new(&cpu, model, plan);
        pipeline.latents(&request(12), &Watch::default()).unwrap().concat()
    };
    let (nearest, exact) = (latents(&model(), &plan), latents(&model(), &real));
    let found = gathered(&cpu, &model(), 12, |found| found);
    let calibrated = model().with_moments(found.clone());
    // What is drawn with real numbers is as it was.
    assert_eq!(latents(&calibrated, &real), exact);
    let error =
        |latents: &[f32]| -> f32 { latents.iter().zip(&exact).map(|(a, b)| (a - b).powi(2)).sum() };
    let errors = [&nearest, &latents(&calibrated, &plan)].map(|latents| error(latents));
    assert!(errors[1] < 0.7 * errors[0], "{errors:?}");
    let bytes =
        |model: &Model| pack::pack(model, &plan, &cpu, (Vec::new(), &Control::default())).unwrap();
    let (packed, again) = (bytes(&calibrated), bytes(&model().with_moments(found)));
    assert!(packed == again && packed != bytes(&model()));
}
