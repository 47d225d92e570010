//! One suite for every device: each operation, alone and fused, against the naive reference.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod cases;

use cases::{CASES, Case, numbers, resnet, weight};
use kernels::isa::Level;
use tensor::file::{Checkpoint, TensorView};
use tensor::graph::{Activation, Mask, Output, Padding, Part};
use tensor::program::{Normed, Op, Step};
use tensor::{
    Control, Cpu, CpuWeights, Device, Graph, Halves, LayerFormat, Plan, Precision, Program,
    Recording, Reference, Session, Span, Value, Weight,
};

fn recording(case: &Case) -> Recording {
    let graph = Graph::new();
    let y = (case.record)(&graph);
    graph.finish(&[("y", y)]).unwrap()
}

fn set<D: Device>(session: &mut Session<'_, D>) {
    let ports = session.program().inputs.clone();
    for (i, port) in ports.iter().enumerate() {
        match port.limit {
            Some(limit) => {
                let ids: Vec<u32> =
                    (0..port.shape.elements()).map(|n| (n * 3 % limit) as u32).collect();
                session.write_index(&port.name, &ids).unwrap();
            }
            None => session.write(&port.name, &numbers(port.shape.elements(), i as u32)).unwrap(),
        }
    }
}

fn run<D: Device>(device: &D, recording: &Recording, plan: &Plan) -> Vec<f32> {
    let mut session = Session::new(device, recording, plan).unwrap();
    let mut weights = D::Weights::default();
    device.prepare(&mut weights, session.program(), &Control::default()).unwrap();
    set(&mut session);
    session.run(&weights, &Control::default()).unwrap();
    session.read("y").unwrap()
}

fn sqnr(reference: &[f32], found: &[f32]) -> f64 {
    assert_eq!(reference.len(), found.len());
    let power = |n: &mut dyn Iterator<Item = f32>| n.map(|x| f64::from(x).powi(2)).sum::<f64>();
    let error = power(&mut reference.iter().zip(found).map(|(a, b)| a - b));
    10.0 * (power(&mut reference.iter().copied()) / error.max(1e-30)).log10()
}

#[test]
fn every_level_computes_what_the_reference_defines() {
    for case in CASES {
        let recording = recording(case);
        for (precision, least) in [(Precision::F32, 110.0), (Precision::Bf16, 35.0)] {
            let plan = Plan::uniform(precision);
            let expected = run(&Reference, &recording, &Plan::uniform(Precision::F32));
            for level in Level::available() {
                let found = run(&Cpu::new(2, level), &recording, &plan);
                let db = sqnr(&expected, &found);
                assert!(db > least, "{} in {precision} on {}: {db:.1} dB", case.name, level.name());
            }
        }
    }
}

#[test]
fn every_level_computes_with_integers_what_the_reference_defines() {
    for case in CASES {
        let recording = recording(case);
        for scheme in ["w8a8", "w4a8", "w2ca8", "w8a4", "w4a16", "w2a16"] {
            let plan = Plan::integers(scheme.parse().unwrap(), Precision::F32);
            let expected = run(&Reference, &recording, &plan);
            for level in Level::available() {
                let found = run(&Cpu::new(2, level), &recording, &plan);
                let db = sqnr(&expected, &found);
                // A number on the edge of two codes may fall to either side.
                assert!(db > 45.0, "{} in {scheme} on {}: {db:.1} dB", case.name, level.name());
            }
        }
    }
}

/// This format for all layers of the cases.
fn with_format(format: &str) -> Plan {
    let format: LayerFormat = format.parse().unwrap();
    let layers = ["l", "m", "c", "d", "g", "q", "s"].map(|layer| (layer.to_owned(), format));
    Plan { layers: layers.into(), ..Plan::default() }
}

#[test]
fn every_level_rounds_activations_alone_as_the_reference_defines() {
    for case in CASES {
        let recording = recording(case);
        for format in ["a8", "a4", "a8s"] {
            let plan =
                Plan { ranges: with_ranges("w8a8s", Precision::F32).ranges, ..with_format(format) };
            let expected = run(&Reference, &recording, &plan);
            for level in Level::available() {
                let found = run(&Cpu::new(2, level), &recording, &plan);
                let db = sqnr(&expected, &found);
                assert!(db > 45.0, "{} in {format} on {}: {db:.1} dB", case.name, level.name());
            }
        }
    }
}

