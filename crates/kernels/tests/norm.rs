//! Normalisations against their definitions, on every instruction set.

mod support;

use kernels::{
    Cpu,
    activation::Activation,
    norm::{self, GroupNorm, LayerNorm},
    reference,
    threads::Output,
};
use support::{assert_close, cpus, numbers, to_bf16};

#[derive(Clone, Copy, Debug)]
struct Case {
    batch: usize,
    pixels: usize,
    channels: usize,
    second: usize,
    groups: usize,
    mean: f32,
    activation: Activation,
}

impl Case {
    fn run(&self, cpu: &Cpu, by_definition: bool) -> Vec<f32> {
        let all = self.channels + self.second;
        let rows = self.batch * self.pixels;
        let shifted = |seed, count| -> Vec<f32> {
            numbers(seed, count).into_iter().map(|x| x + self.mean).collect()
        };
        let (first, second) = (shifted(1, rows * self.channels), shifted(2, rows * self.second));
        let (gamma, beta) = (numbers(3, all), numbers(4, all));
        let bytes = norm::scratch_bytes([self.batch, self.pixels, all, self.groups]);
        let mut scratch = vec![0x5a; bytes];
        let (mut f32, mut bf16) = (vec![0.0; rows * all], vec![0; rows * all]);
        let op = GroupNorm {
            input: &first,
            channels: self.channels,
            second: (self.second > 0).then_some((&second, self.second)),
            batch: self.batch,
            pixels: self.pixels,
            groups: self.groups,
            eps: 1e-5,
            gamma: Some(&gamma),
            beta: Some(&beta),
            activation: self.activation,
            output: Output { f32: Some(&mut f32), bf16: Some(&mut bf16), stride: all },
            scratch: &mut scratch,
        };
        if by_definition {
            reference::group_norm(op);
        } else {
            op.run(cpu);
        }
        assert_eq!(to_bf16(&f32), bf16);
        f32
    }
}

#[test]
fn groups_of_channels() {
    let case = |batch, pixels, [channels, second, groups]: [usize; 3], mean| {
        let activation = if mean > 0.0 { Activation::Silu } else { Activation::None };
        Case { batch, pixels, channels, second, groups, mean, activation }
    };
    let cases = [
        case(1, 1, [4, 0, 2], 0.0),
        case(2, 9, [32, 0, 32], 0.0),
        case(1, 300, [320, 0, 32], 3.0),
        case(2, 65, [640, 320, 32], 0.0),
        case(1, 50, [30, 18, 4], 0.5),
        case(3, 7, [5, 10, 3], 0.5),
        case(1, 4000, [24, 0, 8], 100.0),
    ];
    for case in cases {
        let cpus = cpus();
        let expected = case.run(&cpus[0], true);
        let exact = case.run(&cpus[0], false);
        // A large mean costs digits of the numbers themselves.
        assert_close(&format!("{case:?}"), &exact, &expected, 1e-6 + 3e-7 * case.mean);
        for cpu in &cpus {
            assert_eq!(case.run(cpu, false), exact, "{case:?} on {}", cpu.level());
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
