//! A recorded network, run as a whole and module by module.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use models::Params;
use tensor::file::Checkpoint;
use tensor::graph::{Kind, NodeId, Output, Part};
use tensor::{Control, Cpu, Device, Plan, Program, Recording, Session};

use crate::expected::Expected;

/// Largest difference from the reference, as a part of the largest of its numbers: sums in another order.
const TOLERANCE: f32 = 2e-5;

fn folder(pipeline: &str, component: &str) -> PathBuf {
    let pipelines = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/pipelines");
    pipelines.join(pipeline).join(component)
}

/// The parameters of a component, where the pipeline has it.
pub(crate) fn component(pipeline: &str, component: &str) -> Option<Params> {
    let folder = folder(pipeline, component);
    folder.exists().then(|| Params::new(&Checkpoint::open(folder).unwrap()))
}

/// The `config.json` of a component.
pub(crate) fn config(pipeline: &str, component: &str) -> serde_json::Value {
    let text = std::fs::read_to_string(folder(pipeline, component).join("config.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A recording and its inputs.
pub(crate) struct Network<'a> {
    recording: &'a Recording,
    numbers: Vec<(String, Vec<f32>)>,
    indices: Vec<(String, Vec<u32>)>,
}

impl<'a> Network<'a> {
    pub(crate) fn new(recording: &'a Recording) -> Self {
        Self { recording, numbers: Vec::new(), indices: Vec::new() }
    }

    pub(crate) fn input(mut self, name: &str, numbers: &[f32]) -> Self {
        self.numbers.push((name.to_owned(), numbers.to_vec()));
        self
    }

    pub(crate) fn index(mut self, name: &str, indices: &[u32]) -> Self {
        self.indices.push((name.to_owned(), indices.to_vec()));
        self
    }

    /// Compare the network's named results, with all operations fused that can be.
    pub(crate) fn compare_outputs(&self, expected: &Expected) {
        compare(self.results(), expected);
    }

    /// The network's named results.
    pub(crate) fn results(&self) -> BTreeMap<String, Vec<f32>> {
        let outputs = self.recording.outputs();
        let nodes: Vec<NodeId> = outputs.iter().map(|(_, node)| *node).collect();
        outputs.iter().map(|(name, _)| name.clone()).zip(self.run(&nodes)).collect()
    }

    /// Compare the results of all modules that the reference has below `prefix`, in the order in which they run.
    pub(crate) fn compare_modules(&self, expected: &Expected, prefix: &str) {
        let modules = expected.names().filter_map(|name| Some((name, name.strip_prefix(prefix)?)));
        let mut found: Vec<(NodeId, &str)> =
            modules.filter_map(|(name, module)| Some((self.result_of(module)?, name))).collect();
        found.sort_unstable();
        assert!(found.len() >= 7, "only {} modules were found", found.len());
        let nodes: Vec<NodeId> = found.iter().map(|(node, _)| *node).collect();
        let names = found.iter().map(|(_, name)| (*name).to_owned());
        compare(names.zip(self.run(&nodes)), expected);
    }

    /// The node that holds a module's result: that of its last layer, and the sum behind it if there is one.
    fn result_of(&self, module: &str) -> Option<NodeId> {
        let below = format!("{module}.");
        let all = self.nodes();
        let is_in = |id: &&NodeId| {
            self.recording.node(**id).layer().is_some_and(|l| l == module || l.starts_with(&below))
        };
        let last = *all.iter().rfind(is_in)?;
        let layer = self.recording.node(last).layer()?;
        let follow = |of: NodeId, is: fn(&Kind) -> bool| {
            let user = |id: &&NodeId| {
                let node = self.recording.node(**id);
                node.inputs.contains(&of) && is(&node.kind)
            };
            all.iter().find(user).copied()
        };
        if module.ends_with("ff.net.0") {
            return follow(last, |kind| matches!(kind, Kind::Geglu));
        }
        let adds =
            ["conv2", "proj_out", "ff.net.2", "conv.4"].iter().any(|end| layer.ends_with(end));
        if layer == module || module.rsplit('.').next() == Some("ff") || !adds {
            return Some(last);
        }
        let sum = follow(last, |kind| matches!(kind, Kind::Add))?;
        if layer.ends_with("conv.4") {
            follow(sum, |kind| matches!(kind, Kind::Activation(_)))
        } else {
            Some(sum)
        }
    }

    /// All nodes, in recorded order.
    fn nodes(&self) -> Vec<NodeId> {
        let read = self.recording.nodes().iter().flat_map(|node| node.inputs.iter().copied());
        let outputs = self.recording.outputs().iter().map(|(_, node)| *node);
        read.chain(outputs).collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn run(&self, nodes: &[NodeId]) -> Vec<Vec<f32>> {
        let device = Cpu::detect(1);
        let outputs: Vec<Output> = nodes.iter().map(|node| (*node).into()).collect();
        let part = Part { outputs: &outputs, given: &[] };
        let program = Program::compile_part(self.recording, part, &Plan::default(), &device);
        let names: Vec<String> = program.outputs.iter().map(|port| port.name.clone()).collect();
        let mut weights = <Cpu as Device>::Weights::default();
        device.prepare(&mut weights, &program, &Control::default()).unwrap();
        let mut session = Session::with_program(&device, program).unwrap();
        for (name, numbers) in &self.numbers {
            session.write(name, numbers).unwrap();
        }
        for (name, indices) in &self.indices {
            session.write_index(name, indices).unwrap();
        }
        session.run(&weights, &Control::default()).unwrap();
        names.iter().map(|name| session.read(name).unwrap()).collect()
    }
}

/// Report all results that differ.
pub(crate) fn compare(results: impl IntoIterator<Item = (String, Vec<f32>)>, expected: &Expected) {
    let mut faults = Vec::new();
    for (name, found) in results {
        let golden = expected.get(&name).values;
        assert_eq!(found.len(), golden.len(), "{name}");
        let largest = golden.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        let errors = || found.iter().zip(&golden).map(|(a, b)| (a - b).abs());
        // NaN is not close to anything.
        if !errors().all(|error| error <= TOLERANCE * largest) {
            let error = errors().fold(0.0_f32, f32::max);
            faults.push(format!("{name}: off by {error:e}, largest {largest}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
