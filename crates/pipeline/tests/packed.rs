//! A packed file draws what the original draws with the same plan, whatever it was packed from.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::{Path, PathBuf};

use pipeline::model::Extras;
use pipeline::{Error, Model, Plan, Request, TextToImage, Watch, pack};
use tensor::{Control, Cpu, Precision};

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata")
}

fn packed(model: &Model, plan: &Plan) -> Vec<u8> {
    let out = (Vec::new(), &Control::default());
    pack::pack(model, plan, &Cpu::detect(2), out).unwrap()
}

/// Open packed bytes from a file that is gone afterwards; its map stays.
fn open(bytes: &[u8]) -> Result<Model, Error> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    Model::open(file.path(), &Extras::default())
}

fn latents(model: &Model, plan: &Plan, request: &Request) -> Vec<Vec<f32>> {
    let cpu = Cpu::detect(2);
    TextToImage::new(&cpu, model, plan).latents(request, &Watch::default()).unwrap()
}

fn request() -> Request {
    Request {
        prompts: vec!["a fox!".to_owned()],
        width: Some(64),
        height: Some(64),
        steps: Some(1),
        seed: 3,
        pictures: 1,
        ..Request::default()
    }
}

/// Every kind of pipeline, packed and drawn with.
fn draws_the_same(name: &str, plan: &Plan) {
    let model = Model::open(&testdata().join(name), &Extras::default()).unwrap();
    let file = open(&packed(&model, plan)).unwrap();
    let stored = file.packed.as_ref().unwrap().plan.clone().with_precision(plan.precision);
    let guided = Request { guidance: Some(3.0), negative: Some("blurry".into()), ..request() };
    for request in [request(), guided] {
        if name.contains("lcm") && request.negative.is_some() {
            continue;
        }
        let (original, packed) =
            (latents(&model, plan, &request), latents(&file, &stored, &request));
        assert_eq!(original, packed, "{name}");
    }
    assert_eq!(model.defaults(), file.defaults(), "{name}");
}

#[test]
fn a_packed_model_draws_what_the_original_draws() {
    let uniform = |scheme: &str, precision| Plan::uniform(scheme.parse().unwrap(), precision);
    draws_the_same("pipelines/tiny-sd-turbo", &uniform("w8a8", Precision::F32));
    draws_the_same("pipelines/tiny-sdxl-turbo", &uniform("w4a8", Precision::Bf16));
    draws_the_same("pipelines/tiny-sdxl-turbo", &uniform("w2a16", Precision::F32));
    let mixed = "version = 1\n[unet]\ndefault = 'w4a8'\n[unet.layers]\nconv_in = 'float'\nconv_out = 'w8a16'";
    let mixed = Plan::from_toml(mixed).unwrap().with_precision(Precision::F32);
    draws_the_same("pipelines/tiny-sd-turbo", &mixed);
}

#[test]
fn single_files_are_packed_too() {
    let folder = testdata().join("single");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let plan = Plan::uniform("w8a8".parse().unwrap(), Precision::F32);
    let mut count = 0;
    for path in files.filter(|path| path.extension().is_some_and(|e| e == "safetensors")) {
        draws_the_same(&format!("single/{}", path.file_name().unwrap().display()), &plan);
        count += 1;
    }
    assert!(count >= 3, "only {count} files");
}

#[test]
fn the_same_model_makes_the_same_bytes_with_any_number_of_threads() {
    let model =
        Model::open(&testdata().join("pipelines/tiny-sdxl-turbo"), &Extras::default()).unwrap();
    let plan = Plan::uniform("w4a8".parse().unwrap(), Precision::F32);
    let one = pack::pack(&model, &plan, &Cpu::detect(1), (Vec::new(), &Control::default()));
    assert!(one.unwrap() == packed(&model, &plan.with_precision(Precision::Bf16)));
}

#[test]
fn plans_that_do_not_fit_are_refused() {
    let model =
        Model::open(&testdata().join("pipelines/tiny-sd-turbo"), &Extras::default()).unwrap();
    let fault = |text: &str| {
        let out = (Vec::new(), &Control::default());
        let plan = Plan::from_toml(text).unwrap();
        pack::pack(&model, &plan, &Cpu::detect(1), out).unwrap_err().to_string()
    };
    let layer = fault("version = 1\n[unet]\ndefault = 'w8a8'\n[unet.layers]\nconv_no = 'w4a8'");
    assert!(layer.contains("`unet` has no layer `conv_no`"), "{layer}");
    let component = fault("version = 1\n[unit]\ndefault = 'w8a8'");
    assert!(component.contains("no component `unit`"), "{component}");
}

#[test]
fn an_output_that_fails_is_reported() {
    struct Full(usize);
    impl std::io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let model =
        Model::open(&testdata().join("pipelines/tiny-sd-turbo"), &Extras::default()).unwrap();
    let plan = Plan::uniform("w8a8".parse().unwrap(), Precision::F32);
    for room in [0, 100_000] {
        let out = (Full(room), &Control::default());
        let error = pack::pack(&model, &plan, &Cpu::detect(1), out).map(drop).unwrap_err();
        assert!(error.to_string().contains("free some space"), "{error}");
    }
}

#[test]
fn packed_weights_take_no_lora() {
    let model = Model::open(&testdata().join("pipelines/tiny-sd15"), &Extras::default()).unwrap();
    let plan = Plan::uniform("w8a8".parse().unwrap(), Precision::F32);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), packed(&model, &plan)).unwrap();
    let lora = testdata().join("lora/tiny-sd15-diffusers.safetensors");
    let extras = Extras { vae: None, loras: vec![(lora, 1.0)] };
    let error = Model::open(file.path(), &extras).unwrap_err().to_string();
    assert!(error.contains("packed already"), "{error}");
}

/// Little memory: weights are read while they are needed, pictures are denoised together, and nothing else changes.
#[test]
fn weights_that_flow_draw_the_same() {
    let cpu = Cpu::detect(2);
    for (name, scheme) in [("tiny-sdxl-turbo", "w8a8"), ("tiny-sd15", "w4a16")] {
        let plan = Plan::uniform(scheme.parse().unwrap(), Precision::Bf16);
        let model = Model::open(&testdata().join("pipelines").join(name), &Extras::default());
        let file = open(&packed(&model.unwrap(), &plan)).unwrap();
        let request = Request {
            prompts: vec!["a fox!".to_owned(), "a red house".to_owned()],
            pictures: 2,
            steps: Some(2),
            ..request()
        };
        let pipeline = TextToImage::new(&cpu, &file, &plan);
        let settings = pipeline.settings(&request).unwrap();
        let Err(Error::Room { least }) = pipeline.within(0).memory(&request, &settings) else {
            panic!("nothing fits into nothing")
        };
        let refused = pipeline.within(least - 1).memory(&request, &settings);
        assert!(matches!(refused, Err(Error::Room { least: said }) if said == least));
        let whole = pipeline.latents(&request, &Watch::default()).unwrap();
        for room in [least, least + least / 8, least + least / 2] {
            let within = pipeline.within(room);
            let parts = within.memory(&request, &settings).unwrap();
            assert!(parts.iter().all(|part| part.peak() <= room), "{name} in {room} bytes");
            assert!(room > least || parts.iter().any(|part| part.streamed > 0), "{name}");
            assert_eq!(within.latents(&request, &Watch::default()).unwrap(), whole, "{name}");
        }
    }
}
