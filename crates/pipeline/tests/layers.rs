//! Single layers of packed models against PyTorch on the file's own weights (`tools/reference/layers.py`).

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::{Path, PathBuf};

use models::Params;
use models::nn::{Bias, Linear};
use pipeline::model::Extras;
use pipeline::{Model, Plan, pack};
use tensor::file::{Checkpoint, TensorView};
use tensor::graph::Padding;
use tensor::{
    Control, Cpu, CpuWeights, Device, Graph, Precision, Program, Scheme, Session, Shape, Weight,
};

const SCHEMES: [&str; 6] = ["w8a8", "w4a8", "w2a8", "w8a16", "w4a16", "w8a4"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The bundled model, packed in one scheme.
fn packed(scheme: Scheme, cpu: &Cpu, folder: &Path) -> Model {
    let model = Model::open(&root().join("models/pocket-turbo"), &Extras::default()).unwrap();
    let model = model.smoothed(cpu).unwrap();
    let plan = Plan::uniform(scheme, Precision::F32);
    let bytes = pack::pack(&model, &plan, cpu, (Vec::new(), &Control::default())).unwrap();
    let path = folder.join(format!("{scheme}.mixdq"));
    std::fs::write(&path, bytes).unwrap();
    Model::open(&path, &Extras::default()).unwrap()
}

/// What a layer makes of an input.
fn output(model: &Model, layer: &str, input: &TensorView, cpu: &Cpu) -> Vec<f32> {
    let (name, graph) = (format!("{layer}.weight"), Graph::new());
    let shape = model.unet.weights.shape(&name).unwrap();
    let weight = Weight::new(&model.unet.weights, &name, shape);
    let x = graph.input("x", Shape::new(&input.shape));
    let y = match shape {
        [_, _, 3, 3] => {
            let stride = if layer.contains("downsamplers") { 2 } else { 1 };
            x.conv2d(&weight, None, stride, Padding::all(1))
        }
        [_, _, ..] if shape.len() == 4 => x.conv2d(&weight, None, 1, Padding::all(0)),
        _ => {
            let params = Params::new(&model.unet.weights).at(layer);
            let layer = Linear::load(&params, [shape[0], shape[1]], Bias::None).unwrap();
            layer.forward(x)
        }
    };
    let recording = graph.finish(&[("y", y)]).unwrap();
    let plan = model.packed.as_ref().unwrap().plan.clone().with_precision(Precision::F32);
    let program = Program::compile(&recording, &plan.component("unet"), cpu);
    let mut weights = CpuWeights::default();
    cpu.prepare(&mut weights, &program, &Control::default()).unwrap();
    let mut session = Session::with_program(cpu, program).unwrap();
    session.write("x", &input.to_f32()).unwrap();
    session.run(&weights, &Control::default()).unwrap();
    session.read("y").unwrap()
}

#[test]
fn layers_compute_what_pytorch_does_with_the_same_codes() {
    let golden = Checkpoint::open(root().join("testdata/golden/layers.safetensors")).unwrap();
    let (cpu, folder) = (Cpu::detect(2), tempfile::tempdir().unwrap());
    let mut least = (f64::INFINITY, String::new());
    for scheme in SCHEMES {
        let model = packed(scheme.parse().unwrap(), &cpu, folder.path());
        for name in golden.names().filter(|name| name.ends_with(&format!("/{scheme}"))) {
            let layer = name.split('/').next().unwrap();
            let input = golden.tensor(&format!("{layer}/input")).unwrap();
            let expected = golden.tensor(name).unwrap().to_f32();
            let found = output(&model, layer, &input, &cpu);
            assert_eq!(found.len(), expected.len(), "{name}");
            let square = |x: f64| x * x;
            let signal: f64 = expected.iter().map(|y| square((*y).into())).sum();
            let pairs = found.iter().zip(&expected);
            let noise: f64 = pairs.map(|(x, y)| square(f64::from(*x) - f64::from(*y))).sum();
            let decibels = 10.0 * (signal / noise).log10();
            if decibels < least.0 {
                least = (decibels, name.to_owned());
            }
        }
    }
    println!("bar layers {:.1} dB", least.0);
    assert!(least.0 >= 60.0, "{least:?}");
}
