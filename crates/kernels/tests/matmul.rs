//! Matrix products and convolutions against their definition, on every instruction set.

mod support;

use half::f16;
use kernels::{
    Cpu,
    activation::Activation,
    format::{Activations, PanelFormat, PanelLayout, Panels, Rows, Source, pack},
    matmul::{self, Conv2d, Epilogue, Gate, Geometry, Matmul, Residual, Shift},
    reference,
    threads::Output,
};
use support::{assert_close, cpus, multiplies_pairs, numbers, to_bf16};

#[derive(Clone, Copy, Debug)]
enum Extras {
    Nothing,
    Everything,
    Gate,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    geometry: Geometry,
    n: usize,
    channels: usize,
    format: PanelFormat,
    bf16_input: bool,
    extras: Extras,
}

impl Case {
    fn layout(&self) -> PanelLayout {
        let taps = match self.geometry {
            Geometry::Rows { .. } => 1,
            Geometry::Conv(conv) => conv.kernel[0] * conv.kernel[1],
        };
        match self.extras {
            Extras::Gate => PanelLayout::gated(self.format, self.n, self.channels),
            _ => PanelLayout { format: self.format, n: self.n, taps, channels: self.channels },
        }
    }

    fn input_length(&self) -> usize {
        match self.geometry {
            Geometry::Rows { rows, stride } => rows * stride,
            Geometry::Conv(conv) => conv.batch * conv.height * conv.width * conv.channels,
        }
    }

    /// Run on `cpu`, or the definition; `f32` results and those in bf16.
    fn run(&self, cpu: &Cpu, by_definition: bool) -> (Vec<f32>, Vec<u16>) {
        let layout = self.layout();
        let rows = self.geometry.rows();
        let depth = layout.taps * layout.channels;
        let source = numbers(1, depth * self.n * if self.gate() { 2 } else { 1 });
        let source: Vec<u16> = source.iter().map(|&x| f16::from_f32(x).to_bits()).collect();
        let mut packed = vec![0_u32; layout.bytes().div_ceil(4)];
        let bytes = &mut bytemuck::cast_slice_mut(&mut packed)[..layout.bytes()];
        let order = if self.gate() { Rows::Interleaved16 } else { Rows::Natural };
        pack(cpu, (Source::F16(&source), order), layout, bytes).expect("finite weights");

        let input = numbers(2, self.input_length());
        let bits = to_bf16(&input);
        let input =
            if self.bf16_input { Activations::Bf16(&bits) } else { Activations::F32(&input) };
        let bias = numbers(3, 2 * self.n);
        let shift = numbers(4, rows * self.n);
        let residual = numbers(5, rows * (self.n + 1));
        let rounded = to_bf16(&residual);
        let mut epilogue = Epilogue::default();
        match self.extras {
            Extras::Nothing => {}
            Extras::Gate => {
                epilogue.gate = Gate::Geglu { hidden: self.n };
                epilogue.bias = Some(&bias);
                epilogue.scale = Some(0.5);
            }
            Extras::Everything => {
                epilogue.bias = Some(&bias[..self.n]);
                epilogue.shift = Some(Shift { values: &shift, stride: self.n, rows_per_batch: 3 });
                let values = if self.n.is_multiple_of(2) {
                    Activations::F32(&residual)
                } else {
                    Activations::Bf16(&rounded)
                };
                epilogue.residual = Some(Residual { values, stride: self.n + 1 });
                epilogue.activation = Activation::Silu;
                epilogue.scale = Some(0.25);
            }
        }
        let stride = self.n + 3;
        let (mut f32, mut bf16) = (vec![7.0; rows * stride], vec![7; rows * stride]);
        let format = input.format();
        let mut scratch = vec![0xa5; matmul::scratch_bytes(format, &self.geometry, &layout, cpu)];
        let op = Matmul {
            input,
            geometry: self.geometry,
            weights: Panels { layout, bytes, multipliers: None },
            epilogue,
            output: Output { f32: Some(&mut f32), bf16: Some(&mut bf16), stride },
            scratch: &mut scratch,
        };
        if by_definition {
            reference::matmul(op);
        } else {
            op.run(cpu);
        }
        (f32, bf16)
    }

