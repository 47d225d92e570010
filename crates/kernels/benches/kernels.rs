//! Multiply-adds per second of every kernel at the shapes of the real models, beside the peak.
//!
//! `cargo bench -p mixdq-kernels -- [THREADS] [FILTER] [LEVEL]` prints, for each shape and precision, the
//! best of several runs, since other work on the machine can only slow a run down.

#![allow(clippy::print_stdout, reason = "a benchmark prints")]

use std::time::{Duration, Instant};

use kernels::{
    Cpu,
    activation::Activation,
    attention::{self, Attention, AttentionShape, Heads, Mask, Scores},
    format::{
        ActivationFormat, Activations, PANEL, PanelFormat, PanelLayout, Panels, Rows, Source, pack,
    },
    isa::Level,
    matmul::{self, Conv2d, Dequantize, Epilogue, Geometry, Matmul, Ranges},
    norm::{self, GroupNorm, Normed},
    peak::multiply_adds_per_second,
    quantize::Range8,
    threads::{Output, Threads},
};
use os::Region;

/// Rows, outputs and inputs of linear layers.
const LINEAR: [[usize; 3]; 8] = [
    [4096, 320, 320],
    [1024, 640, 640],
    [256, 1280, 1280],
    [64, 1280, 1280],
    [4096, 2560, 320],
    [1024, 640, 2560],
    [77, 1024, 1024],
    [1, 1280, 1280],
];

/// Side, channels in and channels out of 3×3 convolutions.
const CONV: [[usize; 3]; 9] = [
    [64, 4, 320],
    [64, 320, 320],
    [32, 640, 640],
    [16, 1280, 1280],
    [16, 2560, 1280],
    [8, 1280, 1280],
    [512, 128, 128],
    [256, 256, 256],
    [512, 128, 3],
];

/// Heads, size of a head, queries and keys.
const ATTENTION: [[usize; 4]; 5] = [
    [5, 64, 4096, 4096],
    [10, 64, 1024, 1024],
    [8, 40, 4096, 77],
    [5, 64, 4096, 77],
    [1, 512, 4096, 4096],
];

/// Activations and weights.
const PRECISIONS: [(ActivationFormat, PanelFormat); 8] = [
    (ActivationFormat::F32, PanelFormat::F32),
    (ActivationFormat::F32, PanelFormat::F16),
    (ActivationFormat::Bf16, PanelFormat::Bf16),
    (ActivationFormat::U8, PanelFormat::Int8),
    (ActivationFormat::U8, PanelFormat::Int4),
    (ActivationFormat::U8, PanelFormat::Int2),
    (ActivationFormat::Bf16, PanelFormat::Int8),
    (ActivationFormat::Bf16, PanelFormat::Int4),
];

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let threads = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(1);
    let filter = arguments.next().unwrap_or_default();
    let level = arguments.next().and_then(|name| name.parse().ok());
    let Some(cpu) = Cpu::new(Threads::new(threads), level.unwrap_or_else(Level::detect)) else {
        return println!("this CPU does not have that instruction set");
    };
    println!("{} with {threads} threads", cpu.level());
    let bench = Bench { cpu, filter };
    for (activations, panels) in PRECISIONS {
        for [rows, n, k] in LINEAR {
            let name = format!("matmul {rows}×{n}×{k}");
            let geometry = Geometry::Rows { rows, stride: k };
            let layout = PanelLayout::linear(panels, n, k);
            bench.product(&name, (activations, geometry, layout), rows * k);
        }
        for [side, channels, n] in CONV {
            let name = format!("conv3x3 {side}² {channels}→{n}");
            let geometry = Geometry::Conv(conv(side, channels));
            let layout = PanelLayout { format: panels, n, taps: 9, channels };
            bench.product(&name, (activations, geometry, layout), side * side * channels);
        }
    }
    for format in [ActivationFormat::F32, ActivationFormat::Bf16] {
        for scores in [Scores::Real, Scores::Int8] {
            for shape in ATTENTION {
                bench.attention((format, scores), shape);
            }
        }
    }
    bench.norms();
    bench.packing();
}

