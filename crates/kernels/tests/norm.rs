//! Normalisations against their definitions, on every instruction set.

mod support;

use kernels::{
    Cpu,
    activation::Activation,
    format::Activations,
    norm::{self, GroupNorm, LayerNorm, Normed},
    quantize::Range8,
    reference,
    threads::Output,
};
use support::{assert_close, cpus, numbers, to_bf16};

#[derive(Clone, Copy, Debug)]
struct Case {
    batch: usize,
    pixels: usize,
    channels: usize,
    groups: usize,
    mean: f32,
    activation: Activation,
}

impl Case {
    fn input(&self) -> Vec<f32> {
        let count = self.batch * self.pixels * self.channels;
        numbers(1, count).into_iter().map(|x| x + self.mean).collect()
    }

    /// Run on `input`, by definition or by a CPU.
    fn run(&self, cpu: Option<&Cpu>, input: Activations<'_>, output: Normed<'_>) {
        let (gamma, beta) = (numbers(3, self.channels), numbers(4, self.channels));
        let bytes = norm::scratch_bytes([self.batch, self.pixels, self.channels, self.groups]);
        let mut scratch = vec![0x5a; bytes];
        let op = GroupNorm {
            input,
            channels: self.channels,
            batch: self.batch,
            pixels: self.pixels,
            groups: self.groups,
            eps: 1e-5,
            gamma: Some(&gamma),
            beta: Some(&beta),
            activation: self.activation,
            output,
            scratch: &mut scratch,
        };
        match cpu {
            Some(cpu) => op.run(cpu),
            None => reference::group_norm(op),
        }
    }

    fn real(&self, cpu: Option<&Cpu>, input: Activations<'_>) -> Vec<f32> {
        let count = self.batch * self.pixels * self.channels;
        let (mut f32, mut bf16) = (vec![0.0; count], vec![0; count]);
        let output = Output { f32: Some(&mut f32), bf16: Some(&mut bf16), stride: self.channels };
        self.run(cpu, input, Normed::Real(output));
        assert_eq!(to_bf16(&f32), bf16);
        f32
    }

    fn codes(&self, cpu: &Cpu, input: Activations<'_>, levels: u8) -> (Vec<u8>, Vec<Range8>) {
        self.codes_within(cpu, input, (levels, None))
    }

    fn codes_within(
        &self,
        cpu: &Cpu,
        input: Activations<'_>,
        (levels, known): (u8, Option<Range8>),
    ) -> (Vec<u8>, Vec<Range8>) {
        let stride = self.channels.next_multiple_of(4);
        let mut codes = vec![0x5a; self.batch * self.pixels * stride];
        let mut ranges = vec![Range8 { scale: 0.0, zero: 0.0 }; self.batch];
        let output = Normed::Codes { codes: &mut codes, ranges: &mut ranges, levels, known };
        self.run(Some(cpu), input, output);
        (codes, ranges)
    }
}

fn cases() -> Vec<Case> {
    let case = |batch, pixels, [channels, groups]: [usize; 2], mean| {
        let activation = if mean > 0.0 { Activation::Silu } else { Activation::None };
        Case { batch, pixels, channels, groups, mean, activation }
    };
    vec![
        case(1, 1, [4, 2], 0.0),
        case(2, 9, [32, 32], 0.0),
        case(1, 300, [320, 32], 3.0),
        case(2, 65, [960, 32], 0.0),
        case(1, 50, [48, 4], 0.5),
        case(3, 7, [15, 3], 0.5),
        case(1, 4000, [24, 8], 100.0),
    ]
}

#[test]
fn groups_of_channels() {
    for case in cases() {
        let cpus = cpus();
        let input = case.input();
        let input = Activations::F32(&input);
        let expected = case.real(None, input);
        let exact = case.real(Some(&cpus[0]), input);
        // A large mean costs digits of the numbers themselves.
        assert_close(&format!("{case:?}"), &exact, &expected, 1e-6 + 3e-7 * case.mean);
        for cpu in &cpus {
            assert_eq!(case.real(Some(cpu), input), exact, "{case:?} on {}", cpu.level());
        }
    }
}

#[test]
fn rounded_input_is_read_as_what_it_stands_for() {
    for case in cases() {
        let bits = to_bf16(&case.input());
        let widened: Vec<f32> =
            bits.iter().map(|bits| f32::from_bits(u32::from(*bits) << 16)).collect();
        for cpu in &cpus() {
            let rounded = case.real(Some(cpu), Activations::Bf16(&bits));
            assert_eq!(rounded, case.real(Some(cpu), Activations::F32(&widened)), "{case:?}");
        }
    }
}

