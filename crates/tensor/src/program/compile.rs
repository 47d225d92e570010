//! A recording → a program: fuse, decide who needs which format, give every value its buffers, lay out the arena.

mod formats;
mod memory;

use std::collections::{BTreeSet, HashMap, HashSet};

use formats::{Codes, Factor};

use super::op::{
    Attention, Conv, Geometry, GroupNorm, LayerNorm, Matmul, Normed, Op, Operand, Results, Simple,
    SimpleKind, Unary,
};
use super::{
    Buffer, BufferId, Format, Numbers, Packing, PanelOrder, Port, Program, Slot, SlotId, Step,
    Target,
};
use crate::graph::fuse::{Fused, Output, Part, Uses, fuse};
use crate::graph::{Kind, Node, NodeId, Recording};
use crate::{LayerFormat, Plan, Precision, Scores, Shape, Weight};

/// Keys below which attention stays real: those of a prompt, above all, of which the first weighs most.
const FEW_KEYS: usize = 128;

impl Program {
    /// Compile all of a recording.
    pub fn compile(recording: &Recording, plan: &Plan, target: &dyn Target) -> Self {
        let outputs: Vec<Output> = recording.outputs().iter().map(|(_, id)| (*id).into()).collect();
        Self::compile_part(recording, Part { outputs: &outputs, given: &[] }, plan, target)
    }

    /// Compile a part of a recording: the values `part.outputs` from the inputs and the values `part.given`.
    ///
    /// Given values are inputs named by their node (`%12`); so are outputs without a name of their own.
    pub fn compile_part(
        recording: &Recording,
        part: Part<'_>,
        plan: &Plan,
        target: &dyn Target,
    ) -> Self {
        let uses = Uses::new(recording, part);
        let groups = fuse(recording, &uses);
        let mut compiler = Compiler::new(recording, &uses, plan);
        compiler.note_wants(&groups);
        for output in part.outputs {
            compiler.want(uses.root(output.node), output.precision);
        }
        compiler.inputs();
        for group in &groups {
            compiler.emit(group);
        }
        compiler.outputs(part);
        compiler.finish(target)
    }
}

struct Compiler<'a> {
    recording: &'a Recording,
    uses: &'a Uses<'a>,
    plan: &'a Plan,
    program: Program,
    /// Values that a multiplication reads as `bf16`.
    wants_bf16: HashSet<NodeId>,
    /// Values that something reads as `f32`.
    wants_f32: HashSet<NodeId>,
    /// Codes that a multiplication reads.
    wants_codes: HashMap<NodeId, BTreeSet<Codes>>,
    values: HashMap<NodeId, Results>,
    /// Codes of a value and their ranges.
    codes: HashMap<(NodeId, Codes), [BufferId; 2]>,
    slots: HashMap<Slot, SlotId>,
}

impl<'a> Compiler<'a> {
    fn new(recording: &'a Recording, uses: &'a Uses<'a>, plan: &'a Plan) -> Self {
        let program = Program {
            steps: Vec::new(),
            bands: Vec::new(),
            buffers: Vec::new(),
            slots: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            arena: 0,
        };
        Self {
            recording,
            uses,
            plan,
            program,
            wants_bf16: HashSet::new(),
            wants_f32: HashSet::new(),
            wants_codes: HashMap::new(),
            values: HashMap::new(),
            codes: HashMap::new(),
            slots: HashMap::new(),
        }
    }

    fn inputs(&mut self) {
        for id in self.uses.needed() {
            if !self.uses.is_given(id) {
                continue;
            }
            let node = self.recording.node(id);
            let (name, format) = match &node.kind {
                Kind::Input { name } => (name.clone(), Format::F32),
                Kind::Index { name } => (name.clone(), Format::Index),
                _ => (id.to_string(), self.kept_format(id)),
            };
            let buffer = self.buffer(format, node.shape.elements());
            let (limit, kept) = (self.index_limit(id), !node.is_input());
            self.program.inputs.push(Port { name, buffer, shape: node.shape, limit, kept });
            let (f32, bf16) =
                if format == Format::Bf16 { (None, Some(buffer)) } else { (Some(buffer), None) };
            self.values.insert(id, Results { f32, bf16 });
            self.convert_if_wanted(id, node);
            self.quantize_if_wanted(id);
        }
    }

    /// The number of rows that an index chooses from.
    fn index_limit(&self, id: NodeId) -> Option<usize> {
        let users = self.recording.nodes().iter().filter(|node| node.inputs.contains(&id));
        users
            .filter_map(|node| match &node.kind {
                Kind::Embed { table } => Some(table.shape()[0]),
                Kind::SelectToken => Some(self.recording.node(node.inputs[0]).shape[1]),
                _ => None,
            })
            .min()
    }

