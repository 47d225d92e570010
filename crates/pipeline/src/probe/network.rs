//! A network of real numbers that can be changed in one layer, and what there is of its calls before that layer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quant::metrics::Noise;
use tensor::graph::{NodeId, Output, Part};
use tensor::program::{Numbers, Packing, PanelOrder, Program, Slot};
use tensor::{Control, Device, Held, LayerFormat, Plan, Precision, Recording, Session, Weight};

use super::Layer;
use crate::model::Component;
use crate::request::{Phase, Watch};
use crate::{Error, Event};

/// Bytes of weights that stay in memory while another network is at work: to bring back more takes little of the time that
/// such networks take, and pictures of many pixels need the room.
const BESIDE: usize = 64 << 20;

/// How often a call is timed.
const RUNS: usize = 3;

/// A recorded network, and the calls by which it is judged.
pub(super) struct Network<'a, 'w, D: Device> {
    device: &'a D,
    component: &'static str,
    recording: Recording,
    /// All of it with real numbers.
    pub(super) whole: Arc<Program>,
    /// The program whose weights stay from one session to the next.
    stays: Arc<Program>,
    /// What goes into each call.
    calls: Vec<Inputs>,
    /// The layer up to which values of all calls are kept.
    front: NodeId,
    kept: Vec<Vec<Held>>,
    /// What the layer there computes in each call with real numbers, once its own error was asked for.
    exact: Option<(NodeId, Arc<Results>)>,
    weights: D::Weights,
    phase: Phase,
    watch: &'w Watch<'w>,
}

/// What a layer computes in each call.
type Results = Vec<Vec<f32>>;

/// Some rows of a layer's result.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    pub(super) rows: Vec<usize>,
    /// Of how many.
    pub(super) of: usize,
}

impl Rows {
    fn copy(&self, from: &[f32], to: &mut [f32]) {
        let width = from.len() / self.of;
        for row in &self.rows {
            let row = row * width..(row + 1) * width;
            to[row.clone()].copy_from_slice(&from[row]);
        }
    }
}

