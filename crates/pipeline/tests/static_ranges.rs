//! Ranges that are known before: what they cost, and what keeping a text's first token out of them gives.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::Path;

use pipeline::calibrate::Calibrator;
use pipeline::model::Extras;
use pipeline::probe::{Layer, Look, Probe};
use pipeline::prompt::Prompt;
use pipeline::{FirstToken, Known, Model, Plan, Request, TextToImage, Watch, pack};
use quant::calibration::{self, Calibration, Rule};
use quant::metrics::Noise;
use tensor::file::{Checkpoint, Delta, TensorView};
use tensor::{Control, Cpu, Halves, LayerFormat, Precision, Span};

fn open(name: &str) -> Model {
    let pipelines = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/pipelines");
    Model::open(&pipelines.join(name), &Extras::default()).unwrap()
}

/// A small random pipeline whose encoders make the first token of a text `factor` times as large, and whose projections to
/// keys and values have learned to look past it, as those of trained models have.
fn with_large_first_token(factor: f32) -> Model {
    let mut model = open("tiny-sdxl-turbo");
    let mut direction = Vec::new();
    for encoder in &mut model.encoders {
        // What configurations say of it is not always true.
        let empty = encoder.tokenizer.encode(&Prompt::weighted("")).unwrap();
        let (weights, first) = (&mut encoder.component.weights, empty.ids[0] as usize);
        let named = |name: &&str| name.ends_with("token_embedding.weight");
        let table = weights.names().find(named).unwrap().to_owned();
        let view = weights.tensor(&table).unwrap();
        let (entries, channels) = (view.shape[0], view.shape[1]);
        let row = view.to_f32()[first * channels..][..channels].to_vec();
        let mut chosen = vec![0.0; entries];
        chosen[first] = 1.0;
        *weights = added(weights, &table, (&chosen, &row), factor - 1.0);
        direction.extend(row);
    }
    let length = direction.iter().map(|x| x * x).sum::<f32>().sqrt();
    for x in &mut direction {
        *x /= length;
    }
    let weights = &mut model.unet.weights;
    let reads_texts =
        |name: &&str| name.ends_with("attn2.to_k.weight") || name.ends_with("attn2.to_v.weight");
    let names: Vec<String> = weights.names().filter(reads_texts).map(str::to_owned).collect();
    for name in names {
        let rows = weights.tensor(&name).unwrap().to_f32();
        let along = |row: &[f32]| row.iter().zip(&direction).map(|(w, d)| w * d).sum::<f32>();
        let along: Vec<f32> = rows.chunks_exact(direction.len()).map(along).collect();
        *weights = added(weights, &name, (&along, &direction), -1.0);
    }
    model
}

/// A weight and `scale` times the product of a column and a row.
fn added(
    weights: &Checkpoint,
    name: &str,
    (column, row): (&[f32], &[f32]),
    scale: f32,
) -> Checkpoint {
    let delta = Delta {
        up: TensorView::from_f32(&[column.len(), 1], column),
        down: TensorView::from_f32(&[1, row.len()], row),
        scale,
    };
    weights.clone().with_delta(name, delta).unwrap()
}

fn request(prompts: &[&str]) -> Request {
    Request {
        prompts: prompts.iter().map(|prompt| (*prompt).to_owned()).collect(),
        width: Some(64),
        height: Some(64),
        pictures: 1,
        ..Request::default()
    }
}

fn calibrated(model: &Model, request: &Request) -> Calibration {
    let (cpu, plan, watch) = (Cpu::detect(2), Plan::float(Precision::F32), Watch::default());
    let pipeline = TextToImage::new(&cpu, model, &plan);
    let mut calibrator = Calibrator::new(&pipeline, request, &watch).unwrap();
    let header = calibrator.header(&pipeline).unwrap();
    while calibrator.advance().unwrap() < request.total() {}
    calibrator.found(&header)
}