    fn gate(&self) -> bool {
        matches!(self.extras, Extras::Gate)
    }

    fn check(&self) {
        let cpus = cpus();
        let (expected, _) = self.run(&cpus[0], true);
        // Where pairs are multiplied, half precision becomes bf16.
        let halves = self.format == PanelFormat::F16 && self.bf16_input;
        let pairs = if halves { PanelFormat::Bf16 } else { self.format };
        let (in_pairs, _) = Self { format: pairs, ..*self }.run(&cpus[0], true);
        let depth = (self.layout().taps * self.channels) as f32;
        let mut exact: Option<Vec<f32>> = None;
        for cpu in &cpus {
            let what = format!("{} on {} × {}", self, cpu.level(), cpu.threads.count());
            let (f32, bf16) = self.run(cpu, false);
            let by_pairs = cpu.has_bf16_dot() && self.channels.is_multiple_of(2)
                || cpu.has_tiles() && self.channels.is_multiple_of(32);
            let expected = if halves && by_pairs { &in_pairs } else { &expected };
            assert_close(&what, &f32, expected, 2e-7 * (depth + 8.0));
            assert_eq!(to_bf16(&f32), bf16_or_fill(&bf16, &f32), "{what}: bf16 output");
            if !(self.bf16_input && multiplies_pairs(cpu)) {
                let first = exact.get_or_insert_with(|| f32.clone());
                assert!(same(first, &f32), "{what}: other bits");
            }
        }
    }
}

/// The bf16 output, with the untouched margin replaced by that of the `f32` output.
fn bf16_or_fill(bf16: &[u16], f32: &[f32]) -> Vec<u16> {
    let margin = to_bf16(&[7.0])[0];
    bf16.iter().zip(f32).map(|(&b, &f)| if b == 7 && f == 7.0 { margin } else { b }).collect()
}