/// What goes into one call of a network, by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Inputs {
    pub(super) numbers: Vec<(&'static str, Vec<f32>)>,
    pub(super) indices: Vec<(&'static str, Vec<u32>)>,
}

impl Inputs {
    /// Set those inputs that a program reads.
    fn write<D: Device>(&self, session: &mut Session<'_, D>) -> Result<(), Error> {
        for (name, numbers) in &self.numbers {
            if session.program().input(name).is_some() {
                session.write(name, numbers)?;
            }
        }
        for (name, indices) in &self.indices {
            if session.program().input(name).is_some() {
                session.write_index(name, indices)?;
            }
        }
        Ok(())
    }
}

/// Real numbers in every layer.
pub(super) fn real() -> Plan {
    Plan::uniform(Precision::F32)
}

/// Real numbers in every layer but one.
pub(super) fn changed(layer: &Layer, format: LayerFormat) -> Plan {
    let mut plan = real();
    plan.layers.insert(layer.name.clone(), format);
    plan
}

impl<'a, 'w, D: Device> Network<'a, 'w, D> {
    pub(super) fn new(
        device: &'a D,
        component: &Component,
        recording: Recording,
        (phase, watch): (Phase, &'w Watch<'w>),
    ) -> Self {
        let whole = Arc::new(Program::compile(&recording, &real(), device));
        Self {
            device,
            component: component.name,
            stays: Arc::clone(&whole),
            whole,
            recording,
            calls: Vec::new(),
            front: NodeId::FIRST,
            kept: Vec::new(),
            exact: None,
            weights: D::Weights::default(),
            phase,
            watch,
        }
    }

    /// Judge it by these calls.
    pub(super) fn judge_by(&mut self, calls: Vec<Inputs>) {
        self.kept = vec![Vec::new(); calls.len()];
        self.exact = None;
        self.calls = calls;
        self.front = NodeId::FIRST;
    }

    /// The component that it is.
    pub(super) fn component(&self) -> &'static str {
        self.component
    }

    pub(super) fn calls(&self) -> &[Inputs] {
        &self.calls
    }

    /// The layers that multiply by a weight, in the order in which they run. A text encoder's last layers are recorded and
    /// may not be needed.
    pub(super) fn layers(&self) -> impl Iterator<Item = Layer> {
        let weights = self.recording.nodes().iter().filter_map(|node| node.weight());
        weights.filter(|weight| self.packed(weight.layer()).is_some()).map(|weight| {
            let name = weight.layer().to_owned();
            let node = self.recording.layer(&name).expect("it was found in the recording");
            let start = self.recording.start_of(node);
            Layer { component: self.component, name, weights: weight.elements(), node, start }
        })
    }

    /// Bytes of a layer's weights in this format, as a packed file holds them.
    pub(super) fn bytes(&self, layer: &Layer, format: LayerFormat) -> usize {
        let (weight, order) = self.packed(&layer.name).expect("layers are those that are needed");
        let numbers = match format {
            LayerFormat::Float(precision) => Numbers::Float(precision),
            LayerFormat::Integer(scheme) => Numbers::Integer(scheme.weights),
            LayerFormat::Rounded(_) => Numbers::Float(Precision::Bf16),
        };
        let packing = Packing::Panels(order, numbers);
        self.device.resident_bytes(&Slot { weight: weight.clone(), packing })
    }

    /// A layer's weight, and the order in which its outputs are packed, if the network needs it.
    fn packed(&self, layer: &str) -> Option<(&Weight, PanelOrder)> {
        self.whole.slots.iter().find_map(|slot| match slot.packing {
            Packing::Panels(order, _) if slot.weight.layer() == layer => {
                Some((&slot.weight, order))
            }
            _ => None,
        })
    }

    /// Multiply-adds of a call from a layer on.
    pub(super) fn after(&self, layer: &Layer) -> u64 {
        let after = self.whole.steps.iter().filter(|step| step.node >= layer.start);
        after.map(|step| step.op.multiply_adds()).sum()
    }

    /// Let go of weights that are too many to stay while another network is at work.
    pub(super) fn rest(&mut self) {
        if self.kept_bytes() > BESIDE {
            self.release();
        }
    }

    /// Bytes of the weights that stay, once they are there.
    pub(super) fn kept_bytes(&self) -> usize {
        self.stays.slots.iter().map(|slot| self.device.resident_bytes(slot)).sum()
    }

    /// From now on, keep the weights that a plan of the whole network needs. Those of the plan before go, but for the ones
    /// that are the same in both.
    pub(super) fn keep_for(&mut self, plan: &Plan) {
        let program = self.program(plan);
        let before = std::mem::replace(&mut self.stays, program);
        if !Arc::ptr_eq(&before, &self.stays) {
            self.device.forget(&mut self.weights, &before, &self.stays);
        }
    }

    /// Let go of all weights.
    pub(super) fn release(&mut self) {
        self.weights = D::Weights::default();
    }

    /// All of the network by a plan.
    pub(super) fn whole(&mut self, plan: &Plan) -> Result<Session<'a, D>, Error> {
        self.session(self.program(plan))
    }

    /// All of the network by a plan, given the results of some layers.
    pub(super) fn given(&mut self, plan: &Plan, given: &[NodeId]) -> Result<Session<'a, D>, Error> {
        if given.is_empty() {
            return self.whole(plan);
        }
        let outputs = self.recording.outputs().iter();
        let outputs: Vec<Output> = outputs.map(|(_, node)| (*node).into()).collect();
        self.part(plan, Part { outputs: &outputs, given })
    }

    /// The results of some layers by a plan, from the start.
    pub(super) fn up_to(
        &mut self,
        plan: &Plan,
        results: &[NodeId],
    ) -> Result<Session<'a, D>, Error> {
        let outputs: Vec<Output> = results.iter().map(|node| (*node).into()).collect();
        self.part(plan, Part { outputs: &outputs, given: &[] })
    }

    /// The network from a layer on with real numbers, for calls that go on there and are given what the layer computes; and what
    /// that is by a plan, in some rows the same as with real numbers.
    pub(super) fn behind(
        &mut self,
        layer: &Layer,
        plan: &Plan,
        same: &Rows,
    ) -> Result<(Session<'a, D>, Results), Error> {
        self.go_to(layer.start)?;
        let found = self.compared(layer, plan, Some(same))?.1;
        Ok((self.onwards(&real(), &[layer.node])?, found))
    }

    fn program(&self, plan: &Plan) -> Arc<Program> {
        if *plan == real() {
            Arc::clone(&self.whole)
        } else {
            Program::compile(&self.recording, plan, self.device).into()
        }
    }

    /// The network from a layer on by a plan, for calls that go on there.
    pub(super) fn from(&mut self, layer: &Layer, plan: &Plan) -> Result<Session<'a, D>, Error> {
        self.go_to(layer.start)?;
        self.onwards(plan, &[])
    }

    fn onwards(&mut self, plan: &Plan, more: &[NodeId]) -> Result<Session<'a, D>, Error> {
        let mut given = self.recording.live_before(self.front);
        given.extend(more);
        let outputs = self.recording.outputs().iter();
        // A result that comes before the layer stays what it is.
        let outputs = outputs.map(|(_, node)| *node).filter(|node| !given.contains(node));
        let outputs: Vec<Output> = outputs.map(Output::from).collect();
        self.part(plan, Part { outputs: &outputs, given: &given })
    }

    fn part(&mut self, plan: &Plan, part: Part<'_>) -> Result<Session<'a, D>, Error> {
        let program = Program::compile_part(&self.recording, part, plan, self.device);
        self.session(program.into())
    }

    fn session(&mut self, program: Arc<Program>) -> Result<Session<'a, D>, Error> {
        let loading = |done, total| self.watch.tell(Event::Loading(self.phase, done, total));
        let control = Control { cancel: self.watch.cancel, progress: Some(&loading) };
        self.device.prepare(&mut self.weights, &program, &control)?;
        Ok(Session::with_program(self.device, program)?)
    }

    /// Let go of the weights of a session that are not kept.
    pub(super) fn forget(&mut self, session: &Session<'a, D>) {
        self.device.forget(&mut self.weights, session.program(), &self.stays);
    }

    /// Run a call from the front on.
    pub(super) fn resume(&self, session: &mut Session<'a, D>, call: usize) -> Result<(), Error> {
        session.restore(&self.kept[call])?;
        self.run(session, &self.calls[call])
    }

    /// Run a session on inputs.
    pub(super) fn run(&self, session: &mut Session<'a, D>, inputs: &Inputs) -> Result<(), Error> {
        inputs.write(session)?;
        let control = Control { cancel: self.watch.cancel, progress: None };
        Ok(session.run(&self.weights, &control)?)
    }

    /// A result of the last run; `None` if the session does not compute it.
    pub(super) fn read(
        &self,
        session: &mut Session<'a, D>,
        output: &str,
    ) -> Result<Option<Vec<f32>>, Error> {
        if session.program().outputs.iter().all(|port| port.name != output) {
            return Ok(None);
        }
        let numbers = session.read(output)?;
        if !numbers.iter().all(|x| x.is_finite()) {
            let control = Control { cancel: self.watch.cancel, progress: None };
            session.diagnose(&self.weights, &control)?;
        }
        Ok(Some(numbers))
    }

    /// How long a call takes by a plan, and each of its layers and other operations, by name: the quickest of a few runs.
    pub(super) fn times(
        &mut self,
        plan: &Plan,
    ) -> Result<(Duration, BTreeMap<String, Duration>), Error> {
        self.keep_for(plan);
        let mut session = self.whole(plan)?;
        let control = Control { cancel: self.watch.cancel, progress: None };
        let mut quickest = None;
        for _ in 0..RUNS {
            self.calls[0].write(&mut session)?;
            let mut each = BTreeMap::new();
            let start = Instant::now();
            let mut last = start;
            session.observe(&self.weights, &control, &mut |step| {
                let now = Instant::now();
                *each.entry(step.name.clone()).or_default() += now - last;
                last = now;
            })?;
            let whole = last - start;
            if quickest.as_ref().is_none_or(|(least, _)| whole < *least) {
                quickest = Some((whole, each));
            }
        }
        Ok(quickest.unwrap_or_default())
    }

    /// How far off a layer's own result is in this format, in decibels over all calls; some rows may be the same.
    pub(super) fn own_error(
        &mut self,
        layer: &Layer,
        format: LayerFormat,
        same: Option<&Rows>,
    ) -> Result<f64, Error> {
        self.go_to(layer.start)?;
        let (exact, found) = self.compared(layer, &changed(layer, format), same)?;
        let mut noise = Noise::default();
        exact.iter().zip(&found).for_each(|(exact, found)| noise.add(exact, found));
        Ok(noise.sqnr())
    }

    /// What a layer at the front computes in each call with real numbers and by a plan; some rows may be the same.
    fn compared(
        &mut self,
        layer: &Layer,
        plan: &Plan,
        same: Option<&Rows>,
    ) -> Result<(Arc<Results>, Results), Error> {
        let exact = match self.exact.take() {
            Some((node, exact)) if node == layer.node => exact,
            _ => self.results(layer, &real())?.into(),
        };
        self.exact = Some((layer.node, Arc::clone(&exact)));
        let mut found = self.results(layer, plan)?;
        for (found, exact) in found.iter_mut().zip(&*exact) {
            if let Some(same) = same {
                same.copy(exact, found);
            }
        }
        Ok((exact, found))
    }

    /// What a layer at the front computes in each call.
    fn results(&mut self, layer: &Layer, plan: &Plan) -> Result<Results, Error> {
        let given = self.recording.live_before(self.front);
        let outputs = [layer.node.into()];
        let mut session = self.part(plan, Part { outputs: &outputs, given: &given })?;
        let mut all = Vec::with_capacity(self.calls.len());
        for call in 0..self.calls.len() {
            self.resume(&mut session, call)?;
            // A layer's result may be the network's, and then has its name.
            let name = session.program().outputs.first().map(|port| port.name.clone());
            all.push(session.read(&name.unwrap_or_default())?);
        }
        self.forget(&session);
        Ok(all)
    }

    /// Let go of what comes before the front.
    pub(super) fn start_anew(&mut self) {
        self.front = NodeId::FIRST;
        self.exact = None;
        self.kept.iter_mut().for_each(Vec::clear);
    }

    /// Keep what comes before another node, for all calls.
    pub(super) fn go_to(&mut self, front: NodeId) -> Result<(), Error> {
        if front == self.front {
            return Ok(());
        }
        self.exact = None;
        if front < self.front {
            self.start_anew();
        }
        let given = self.recording.live_before(self.front);
        let wanted = self.recording.live_before(front);
        let outputs = wanted.iter().filter(|id| !given.contains(id));
        let outputs: Vec<Output> = outputs.map(|id| (*id).into()).collect();
        let names: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        let mut session = self.part(&real(), Part { outputs: &outputs, given: &given })?;
        for call in 0..self.calls.len() {
            self.resume(&mut session, call)?;
            let kept = &mut self.kept[call];
            kept.retain(|value| names.iter().any(|name| name == value.name()));
            // Results of the network have names of their own, by which nothing asks for them here.
            let held = session.hold()?.into_iter().zip(&outputs);
            kept.extend(held.map(|(value, output)| value.named(output.node.to_string())));
        }
        self.front = front;
        Ok(())
    }
}
