//! The CPU: every operation of a program becomes one call of a kernel.

mod dequantize;
mod flow;
mod integers;
mod pack;
mod rows;
mod weights;

pub use weights::Weights;

use kernels::attention::{self, Attention as AttentionKernel, AttentionShape, Heads};
use kernels::format::{ActivationFormat, Activations, Source};
use kernels::isa::Level;
use kernels::matmul::{self, Conv2d, Epilogue, Gate, Matmul as MatmulKernel, Residual, Shift};
use kernels::norm::{self, GroupNorm as GroupNormKernel, LayerNorm as LayerNormKernel, Normed};
use kernels::quantize::{self, Quantize as QuantizeKernel};
use kernels::threads::{Output, Threads};
use kernels::{activation, convert};

use super::{Control, Device};
use crate::Error;
use crate::arena::{Arena, Lease};
use crate::graph::{Activation, Mask};
use crate::packed::{Form, PackedWeight};
use crate::program::{
    self, Attention, Band, BufferId, Format, Geometry, GroupNorm, LayerNorm, Matmul, Op, Operand,
    Packing, Program, Quantize, Residency, Results, Slot, Step, Target, Unary,
};

/// What rows of a band may take for each thread: about a second-level cache.
const NEAR_BYTES: usize = 1 << 20;

/// The CPU with a pool of threads and an instruction set.
#[derive(Debug)]
pub struct Cpu {
    kernels: kernels::Cpu,
    /// What rows of a band may take for each thread.
    near: usize,
}

impl Cpu {
    /// This many threads, and the best instruction set up to `level` that this CPU has.
    pub fn new(threads: usize, level: Level) -> Self {
        let kernels = kernels::Cpu::new(Threads::new(threads), level);
        let kernels = kernels.unwrap_or_else(|| kernels::Cpu::detect(threads));
        Self { kernels, near: NEAR_BYTES }
    }

    /// This many threads and the best instruction set.
    pub fn detect(threads: usize) -> Self {
        Self { kernels: kernels::Cpu::detect(threads), near: NEAR_BYTES }
    }

    /// The same with bands of rows that take about this many bytes for each thread; none for zero.
    pub fn with_near_bytes(self, near: usize) -> Self {
        Self { near, ..self }
    }

    /// What computes, for what is not part of a program.
    pub(crate) fn kernels(&self) -> &kernels::Cpu {
        &self.kernels
    }

    /// The instruction set in use.
    pub fn level(&self) -> Level {
        self.kernels.level()
    }

    /// Whether products of `bf16` numbers are an instruction here.
    pub fn has_fast_bf16(&self) -> bool {
        self.kernels.has_bf16_dot()
    }

    /// The weight of a slot as a packed file keeps it: from such a file, or made now.
    ///
    /// # Errors
    ///
    /// If it cannot be read or is not finite.
    pub fn packed(&self, slot: &Slot) -> Result<PackedWeight, Error> {
        weights::prepared(slot, self.packed_form(slot), &self.kernels)
    }

    /// The form in which a packed file keeps the weight of a slot: real numbers in two bytes each, those of the model where it
    /// has `f16`.
    pub fn packed_form(&self, slot: &Slot) -> Form {
        weights::packed_form(slot)
    }

    /// The form that the weight of a slot has or will have.
    pub fn form(&self, slot: &Slot) -> Form {
        weights::form(slot)
    }
}

impl Target for Cpu {
    fn scratch(&self, op: &Op, program: &Program) -> usize {
        match op {
            Op::Matmul(m) => {
                let Some(layout) = self.form(program.slot(m.weight)).layout() else { return 0 };
                matmul::scratch_bytes(format(m.input), &geometry(m), &layout, &self.kernels)
            }
            Op::Attention(a) => {
                let formats = (format(a.query), a.scores);
                attention::scratch_bytes(formats, &shape(a), &self.kernels)
            }
            Op::GroupNorm(n) => norm::scratch_bytes([n.batch, n.pixels, n.channels, n.groups]),
            Op::Quantize(q) => quantize::scratch_bytes([q.rows, q.channels, q.rows_per_range]),
            _ => 0,
        }
    }

    fn resident_bytes(&self, slot: &Slot) -> usize {
        self.form(slot).resident_bytes()
    }

    fn can_flow(&self, slot: &Slot) -> bool {
        matches!(slot.packing, Packing::Panels(..)) && slot.weight.packed().is_some()
    }

    fn near_bytes(&self) -> usize {
        self.near * self.kernels.threads.count()
    }
}

impl Device for Cpu {
    type Memory = Arena;
    type Weights = Weights;

    fn kernel(&self, op: &Op, program: &Program) -> Option<String> {
        let Op::Matmul(op) = op else { return None };
        let layout = self.form(program.slot(op.weight)).layout()?;
        Some(matmul::kernel_name(format(op.input), &geometry(op), &layout, &self.kernels))
    }