fn same(a: &[f32], b: &[f32]) -> bool {
    a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

const FORMATS: [(PanelFormat, bool); 6] = [
    (PanelFormat::F32, false),
    (PanelFormat::F16, false),
    (PanelFormat::Bf16, false),
    (PanelFormat::F32, true),
    (PanelFormat::F16, true),
    (PanelFormat::Bf16, true),
];

#[test]
fn linear_layers_of_all_sizes() {
    let sizes = [(1, 1, 1), (2, 16, 2), (5, 17, 3), (6, 64, 4), (7, 65, 5), (13, 100, 33)];
    let more = [(12, 80, 18), (77, 48, 64), (64, 130, 700), (300, 20, 7)];
    for (rows, n, channels) in sizes.into_iter().chain(more) {
        for (format, bf16_input) in FORMATS {
            for extras in [Extras::Nothing, Extras::Everything] {
                let geometry = Geometry::Rows { rows, stride: channels + 2 };
                Case { geometry, n, channels, format, bf16_input, extras }.check();
            }
        }
    }
}

#[test]
fn every_number_of_rows_up_to_two_tiles() {
    for rows in 0..14 {
        let geometry = Geometry::Rows { rows, stride: 6 };
        let case = Case {
            geometry,
            n: 70,
            channels: 6,
            format: PanelFormat::Bf16,
            bf16_input: true,
            extras: Extras::Everything,
        };
        case.check();
    }
}

#[test]
fn gated_layers() {
    for (format, bf16_input) in FORMATS {
        for hidden in [1, 16, 17, 32, 33, 40, 96] {
            let geometry = Geometry::Rows { rows: 9, stride: 12 };
            let extras = Extras::Gate;
            Case { geometry, n: hidden, channels: 12, format, bf16_input, extras }.check();
        }
    }
}

fn conv(size: [usize; 2], channels: usize, kernel: [usize; 2], stride: [usize; 2]) -> Conv2d {
    let [height, width] = size;
    let pad = [kernel[0] / 2, kernel[1] / 2];
    Conv2d {
        batch: 2,
        height,
        width,
        channels,
        out_height: (height + 2 * pad[0] - kernel[0]) / stride[0] + 1,
        out_width: (width + 2 * pad[1] - kernel[1]) / stride[1] + 1,
        kernel,
        stride,
        pad_top: pad[0],
        pad_left: pad[1],
        upsampled: None,
    }
}

#[test]
fn convolutions() {
    let mut convs: Vec<Conv2d> = [1, 3, 4, 5, 32]
        .into_iter()
        .map(|channels| conv([5, 7], channels, [3, 3], [1, 1]))
        .collect();
    convs.push(conv([6, 5], 8, [3, 3], [2, 2]));
    convs.push(conv([4, 4], 6, [1, 1], [1, 1]));
    convs.push(conv([9, 4], 3, [3, 2], [2, 1]));
    // The encoder's downsampling pads below and to the right only.
    convs.push(Conv2d {
        pad_top: 0,
        pad_left: 0,
        out_height: 3,
        ..conv([6, 6], 4, [3, 3], [2, 2])
    });
    // Enlarged on the way, twice and to an odd size.
    for (channels, seen) in [(4, [10, 6]), (4, [9, 5])] {
        let upsampled = Some(seen);
        convs.push(Conv2d {
            height: 5,
            width: 3,
            upsampled,
            ..conv(seen, channels, [3, 3], [1, 1])
        });
    }
    convs.push(conv([3, 3], 400, [3, 3], [1, 1]));
    for conv in convs {
        check_convolution(conv);
    }
}

/// Larger images of whole vectors of channels take fewer products.
#[test]
fn convolutions_by_minimal_filtering() {
    let mut convs = vec![
        conv([10, 11], 32, [3, 3], [1, 1]),
        // More patches and channels than are transformed together.
        conv([25, 38], 16, [3, 3], [1, 1]),
        conv([9, 13], 208, [3, 3], [1, 1]),
        Conv2d { pad_top: 0, pad_left: 2, ..conv([11, 10], 16, [3, 3], [1, 1]) },
    ];
    for (channels, seen) in [(48, [20, 12]), (48, [21, 12]), (16, [46, 38])] {
        let [height, width] = [seen[0] / 2, 6.max(seen[1] / 2)];
        let upsampled = Some(seen);
        convs.push(Conv2d { height, width, upsampled, ..conv(seen, channels, [3, 3], [1, 1]) });
    }
    for conv in convs {
        check_convolution(conv);
    }
}

fn check_convolution(conv: Conv2d) {
    for (format, bf16_input) in FORMATS {
        let (channels, geometry) = (conv.channels, Geometry::Conv(conv));
        for (n, extras) in [(20, Extras::Everything), (100, Extras::Nothing)] {
            Case { geometry, n, channels, format, bf16_input, extras }.check();
        }
    }
}

/// Results that are too many for the caches take another way to memory.
#[test]
fn many_results_are_those_of_few() {
    let (rows, n, channels) = (1 << 13, 1 << 10, 4);
    let layout = PanelLayout::linear(PanelFormat::F32, n, channels);
    let mut packed = vec![0_u32; layout.bytes() / 4];
    let (source, input) = (numbers(1, n * channels), numbers(2, rows * channels));
    for cpu in cpus() {
        let bytes = bytemuck::cast_slice_mut(&mut packed);
        pack(&cpu, (Source::F32(&source), Rows::Natural), layout, bytes).unwrap();
        let run = |first: usize, count: usize| {
            let geometry = Geometry::Rows { rows: count, stride: channels };
            let format = kernels::format::ActivationFormat::F32;
            let mut scratch = vec![0; matmul::scratch_bytes(format, &geometry, &layout, &cpu)];
            let mut output = vec![0.0; count * n];
            let kernel = Matmul {
                input: Activations::F32(&input[first * channels..]),
                geometry,
                weights: Panels { layout, bytes: bytemuck::cast_slice(&packed), multipliers: None },
                epilogue: Epilogue::default(),
                output: Output::f32(&mut output, n),
                scratch: &mut scratch,
            };
            kernel.run(&cpu);
            output
        };
        let whole = run(0, rows);
        assert!(size_of_val(&whole[..]) >= 1 << 25);
        let halves = [run(0, rows / 2), run(rows / 2, rows / 2)].concat();
        assert!(same(&whole, &halves), "{} × {}", cpu.level(), cpu.threads.count());
    }
}
