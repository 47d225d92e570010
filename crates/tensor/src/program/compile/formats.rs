//! In which formats each value exists: what its consumers ask for, and the operations that make it.

use super::Compiler;
use crate::graph::fuse::Fused;
use crate::graph::{Kind, Node, NodeId};
use crate::program::op::{Convert, Dequantize, Normed, Op, Operand, Quantize, Results};
use crate::program::{BufferId, Format, Step};
use crate::scheme::ActivationScheme;
use crate::{Halves, LayerFormat, Precision, Shape, Span, Weight};

/// Bytes from which on a value of real numbers is stored in as few as its plan's precision has.
const LARGE: usize = 32 << 20;

/// One of the ways to quantize a value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Codes {
    rows_per_range: usize,
    levels: u8,
    known: Option<Span>,
}

/// A value that a multiplication reads, the weight that it meets, and how it is quantized for that.
pub(super) struct Factor {
    pub(super) source: NodeId,
    pub(super) weight: Weight,
    codes: Option<Codes>,
}

impl Compiler<'_> {
    /// Find out which value is read in which format, before any buffer is made.
    pub(super) fn note_wants(&mut self, groups: &[Fused]) {
        for group in groups {
            let node = self.recording.node(group.base);
            let precision = self.precision(node);
            let factors = self.factors(group);
            if let [Factor { source, codes: Some(codes), .. }] = factors[..] {
                self.wants_codes.entry(source).or_default().insert(codes);
            } else if factors.len() > 1 {
                // Codes of halves are made when they are due, from the numbers that were put together.
                for half in factors.iter().filter(|half| half.codes.is_none()) {
                    self.want(half.source, precision);
                }
            } else if matches!(node.kind, Kind::GroupNorm { .. }) {
                self.want(group.source, self.stored(group.source));
            } else {
                self.want(group.source, precision);
            }
            for operand in node.inputs.iter().skip(1) {
                self.want(self.uses.root(*operand), precision);
            }
            if let Some(shift) = group.tail.shift {
                self.want(shift, Precision::F32);
            }
            if let Some(residual) = group.tail.residual {
                self.want(residual, self.stored(residual));
            }
        }
    }

    /// How a value is stored for those that need not read it exactly. Rounding the large images of a decoder halves
    /// its memory; its multiplications round what they read in any case.
    pub(super) fn stored(&self, id: NodeId) -> Precision {
        let bytes = 4 * self.recording.node(id).shape.elements();
        if bytes >= LARGE { self.plan.default } else { Precision::F32 }
    }

    /// The formats that a value has, whoever makes it: `f32` and `bf16`.
    fn formats(&self, id: NodeId) -> [bool; 2] {
        let (f32, coded) = (self.wants_f32.contains(&id), self.wants_codes.contains_key(&id));
        // Codes are made from whatever else there is, or from what is smaller.
        let smaller = coded && !f32 && self.plan.default == Precision::Bf16;
        let bf16 = self.wants_bf16.contains(&id) || smaller;
        [f32 || !bf16, bf16]
    }

    /// Buffers for the codes of a value whose producer can write them itself, if nothing else is wanted of it.
    pub(super) fn codes_alone(&mut self, id: NodeId) -> Option<Normed> {
        let wanted = self.wants_codes.get(&id)?;
        let (kind, shape) = (*wanted.first()?, self.recording.node(id).shape);
        let is_alone = wanted.len() == 1
            && !self.wants_f32.contains(&id)
            && !self.wants_bf16.contains(&id)
            && kind.rows_per_range == shape.rows() / shape.batch();
        if !is_alone {
            return None;
        }
        let [codes, ranges] = self.code_buffers(id, kind);
        self.values.insert(id, Results { f32: None, bf16: None });
        Some(Normed::Codes { codes, ranges, levels: kind.levels, known: kind.known })
    }

    fn code_buffers(&mut self, id: NodeId, kind: Codes) -> [BufferId; 2] {
        let shape = self.recording.node(id).shape;
        let codes = shape.rows() * shape.channels().next_multiple_of(4);
        let codes = self.buffer(Format::U8, codes);
        let ranges = self.buffer(Format::Range, shape.rows() / kind.rows_per_range);
        self.codes.insert((id, kind), [codes, ranges]);
        [codes, ranges]
    }

    pub(super) fn want(&mut self, value: NodeId, precision: Precision) {
        match precision {
            Precision::F32 => self.wants_f32.insert(value),
            Precision::Bf16 => self.wants_bf16.insert(value),
        };
    }

    /// The format in which a node reads its operands, or in which they are quantized for it.
    pub(super) fn precision(&self, node: &Node) -> Precision {
        match (&node.kind, node.weight()) {
            (_, Some(weight)) => match self.layer(weight) {
                LayerFormat::Float(precision) => precision,
                LayerFormat::Integer(_) => self.plan.default,
                LayerFormat::Rounded(_) => Precision::F32,
            },
            (Kind::Attention { .. }, _) => self.plan.default,
            _ => Precision::F32,
        }
    }

    /// The format of a layer. Whole weights lie in groups of four inputs, which real activations
    /// cannot be padded to: such a layer stays real.
    pub(super) fn layer(&self, weight: &Weight) -> LayerFormat {
        match self.plan.layer(weight.layer()) {
            LayerFormat::Integer(scheme)
                if scheme.activations == ActivationScheme::Float
                    && !weight.shape()[1].is_multiple_of(4) =>
            {
                LayerFormat::Float(self.plan.default)
            }
            format => format,
        }
    }

    /// What a multiplication reads: one value, or two that stand side by side, each with its part of the weight. Nothing for
    /// what does not multiply.
    pub(super) fn factors(&self, group: &Fused) -> Vec<Factor> {
        let node = self.recording.node(group.base);
        let Some(weight) = node.weight() else { return Vec::new() };
        let factor = |source, weight: Weight| {
            let codes = self.codes_of(node, source, &weight);
            Factor { source, weight, codes }
        };
        let beside = self.recording.node(group.source);
        let is_apart = self.plan.halves == Halves::Apart
            && matches!(self.layer(weight), LayerFormat::Integer(_))
            && matches!((&node.kind, &beside.kind), (Kind::Conv2d { .. }, Kind::ConcatChannels))
            // Codes lie in groups of four inputs.
            && self.recording.node(beside.inputs[0]).shape.channels().is_multiple_of(4)
            // Where a part of a recording begins with them together, they stay so.
            && !self.uses.is_given(group.source);
        if !is_apart {
            return vec![factor(group.source, weight.clone())];
        }
        let [left, right] = [0, 1].map(|i| self.uses.root(beside.inputs[i]));
        let cut = self.recording.node(left).shape.channels();
        let parts = [(left, 0..cut), (right, cut..weight.shape()[1])];
        parts.map(|(source, channels)| factor(source, weight.part(channels))).into()
    }

    /// How a multiplication wants a value quantized.
    fn codes_of(&self, node: &Node, source: NodeId, weight: &Weight) -> Option<Codes> {
        let activations = match self.layer(weight) {
            LayerFormat::Float(_) => return None,
            LayerFormat::Integer(scheme) => scheme.activations,
            LayerFormat::Rounded(activations) => activations,
        };
        let known = || self.plan.ranges.get(&weight.reads()).copied();
        let (levels, known) = match activations {
            ActivationScheme::Float => return None,
            ActivationScheme::Dynamic { levels } => (levels, None),
            ActivationScheme::Static { levels } => (levels, known()),
        };
        // A resize that a convolution swallows repeats pixels, which changes no range.
        let shape = self.recording.node(source).shape;
        let rows_per_range =
            if is_row_by_row(node, shape) { 1 } else { shape.rows() / node.shape.batch() };
        Some(Codes { rows_per_range, levels, known })
    }

    /// What a multiplication reads, and the ranges of codes.
    pub(super) fn factor(
        &mut self,
        group: &Fused,
        Factor { source, codes, weight }: &Factor,
    ) -> (Operand, Option<(BufferId, usize)>) {
        let node = self.recording.node(group.base);
        let Some(kind) = *codes else {
            return (self.operand(*source, self.precision(node)), None);
        };
        let [buffer, ranges] = match self.codes.get(&(*source, kind)) {
            Some(buffers) => *buffers,
            None => self.quantize(*source, kind),
        };
        if matches!(self.layer(weight), LayerFormat::Rounded(_)) {
            return (self.dequantize(*source, kind, [buffer, ranges]), None);
        }
        let shape = self.recording.node(*source).shape;
        let rows =
            if is_row_by_row(node, shape) { 1 } else { node.shape.rows() / node.shape.batch() };
        (Operand { buffer, format: Format::U8 }, Some((ranges, rows)))
    }

    /// Round a value that only exists as `f32` where a multiplication reads it as `bf16`.
    pub(super) fn convert_if_wanted(&mut self, id: NodeId, node: &Node) {
        let results = self.values[&id];
        let [_, wanted] = self.formats(id);
        let (Some(input), None, true) = (results.f32, results.bf16, wanted) else {
            return;
        };
        let output = self.buffer(Format::Bf16, self.program.buffer(input).elements);
        let op = Op::Convert(Convert { input, output });
        self.program.steps.push(Step { op, name: "convert".into(), node: id, at: node.at });
        self.values.insert(id, Results { f32: Some(input), bf16: Some(output) });
    }

    /// Quantize a value in each way that a multiplication asks for.
    pub(super) fn quantize_if_wanted(&mut self, id: NodeId) {
        let wanted = self.wants_codes.get(&id).cloned().unwrap_or_default();
        for kind in wanted {
            if !self.codes.contains_key(&(id, kind)) {
                self.quantize(id, kind);
            }
        }
    }

    /// Quantize a value in one way: its codes and their ranges.
    fn quantize(&mut self, id: NodeId, kind: Codes) -> [BufferId; 2] {
        let (results, node) = (self.values[&id], self.recording.node(id));
        // Of two formats, the one that another producer would have written alone.
        let [is_f32, _] = self.formats(id);
        let f32 = results.f32.filter(|_| is_f32 || results.bf16.is_none());
        let input = match (f32, results.bf16) {
            (Some(buffer), _) => Operand { buffer, format: Format::F32 },
            (None, Some(buffer)) => Operand { buffer, format: Format::Bf16 },
            (None, None) => unreachable!("a value has a format"),
        };
        let elements = self.program.buffer(input.buffer).elements;
        let channels = node.shape.channels();
        let [codes, ranges] = self.code_buffers(id, kind);
        let Codes { rows_per_range, levels, known } = kind;
        let op = Quantize {
            input,
            rows: elements / channels,
            channels,
            rows_per_range,
            levels,
            known,
            codes,
            ranges,
            scratch: None,
        };
        let name = "quantize".into();
        self.program.steps.push(Step { op: Op::Quantize(op), name, node: id, at: node.at });
        [codes, ranges]
    }

    /// What codes of a value stand for.
    fn dequantize(&mut self, id: NodeId, kind: Codes, [codes, ranges]: [BufferId; 2]) -> Operand {
        let node = self.recording.node(id);
        let output = self.buffer(Format::F32, node.shape.elements());
        let op = Op::Dequantize(Dequantize {
            codes,
            ranges,
            channels: node.shape.channels(),
            rows_per_range: kind.rows_per_range,
            output,
        });
        self.program.steps.push(Step { op, name: "dequantize".into(), node: id, at: node.at });
        Operand { buffer: output, format: Format::F32 }
    }

    /// Buffers for a value whose producer can write every format itself.
    pub(super) fn results(&mut self, id: NodeId, elements: usize) -> Results {
        let [f32, bf16] = self.formats(id);
        let results = Results {
            f32: f32.then(|| self.buffer(Format::F32, elements)),
            bf16: bf16.then(|| self.buffer(Format::Bf16, elements)),
        };
        self.values.insert(id, results);
        results
    }

    /// The format of a value from outside that is kept: as narrow as its readers allow, as if it were made here.
    pub(super) fn kept_format(&self, id: NodeId) -> Format {
        match self.formats(id) {
            [false, _] => Format::Bf16,
            [true, _] => Format::F32,
        }
    }

    pub(super) fn operand(&self, id: NodeId, precision: Precision) -> Operand {
        let results = self.values[&self.uses.root(id)];
        let (buffer, format) = match precision {
            Precision::F32 => (results.f32, Format::F32),
            Precision::Bf16 => (results.bf16, Format::Bf16),
        };
        let buffer = buffer.expect("every format a consumer asks for was noted before");
        Operand { buffer, format }
    }
}

/// Whether each row of the result is that of one row of a value of this shape, so that each can have a range of its own: in linear
/// layers, and where a convolution has one tap.
fn is_row_by_row(node: &Node, source: Shape) -> bool {
    match &node.kind {
        Kind::Conv2d { weight, .. } => {
            weight.shape()[2..] == [1, 1] && source.rows() == node.shape.rows()
        }
        _ => true,
    }
}
