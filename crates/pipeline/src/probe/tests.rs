//! Changed layers: resuming equals running all, and nothing changed is nothing lost.

use std::path::Path;

use quant::metrics::SAME;
use quant::sensitivity::Effect;
use tensor::{Cpu, LayerFormat, Precision, Scheme};

use super::network::{changed, real};
use super::{Layer, Look, Probe};
use crate::model::Extras;
use crate::{FirstToken, Model, Plan, Request, TextToImage, Watch};

fn with_probe(name: &str, request: &Request, test: &mut dyn FnMut(Probe<'_, '_, Cpu>)) {
    with_first_token(FirstToken::AsOthers, (name, request), test);
}

fn with_first_token(
    first_token: FirstToken,
    (name, request): (&str, &Request),
    test: &mut dyn FnMut(Probe<'_, '_, Cpu>),
) {
    let pipelines = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/pipelines");
    let model = Model::open(&pipelines.join(name), &Extras::default()).unwrap();
    let (cpu, watch) = (Cpu::detect(2), Watch::default());
    let plan = Plan::float(Precision::F32).with_first_token(first_token);
    let pipeline = TextToImage::new(&cpu, &model, &plan);
    test(Probe::new(&pipeline, request, &watch).unwrap());
}

fn request() -> Request {
    let prompts = vec!["a fox".to_owned(), "a house".to_owned()];
    let (width, height) = (Some(64), Some(64));
    Request { prompts, width, height, pictures: 1, ..Request::default() }
}

fn integers(scheme: &str) -> LayerFormat {
    LayerFormat::Integer(scheme.parse::<Scheme>().unwrap())
}

fn activations(bits: &str) -> LayerFormat {
    bits.parse().unwrap()
}

/// About this many layers of each component.
fn some(probe: &Probe<'_, '_, Cpu>, count: usize) -> Vec<Layer> {
    let mut layers = Vec::new();
    for of_component in probe.layers().chunk_by(|a, b| a.component == b.component) {
        layers.extend(of_component.iter().step_by(of_component.len().div_ceil(count)).cloned());
        layers.extend(of_component.last().cloned());
    }
    layers
}

#[test]
fn resuming_at_a_layer_equals_running_all() {
    let guided = Request { steps: Some(2), guidance: Some(3.0), ..request() };
    for (name, request) in [("tiny-sdxl-turbo", request()), ("tiny-sd15", guided)] {
        with_probe(name, &request, &mut |mut probe| {
            for (i, layer) in some(&probe, 7).iter().enumerate() {
                let formats = ["w8a8", "w4a8", "w2a16"].map(integers);
                let format = [&formats[..], &[activations("a4")]].concat()[i % 4];
                let resumed = probe.measure(layer, format, Look::Picture).unwrap();
                probe.start_anew(layer).unwrap();
                let anew = probe.measure(layer, format, Look::Picture).unwrap();
                assert_eq!(anew, resumed, "{name} {}", layer.name);
                let whole = probe.by(&|component| {
                    if component == layer.component { changed(layer, format) } else { real() }
                });
                let whole = whole.unwrap();
                let name = format!("{name} {} {}", layer.component, layer.name);
                assert!(resumed.sqnr < SAME, "{name}");
                if layer.component == "vae" {
                    // Nothing that it predicts changes.
                    assert_eq!((resumed.ssim, SAME), (whole.ssim, whole.sqnr), "{name}");
                } else {
                    assert_eq!(resumed, whole, "{name}");
                }
            }
        });
    }
}

#[test]
fn first_tokens_are_left_alone_where_they_are_to_be_real() {
    let guided = Request { steps: Some(2), guidance: Some(3.0), ..request() };
    for (name, request) in [("tiny-sdxl-turbo", request()), ("tiny-sd15", guided)] {
        let found = |first_token: FirstToken| {
            let mut found = Vec::new();
            with_first_token(first_token, (name, &request), &mut |mut probe| {
                let readers = |layer: &&Layer| {
                    layer.name.ends_with("attn2.to_k") || layer.name.ends_with("attn2.to_v")
                };
                let readers: Vec<Layer> = probe.layers().iter().filter(readers).cloned().collect();
                for layer in readers {
                    let format = integers("w2a8");
                    let alone = probe.measure(&layer, format, Look::Picture).unwrap();
                    let all = probe.by(&|component| {
                        if component == "unet" { changed(&layer, format) } else { real() }
                    });
                    // One goes on behind the layer, the other is given what it computes.
                    assert_eq!(alone, all.unwrap(), "{name} {}", layer.name);
                    found.push((alone, probe.own_error(&layer, format).unwrap()));
                }
            });
            found
        };
        let (real, rounded) = (found(FirstToken::Float), found(FirstToken::AsOthers));
        assert!(!real.is_empty() && real.len() == rounded.len());
        for ((with, own), (without, own_without)) in real.iter().zip(&rounded) {
            assert!(own > own_without && with != without, "{name} {own} {own_without}");
        }
    }
}

