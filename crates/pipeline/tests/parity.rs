//! Pictures equal to those of diffusers, for every kind of model, scheduler and option that is recorded in
//! `testdata/golden` (made by `tools/reference`): at most 2/255 at any pixel and 0.1/255 on average.
//!
//! Run with `--nocapture` to see the figures.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use pipeline::model::Extras;
use pipeline::schedule::json_with_infinities;
use pipeline::{Drawn, Model, Picture, Plan, Request, TextToImage, Watch};
use serde_json::Value;
use tensor::{Cpu, Precision};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn testdata() -> PathBuf {
    root().join("testdata")
}

/// The model that a row draws with.
fn model(row: &Value) -> Model {
    let name = row["pipeline"].as_str().unwrap();
    let places =
        ["testdata/pipelines", "testdata/single", "models"].map(|place| root().join(place));
    let place = places.into_iter().find(|place| place.join(name).exists());
    let loras = row["lora"].as_array().unwrap().iter().map(|pair| {
        let file = testdata().join("lora").join(pair[0].as_str().unwrap());
        (file, pair[1].as_f64().unwrap() as f32)
    });
    let extras = Extras { vae: None, loras: loras.collect() };
    let mut model = Model::open(&place.unwrap().join(name), &extras).unwrap();
    if row["scheduler"].is_object() {
        model.scheduler = row["scheduler"].clone();
    }
    model
}

/// What a row asks for.
fn request(row: &Value) -> Request {
    let number = |field: &str| row[field].as_u64().unwrap() as usize;
    Request {
        prompts: vec![row["prompt"].as_str().unwrap().to_owned()],
        negative: row["negative"].as_str().map(str::to_owned),
        width: Some(number("width")),
        height: Some(number("height")),
        steps: Some(number("steps")),
        guidance: Some(row["cfg"].as_f64().unwrap() as f32),
        seed: row["seed"].as_u64().unwrap(),
        pictures: number("batch"),
        clip_skip: row["clip_skip"].as_u64().unwrap_or(0) as usize,
        ..Request::default()
    }
}

fn draw(row: &Value, plan: &Plan, cpu: &Cpu) -> Vec<Picture> {
    let mut pictures = Vec::new();
    let drawn = TextToImage::new(cpu, &model(row), plan).draw(
        &request(row),
        &Watch::default(),
        &mut |drawn: Drawn<'_>| {
            pictures.push(drawn.picture);
            Ok::<(), ()>(())
        },
    );
    drawn.unwrap_or_else(|error| panic!("{row}: {error}")).unwrap();
    pictures
}

fn read_png(path: &Path) -> Picture {
    let file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut reader = png::Decoder::new(BufReader::new(file)).read_info().unwrap();
    let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut rgb).unwrap();
    Picture { width: info.width as usize, height: info.height as usize, rgb }
}

/// All rows, and the folder of their pictures.
fn rows() -> Vec<(PathBuf, Value)> {
    let golden = testdata().join("golden");
    let mut files: Vec<PathBuf> =
        fs::read_dir(&golden).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "json"));
    files.sort();
    let rows = files.iter().flat_map(|path| {
        let rows = json_with_infinities(&fs::read_to_string(path).unwrap()).unwrap();
        let folder = path.with_extension("");
        rows.as_array()
            .unwrap()
            .iter()
            .map(move |row| (folder.clone(), row.clone()))
            .collect::<Vec<_>>()
    });
    rows.collect()
}

#[test]
fn pictures_equal_those_of_diffusers() {
    let cpu = Cpu::detect(2);
    let plan = Plan::float(Precision::F32);
    let (mut worst, mut mean, mut count) = (0, 0.0_f64, 0);
    let mut faults = Vec::new();
    for (folder, row) in rows() {
        let names = row["png"].as_array().unwrap();
        let pictures = draw(&row, &plan, &cpu);
        assert_eq!(pictures.len(), names.len(), "{row}");
        for (picture, name) in pictures.iter().zip(names) {
            let expected = read_png(&folder.join(name.as_str().unwrap()));
            let (most, average) = picture.difference(&expected).expect("the same size");
            if most > 2 || average > 0.1 {
                faults.push(format!(
                    "{}/{name}: {most} at most, {average:.3} on average",
                    row["pipeline"]
                ));
            }
            (worst, mean, count) = (worst.max(most), mean.max(average), count + 1);
        }
    }
    println!("bar parity.pictures {count} pictures");
    println!("bar parity.max {worst} levels");
    println!("bar parity.mean {mean:.4} levels");
    assert!(
        faults.is_empty(),
        "{} of {count} pictures differ:\n{}",
        faults.len(),
        faults.join("\n")
    );
    assert!(count >= 60, "only {count} golden pictures");
}

#[test]
fn two_byte_numbers_keep_the_latents() {
    let median = median_sqnr(4, &Plan::float(Precision::Bf16));
    println!("bar parity.bf16 {median:.2} dB");
    assert!(median >= 30.0, "{median:.2} dB");
}

#[test]
fn integers_keep_what_they_can_of_the_latents() {
    // Random weights are the worst case: what training makes alike, they do not.
    for (scheme, least) in [("w8a8", 20.0), ("w8a16", 25.0), ("w4a8", 6.0)] {
        let plan = Plan::uniform(scheme.parse().unwrap(), Precision::F32);
        let median = median_sqnr(1, &plan);
        println!("bar integers.{scheme} {median:.2} dB");
        assert!(median >= least, "{scheme}: {median:.2} dB");
    }
}

/// The median over the golden pictures of at most `steps` steps of what a plan keeps of the latents
/// of exact arithmetic.
fn median_sqnr(steps: u64, plan: &Plan) -> f64 {
    let cpu = Cpu::detect(2);
    let mut found: Vec<f64> = Vec::new();
    for (_, row) in rows().iter().filter(|(_, row)| row["steps"].as_u64() <= Some(steps)) {
        let (model, request) = (model(row), request(row));
        let latents = |plan: &Plan| {
            TextToImage::new(&cpu, &model, plan).latents(&request, &Watch::default()).unwrap()
        };
        let exact = latents(&Plan::float(Precision::F32));
        let pairs = exact.into_iter().zip(latents(plan));
        found.extend(pairs.map(|(exact, rounded)| sqnr(&exact, &rounded)));
    }
    found.sort_by(f64::total_cmp);
    found[found.len() / 2]
}

/// `10 log₁₀(Σ exact² / Σ (rounded − exact)²)`.
fn sqnr(exact: &[f32], rounded: &[f32]) -> f64 {
    let power: f64 = exact.iter().map(|&x| f64::from(x).powi(2)).sum();
    let error: f64 = exact.iter().zip(rounded).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    10.0 * (power / error.max(1e-30)).log10()
}