#[test]
fn rounding_activations_alone_equals_integers_where_weights_need_no_rounding() {
    // Whole numbers of 64ths, the greatest of each output 127 of them: what eight bits hold exactly.
    let exact = |name: &str, shape: &[usize]| {
        let count: usize = shape.iter().product();
        let mut values: Vec<f32> =
            numbers(count, 5).iter().map(|x| (x * 127.0).round() / 64.0).collect();
        values.iter_mut().step_by(count / shape[0]).for_each(|x| *x = 127.0 / 64.0);
        let views = [(name.to_owned(), TensorView::from_f32(shape, &values))];
        Weight::new(&Checkpoint::from_views("test", views), name, shape)
    };
    let (gamma, beta) = (weight("n.weight", &[18], 1.0), weight("n.bias", &[18], 0.2));
    let graph = Graph::new();
    let x = graph.input("x", [2, 6, 6, 18]).group_norm(3, 1e-5, &gamma, &beta).silu();
    let y = x.conv2d(&exact("c.weight", &[20, 18, 3, 3]), None, 1, Padding::all(1));
    let conv = graph.finish(&[("y", y)]).unwrap();
    let graph = Graph::new();
    let x = graph.input("x", [2, 9, 18]).layer_norm(1e-5, &gamma, &beta);
    let y = x.linear(&exact("l.weight", &[24, 18]), Some(&weight("l.bias", &[24], 0.5)));
    let linear = graph.finish(&[("y", y)]).unwrap();
    for recording in [conv, linear] {
        for bits in ["8", "4"] {
            let rounded = run(&Cpu::detect(2), &recording, &with_format(&format!("a{bits}")));
            let integers = run(&Cpu::detect(2), &recording, &with_format(&format!("w8a{bits}")));
            let real = run(&Cpu::detect(2), &recording, &Plan::default());
            assert!(sqnr(&integers, &rounded) > 120.0 && sqnr(&real, &rounded) < 60.0);
        }
    }
}

/// A plan of known ranges for all layers of the cases; of what is outside, something is cut off.
fn with_ranges(scheme: &str, precision: Precision) -> Plan {
    let mut plan = Plan::integers(scheme.parse().unwrap(), precision);
    for layer in ["l", "c", "d", "g", "q", "s"] {
        plan.ranges.insert(layer.to_owned(), Span::new(-0.8, 0.9).unwrap());
    }
    plan.ranges.insert("m".to_owned(), Span::new(-0.2, 1.5).unwrap());
    plan.ranges.insert("s:0-16".to_owned(), Span::new(-0.9, 0.7).unwrap());
    plan.ranges.insert("s:16-24".to_owned(), Span::new(-0.3, 0.4).unwrap());
    plan
}

#[test]
fn every_level_computes_with_known_ranges_what_the_reference_defines() {
    for case in CASES {
        let recording = recording(case);
        for (scheme, halves) in ["w8a8s", "w4a8s", "w2ca4s", "w8a8", "w4a16"]
            .into_iter()
            .flat_map(|scheme| [Halves::Together, Halves::Apart].map(|halves| (scheme, halves)))
        {
            let plan = Plan { halves, ..with_ranges(scheme, Precision::F32) };
            // Every value has the formats that its readers ask for.
            let rounded = Plan { halves, ..with_ranges(scheme, Precision::Bf16) };
            assert!(run(&Cpu::detect(2), &recording, &rounded).iter().all(|y| y.is_finite()));
            let expected = run(&Reference, &recording, &plan);
            for level in Level::available() {
                for threads in [1, 3] {
                    let found = run(&Cpu::new(threads, level), &recording, &plan);
                    let db = sqnr(&expected, &found);
                    let name = level.name();
                    assert!(db > 45.0, "{} in {scheme} on {name}: {db:.1} dB", case.name);
                }
            }
        }
    }
}

/// The first kind of each operation that quantizes: known ranges of codes, and how many products read them.
fn quantized(plan: &Plan, recording: &Recording) -> (Vec<Option<Span>>, usize) {
    let cpu = Cpu::detect(1);
    let session = Session::new(&cpu, recording, plan).unwrap();
    let steps = || session.program().steps.iter().map(|step| &step.op);
    let known = steps().filter_map(|op| match op {
        Op::Quantize(op) => Some(op.known),
        Op::GroupNorm(op) => match op.output {
            Normed::Codes { known, .. } => Some(known),
            Normed::Real(_) => None,
        },
        _ => None,
    });
    (known.collect(), steps().filter(|op| matches!(op, Op::Matmul(_))).count())
}