fn known(found: &Calibration, first_token: FirstToken, halves: Halves) -> Known {
    let of = match first_token {
        FirstToken::Float => calibration::FirstToken::Apart,
        FirstToken::AsOthers => calibration::FirstToken::AsOthers,
    };
    let ranges = found.ranges(Rule::Extremes, of).into_iter();
    let ranges = ranges.map(|(reads, [low, high])| (reads, Span::new(low, high).unwrap()));
    Known { ranges: ranges.collect(), first_token, halves }
}

/// A UNet of this scheme under real encoders and a real decoder.
fn unet(scheme: &str) -> Plan {
    Plan::float(Precision::F32).with_component("unet", scheme.parse().unwrap())
}

fn latents(model: &Model, plan: &Plan, request: &Request) -> Vec<Vec<f32>> {
    let cpu = Cpu::detect(2);
    TextToImage::new(&cpu, model, plan).latents(request, &Watch::default()).unwrap()
}

/// Decibels over all pictures.
fn sqnr(reference: &[Vec<f32>], found: &[Vec<f32>]) -> f64 {
    let mut noise = Noise::default();
    reference.iter().zip(found).for_each(|(reference, found)| noise.add(reference, found));
    noise.sqnr()
}

/// As in the real encoder, the first token is 50 to 80 times as large as the rest. Then a range that holds it leaves two or
/// three codes to all other tokens, and the prompt is lost.
#[test]
fn a_large_first_token_ruins_naive_ranges_and_no_others() {
    let drawn =
        request(&["a fox", "a house by the sea", "two red boats", "the old man", "blue", "x"]);
    // What is added to a large token on its way through an encoder is small beside it.
    let ratio = |model: &Model| calibrated(model, &drawn).first_token_ratio().unwrap();
    let rough = 1e4;
    let model = with_large_first_token(rough * 65.0 / ratio(&with_large_first_token(rough)) as f32);
    let found = calibrated(&model, &drawn);
    let ratio = found.first_token_ratio().unwrap();
    assert!((50.0..80.0).contains(&ratio), "the first token is {ratio:.1} times as large");
    let real = latents(&model, &Plan::float(Precision::F32), &drawn);
    let of = |plan: Plan| sqnr(&real, &latents(&model, &plan, &drawn));
    let fixed = |first_token, halves| {
        of(unet("w8a8s").with_known("unet", known(&found, first_token, halves)))
    };
    let naive = fixed(FirstToken::AsOthers, Halves::Together);
    let aware = fixed(FirstToken::Float, Halves::Together);
    let split = fixed(FirstToken::Float, Halves::Apart);
    let dynamic = of(unet("w8a8"));
    let known = Known { first_token: FirstToken::Float, ..Known::default() };
    let exact = of(unet("w8a8").with_known("unet", known));
    println!(
        "first token x{ratio:.0}: naive {naive:.1} dB, aware {aware:.1} dB, split {split:.1} dB, \
         dynamic {dynamic:.1} dB, dynamic and aware {exact:.1} dB"
    );
    assert!(naive < aware - 10.0, "naive {naive:.1} dB, aware {aware:.1} dB");
    assert!(naive < dynamic - 3.0, "naive {naive:.1} dB, dynamic {dynamic:.1} dB");
    assert!(aware > dynamic - 3.0, "aware {aware:.1} dB, dynamic {dynamic:.1} dB");
    assert!(split > dynamic - 3.0, "split {split:.1} dB, dynamic {dynamic:.1} dB");
    // A large token makes the error of rounded weights large, too, whatever its range.
    assert!(exact > dynamic + 3.0, "aware {exact:.1} dB, dynamic {dynamic:.1} dB");
}