#[test]
fn what_weights_and_activations_lose_apart_they_lose_together() {
    with_probe("tiny-sdxl-turbo", &request(), &mut |mut probe| {
        for layer in some(&probe, 6) {
            let mut noise = |format| {
                let effect = probe.measure(&layer, format, Look::Prediction).unwrap();
                (10.0_f64).powf(-effect.sqnr / 10.0)
            };
            let (weights, rounded) = (noise(integers("w4a16")), noise(activations("a4")));
            let together = noise(integers("w4a4"));
            let ratio = (weights + rounded) / together;
            assert!((0.4..2.5).contains(&ratio), "{}: {ratio:.2}", layer.name);
        }
    });
}

#[test]
fn all_layers_of_all_components_are_there() {
    with_probe("tiny-sdxl-turbo", &request(), &mut |probe| {
        let components = probe.layers().chunk_by(|a, b| a.component == b.component);
        let names: Vec<&str> = components.map(|layers| layers[0].component).collect();
        assert_eq!(names, ["text_encoder", "text_encoder_2", "unet", "vae"]);
        let has = |component: &str, end: &str| {
            let mut layers = probe.layers().iter();
            layers.any(|layer| layer.component == component && layer.name.ends_with(end))
        };
        assert!(has("text_encoder", "mlp.fc2") && has("text_encoder_2", "text_projection"));
        assert!(has("vae", "conv_out"));
    });
}

#[test]
fn nothing_changed_is_nothing_lost() {
    with_probe("tiny-sdxl-turbo", &request(), &mut |mut probe| {
        let float = LayerFormat::Float(Precision::F32);
        let same = Effect { sqnr: SAME, ssim: Some(1.0) };
        for layer in some(&probe, 1) {
            assert_eq!(probe.measure(&layer, float, Look::Picture).unwrap(), same);
        }
        assert!(probe.rounding().unwrap().sqnr < SAME);
        // Weights of changed layers do not pile up.
        let of_unet = probe.layers().iter().filter(|layer| layer.component == "unet");
        let layers: Vec<Layer> = of_unet.cloned().collect();
        let alone = probe.measure(&layers[9], integers("w4a8"), Look::Prediction).unwrap();
        probe.measure(&layers[10], integers("w4a8"), Look::Prediction).unwrap();
        assert_eq!(probe.measure(&layers[9], integers("w4a8"), Look::Prediction).unwrap(), alone);
        let bytes = |format| probe.bytes(&layers[9], format);
        assert!(bytes(integers("w4a8")) < bytes(integers("w8a8")));
        assert!(bytes(integers("w8a8")) < bytes(LayerFormat::Float(Precision::Bf16)));
    });
}

#[test]
fn plans_are_compared_as_if_each_were_the_first() {
    with_probe("tiny-sdxl-turbo", &request(), &mut |mut probe| {
        let layer = some(&probe, 1).remove(0);
        let alone = probe.measure(&layer, integers("w4a8"), Look::Picture).unwrap();
        let [fine, coarse] = ["w8a8", "w4a8"]
            .map(|scheme| crate::Plan::uniform(scheme.parse().unwrap(), Precision::F32));
        let first = probe.compare(&fine).unwrap();
        assert!(probe.compare(&coarse).unwrap().sqnr < first.sqnr);
        assert_eq!(probe.compare(&fine).unwrap(), first);
        assert_eq!(probe.measure(&layer, integers("w4a8"), Look::Picture).unwrap(), alone);
    });
}

#[test]
fn a_glance_is_what_is_seen_of_the_first_picture() {
    let first = Request { prompts: request().prompts[..1].to_vec(), ..request() };
    let seen = |request: &Request, look: Look| {
        let mut all = Vec::new();
        with_probe("tiny-sdxl-turbo", request, &mut |mut probe| {
            for layer in some(&probe, 2) {
                let effect = probe.measure(&layer, integers("w4a8"), look).unwrap();
                all.push((layer.name, effect.sqnr));
            }
        });
        all
    };
    assert_eq!(seen(&request(), Look::Glance), seen(&first, Look::Prediction));
}

#[test]
fn own_errors_are_larger_in_fewer_bits() {
    with_probe("tiny-sdxl-turbo", &request(), &mut |mut probe| {
        for layer in some(&probe, 2) {
            let formats = ["w8a16", "w4a16"].map(integers);
            let found = formats.map(|format| probe.own_error(&layer, format).unwrap());
            assert!(found[0] > found[1] && found[0] < SAME, "{} {found:?}", layer.name);
        }
    });
}
