//! Products of integers against their definition, bit for bit the same on every instruction set.

mod support;

use kernels::{
    Cpu,
    activation::Activation,
    format::{ActivationFormat, Activations, PANEL, PanelFormat, PanelLayout, Panels, int},
    matmul::{self, Conv2d, Dequantize, Epilogue, Gate, Geometry, Matmul, Ranges, Residual},
    quantize::{self, Quantize, Range8},
    reference,
    threads::Output,
};
use proptest::prelude::*;
use support::{assert_close, cpus, from_bf16, multiplies_pairs, numbers, to_bf16};

/// What weights and codes are made of.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Values {
    Mixed,
    /// The greatest codes and weights, whose products add up the furthest.
    Extreme,
    /// The least codes, which lie furthest from the middle of all.
    Least,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    geometry: Geometry,
    n: usize,
    channels: usize,
    format: PanelFormat,
    input: ActivationFormat,
    grouped: bool,
    gated: bool,
    values: Values,
}

impl Case {
    fn layout(&self) -> PanelLayout {
        let taps = match self.geometry {
            Geometry::Rows { .. } => 1,
            Geometry::Conv(conv) => conv.kernel[0] * conv.kernel[1],
        };
        let n = if self.gated { 2 * self.n.next_multiple_of(16) } else { self.n };
        PanelLayout { format: self.format, n, taps, channels: self.channels }
    }

    fn code(&self, i: usize) -> i8 {
        let spread = i.wrapping_mul(0x9e37_79b9) >> 7;
        match (self.format, self.values) {
            (PanelFormat::Int8, Values::Mixed) => (spread % 255) as i8,
            (PanelFormat::Int8, _) => -127,
            (PanelFormat::Int4, Values::Mixed) => (spread % 16) as i8 - 8,
            (PanelFormat::Int4, _) => -8,
            (_, Values::Mixed) => 2 * (spread % 4) as i8 - 3,
            _ => 3,
        }
    }

    fn run(&self, cpu: &Cpu, by_definition: bool) -> Vec<f32> {
        let layout = self.layout();
        let mut words = vec![0_u32; layout.bytes().div_ceil(4)];
        let bytes = &mut bytemuck::cast_slice_mut(&mut words)[..layout.bytes()];
        let multipliers: Vec<i8> =
            (0..layout.panels() * layout.groups() * PANEL).map(|i| (i % 31) as i8 - 15).collect();
        let depth = layout.taps * layout.channels;
        let lanes = layout.n.next_multiple_of(16);
        let mut sums = vec![0.0; lanes];
        for panel in 0..layout.panels() {
            let width = layout.width(panel);
            let codes: Vec<i8> =
                (0..width * depth).map(|i| self.code(panel * PANEL * depth + i)).collect();
            let codes: Vec<&[i8]> = codes.chunks(depth).collect();
            int::pack(&layout, panel, &codes, &mut bytes[layout.range(panel)]);
        }
        let panels =
            Panels { layout, bytes, multipliers: self.grouped.then_some(multipliers.as_slice()) };
        for (lane, sum) in sums.iter_mut().enumerate() {
            let places = (0..layout.taps).flat_map(|t| (0..layout.channels).map(move |c| (t, c)));
            *sum = places.map(|place| reference::weight(&panels, lane, place)).sum();
        }
        let scales: Vec<f32> = numbers(1, lanes).iter().map(|x| 0.01 + x.abs() / 100.0).collect();
        let rows = self.geometry.rows();
        let (length, rows_per_range) = match self.geometry {
            Geometry::Rows { rows, stride } => (rows * stride, 1),
            Geometry::Conv(c) => {
                (c.batch * c.height * c.width * c.channels, c.out_height * c.out_width)
            }
        };
        let ranges: Vec<Range8> = (0..rows)
            .map(|i| Range8 { scale: 0.01 + i as f32 / 300.0, zero: (i * 37 % 256) as f32 })
            .collect();
        let values = numbers(2, length);
        let halves = to_bf16(&values);
        let codes: Vec<u8> = match self.values {
            Values::Mixed => values.iter().map(|x| (x * 127.0 + 128.0) as u8).collect(),
            Values::Extreme => vec![255; length],
            Values::Least => vec![0; length],
        };
        let input = match self.input {
            ActivationFormat::F32 => Activations::F32(&values),
            ActivationFormat::Bf16 => Activations::Bf16(&halves),
            ActivationFormat::U8 => Activations::U8(&codes),
        };
        let ranges = Ranges { values: &ranges, rows_per_range };
        let dequantize = Dequantize {
            scales: &scales,
            sums: &sums,
            ranges: (self.input == ActivationFormat::U8).then_some(ranges),
        };
        let bias = numbers(3, 2 * self.n);
        let residual = numbers(5, rows * self.n);
        let rounded = to_bf16(&residual);
        let mut epilogue = Epilogue { dequantize: Some(dequantize), ..Epilogue::default() };
        epilogue.bias = Some(&bias);
        if self.gated {
            epilogue.gate = Gate::Geglu { hidden: self.n };
        } else {
            let values = if self.channels.is_multiple_of(8) {
                Activations::F32(&residual)
            } else {
                Activations::Bf16(&rounded)
            };
            epilogue.residual = Some(Residual { values, stride: self.n });
            if self.n.is_multiple_of(3) {
                epilogue.activation = Activation::Silu;
            }
        }
        let format = self.input;
        let mut scratch = vec![0xa5; matmul::scratch_bytes(format, &self.geometry, &layout, cpu)];
        let mut out = vec![7.0; rows * self.n];
        let op = Matmul {
            input,
            geometry: self.geometry,
            weights: panels,
            epilogue,
            output: Output::f32(&mut out, self.n),
            scratch: &mut scratch,
        };
        if by_definition {
            reference::matmul(op);
        } else {
            op.run(cpu);
        }
        out
    }