fn conv(side: usize, channels: usize) -> Conv2d {
    Conv2d {
        batch: 1,
        height: side,
        width: side,
        channels,
        out_height: side,
        out_width: side,
        kernel: [3, 3],
        stride: [1, 1],
        pad_top: 1,
        pad_left: 1,
        upsampled: None,
    }
}

/// A cache line; what is made of lines starts on one, as memory for packed weights should.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

struct Bench {
    cpu: Cpu,
    filter: String,
}

/// Scratch, on huge pages as in an arena.
fn memory(bytes: usize) -> Region {
    Region::new(bytes).expect("memory for a benchmark")
}

/// Some numbers.
fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919) % 1000) as f32 * 1e-3 - 0.5).collect()
}

/// The upper halves of some numbers.
fn brains(values: &[f32]) -> Vec<u16> {
    values.iter().map(|x| (x.to_bits() >> 16) as u16).collect()
}

impl Bench {
    /// Time `f` at its best and print what it did per second.
    fn time(&self, name: &str, (format, work): (ActivationFormat, usize), mut f: impl FnMut()) {
        let peak = multiply_adds_per_second(&self.cpu, format)
            .or_else(|| multiply_adds_per_second(&self.cpu, ActivationFormat::F32));
        let start = Instant::now();
        let mut best = Duration::MAX;
        let mut runs = 0;
        while runs < 4 || start.elapsed() < Duration::from_millis(250) {
            let start = Instant::now();
            f();
            best = best.min(start.elapsed());
            runs += 1;
        }
        let rate = work as f64 / best.as_secs_f64();
        let share = rate / peak.unwrap_or(f64::NAN) * 100.0;
        let (rate, ms) = (rate * 1e-9, best.as_secs_f64() * 1e3);
        println!("{name:42} {rate:8.1} G/s {share:6.1} %  {ms:9.3} ms");
    }

    fn skips(&self, name: &str) -> bool {
        !name.contains(&self.filter)
    }

    fn product(
        &self,
        name: &str,
        (activations, geometry, layout): (ActivationFormat, Geometry, PanelLayout),
        elements: usize,
    ) {
        let name = format!("{name} {activations:?}×{:?}", layout.format);
        if self.skips(&name) {
            return;
        }
        let mut words = vec![Line([0; 64]); layout.bytes().div_ceil(64)];
        let bytes = &mut bytemuck::cast_slice_mut(&mut words)[..layout.bytes()];
        self.fill(&layout, bytes);
        let codes = vec![77; elements];
        let lanes = vec![0.01; layout.n.next_multiple_of(16)];
        let ranges = vec![Range8 { scale: 0.01, zero: 128.0 }; geometry.rows()];
        let multipliers = vec![3; layout.panels() * layout.groups() * PANEL];
        let grouped = matches!(layout.format, PanelFormat::Int4 | PanelFormat::Int2);
        let multipliers = grouped.then_some(&multipliers[..]);
        let ranges = Ranges { values: &ranges, rows_per_range: 1 };
        let dequantize = Dequantize {
            scales: &lanes,
            sums: &lanes,
            ranges: (activations == ActivationFormat::U8).then_some(ranges),
        };
        let dequantize = layout.format.is_int().then_some(dequantize);
        let values = numbers(elements);
        let bits = brains(&values);
        let (rows, n) = (geometry.rows(), layout.n);
        let bias = numbers(n);
        let (mut f32, mut bf16) = (vec![0.0; rows * n], vec![0; rows * n]);
        let mut scratch = memory(matmul::scratch_bytes(activations, &geometry, &layout, &self.cpu));
        let work = rows * n * layout.taps * layout.channels;
        self.time(&name, (activations, work), || {
            let (input, output) = match activations {
                ActivationFormat::F32 => (Activations::F32(&values), Output::f32(&mut f32, n)),
                ActivationFormat::Bf16 => (Activations::Bf16(&bits), Output::bf16(&mut bf16, n)),
                ActivationFormat::U8 => (Activations::U8(&codes), Output::bf16(&mut bf16, n)),
            };
            let weights = Panels { layout, bytes, multipliers };
            let epilogue = Epilogue { dequantize, bias: Some(&bias), ..Epilogue::default() };
            let scratch = scratch.as_mut_slice();
            Matmul { input, geometry, weights, epilogue, output, scratch }.run(&self.cpu);
        });
    }

