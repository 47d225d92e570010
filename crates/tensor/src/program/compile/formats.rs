//! In which formats each value exists: what its consumers ask for, and the operations that make it.

use super::Compiler;
use crate::graph::fuse::Fused;
use crate::graph::{Kind, Node, NodeId};
use crate::program::op::{Convert, Op, Operand, Quantize, Results};
use crate::program::{BufferId, Format, Step};
use crate::scheme::ActivationScheme;
use crate::{LayerFormat, Precision, Weight};

/// One of the ways to quantize a value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Codes {
    rows_per_range: usize,
    levels: u8,
}

impl Compiler<'_> {
    /// Find out which value is read in which format, before any buffer is made.
    pub(super) fn note_wants(&mut self, groups: &[Fused]) {
        for group in groups {
            let node = self.recording.node(group.base);
            let precision = self.precision(node);
            if let Some(codes) = self.codes_of(group) {
                self.wants_codes.entry(group.source).or_default().insert(codes);
            }
            let operands = std::iter::once(group.source)
                .chain(node.inputs.iter().skip(1).map(|id| self.uses.root(*id)));
            for operand in operands {
                self.want(operand, precision);
            }
            for extra in [group.tail.shift, group.tail.residual].into_iter().flatten() {
                self.want(extra, Precision::F32);
            }
        }
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

    /// How a multiplication wants its input quantized.
    pub(super) fn codes_of(&self, group: &Fused) -> Option<Codes> {
        let node = self.recording.node(group.base);
        let LayerFormat::Integer(scheme) = self.layer(node.weight()?) else { return None };
        let ActivationScheme::Dynamic { levels } = scheme.activations else { return None };
        let rows_per_range = match node.kind {
            // A resize that the convolution swallows repeats pixels, which changes no range.
            Kind::Conv2d { .. } => {
                self.recording.node(group.source).shape.rows() / node.shape.batch()
            }
            _ => 1,
        };
        Some(Codes { rows_per_range, levels })
    }

    /// What a multiplication reads, and the ranges of codes.
    pub(super) fn factor(&self, group: &Fused) -> (Operand, Option<(BufferId, usize)>) {
        let node = self.recording.node(group.base);
        let Some(codes) = self.codes_of(group) else {
            return (self.operand(group.source, self.precision(node)), None);
        };
        let [buffer, ranges] = self.codes[&(self.uses.root(group.source), codes)];
        let rows = match node.kind {
            Kind::Conv2d { .. } => node.shape.rows() / node.shape.batch(),
            _ => 1,
        };
        (Operand { buffer, format: Format::U8 }, Some((ranges, rows)))
    }

    /// Round a value that only exists as `f32` where a multiplication reads it as `bf16`.
    pub(super) fn convert_if_wanted(&mut self, id: NodeId, node: &Node) {
        let results = self.values[&id];
        let (Some(input), None, true) = (results.f32, results.bf16, self.wants_bf16.contains(&id))
        else {
            return;
        };
        let output = self.buffer(Format::Bf16, self.program.buffer(input).elements);
        let op = Op::Convert(Convert { input, output });
        self.program.steps.push(Step { op, name: "convert".into(), node: id, at: node.at });
        self.values.insert(id, Results { f32: Some(input), bf16: Some(output) });
    }

    /// Quantize a value in each way that a multiplication asks for.
    pub(super) fn quantize_if_wanted(&mut self, id: NodeId, node: &Node) {
        let results = self.values[&id];
        // Of two formats, the one that something else reads, too: a producer that can write both would
        // write that one alone, and codes must not depend on the producer.
        let f32 = results.f32.filter(|_| self.wants_f32.contains(&id) || results.bf16.is_none());
        let input = match (f32, results.bf16) {
            (Some(buffer), _) => Operand { buffer, format: Format::F32 },
            (None, Some(buffer)) => Operand { buffer, format: Format::Bf16 },
            (None, None) => unreachable!("a value has a format"),
        };
        for kind in self.wants_codes.get(&id).cloned().unwrap_or_default() {
            let elements = self.program.buffer(input.buffer).elements;
            let channels = self.recording.node(id).shape.channels();
            let rows = elements / channels;
            let codes = self.buffer(Format::U8, rows * channels.next_multiple_of(4));
            let ranges = self.buffer(Format::Range, rows / kind.rows_per_range);
            let Codes { rows_per_range, levels } = kind;
            let op = Quantize {
                input,
                rows,
                channels,
                rows_per_range,
                levels,
                codes,
                ranges,
                scratch: None,
            };
            let name = "quantize".into();
            self.program.steps.push(Step { op: Op::Quantize(op), name, node: id, at: node.at });
            self.codes.insert((id, kind), [codes, ranges]);
        }
    }

    /// Buffers for a value whose producer can write every format itself.
    pub(super) fn results(&mut self, id: NodeId, elements: usize) -> Results {
        let bf16 = self.wants_bf16.contains(&id);
        let f32 = self.wants_f32.contains(&id) || !bf16;
        let results = Results {
            f32: f32.then(|| self.buffer(Format::F32, elements)),
            bf16: bf16.then(|| self.buffer(Format::Bf16, elements)),
        };
        self.values.insert(id, results);
        results
    }

    /// The format of a value from outside that is kept: as narrow as its readers allow, as if it were made here.
    pub(super) fn kept_format(&self, id: NodeId) -> Format {
        if self.wants_bf16.contains(&id) && !self.wants_f32.contains(&id) {
            Format::Bf16
        } else {
            Format::F32
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