    fn check(&self) {
        let cpus = cpus();
        let expected = self.run(&cpus[0], true);
        let size = expected.iter().fold(1.0_f32, |most, x| most.max(x.abs()));
        let mut exact: Option<Vec<f32>> = None;
        for cpu in &cpus {
            let what = format!("{self:?} on {} × {}", cpu.level(), cpu.threads.count());
            let found = self.run(cpu, false);
            let scaled = |values: &[f32]| values.iter().map(|x| x / size).collect::<Vec<_>>();
            let tolerance = if self.input == ActivationFormat::U8 { 2e-6 } else { 3e-5 };
            assert_close(&what, &scaled(&found), &scaled(&expected), tolerance);
            if !(self.input == ActivationFormat::Bf16 && multiplies_pairs(cpu)) {
                let first = exact.get_or_insert_with(|| found.clone());
                let same = first.iter().zip(&found).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{what}: other bits");
            }
        }
    }
}

/// What the cases of a test change.
const BASE: Case = Case {
    geometry: Geometry::Rows { rows: 0, stride: 0 },
    n: 0,
    channels: 0,
    format: PanelFormat::Int8,
    input: ActivationFormat::U8,
    grouped: false,
    gated: false,
    values: Values::Mixed,
};

const CONV: Conv2d = Conv2d {
    batch: 2,
    height: 5,
    width: 4,
    channels: 0,
    out_height: 5,
    out_width: 4,
    kernel: [3, 3],
    stride: [1, 1],
    pad_top: 1,
    pad_left: 1,
    upsampled: None,
};

fn geometries(channels: usize) -> [Geometry; 4] {
    let conv = Conv2d { channels, ..CONV };
    [
        Geometry::Rows { rows: 13, stride: channels },
        Geometry::Conv(conv),
        Geometry::Conv(Conv2d { out_height: 3, out_width: 2, stride: [2, 2], ..conv }),
        Geometry::Conv(Conv2d { out_height: 9, out_width: 8, upsampled: Some([9, 8]), ..conv }),
    ]
}

#[test]
fn every_format_meets_its_definition_on_every_instruction_set() {
    for format in [PanelFormat::Int8, PanelFormat::Int4, PanelFormat::Int2] {
        for input in [ActivationFormat::U8, ActivationFormat::F32, ActivationFormat::Bf16] {
            for (n, channels) in [(70, 4), (48, 20), (100, 128), (33, 1344)] {
                for geometry in geometries(channels) {
                    for grouped in [false, format != PanelFormat::Int8] {
                        Case { geometry, n, channels, format, input, grouped, ..BASE }.check();
                    }
                }
            }
            let geometry = Geometry::Rows { rows: 13, stride: 64 };
            Case { geometry, n: 24, channels: 64, format, input, gated: true, ..BASE }.check();
        }
        // As deep as the deepest layer of the models, every product at its limit.
        let geometry = Geometry::Rows { rows: 2, stride: 23_040 };
        let values = Values::Extreme;
        Case { geometry, n: 16, channels: 23_040, format, values, ..BASE }.check();
    }
}