    /// Some weights.
    fn fill(&self, layout: &PanelLayout, bytes: &mut [u8]) {
        if layout.format.is_int() {
            // Any byte is a code, or some codes.
            bytes.iter_mut().enumerate().for_each(|(i, byte)| *byte = (i * 37 % 100) as u8);
            return;
        }
        let source = brains(&numbers(layout.n * layout.taps * layout.channels));
        let source: Vec<u16> = source.iter().map(|bits| bits & 0xbfff).collect();
        let source = match layout.format {
            PanelFormat::F16 => Source::F16(&source),
            _ => Source::Bf16(&source),
        };
        pack(&self.cpu, (source, Rows::Natural), *layout, bytes).expect("finite weights");
    }

    fn attention(&self, (format, scores): (ActivationFormat, Scores), shape: [usize; 4]) {
        let [heads, head_dim, tokens_q, tokens_k] = shape;
        let name =
            format!("attention {heads}×{head_dim} {tokens_q}×{tokens_k} {format:?} {scores:?}");
        if self.skips(&name) {
            return;
        }
        let stride = heads * head_dim;
        let values = numbers(tokens_q.max(tokens_k) * stride);
        let bits = brains(&values);
        let shape = AttentionShape { batch: 1, heads, head_dim, tokens_q, tokens_k };
        let (mut f32, mut bf16) = (vec![0.0; tokens_q * stride], vec![0; tokens_q * stride]);
        let mut scratch = memory(attention::scratch_bytes((format, scores), &shape, &self.cpu));
        let work = 2 * tokens_q * tokens_k * stride;
        self.time(&name, (format, work), || {
            let (values, output) = match format {
                ActivationFormat::F32 => (Activations::F32(&values), Output::f32(&mut f32, stride)),
                _ => (Activations::Bf16(&bits), Output::bf16(&mut bf16, stride)),
            };
            let part = Heads { values, offset: 0, stride };
            let scale = (head_dim as f32).powf(-0.5);
            let (mask, scratch) = (Mask::None, scratch.as_mut_slice());
            Attention { shape, q: part, k: part, v: part, scores, scale, mask, output, scratch }
                .run(&self.cpu);
        });
    }

    fn norms(&self) {
        for [side, channels] in [[64, 320], [32, 640], [16, 1280], [512, 128]] {
            let name = format!("groupnorm+silu {side}²·{channels} (bytes read)");
            if self.skips(&name) {
                continue;
            }
            let pixels = side * side;
            let input = numbers(pixels * channels);
            let mut out = vec![0.0; input.len()];
            let mut scratch = memory(norm::scratch_bytes([1, pixels, channels, 32]));
            self.time(&name, (ActivationFormat::F32, input.len() * 4), || {
                let norm = GroupNorm {
                    input: Activations::F32(&input),
                    channels,
                    batch: 1,
                    pixels,
                    groups: 32,
                    eps: 1e-5,
                    gamma: None,
                    beta: None,
                    activation: Activation::Silu,
                    output: Normed::Real(Output::f32(&mut out, channels)),
                    scratch: scratch.as_mut_slice(),
                };
                norm.run(&self.cpu);
            });
        }
    }

    fn packing(&self) {
        for (format, taps) in
            [(PanelFormat::Bf16, 1), (PanelFormat::Bf16, 9), (PanelFormat::F16, 9)]
        {
            let name = format!("pack {taps} taps F16→{format:?} (weights)");
            if self.skips(&name) {
                continue;
            }
            let layout = PanelLayout { format, n: 1280, taps, channels: 1280 };
            let source: Vec<u16> = brains(&numbers(1280 * 1280 * taps));
            let source: Vec<u16> = source.iter().map(|bits| bits & 0xbfff).collect();
            let mut words = vec![Line([0; 64]); layout.bytes().div_ceil(64)];
            self.time(&name, (ActivationFormat::F32, source.len()), || {
                let out = bytemuck::cast_slice_mut(&mut words);
                let source = (Source::F16(&source), Rows::Natural);
                pack(&self.cpu, source, layout, out).expect("finite weights");
            });
        }
    }
}