#[test]
fn readers_with_the_same_range_share_codes() {
    let graph = Graph::new();
    let x = graph.input("x", [1, 7, 40]);
    let layers = ["q", "k", "v"].map(|name| weight(&format!("{name}.weight"), &[40, 40], 0.3));
    let [q, k, v] = layers.each_ref().map(|weight| x.linear(weight, None));
    let recording = graph.finish(&[("y", q.attention(k, v, 2, Mask::None))]).unwrap();
    let mut plan = Plan::integers("w8a8s".parse().unwrap(), Precision::F32);
    let span = Span::new(-1.0, 1.0).unwrap();
    for layer in ["q", "k", "v"] {
        plan.ranges.insert(layer.to_owned(), span);
    }
    assert_eq!(quantized(&plan, &recording), (vec![Some(span)], 3));
    let wide = span.with(Span::new(0.0, 2.0).unwrap());
    plan.ranges.insert("v".to_owned(), wide);
    assert_eq!(quantized(&plan, &recording), (vec![Some(span), Some(wide)], 3));
    // A layer whose range is not known finds it.
    plan.ranges.clear();
    assert_eq!(quantized(&plan, &recording), (vec![None], 3));
}

#[test]
fn halves_have_ranges_and_weights_of_their_own() {
    let recording = recording(&CASES[3]);
    let mut plan = with_ranges("w8a8s", Precision::F32);
    let spans = |known: &[[f32; 2]]| -> Vec<Option<Span>> {
        known.iter().map(|[low, high]| Span::new(*low, *high)).collect()
    };
    assert_eq!(quantized(&plan, &recording), (spans(&[[-0.8, 0.9], [-0.8, 0.9]]), 2));
    plan.halves = Halves::Apart;
    let (known, products) = quantized(&plan, &recording);
    assert_eq!(products, 3);
    for span in spans(&[[-0.9, 0.7], [-0.3, 0.4], [-0.8, 0.9]]) {
        assert!(known.contains(&span), "{known:?}");
    }
    // Halves of one size each need no more codes than the whole, and no less exactly.
    let real = run(&Reference, &recording, &Plan::default());
    let of = |halves| {
        let dynamic = Plan::integers("w4ca8".parse().unwrap(), Precision::F32);
        sqnr(&real, &run(&Cpu::detect(1), &recording, &Plan { halves, ..dynamic }))
    };
    assert!(of(Halves::Apart) > 10.0 && of(Halves::Together) > 10.0);
}

#[test]
fn a_tap_shows_what_layers_read() {
    for rows in [5, 400] {
        let graph = Graph::new();
        let y = tokens(&graph, rows);
        let recording = graph.finish(&[("y", y)]).unwrap();
        for (precision, least) in [(Precision::F32, 100.0), (Precision::Bf16, 30.0)] {
            let cpu = Cpu::detect(2).with_near_bytes(1 << 10);
            let mut session = Session::new(&cpu, &recording, &Plan::uniform(precision)).unwrap();
            let mut weights = CpuWeights::default();
            cpu.prepare(&mut weights, session.program(), &Control::default()).unwrap();
            let x = numbers(2 * rows * 40, 1);
            session.write("x", &x).unwrap();
            let mut seen: Vec<(String, Vec<f32>)> = Vec::new();
            let mut tap = |step: &Step, first: usize, numbers: &[f32]| {
                let width = if step.name == "l" { 40 } else { 48 };
                let known = seen.iter_mut().find(|(name, _)| *name == step.name);
                if let Some((_, all)) = known {
                    assert_eq!(all.len(), first * width);
                    all.extend(numbers);
                } else {
                    assert_eq!(first, 0);
                    seen.push((step.name.clone(), numbers.to_vec()));
                }
            };
            session.tap(&weights, &Control::default(), &mut tap).unwrap();
            let norm = {
                let graph = Graph::new();
                let input = graph.input("x", [2, rows, 40]);
                let (gamma, beta) = (weight("n.weight", &[40], 1.0), weight("n.bias", &[40], 0.5));
                let y = input.layer_norm(1e-5, &gamma, &beta);
                let recording = graph.finish(&[("y", y)]).unwrap();
                let mut session = Session::new(&Reference, &recording, &Plan::default()).unwrap();
                let mut weights = tensor::device::Loaded::default();
                Reference.prepare(&mut weights, session.program(), &Control::default()).unwrap();
                session.write("x", &x).unwrap();
                session.run(&weights, &Control::default()).unwrap();
                session.read("y").unwrap()
            };
            assert_eq!(seen.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["l", "m"]);
            assert!(sqnr(&norm, &seen[0].1) > least, "{rows} rows in {precision}");
            assert_eq!(seen[1].1.len(), 2 * rows * 48);
            let observed = session.read("y").unwrap();
            session.run(&weights, &Control::default()).unwrap();
            assert_eq!(session.read("y").unwrap(), observed);
        }
    }
}