    fn emit(&mut self, group: &Fused) {
        let node = self.recording.node(group.base);
        let elements = self.recording.node(group.result).shape.elements();
        let op = match &node.kind {
            Kind::Linear { bias, .. } | Kind::Conv2d { bias, .. } => {
                self.matmul(group, bias.as_ref(), elements)
            }
            Kind::Attention { .. } => self.attention(group, elements),
            Kind::GroupNorm { .. } | Kind::LayerNorm { .. } => self.norm(group, elements),
            Kind::Activation(function) => Op::Unary(Unary {
                input: self.f32(group.source),
                elements,
                function: *function,
                output: self.results(group.result, elements),
            }),
            _ => self.simple(group, elements),
        };
        self.push(op, group);
        self.convert_if_wanted(group.result, node);
        self.quantize_if_wanted(group.result);
    }

    fn push(&mut self, op: Op, group: &Fused) {
        let node = self.recording.node(group.base);
        let name = node.layer().map_or_else(|| node.kind.name().to_owned(), str::to_owned);
        self.program.steps.push(Step { op, name, node: group.result, at: node.at });
    }

    /// The last of the products of a layer; those before it, where a layer reads two values, are emitted.
    fn matmul(&mut self, group: &Fused, bias: Option<&Weight>, elements: usize) -> Op {
        let mut factors = self.factors(group);
        let last = factors.pop().expect("a layer reads a value");
        // What is added to the sum is added to the first product, in the order of one of them all.
        let mut residual = group.tail.residual.map(|id| self.operand(id, self.stored(id)));
        for factor in &factors {
            let buffer = self.buffer(Format::F32, self.recording.node(group.base).shape.elements());
            let output = Results { f32: Some(buffer), bf16: None };
            let product = Matmul { residual, ..self.product(group, factor, output) };
            self.push(Op::Matmul(product), group);
            residual = Some(Operand { buffer, format: Format::F32 });
        }
        let shape = self.recording.node(group.base).shape;
        let rows_per_batch = shape.rows() / shape.batch();
        let output = self.results(group.result, elements);
        // Its weight comes before its bias, here and in files.
        let product = self.product(group, &last, output);
        Op::Matmul(Matmul {
            bias: bias.map(|b| self.slot(b, Packing::Vector)),
            shift: group.tail.shift.map(|id| (self.f32(id), rows_per_batch)),
            residual,
            activation: group.tail.activation,
            gated: group.tail.gated,
            scale: group.tail.scale,
            ..product
        })
    }

    /// The product of a value with a weight, and nothing behind it.
    fn product(&mut self, group: &Fused, factor: &Factor, output: Results) -> Matmul {
        let node = self.recording.node(group.base);
        let numbers = match self.layer(&factor.weight) {
            LayerFormat::Float(precision) => Numbers::Float(precision),
            LayerFormat::Integer(scheme) => Numbers::Integer(scheme.weights),
            LayerFormat::Rounded(_) => Numbers::Float(Precision::F32),
        };
        let (input, ranges) = self.factor(group, factor);
        let order = if group.tail.gated { PanelOrder::Gated } else { PanelOrder::Natural };
        Matmul {
            input,
            ranges,
            geometry: self.geometry(group),
            rows: node.shape.rows(),
            inputs: factor.weight.shape()[1],
            outputs: node.shape.channels(),
            weight: self.slot(&factor.weight, Packing::Panels(order, numbers)),
            bias: None,
            shift: None,
            residual: None,
            activation: None,
            gated: false,
            scale: 1.0,
            output,
            scratch: None,
        }
    }

    fn geometry(&self, group: &Fused) -> Geometry {
        let node = self.recording.node(group.base);
        let Kind::Conv2d { weight, stride, padding, .. } = &node.kind else {
            return Geometry::Rows;
        };
        let seen = self.recording.node(node.inputs[0]).shape;
        // The swallowed resize, if there is one, tells the stored size; a reshape in between keeps height and width.
        let before = self.recording.node(self.uses.root(node.inputs[0]));
        let stored = match before.kind {
            Kind::Upsample if self.uses.root(before.inputs[0]) == group.source => {
                self.recording.node(before.inputs[0]).shape
            }
            _ => seen,
        };
        Geometry::Conv(Conv {
            batch: seen[0],
            stored: [stored[1], stored[2]],
            seen: [seen[1], seen[2]],
            result: [node.shape[1], node.shape[2]],
            kernel: [weight.shape()[2], weight.shape()[3]],
            stride: *stride,
            pad: [padding.top, padding.left],
        })
    }

    fn attention(&mut self, group: &Fused, elements: usize) -> Op {
        let node = self.recording.node(group.base);
        let Kind::Attention { heads, mask } = node.kind else {
            unreachable!("the caller matched an attention node");
        };
        let precision = self.precision(node);
        let [q, k, v] = [0, 1, 2].map(|i| self.operand(node.inputs[i], precision));
        let keys = self.recording.node(node.inputs[1]).shape[1];
        Op::Attention(Attention {
            query: q,
            key: k,
            value: v,
            batch: node.shape[0],
            queries: node.shape[1],
            keys,
            heads,
            head_dim: node.shape[2] / heads,
            mask,
            // Few keys are multiplied before codes of them are made.
            scores: if keys < FEW_KEYS { Scores::Real } else { self.plan.scores },
            output: self.results(group.result, elements),
            scratch: None,
        })
    }