#[test]
fn integers_by_minimal_filtering() {
    let (height, width) = (10, 11);
    let size = Conv2d { height, width, out_height: height, out_width: width, ..CONV };
    let seen = [2 * height, 2 * width];
    let twice = Conv2d { out_height: seen[0], out_width: seen[1], upsampled: Some(seen), ..size };
    for format in [PanelFormat::Int8, PanelFormat::Int4, PanelFormat::Int2] {
        for input in [ActivationFormat::U8, ActivationFormat::F32, ActivationFormat::Bf16] {
            for (n, channels, size) in [(100, 64, size), (20, 320, size), (33, 96, twice)] {
                let geometry = Geometry::Conv(Conv2d { channels, ..size });
                let grouped = format != PanelFormat::Int8;
                Case { geometry, n, channels, format, input, grouped, ..BASE }.check();
            }
        }
    }
    // As many channels as sums have room for, every product at its limit.
    for values in [Values::Extreme, Values::Least] {
        let channels = 3_648;
        let geometry = Geometry::Conv(Conv2d { channels, batch: 1, ..size });
        Case { geometry, n: 16, channels, values, ..BASE }.check();
    }
}

#[test]
fn strips_of_every_height_and_depth() {
    let base = Case { n: 112, channels: 64, format: PanelFormat::Int4, grouped: true, ..BASE };
    for input in [ActivationFormat::U8, ActivationFormat::Bf16] {
        for rows in [1, 2, 15, 16, 17, 31, 32, 33, 77] {
            let geometry = Geometry::Rows { rows, stride: 80 };
            Case { geometry, input, ..base }.check();
        }
        // More taps than one block has, of images whose rows are wider and narrower than a tile.
        for (height, width) in [(2, 18), (9, 3)] {
            let size = Conv2d { height, width, out_height: height, out_width: width, ..CONV };
            let geometry = Geometry::Conv(Conv2d { channels: 640, ..size });
            let format = PanelFormat::Int8;
            Case { geometry, n: 16, channels: 640, format, grouped: false, input, ..base }.check();
        }
    }
}

/// Codes and ranges of `rows` rows of `channels` numbers.
fn quantized(
    cpu: &Cpu,
    input: Activations<'_>,
    sizes: [usize; 3],
    levels: u8,
) -> (Vec<u8>, Vec<Range8>) {
    quantized_within(cpu, input, sizes, (levels, None))
}

/// The same with a range that may be known.
fn quantized_within(
    cpu: &Cpu,
    input: Activations<'_>,
    [rows, channels, rows_per_range]: [usize; 3],
    (levels, known): (u8, Option<Range8>),
) -> (Vec<u8>, Vec<Range8>) {
    let mut codes = vec![9; rows * channels.next_multiple_of(4)];
    let mut ranges = vec![Range8 { scale: 0.0, zero: 0.0 }; rows.div_ceil(rows_per_range)];
    let mut scratch = vec![0xa5; quantize::scratch_bytes([rows, channels, rows_per_range])];
    let (codes_out, ranges_out) = (&mut codes[..], &mut ranges[..]);
    Quantize {
        input,
        rows,
        channels,
        rows_per_range,
        levels,
        known,
        codes: codes_out,
        ranges: ranges_out,
        scratch: &mut scratch,
    }
    .run(cpu);
    (codes, ranges)
}

#[test]
fn codes_are_those_of_the_definition_on_every_instruction_set() {
    for cpu in cpus() {
        for channels in [1, 3, 4, 16, 37, 320, 20_000] {
            for (rows, rows_per_range) in [(1, 1), (7, 1), (12, 4), (6, 6)] {
                for levels in [255, 15] {
                    let values: Vec<f32> =
                        numbers(3, rows * channels).iter().map(|x| 3.0 * x - 1.0).collect();
                    let sizes = [rows, channels, rows_per_range];
                    let (codes, ranges) = quantized(&cpu, Activations::F32(&values), sizes, levels);
                    let stride = channels.next_multiple_of(4);
                    for (group, range) in ranges.iter().enumerate() {
                        let part = &values[group * rows_per_range * channels..]
                            [..rows_per_range * channels];
                        let [least, greatest] = [f32::min, f32::max]
                            .map(|pick| part.iter().fold(0.0, |a, &b| pick(a, b)));
                        assert_eq!(*range, Range8::new(least, greatest, levels), "{sizes:?}");
                        for (i, &x) in part.iter().enumerate() {
                            let row = group * rows_per_range + i / channels;
                            let code = codes[row * stride + i % channels];
                            assert_eq!(code, range.code(x, levels), "{} {sizes:?}", cpu.level());
                        }
                        let rows =
                            &codes[group * rows_per_range * stride..][..rows_per_range * stride];
                        for row in rows.chunks(stride) {
                            let zero = range.zero as u8;
                            assert!(row[channels..].iter().all(|&code| code == zero), "{sizes:?}");
                        }
                    }
                }
            }
        }
    }
}