#[test]
fn no_layer_of_a_uniform_plan_stays_real() {
    let cpu = Cpu::detect(1);
    for case in CASES {
        let plan = Plan::integers("w4a8".parse().unwrap(), Precision::Bf16);
        let session = Session::new(&cpu, &recording(case), &plan).unwrap();
        for step in &session.program().steps {
            let Op::Matmul(op) = &step.op else { continue };
            assert!(op.ranges.is_some(), "{} in {} reads real numbers", step.name, case.name);
        }
    }
}

#[test]
fn single_precision_is_the_same_bits_on_every_level_and_thread_count() {
    for case in CASES {
        let recording = recording(case);
        let plan = Plan::default();
        let expected = run(&Cpu::detect(1), &recording, &plan);
        for level in Level::available() {
            for threads in [1, 3] {
                let found = run(&Cpu::new(threads, level), &recording, &plan);
                assert_eq!(
                    found,
                    expected,
                    "{} on {} with {threads} threads",
                    case.name,
                    level.name()
                );
            }
        }
    }
}

#[test]
fn a_run_can_be_cut_at_every_layer_and_resumed() {
    let cpu = Cpu::detect(2);
    let graph = Graph::new();
    let y = resnet(&graph).reshape([1, 36, 32]);
    let recording = graph.finish(&[("y", (y + y.attention(y, y, 4, Mask::None)))]).unwrap();
    for plan in [Plan::default(), Plan::uniform(Precision::Bf16)] {
        let whole = run(&cpu, &recording, &plan);
        for layer in ["c", "s"] {
            let cut = recording.layer(layer).unwrap();
            let live = recording.live_before(cut);
            let values = until(&cpu, &recording, &live, &plan);
            let resumed = from(&cpu, &recording, (&live, &values), &plan);
            assert_eq!(resumed, whole, "cut at {layer} in {}", plan.default);
        }
    }
}

/// The values of these nodes.
fn until(
    cpu: &Cpu,
    recording: &Recording,
    live: &[tensor::graph::NodeId],
    plan: &Plan,
) -> Vec<Vec<f32>> {
    let outputs: Vec<Output> = live.iter().map(|id| (*id).into()).collect();
    let part = Part { outputs: &outputs, given: &[] };
    let program = Program::compile_part(recording, part, plan, cpu);
    let mut session = Session::with_program(cpu, program).unwrap();
    let mut weights = CpuWeights::default();
    cpu.prepare(&mut weights, session.program(), &Control::default()).unwrap();
    set(&mut session);
    session.run(&weights, &Control::default()).unwrap();
    let names: Vec<String> =
        session.program().outputs.iter().map(|port| port.name.clone()).collect();
    names.iter().map(|name| session.read(name).unwrap()).collect()
}

/// The result, from the values of these nodes.
fn from(
    cpu: &Cpu,
    recording: &Recording,
    (live, values): (&[tensor::graph::NodeId], &[Vec<f32>]),
    plan: &Plan,
) -> Vec<f32> {
    let outputs: Vec<Output> = recording.outputs().iter().map(|(_, id)| (*id).into()).collect();
    let part = Part { outputs: &outputs, given: live };
    let program = Program::compile_part(recording, part, plan, cpu);
    let mut session = Session::with_program(cpu, program).unwrap();
    let mut weights = CpuWeights::default();
    cpu.prepare(&mut weights, session.program(), &Control::default()).unwrap();
    for (node, values) in live.iter().zip(values) {
        session.write(&node.to_string(), values).unwrap();
    }
    session.run(&weights, &Control::default()).unwrap();
    session.read("y").unwrap()
}

/// A transformer block's operations on `rows` tokens, as far as each token is alone.
fn tokens(g: &Graph, rows: usize) -> Value<'_> {
    let x = g.input("x", [2, rows, 40]);
    let (gamma, beta) = (weight("n.weight", &[40], 1.0), weight("n.bias", &[40], 0.5));
    let (w, b) = (weight("l.weight", &[96, 40], 0.2), weight("l.bias", &[96], 0.5));
    let (u, v) = (weight("m.weight", &[40, 48], 0.2), weight("m.bias", &[40], 0.5));
    let h = x + x.layer_norm(1e-5, &gamma, &beta).linear(&w, Some(&b)).geglu().linear(&u, Some(&v));
    h + h.activate(Activation::Silu).layer_norm(1e-5, &gamma, &beta)
}