    fn norm(&mut self, group: &Fused, elements: usize) -> Op {
        let node = self.recording.node(group.base);
        let channels = node.shape.channels();
        match &node.kind {
            Kind::GroupNorm { groups, eps, gamma, beta } => Op::GroupNorm(GroupNorm {
                input: self.operand(group.source, self.stored(group.source)),
                batch: node.shape.batch(),
                pixels: node.shape.rows() / node.shape.batch(),
                channels,
                groups: *groups,
                eps: *eps,
                gamma: self.slot(gamma, Packing::Vector),
                beta: self.slot(beta, Packing::Vector),
                silu: group.tail.activation.is_some(),
                output: match self.codes_alone(group.result) {
                    Some(output) => output,
                    None => Normed::Real(self.results(group.result, elements)),
                },
                scratch: None,
            }),
            Kind::LayerNorm { eps, gamma, beta } => Op::LayerNorm(LayerNorm {
                input: self.f32(group.source),
                rows: node.shape.rows(),
                channels,
                eps: *eps,
                gamma: self.slot(gamma, Packing::Vector),
                beta: self.slot(beta, Packing::Vector),
                output: self.results(group.result, elements),
            }),
            other => unreachable!("{} is not a normalisation", other.name()),
        }
    }

    fn simple(&mut self, group: &Fused, elements: usize) -> Op {
        let node = self.recording.node(group.base);
        let inputs: Vec<BufferId> = node.inputs.iter().map(|id| self.f32(*id)).collect();
        let kind = self.simple_kind(node);
        let output = self.buffer(Format::F32, elements);
        self.values.insert(group.result, Results { f32: Some(output), bf16: None });
        Op::Simple(Simple { kind, inputs, output })
    }

    fn simple_kind(&mut self, node: &Node) -> SimpleKind {
        let (shape, channels) = (node.shape, node.shape.channels());
        let before = |i: usize| -> Shape { self.recording.node(node.inputs[i]).shape };
        match &node.kind {
            Kind::Add => SimpleKind::Add,
            Kind::Mul => SimpleKind::Mul,
            Kind::ScaleChannels { factors } => {
                SimpleKind::ScaleChannels { factors: self.slot(factors, Packing::Vector) }
            }
            Kind::Scale(factor) => SimpleKind::Affine { scale: *factor, offset: 0.0 },
            Kind::Offset(summand) => SimpleKind::Affine { scale: 1.0, offset: *summand },
            Kind::AddShift => SimpleKind::AddShift { rows: shape.rows() / shape.batch(), channels },
            Kind::AddTable { table } => SimpleKind::AddTable {
                table: self.slot(table, Packing::Rows),
                period: shape[1] * channels,
            },
            Kind::Geglu => SimpleKind::Geglu { channels },
            Kind::ConcatChannels => {
                SimpleKind::Concat { widths: [before(0).channels(), before(1).channels()] }
            }
            Kind::ConcatTokens => {
                SimpleKind::Concat { widths: [before(0)[1] * channels, before(1)[1] * channels] }
            }
            Kind::Channels { start } => {
                SimpleKind::Slice { width: before(0).channels(), start: *start, count: channels }
            }
            Kind::Upsample => SimpleKind::Upsample {
                from: [before(0)[1], before(0)[2]],
                to: [shape[1], shape[2]],
                channels,
            },
            Kind::Embed { table } => SimpleKind::Embed { table: self.slot(table, Packing::Rows) },
            Kind::SelectToken => SimpleKind::SelectToken { tokens: before(0)[1], channels },
            Kind::Repeat { row } => SimpleKind::Repeat { row: self.slot(row, Packing::Vector) },
            other => unreachable!("{} has an operation of its own", other.name()),
        }
    }

    fn f32(&self, id: NodeId) -> BufferId {
        self.operand(id, Precision::F32).buffer
    }

    fn buffer(&mut self, format: Format, elements: usize) -> BufferId {
        self.program.buffers.push(Buffer { format, elements, offset: 0, is_band: false });
        BufferId(self.program.buffers.len() - 1)
    }

    fn slot(&mut self, weight: &Weight, packing: Packing) -> SlotId {
        let slot = Slot { weight: weight.clone(), packing };
        let next = SlotId(self.program.slots.len());
        *self.slots.entry(slot.clone()).or_insert_with(|| {
            self.program.slots.push(slot);
            next
        })
    }

    fn outputs(&mut self, part: Part<'_>) {
        for &Output { node: id, precision } in part.outputs {
            let named = self.recording.outputs().iter().find(|(_, out)| *out == id);
            let name = named.map_or_else(|| id.to_string(), |(name, _)| name.clone());
            let shape = self.recording.node(id).shape;
            let buffer = self.operand(id, precision).buffer;
            self.program.outputs.push(Port { name, buffer, shape, limit: None, kept: false });
        }
    }
}