#[test]
fn codes_stand_for_the_numbers() {
    for case in cases() {
        let input = case.input();
        let input = Activations::F32(&input);
        for levels in [255, 15] {
            let cpus = cpus();
            let real = case.real(Some(&cpus[0]), input);
            let (codes, ranges) = case.codes(&cpus[0], input, levels);
            let stride = case.channels.next_multiple_of(4);
            let rows = codes.chunks(stride).zip(real.chunks(case.channels)).enumerate();
            for (row, (codes, real)) in rows {
                let range = ranges[row / case.pixels];
                for (code, x) in codes.iter().zip(real) {
                    assert_eq!(*code, range.code(*x, levels), "{case:?} row {row}");
                }
                assert!(codes[case.channels..].iter().all(|code| *code == range.zero as u8));
            }
            let images = real.chunks(case.pixels * case.channels).zip(&ranges);
            for (image, range) in images {
                let (least, greatest) =
                    image.iter().fold((0.0_f32, 0.0_f32), |(a, b), x| (a.min(*x), b.max(*x)));
                let tight = (greatest - least) / f32::from(levels);
                // The dip of the activation may lie between two numbers.
                let dip = 0.2785 / f32::from(levels);
                assert!(range.scale >= tight * 0.9999 && range.scale <= tight * 1.0001 + dip);
            }
            for cpu in &cpus {
                let found = case.codes(cpu, input, levels);
                assert_eq!(found, (codes.clone(), ranges.clone()), "{case:?} on {}", cpu.level());
            }
        }
    }
}

#[test]
fn a_known_range_is_taken_as_it_is() {
    for case in cases() {
        let input = case.input();
        let input = Activations::F32(&input);
        for levels in [255, 15] {
            let known = Range8::new(-0.2, 0.9, levels);
            for cpu in &cpus() {
                let real = case.real(Some(cpu), input);
                let (codes, ranges) = case.codes_within(cpu, input, (levels, Some(known)));
                assert!(ranges.iter().all(|range| *range == known), "{case:?}");
                let stride = case.channels.next_multiple_of(4);
                for (codes, real) in codes.chunks(stride).zip(real.chunks(case.channels)) {
                    let expected = real.iter().map(|x| known.code(*x, levels));
                    assert!(expected.eq(codes[..case.channels].iter().copied()), "{case:?}");
                    assert!(codes[case.channels..].iter().all(|code| *code == known.zero as u8));
                }
            }
        }
    }
}

#[test]
fn codes_do_not_hide_what_is_not_finite() {
    let case = Case {
        batch: 2,
        pixels: 40,
        channels: 32,
        groups: 8,
        mean: 0.5,
        activation: Activation::Silu,
    };
    for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut input = case.input();
        input[40 * 32 + 5] = wrong;
        for (cpu, known) in cpus().iter().flat_map(|cpu| {
            [None, Some(Range8::new(-1.0, 1.0, 255))].map(move |known| (cpu, known))
        }) {
            let (_, ranges) = case.codes_within(cpu, Activations::F32(&input), (255, known));
            assert!(ranges[0].scale.is_finite() && ranges[1].scale.is_nan(), "{wrong}");
        }
    }
}

#[test]
fn rows() {
    for (rows, channels) in [(1, 1), (3, 5), (2, 16), (77, 768), (5, 1000)] {
        let stride = channels + 1;
        let input = numbers(1, rows * stride);
        let (gamma, beta) = (numbers(3, channels), numbers(4, channels));
        let run = |cpu: Option<&Cpu>| {
            let (mut f32, mut bf16) = (vec![0.0; rows * channels], vec![0; rows * channels]);
            let op = LayerNorm {
                input: &input,
                rows,
                channels,
                stride,
                eps: 1e-5,
                gamma: Some(&gamma),
                beta: Some(&beta),
                output: Output { f32: Some(&mut f32), bf16: Some(&mut bf16), stride: channels },
            };
            match cpu {
                Some(cpu) => op.run(cpu),
                None => reference::layer_norm(op),
            }
            assert_eq!(to_bf16(&f32), bf16);
            f32
        };
        let cpus = cpus();
        let exact = run(Some(&cpus[0]));
        assert_close(&format!("{rows} × {channels}"), &exact, &run(None), 1e-6);
        for cpu in &cpus {
            assert_eq!(run(Some(cpu)), exact, "{rows} × {channels} on {}", cpu.level());
        }
    }
}
