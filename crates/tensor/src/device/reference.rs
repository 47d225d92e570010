//! The definition of every operation: plain loops over plain vectors, obviously right and slow.
//!
//! It shares nothing with the CPU device: no arena (so a fault of the memory plan shows), no panels, no fusion tricks,
//! sums in `f64`. Tests run the same program on both.

use std::collections::HashMap;

use half::bf16;
use kernels::quantize::Range8;
use kernels::reference;

use super::{Control, Device, by_tap, vector};
use crate::graph::{Activation, Mask};
use crate::program::{
    Attention, Band, BufferId, Conv, Dequantize, Format, Geometry, GroupNorm, LayerNorm, Matmul,
    Normed, Numbers, Op, Packing, Program, Residency, Results, Simple, SimpleKind, Slot, SlotId,
    Target,
};
use crate::quantizer::Quantizer;
use crate::scheme::WeightScheme;
use crate::{Error, Scores, Span, Weight};

/// The naive device.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference;

/// Every buffer as a vector of its own.
#[derive(Debug, Default)]
pub struct Buffers {
    numbers: HashMap<usize, Vec<f32>>,
    indices: HashMap<usize, Vec<u32>>,
    formats: Vec<Format>,
}

/// Weights as `f32`: as the checkpoint has them, or what their codes stand for.
pub type Loaded = HashMap<Slot, Vec<f32>>;

impl Target for Reference {
    fn scratch(&self, _op: &Op, _program: &Program) -> usize {
        0
    }

    fn resident_bytes(&self, slot: &Slot) -> usize {
        4 * slot.weight.elements()
    }

    fn can_flow(&self, _slot: &Slot) -> bool {
        false
    }

    fn near_bytes(&self) -> usize {
        0
    }
}

impl Device for Reference {
    type Memory = Buffers;
    type Weights = Loaded;

    fn kernel(&self, op: &Op, _program: &Program) -> Option<String> {
        matches!(op, Op::Matmul(_)).then(|| "sums in f64".to_owned())
    }

    fn prepare_within(
        &self,
        weights: &mut Loaded,
        program: &Program,
        _residency: &Residency,
        control: &Control<'_>,
    ) -> Result<(), Error> {
        for (i, slot) in program.slots.iter().enumerate() {
            control.check(i, program.slots.len())?;
            let numbers = vector(&slot.weight)?;
            let numbers = match slot.packing {
                Packing::Panels(_, Numbers::Integer(scheme)) => {
                    rounded(scheme, &slot.weight, &numbers)
                }
                _ => numbers,
            };
            weights.insert(slot.clone(), numbers);
        }
        Ok(())
    }

    fn forget(&self, weights: &mut Loaded, program: &Program, kept: &Program) {
        weights.retain(|slot, _| kept.slots.contains(slot) || !program.slots.contains(slot));
    }

    fn allocate(&self, program: &Program) -> Result<Buffers, Error> {
        let formats = program.buffers.iter().map(|buffer| buffer.format).collect();
        Ok(Buffers { formats, ..Buffers::default() })
    }

    fn write(&self, memory: &mut Buffers, buffer: BufferId, bytes: &[u8]) {
        match memory.formats[buffer.0] {
            Format::Index => {
                memory.indices.insert(buffer.0, bytemuck::pod_collect_to_vec(bytes));
            }
            _ => {
                memory.numbers.insert(buffer.0, bytemuck::pod_collect_to_vec(bytes));
            }
        }
    }

    fn read(&self, memory: &Buffers, buffer: BufferId) -> Vec<u8> {
        bytemuck::cast_slice(&memory.numbers[&buffer.0]).to_vec()
    }