    fn prepare_within(
        &self,
        weights: &mut Weights,
        program: &Program,
        residency: &Residency,
        control: &Control<'_>,
    ) -> Result<(), Error> {
        weights.flow(program, residency)?;
        for (i, slot) in program.slots.iter().enumerate() {
            control.check(i, program.slots.len())?;
            weights.add(slot, &self.kernels)?;
        }
        control.check(program.slots.len(), program.slots.len())
    }

    fn forget(&self, weights: &mut Weights, program: &Program, kept: &Program) {
        let gone = program.slots.iter().filter(|slot| !kept.slots.contains(slot));
        gone.for_each(|slot| weights.forget(slot));
    }

    fn before(&self, steps: &[Step], program: &Program, weights: &Weights) {
        weights.need(&slots(steps, program));
    }

    fn after(&self, steps: &[Step], program: &Program, weights: &Weights) {
        weights.done(&slots(steps, program));
    }

    fn allocate(&self, program: &Program) -> Result<Arena, Error> {
        Arena::new(program)
    }

    fn write(&self, memory: &mut Arena, buffer: BufferId, bytes: &[u8]) {
        memory.bytes_mut(buffer).copy_from_slice(bytes);
    }

    fn read(&self, memory: &Arena, buffer: BufferId) -> Vec<u8> {
        memory.bytes(buffer).to_vec()
    }

    fn execute(
        &self,
        op: &Op,
        band: Option<&Band>,
        program: &Program,
        memory: &mut Arena,
        weights: &Weights,
    ) -> Result<(), Error> {
        let run = Run { cpu: &self.kernels, program, weights };
        let mut lease = memory.lease(band);
        match op {
            Op::Matmul(op) => run.matmul(op, &mut lease),
            Op::Attention(op) => run.attention(op, &mut lease),
            Op::GroupNorm(op) => run.group_norm(op, &mut lease),
            Op::LayerNorm(op) => run.layer_norm(op, &mut lease),
            Op::Unary(op) => run.unary(op, &mut lease),
            Op::Simple(op) => run.simple(op, &mut lease),
            Op::Convert(op) => {
                let (input, output): (&[f32], _) = (lease.read(op.input), lease.write(op.output));
                let extent = activation::Extent::flat(input.len());
                let output = Output::bf16(output, extent.columns);
                convert::Convert { input: Source::F32(input), extent, output }.run(&self.kernels);
            }
            Op::Quantize(op) => run.quantize(op, &mut lease),
            Op::Dequantize(op) => run.dequantize(op, &mut lease),
        }
        Ok(())
    }
}

/// What every operation of a run has at hand.
struct Run<'a> {
    cpu: &'a kernels::Cpu,
    program: &'a Program,
    weights: &'a Weights,
}

impl Run<'_> {
    fn matmul(&self, op: &Matmul, lease: &mut Lease<'_>) {
        let columns = if op.gated { op.outputs / 2 } else { op.outputs };
        let weight = self.program.slot(op.weight);
        let ranges = op.ranges.map(|(buffer, rows_per_range)| matmul::Ranges {
            values: lease.read(buffer),
            rows_per_range,
        });
        let epilogue = Epilogue {
            dequantize: self.weights.dequantize(weight, ranges),
            bias: op.bias.map(|slot| self.weights.vector(self.program.slot(slot))),
            shift: op.shift.map(|(buffer, rows_per_batch)| Shift {
                values: lease.read(buffer),
                stride: op.outputs,
                rows_per_batch,
            }),
            residual: op.residual.map(|operand| Residual {
                values: activations(operand, lease),
                stride: op.outputs,
            }),
            activation: op.activation.map(function).unwrap_or_default(),
            gate: if op.gated { Gate::Geglu { hidden: columns } } else { Gate::None },
            scale: (op.scale != 1.0).then_some(op.scale),
        };
        let kernel = MatmulKernel {
            input: activations(op.input, lease),
            geometry: geometry(op),
            weights: self.weights.panels(weight),
            epilogue,
            output: output(&op.output, columns, lease),
            scratch: op.scratch.map(|buffer| lease.write(buffer)).unwrap_or_default(),
        };
        kernel.run(self.cpu);
    }

    fn quantize(&self, op: &Quantize, lease: &mut Lease<'_>) {
        let kernel = QuantizeKernel {
            input: activations(op.input, lease),
            rows: op.rows,
            channels: op.channels,
            rows_per_range: op.rows_per_range,
            levels: op.levels,
            known: op.known.map(|span| span.range(op.levels)),
            codes: lease.write(op.codes),
            ranges: lease.write(op.ranges),
            scratch: op.scratch.map(|buffer| lease.write(buffer)).unwrap_or_default(),
        };
        kernel.run(self.cpu);
    }

    fn attention(&self, op: &Attention, lease: &mut Lease<'_>) {
        let channels = op.heads * op.head_dim;
        let mut heads =
            |operand| Heads { values: activations(operand, lease), offset: 0, stride: channels };
        let [q, k, v] = [op.query, op.key, op.value].map(&mut heads);
        let kernel = AttentionKernel {
            shape: shape(op),
            q,
            k,
            v,
            scores: op.scores,
            scale: 1.0 / (op.head_dim as f32).sqrt(),
            mask: match op.mask {
                Mask::None => attention::Mask::None,
                Mask::Causal => attention::Mask::Causal,
            },
            output: output(&op.output, channels, lease),
            scratch: op.scratch.map(|buffer| lease.write(buffer)).unwrap_or_default(),
        };
        kernel.run(self.cpu);
    }

    fn group_norm(&self, op: &GroupNorm, lease: &mut Lease<'_>) {
        let kernel = GroupNormKernel {
            input: activations(op.input, lease),
            channels: op.channels,
            batch: op.batch,
            pixels: op.pixels,
            groups: op.groups,
            eps: op.eps,
            gamma: Some(self.weights.vector(self.program.slot(op.gamma))),
            beta: Some(self.weights.vector(self.program.slot(op.beta))),
            activation: if op.silu {
                activation::Activation::Silu
            } else {
                activation::Activation::None
            },
            output: match op.output {
                program::Normed::Real(results) => {
                    Normed::Real(output(&results, op.channels, lease))
                }
                program::Normed::Codes { codes, ranges, levels, known } => Normed::Codes {
                    codes: lease.write(codes),
                    ranges: lease.write(ranges),
                    levels,
                    known: known.map(|span| span.range(levels)),
                },
            },
            scratch: op.scratch.map(|buffer| lease.write(buffer)).unwrap_or_default(),
        };
        kernel.run(self.cpu);
    }

    fn layer_norm(&self, op: &LayerNorm, lease: &mut Lease<'_>) {
        let kernel = LayerNormKernel {
            input: lease.read(op.input),
            rows: op.rows,
            channels: op.channels,
            stride: op.channels,
            eps: op.eps,
            gamma: Some(self.weights.vector(self.program.slot(op.gamma))),
            beta: Some(self.weights.vector(self.program.slot(op.beta))),
            output: output(&op.output, op.channels, lease),
        };
        kernel.run(self.cpu);
    }

    fn unary(&self, op: &Unary, lease: &mut Lease<'_>) {
        let kernel = activation::Activate {
            input: lease.read(op.input),
            extent: activation::Extent::flat(op.elements),
            activation: function(op.function),
            output: output(&op.output, op.elements, lease),
        };
        kernel.run(self.cpu);
    }
}