#[test]
fn bands_change_nothing() {
    for rows in [130, 150, 400] {
        let graph = Graph::new();
        let y = tokens(&graph, rows);
        let recording = graph.finish(&[("y", y)]).unwrap();
        let schemes = [None, Some("w8a8"), Some("w4a16")].into_iter();
        let precisions = [Precision::F32, Precision::Bf16];
        for (scheme, precision) in schemes.flat_map(|scheme| precisions.map(|p| (scheme, p))) {
            let plan = match scheme {
                Some(scheme) => Plan::integers(scheme.parse().unwrap(), precision),
                None => Plan::uniform(precision),
            };
            let draw = |near: usize, threads| {
                let cpu = Cpu::detect(threads).with_near_bytes(near);
                let mut session = Session::new(&cpu, &recording, &plan).unwrap();
                let bands = session.program().bands.len();
                assert_eq!(bands > 0, near > 0, "{rows} rows, {plan:?}");
                let arena = session.program().arena;
                let mut weights = CpuWeights::default();
                cpu.prepare(&mut weights, session.program(), &Control::default()).unwrap();
                let x = numbers(2 * rows * 40, 1);
                session.write("x", &x).unwrap();
                session.run(&weights, &Control::default()).unwrap();
                session.diagnose(&weights, &Control::default()).unwrap();
                (session.read("y").unwrap(), arena)
            };
            let (whole, all) = draw(0, 1);
            for threads in [1, 3] {
                let (banded, arena) = draw(1 << 10, threads);
                assert_eq!(whole, banded, "{rows} rows, {plan:?}");
                assert!(
                    rows < 400 || arena < all,
                    "{rows} rows: {arena} bytes in bands, {all} without"
                );
            }
        }
    }
}

#[test]
fn bad_inputs_are_refused_by_name() {
    let recording = recording(&CASES[5]);
    let cpu = Cpu::detect(1);
    let mut session = Session::new(&cpu, &recording, &Plan::default()).unwrap();
    let far = session.write_index("ids", &[11; 10]).unwrap_err().to_string();
    assert!(far.contains("`ids` holds the index 11"), "{far}");
    let few = session.write_index("ids", &[1; 3]).unwrap_err().to_string();
    assert!(few.contains("3 numbers were given"), "{few}");
    assert!(session.write("nothing", &[1.0]).is_err());
    let unset = session.run(&CpuWeights::default(), &Control::default()).unwrap_err().to_string();
    assert!(unset.contains("was not set"), "{unset}");
}

#[test]
fn a_weight_that_is_not_a_number_is_named() {
    let graph = Graph::new();
    let views =
        [("bad.weight".to_owned(), TensorView::from_f32(&[2, 2], &[1.0, f32::NAN, 0.0, 0.0]))];
    let w = Weight::new(&Checkpoint::from_views("test", views), "bad.weight", &[2, 2]);
    let y = graph.input("x", [1, 2]).linear(&w, None);
    let recording = graph.finish(&[("y", y)]).unwrap();
    let cpu = Cpu::detect(1);
    let session = Session::new(&cpu, &recording, &Plan::default()).unwrap();
    let error = cpu.prepare(&mut CpuWeights::default(), session.program(), &Control::default());
    assert!(error.unwrap_err().to_string().contains("`bad.weight`"));
}

#[test]
fn the_first_layer_with_infinity_is_named() {
    let graph = Graph::new();
    let w = weight("huge.weight", &[4, 4], 3e38);
    let y = graph.input("x", [1, 4]).linear(&w, None).scale(4.0).silu();
    let recording = graph.finish(&[("y", y)]).unwrap();
    let cpu = Cpu::detect(1);
    let mut session = Session::new(&cpu, &recording, &Plan::default()).unwrap();
    let mut weights = CpuWeights::default();
    cpu.prepare(&mut weights, session.program(), &Control::default()).unwrap();
    session.write("x", &[1.0; 4]).unwrap();
    let error = session.diagnose(&weights, &Control::default()).unwrap_err().to_string();
    assert!(error.contains("`huge`"), "{error}");
}