    fn execute(
        &self,
        op: &Op,
        _band: Option<&Band>,
        program: &Program,
        memory: &mut Buffers,
        weights: &Loaded,
    ) -> Result<(), Error> {
        let run = Run { program, weights, memory };
        let (results, values) = match op {
            Op::Matmul(op) => (op.output, run.matmul(op)),
            Op::Attention(op) => (op.output, run.attention(op)),
            Op::GroupNorm(op) => match op.output {
                Normed::Real(results) => (results, run.group_norm(op)),
                Normed::Codes { codes, ranges, levels, known } => {
                    let values: Vec<f32> =
                        run.group_norm(op).into_iter().map(|x| x as f32).collect();
                    let made = quantized(&values, (op.pixels, op.channels), (levels, known));
                    memory.numbers.insert(codes.0, made.0);
                    memory.numbers.insert(ranges.0, made.1);
                    return Ok(());
                }
            },
            Op::LayerNorm(op) => (op.output, run.layer_norm(op)),
            Op::Unary(op) => {
                let values = run.numbers(op.input).iter().map(|&x| apply(op.function, x.into()));
                (op.output, values.collect())
            }
            Op::Simple(op) => (Results { f32: Some(op.output), bf16: None }, run.simple(op)),
            Op::Convert(op) => {
                let values = run.numbers(op.input).iter().map(|&x| x.into()).collect();
                (Results { f32: None, bf16: Some(op.output) }, values)
            }
            Op::Quantize(op) => {
                let x = run.numbers(op.input.buffer);
                let sizes = (op.rows_per_range, op.channels);
                let (codes, ranges) = quantized(x, sizes, (op.levels, op.known));
                memory.numbers.insert(op.codes.0, codes);
                memory.numbers.insert(op.ranges.0, ranges);
                return Ok(());
            }
            Op::Dequantize(op) => {
                (Results { f32: Some(op.output), bf16: None }, run.dequantized(op))
            }
        };
        memory.put(results, &values);
        Ok(())
    }
}

impl Buffers {
    fn put(&mut self, results: Results, values: &[f64]) {
        let single = values.iter().map(|&x| x as f32);
        if let Some(buffer) = results.bf16 {
            let rounded = single.clone().map(|x| bf16::from_f32(x).to_f32()).collect();
            self.numbers.insert(buffer.0, rounded);
        }
        if let Some(buffer) = results.f32 {
            self.numbers.insert(buffer.0, single.collect());
        }
    }
}

/// Codes of rows of `channels` and their ranges, each of `rows` rows, known or their own.
fn quantized(
    x: &[f32],
    (rows, channels): (usize, usize),
    (levels, known): (u8, Option<Span>),
) -> (Vec<f32>, Vec<f32>) {
    let (mut codes, mut ranges) = (Vec::new(), Vec::new());
    for rows in x.chunks(rows * channels) {
        let extreme = |pick: fn(f32, f32) -> f32| rows.iter().fold(0.0, |a, &b| pick(a, b));
        let own = || Range8::new(extreme(f32::min), extreme(f32::max), levels);
        let range = known.map_or_else(own, |known| known.range(levels));
        ranges.extend([range.scale, range.zero]);
        for row in rows.chunks(channels) {
            codes.extend(row.iter().map(|&x| f32::from(range.code(x, levels))));
            codes.resize(codes.len().next_multiple_of(4), 0.0);
        }
    }
    (codes, ranges)
}

struct Run<'a> {
    program: &'a Program,
    weights: &'a Loaded,
    memory: &'a Buffers,
}

