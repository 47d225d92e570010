//! Changed layers: resuming equals running all, and nothing changed is nothing lost.

use std::path::Path;

use quant::metrics::SAME;
use quant::sensitivity::Effect;
use tensor::graph::NodeId;
use tensor::{Cpu, LayerFormat, Precision, Scheme};

use super::{Look, Probe};
use crate::model::Extras;
use crate::{Model, Plan, Request, TextToImage, Watch};

fn with_probe(name: &str, request: &Request, test: &mut dyn FnMut(Probe<'_, '_, Cpu>)) {
    let pipelines = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/pipelines");
    let model = Model::open(&pipelines.join(name), &Extras::default()).unwrap();
    let (cpu, plan, watch) = (Cpu::detect(2), Plan::float(Precision::F32), Watch::default());
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

#[test]
fn resuming_at_a_layer_equals_running_all() {
    let guided = Request { steps: Some(2), guidance: Some(3.0), ..request() };
    for (name, request) in [("tiny-sdxl-turbo", request()), ("tiny-sd15", guided)] {
        with_probe(name, &request, &mut |mut probe| {
            let layers = probe.layers().to_vec();
            let some = layers.iter().step_by(layers.len().div_ceil(12));
            for (i, layer) in some.enumerate() {
                let format = integers(["w8a8", "w4a8", "w2a16"][i % 3]);
                let resumed = probe.measure(layer, format, Look::Picture).unwrap();
                let mut plan = probe.network.plan.clone();
                plan.layers.insert(layer.name.clone(), format);
                probe.go_to(NodeId::FIRST).unwrap();
                let whole = probe.effect(&plan, Look::Picture).unwrap();
                assert_eq!(resumed, whole, "{name} {}", layer.name);
                assert!(resumed.sqnr < SAME, "{name} {}", layer.name);
            }
        });
    }
}

#[test]
fn nothing_changed_is_nothing_lost() {
    with_probe("tiny-sdxl-turbo", &request(), &mut |mut probe| {
        let layers = probe.layers().to_vec();
        let float = LayerFormat::Float(Precision::F32);
        let same = Effect { sqnr: SAME, ssim: Some(1.0) };
        for layer in [&layers[3], &layers[20], &layers[7]] {
            assert_eq!(probe.measure(layer, float, Look::Picture).unwrap(), same);
        }
        assert!(probe.rounding().unwrap().sqnr < SAME);
        // Weights of changed layers do not pile up.
        let alone = probe.measure(&layers[9], integers("w4a8"), Look::Prediction).unwrap();
        probe.measure(&layers[10], integers("w4a8"), Look::Prediction).unwrap();
        assert_eq!(probe.measure(&layers[9], integers("w4a8"), Look::Prediction).unwrap(), alone);
        let bytes = |format| probe.bytes(&layers[9], format);
        assert!(bytes(integers("w4a8")) < bytes(integers("w8a8")));
        assert!(bytes(integers("w8a8")) < bytes(LayerFormat::Float(Precision::Bf16)));
    });
}