/// The weights of some steps.
fn slots<'a>(steps: &[Step], program: &'a Program) -> Vec<&'a Slot> {
    steps.iter().flat_map(|step| step.op.weights()).map(|slot| program.slot(slot)).collect()
}

fn activations<'a>(operand: Operand, lease: &mut Lease<'a>) -> Activations<'a> {
    match operand.format {
        Format::Bf16 => Activations::Bf16(lease.read(operand.buffer)),
        Format::U8 => Activations::U8(lease.read(operand.buffer)),
        _ => Activations::F32(lease.read(operand.buffer)),
    }
}

fn output<'a>(results: &Results, stride: usize, lease: &mut Lease<'a>) -> Output<'a> {
    Output {
        f32: results.f32.map(|buffer| lease.write(buffer)),
        bf16: results.bf16.map(|buffer| lease.write(buffer)),
        stride,
    }
}

fn format(operand: Operand) -> ActivationFormat {
    match operand.format {
        Format::Bf16 => ActivationFormat::Bf16,
        Format::U8 => ActivationFormat::U8,
        _ => ActivationFormat::F32,
    }
}

/// How the rows of a product read its input.
pub(crate) fn geometry(op: &Matmul) -> matmul::Geometry {
    // Rows of codes are whole groups of four long.
    let codes = op.input.format == Format::U8;
    let channels = if codes { op.inputs.next_multiple_of(4) } else { op.inputs };
    match op.geometry {
        Geometry::Rows => matmul::Geometry::Rows { rows: op.rows, stride: channels },
        Geometry::Conv(conv) => matmul::Geometry::Conv(Conv2d {
            batch: conv.batch,
            height: conv.stored[0],
            width: conv.stored[1],
            channels,
            out_height: conv.result[0],
            out_width: conv.result[1],
            kernel: conv.kernel,
            stride: [conv.stride; 2],
            pad_top: conv.pad[0],
            pad_left: conv.pad[1],
            upsampled: (conv.seen != conv.stored).then_some(conv.seen),
        }),
    }
}

fn shape(op: &Attention) -> AttentionShape {
    AttentionShape {
        batch: op.batch,
        heads: op.heads,
        head_dim: op.head_dim,
        tokens_q: op.queries,
        tokens_k: op.keys,
    }
}

fn function(function: Activation) -> activation::Activation {
    match function {
        Activation::Silu => activation::Activation::Silu,
        Activation::Gelu => activation::Activation::Gelu,
        Activation::QuickGelu => activation::Activation::QuickGelu,
        Activation::GeluTanh => activation::Activation::GeluTanh,
        Activation::Relu => activation::Activation::Relu,
        Activation::Tanh => activation::Activation::Tanh,
    }
}