impl Run<'_> {
    fn numbers(&self, id: BufferId) -> &[f32] {
        &self.memory.numbers[&id.0]
    }

    fn weight(&self, id: SlotId) -> &[f32] {
        &self.weights[self.program.slot(id)]
    }

    fn matmul(&self, op: &Matmul) -> Vec<f64> {
        let x = self.factor(op);
        let w = self.weight(op.weight);
        let taps = op.geometry.taps();
        let mut sums = vec![0.0; op.rows * op.outputs];
        for row in 0..op.rows {
            for tap in 0..taps {
                let Some(pixel) = source(&op.geometry, row, tap) else { continue };
                let x = &x[pixel * op.inputs..][..op.inputs];
                for n in 0..op.outputs {
                    let w = &w[n * op.inputs * taps..];
                    let sum: f64 = x
                        .iter()
                        .enumerate()
                        .map(|(k, &x)| f64::from(x) * f64::from(w[k * taps + tap]))
                        .sum();
                    sums[row * op.outputs + n] += sum;
                }
            }
        }
        for (i, sum) in sums.iter_mut().enumerate() {
            let (row, n) = (i / op.outputs, i % op.outputs);
            *sum += op.bias.map_or(0.0, |slot| self.weight(slot)[n].into());
            *sum += op.shift.map_or(0.0, |(buffer, rows)| {
                self.numbers(buffer)[row / rows * op.outputs + n].into()
            });
            *sum += op.residual.map_or(0.0, |buffer| self.numbers(buffer.buffer)[i].into());
            *sum = op.activation.map_or(*sum, |function| apply(function, *sum));
        }
        if op.gated {
            sums = gate(&sums, op.outputs / 2);
        }
        sums.iter().map(|sum| sum * f64::from(op.scale)).collect()
    }

    /// What codes stand for, without those that fill up a row.
    fn dequantized(&self, op: &Dequantize) -> Vec<f64> {
        let (codes, ranges) = (self.numbers(op.codes), self.numbers(op.ranges));
        let rows = codes.chunks(op.channels.next_multiple_of(4)).enumerate();
        let numbers = rows.flat_map(|(row, codes)| {
            let [scale, zero] = [0, 1].map(|i| ranges[2 * (row / op.rows_per_range) + i]);
            let number = move |&code: &f32| f64::from(scale) * f64::from(code - zero);
            codes[..op.channels].iter().map(number)
        });
        numbers.collect()
    }

    /// What a product reads: real numbers, or what codes stand for.
    fn factor(&self, op: &Matmul) -> Vec<f32> {
        let x = self.numbers(op.input.buffer);
        let Some((ranges, rows)) = op.ranges else { return x.to_vec() };
        let ranges = self.numbers(ranges).as_chunks::<2>().0;
        let stride = op.inputs.next_multiple_of(4);
        let images = ranges.len();
        debug_assert!(rows * images >= op.rows, "a range for each row of the product");
        let shared = x.len() / stride / images;
        let row = |(row, codes): (usize, &[f32])| {
            let [scale, zero] = ranges[row / shared];
            codes[..op.inputs].iter().map(|code| scale * (code - zero)).collect::<Vec<_>>()
        };
        x.chunks_exact(stride).enumerate().flat_map(row).collect()
    }

    fn attention(&self, op: &Attention) -> Vec<f64> {
        let (q, k, v) = (op.query.buffer, op.key.buffer, op.value.buffer);
        let (q, k, v) = (self.numbers(q), self.numbers(k), self.numbers(v));
        let channels = op.heads * op.head_dim;
        let mut out = vec![0.0; op.batch * op.queries * channels];
        for at in 0..op.batch * op.queries * op.heads {
            let (batch, query) = (at / op.heads / op.queries, at / op.heads % op.queries);
            let head = at % op.heads * op.head_dim;
            let seen = if op.mask == Mask::Causal { (query + 1).min(op.keys) } else { op.keys };
            let row = |tokens: usize, token: usize| (batch * tokens + token) * channels + head;
            let wide = |numbers: &[f32], start: usize| -> Vec<f64> {
                numbers[start..start + op.head_dim].iter().map(|&x| x.into()).collect()
            };
            let query_row = wide(q, row(op.queries, query));
            let keys: Vec<_> = (0..op.keys).map(|key| wide(k, row(op.keys, key))).collect();
            let (query_row, keys) = match op.scores {
                Scores::Real => (query_row, keys),
                Scores::Int8 => (reference::rounded(&query_row), reference::centered(&keys)),
            };
            let dot = |key: &Vec<f64>| query_row.iter().zip(key).map(|(q, k)| q * k).sum::<f64>();
            let scores: Vec<f64> =
                keys[..seen].iter().map(|key| dot(key) / (op.head_dim as f64).sqrt()).collect();
            let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let shares: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
            let total: f64 = shares.iter().sum();
            let to = row(op.queries, query);
            for (key, share) in shares.iter().enumerate() {
                let v = &v[row(op.keys, key)..];
                (0..op.head_dim).for_each(|i| out[to + i] += share / total * f64::from(v[i]));
            }
        }
        out
    }

    fn group_norm(&self, op: &GroupNorm) -> Vec<f64> {
        let x = self.numbers(op.input.buffer);
        let (gamma, beta) = (self.weight(op.gamma), self.weight(op.beta));
        let width = op.channels / op.groups;
        let mut out = vec![0.0; x.len()];
        for batch in 0..op.batch {
            for group in 0..op.groups {
                let members: Vec<usize> = (0..op.pixels)
                    .flat_map(|p| {
                        (0..width)
                            .map(move |c| (batch * op.pixels + p) * op.channels + group * width + c)
                    })
                    .collect();
                for (i, y) in members.iter().zip(normalized(x, &members, op.eps)) {
                    let c = i % op.channels;
                    let y = y * f64::from(gamma[c]) + f64::from(beta[c]);
                    out[*i] = if op.silu { apply(Activation::Silu, y) } else { y };
                }
            }
        }
        out
    }

    fn layer_norm(&self, op: &LayerNorm) -> Vec<f64> {
        let x = self.numbers(op.input);
        let (gamma, beta) = (self.weight(op.gamma), self.weight(op.beta));
        let rows = (0..op.rows).flat_map(|row| {
            let members: Vec<usize> = (row * op.channels..(row + 1) * op.channels).collect();
            normalized(x, &members, op.eps)
        });
        rows.enumerate()
            .map(|(i, y)| y * f64::from(gamma[i % op.channels]) + f64::from(beta[i % op.channels]))
            .collect()
    }

    fn simple(&self, op: &Simple) -> Vec<f64> {
        let all = |i: usize| self.numbers(op.inputs[i]).iter().map(|&x| f64::from(x));
        let x = |i: usize| f64::from(self.numbers(op.inputs[0])[i]);
        let count = self.program.buffer(op.output).elements;
        match op.kind {
            SimpleKind::Add => all(0).zip(all(1)).map(|(a, b)| a + b).collect(),
            SimpleKind::Mul => all(0).zip(all(1)).map(|(a, b)| a * b).collect(),
            SimpleKind::Affine { scale, offset } => {
                all(0).map(|a| a * f64::from(scale) + f64::from(offset)).collect()
            }
            SimpleKind::AddShift { rows, channels } => {
                let shift = self.numbers(op.inputs[1]);
                let at = |i: usize| i / (rows * channels) * channels + i % channels;
                all(0).enumerate().map(|(i, a)| a + f64::from(shift[at(i)])).collect()
            }
            SimpleKind::AddTable { table, period } => {
                let table = self.weight(table);
                all(0).enumerate().map(|(i, a)| a + f64::from(table[i % period])).collect()
            }
            SimpleKind::ScaleChannels { factors } => {
                let factors = self.weight(factors);
                all(0).enumerate().map(|(i, a)| a * f64::from(factors[i % factors.len()])).collect()
            }
            SimpleKind::Geglu { channels } => gate(&all(0).collect::<Vec<_>>(), channels),
            SimpleKind::Concat { widths: [a, b] } => {
                let right = self.numbers(op.inputs[1]);
                let pick = |row: usize, c: usize| {
                    if c < a { x(row * a + c) } else { right[row * b + c - a].into() }
                };
                (0..count).map(|i| pick(i / (a + b), i % (a + b))).collect()
            }
            SimpleKind::Slice { width, start, count: n } => {
                (0..count).map(|i| x(i / n * width + start + i % n)).collect()
            }
            SimpleKind::Upsample { from, to, channels } => (0..count)
                .map(|i| {
                    let (pixel, c) = (i / channels, i % channels);
                    let (batch, pixel) = (pixel / (to[0] * to[1]), pixel % (to[0] * to[1]));
                    let (y, x_) = (
                        nearest(pixel / to[1], to[0], from[0]),
                        nearest(pixel % to[1], to[1], from[1]),
                    );
                    x(((batch * from[0] + y) * from[1] + x_) * channels + c)
                })
                .collect(),
            SimpleKind::Embed { table } => {
                let (table, ids) = (self.weight(table), &self.memory.indices[&op.inputs[0].0]);
                let channels = count / ids.len();
                (0..count)
                    .map(|i| table[ids[i / channels] as usize * channels + i % channels].into())
                    .collect()
            }
            SimpleKind::SelectToken { tokens, channels } => {
                let which = &self.memory.indices[&op.inputs[1].0];
                let at = |b: usize| (b * tokens + which[b] as usize) * channels;
                (0..count).map(|i| x(at(i / channels) + i % channels)).collect()
            }
            SimpleKind::Repeat { row } => {
                let row = self.weight(row);
                (0..count).map(|i| row[i % row.len()].into()).collect()
            }
        }
    }
}