/// `q = clamp(round(x / s) + z, 0, 2ᵇ − 1)` with one `s = (hi − lo) / (2ᵇ − 1)` and `z = round(−lo / s)` for all rows.
#[test]
fn a_known_range_is_taken_as_it_is_on_every_instruction_set() {
    let outside = [100.0, -100.0, 1e9, -1e9, 3e38, -3e38, 1e-30, 0.0];
    for cpu in cpus() {
        for channels in [1, 3, 4, 16, 37, 320, 20_000] {
            for (rows, rows_per_range) in [(1, 1), (7, 1), (12, 4), (6, 6), (10, 4)] {
                for (levels, [low, high]) in
                    [(255, [-1.5, 2.5]), (15, [-1.0, 0.5]), (255, [0.0, 2.0]), (255, [-2.0, 0.0])]
                {
                    let mut values: Vec<f32> =
                        numbers(5, rows * channels).iter().map(|x| 3.0 * x).collect();
                    values.iter_mut().zip(outside).for_each(|(x, outside)| *x = outside);
                    let bits = to_bf16(&values);
                    let rounded = from_bf16(&bits);
                    let known = Range8::new(low, high, levels);
                    assert_eq!(known.scale, (high - low) / f32::from(levels));
                    assert_eq!(known.zero, (-low / known.scale).round_ties_even());
                    let sizes = [rows, channels, rows_per_range];
                    for (input, values) in
                        [(Activations::F32(&values), &values), (Activations::Bf16(&bits), &rounded)]
                    {
                        let (codes, ranges) =
                            quantized_within(&cpu, input, sizes, (levels, Some(known)));
                        assert!(ranges.iter().all(|range| *range == known), "{sizes:?}");
                        let stride = channels.next_multiple_of(4);
                        for (codes, values) in codes.chunks(stride).zip(values.chunks(channels)) {
                            let expected = values.iter().map(|x| {
                                let steps = (x * (1.0 / known.scale)).round_ties_even();
                                (steps + known.zero).clamp(0.0, levels.into()) as u8
                            });
                            assert!(expected.eq(codes[..channels].iter().copied()), "{sizes:?}");
                            let zero = known.zero as u8;
                            assert!(codes[channels..].iter().all(|&code| code == zero));
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn what_is_not_finite_is_not_hidden() {
    for cpu in cpus() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for known in [None, Some(Range8::new(-1.0, 1.0, 255))] {
                for rows_per_range in [1, 3, 6] {
                    let mut values = numbers(4, 6 * 40);
                    values[50] = bad;
                    let sizes = [6, 40, rows_per_range];
                    let input = Activations::F32(&values);
                    let (_, ranges) = quantized_within(&cpu, input, sizes, (255, known));
                    let wrong = 1 / rows_per_range;
                    for (group, range) in ranges.iter().enumerate() {
                        let hidden = range.scale.is_nan() != (group == wrong);
                        assert!(!hidden, "{bad} on {} of {rows_per_range}", cpu.level());
                    }
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn a_code_is_within_half_a_step(values in prop::collection::vec(-1e6_f32..1e6, 1..80)) {
        let cpu = &cpus()[0];
        let sizes = [1, values.len(), 1];
        for levels in [255, 15] {
            let (codes, ranges) = quantized(cpu, Activations::F32(&values), sizes, levels);
            for (&x, &code) in values.iter().zip(&codes) {
                let back = ranges[0].scale * (f32::from(code) - ranges[0].zero);
                // The zero point is rounded, so that the ends may lie half a step outside.
                prop_assert!((back - x).abs() <= ranges[0].scale * 1.01, "{x} became {back}");
            }
        }
    }
}