#[test]
fn a_packed_model_with_known_ranges_draws_what_the_original_draws() {
    let model = open("tiny-sdxl-turbo");
    let drawn = request(&["a fox", ""]);
    let guided = Request { guidance: Some(3.0), negative: Some("blurry".into()), ..drawn.clone() };
    let zeros = Request { negative: None, ..guided.clone() };
    let found = calibrated(&model, &drawn);
    for (scheme, precision) in [("w8a8s", Precision::F32), ("w4a8s", Precision::Bf16)] {
        let known = known(&found, FirstToken::Float, Halves::Apart);
        let dynamic = scheme.trim_end_matches('s').parse().unwrap();
        let plan = Plan::uniform(dynamic, precision)
            .with_component("unet", scheme.parse().unwrap())
            .with_known("unet", known);
        let out = (Vec::new(), &Control::default());
        let bytes = pack::pack(&model, &plan, &Cpu::detect(2), out).unwrap();
        let again = (Vec::new(), &Control::default());
        assert!(bytes == pack::pack(&model, &plan, &Cpu::detect(1), again).unwrap());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let packed = Model::open(file.path(), &Extras::default()).unwrap();
        let stored = packed.packed.as_ref().unwrap().plan.clone().with_precision(precision);
        for request in [&drawn, &guided, &zeros] {
            let (own, theirs) =
                (latents(&packed, &stored, request), latents(&model, &plan, request));
            match precision {
                Precision::F32 => assert_eq!(own, theirs),
                // First tokens that are stored are those of encoders in single precision, and codes amplify the difference.
                Precision::Bf16 => {
                    let real = latents(&model, &Plan::float(Precision::F32), request);
                    let [own, theirs] = [&own, &theirs].map(|found| sqnr(&real, found));
                    assert!((own - theirs).abs() < 3.0, "{own:.1} dB and {theirs:.1} dB");
                }
            }
        }
    }
}

#[test]
fn plans_without_ranges_are_refused() {
    let model = open("tiny-sdxl-turbo");
    let fault = |plan: &Plan| plan.check(&model).unwrap_err();
    assert!(fault(&unet("w8a8s")).contains("has a static scheme and no range"));
    let vae = Plan::float(Precision::F32).with_component("vae", "w8a8s".parse().unwrap());
    assert!(fault(&vae).contains("only layers of the unet"));
    let all = Plan::uniform("w8a8s".parse().unwrap(), Precision::F32);
    assert!(fault(&all).contains("only layers of the unet"));
    let found = calibrated(&model, &request(&["a fox"]));
    let mut known = known(&found, FirstToken::Float, Halves::Apart);
    let plan = |known: &Known| unet("w8a8s").with_known("unet", known.clone());
    plan(&known).check(&model).unwrap();
    known.ranges.insert("conv_no".into(), Span::new(0.0, 1.0).unwrap());
    assert!(fault(&plan(&known)).contains("`conv_no`, which is no layer"));
}

/// The search sees what formats do to words, not what they do to a token that is real in the end.
#[test]
fn formats_of_what_reads_texts_are_judged_without_first_tokens() {
    let model = with_large_first_token(64.0);
    let (cpu, watch) = (Cpu::detect(2), Watch::default());
    let worst = |first_token: FirstToken| {
        let plan = Plan::float(Precision::F32).with_first_token(first_token);
        let pipeline = TextToImage::new(&cpu, &model, &plan);
        let mut probe = Probe::new(&pipeline, &request(&["a fox", "a house"]), &watch).unwrap();
        let reads_texts =
            |layer: &&Layer| layer.name.contains("attn2.to_k") || layer.name.contains("attn2.to_v");
        let layers: Vec<Layer> = probe.layers().iter().filter(reads_texts).cloned().collect();
        let scheme = LayerFormat::Integer("w4a8".parse().unwrap());
        let measure = |layer: &Layer| probe.measure(layer, scheme, Look::Prediction).unwrap().sqnr;
        layers.iter().map(measure).fold(f64::INFINITY, f64::min)
    };
    let (apart, together) = (worst(FirstToken::Float), worst(FirstToken::AsOthers));
    println!("w4a8 of what reads texts: {together:.1} dB, first tokens apart {apart:.1} dB");
    assert!(apart > together + 10.0, "{together:.1} {apart:.1}");
}