/// What whole numbers stand for that the numbers of a weight `[outputs, inputs, taps]` become.
fn rounded(scheme: WeightScheme, weight: &Weight, numbers: &[f32]) -> Vec<f32> {
    let shape = weight.shape();
    let (inputs, taps) = (shape[1], shape[2..].iter().product::<usize>());
    let padded = inputs.next_multiple_of(4);
    let mut out = vec![0.0; numbers.len()];
    let cpu = kernels::Cpu::detect(1);
    let quantizer = Quantizer::new(&cpu, scheme, (weight, padded));
    for (from, to) in numbers.chunks(inputs * taps).zip(out.chunks_mut(inputs * taps)) {
        let row = quantizer.row(&by_tap(from, taps, padded)).dequantized(padded);
        for (i, to) in to.iter_mut().enumerate() {
            *to = row[i % taps * padded + i / taps];
        }
    }
    out
}

/// The input pixel or row that a tap of an output row reads; `None` outside the image.
fn source(geometry: &Geometry, row: usize, tap: usize) -> Option<usize> {
    let Geometry::Conv(conv) = geometry else { return Some(row) };
    let Conv { result, seen, stored, kernel, .. } = *conv;
    let (batch, pixel) = (row / (result[0] * result[1]), row % (result[0] * result[1]));
    let y = (pixel / result[1] * conv.stride + tap / kernel[1]).checked_sub(conv.pad[0])?;
    let x = (pixel % result[1] * conv.stride + tap % kernel[1]).checked_sub(conv.pad[1])?;
    let inside = y < seen[0] && x < seen[1];
    let (y, x) = (nearest(y, seen[0], stored[0]), nearest(x, seen[1], stored[1]));
    inside.then_some((batch * stored[0] + y) * stored[1] + x)
}

/// `⌊i · from / to⌋` in single precision, as PyTorch computes it.
fn nearest(i: usize, to: usize, from: usize) -> usize {
    ((i as f32 * (from as f32 / to as f32)) as usize).min(from - 1)
}

fn normalized(x: &[f32], members: &[usize], eps: f32) -> Vec<f64> {
    let n = members.len() as f64;
    let mean = members.iter().map(|&i| f64::from(x[i])).sum::<f64>() / n;
    let variance = members.iter().map(|&i| (f64::from(x[i]) - mean).powi(2)).sum::<f64>() / n;
    let scale = 1.0 / (variance + f64::from(eps)).sqrt();
    members.iter().map(|&i| (f64::from(x[i]) - mean) * scale).collect()
}

fn gate(values: &[f64], half: usize) -> Vec<f64> {
    let row = |row: &[f64]| {
        let (hidden, gates) = row.split_at(half);
        hidden.iter().zip(gates).map(|(h, &g)| h * apply(Activation::Gelu, g)).collect::<Vec<_>>()
    };
    values.chunks_exact(2 * half).flat_map(row).collect()
}

fn apply(function: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match function {
        Activation::Silu => x * sigmoid(x),
        Activation::QuickGelu => x * sigmoid(1.702 * x),
        Activation::Gelu => x * 0.5 * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
            x * 0.5 * (1.0 + inner.tanh())
        }
        Activation::Relu => x.max(0.0),
        Activation::Tanh => x.tanh(),
    }
}

/// The error function, by its Taylor series near zero and its continued fraction elsewhere.
fn erf(x: f64) -> f64 {
    let a = x.abs();
    let value = if a < 3.0 {
        let mut term = a;
        let mut sum = a;
        for n in 1..120 {
            term *= -a * a / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    } else {
        let mut fraction = 0.0;
        for n in (1..60).rev() {
            fraction = f64::from(n) / 2.0 / (a + fraction);
        }
        1.0 - (-a * a).exp() / (std::f64::consts::PI.sqrt() * (a + fraction))
    };
    value.copysign(x)
}
