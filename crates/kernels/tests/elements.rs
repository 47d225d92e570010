//! Element-wise operations, conversions and resampling against their definitions.

mod support;

use half::f16;
use kernels::{
    Cpu,
    activation::{Activate, Activation, Affine, Combine, Extent, Operation},
    convert::{Convert, Numbers},
    format::Activations,
    reference,
    resample::Nearest,
    threads::Output,
};
use support::{assert_close, cpus, numbers, to_bf16};

const ACTIVATIONS: [Activation; 8] = [
    Activation::None,
    Activation::Silu,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::QuickGelu,
    Activation::Relu,
    Activation::Tanh,
    Activation::Sigmoid,
];

/// Run an operation on every CPU and by definition; compare.
fn check(what: &str, length: usize, tolerance: f32, run: impl Fn(Option<&Cpu>, Output<'_>)) {
    let result = |cpu| {
        let (mut f32, mut bf16) = (vec![7.0; length], vec![0; length]);
        let output = Output { f32: Some(&mut f32), bf16: Some(&mut bf16), stride: 0 };
        run(cpu, output);
        (f32, bf16)
    };
    let cpus = cpus();
    let (exact, _) = result(Some(&cpus[0]));
    assert_close(what, &exact, &result(None).0, tolerance);
    for cpu in &cpus {
        let (f32, bf16) = result(Some(cpu));
        let what = format!("{what} on {} × {}", cpu.level(), cpu.threads.count());
        assert!(f32.iter().zip(&exact).all(|(a, b)| a.to_bits() == b.to_bits()), "{what}");
        let rounded = to_bf16(&f32);
        // Untouched numbers are sevens; an instruction set may round the tiniest to zero.
        let is_exact = |f: &f32| *f != 7.0 && !f.is_subnormal();
        let written = bf16.iter().zip(&f32).zip(&rounded).filter(|((_, f), _)| is_exact(f));
        assert!(written.into_iter().all(|((b, _), r)| b == r), "{what}: bf16");
    }
}

#[test]
fn activations_over_their_whole_range() {
    let mut input = numbers(1, 40_000);
    for (i, x) in input.iter_mut().enumerate() {
        *x *= [0.1, 1.0, 6.0, 120.0][i % 4];
    }
    let extent = Extent::flat(input.len());
    for activation in ACTIVATIONS {
        check(&format!("{activation:?}"), input.len(), 5e-7, |cpu, mut output| {
            output.stride = extent.stride;
            let op = Activate { input: &input, extent, activation, output };
            match cpu {
                Some(cpu) => op.run(cpu),
                None => reference::activate(op),
            }
        });
    }
}

#[test]
fn activations_of_every_length() {
    for columns in 0..50 {
        let extent = Extent { rows: 2, columns, stride: columns + 1 };
        let input = numbers(9, 2 * extent.stride);
        check(&format!("length {columns}"), 2 * extent.stride, 1e-6, |cpu, mut output| {
            output.stride = extent.stride;
            let op = Activate { input: &input, extent, activation: Activation::Silu, output };
            match cpu {
                Some(cpu) => op.run(cpu),
                None => reference::activate(op),
            }
        });
    }
}

#[test]
fn sums_products_and_scales() {
    for (rows, columns, repeat) in [(1, 1, 1), (6, 17, 3), (40, 1000, 40), (7, 33, 1)] {
        let extent = Extent { rows, columns, stride: columns + 2 };
        let (left, right) = (numbers(1, rows * extent.stride), numbers(2, rows * columns));
        for operation in [Operation::Add, Operation::Sub, Operation::Mul, Operation::Geglu] {
            check(&format!("{operation:?}"), rows * extent.stride, 1e-6, |cpu, mut output| {
                output.stride = extent.stride;
                let op = Combine {
                    operation,
                    left: &left,
                    extent,
                    right: &right,
                    right_stride: columns,
                    repeat,
                    output,
                };
                match cpu {
                    Some(cpu) => op.run(cpu),
                    None => reference::combine(op),
                }
            });
        }
        check("affine", rows * extent.stride, 1e-6, |cpu, mut output| {
            output.stride = extent.stride;
            let op = Affine { input: &left, extent, scale: 3.0, offset: -0.5, output };
            match cpu {
                Some(cpu) => op.run(cpu),
                None => reference::affine(op),
            }
        });
    }
}

#[test]
fn conversions_of_all_bit_patterns() {
    let bits: Vec<u16> = (0..=u16::MAX).collect();
    let floats: Vec<f32> = (0..100_000_u32).map(|i| f32::from_bits(i * 42_949)).collect();
    let extent = |length| Extent { rows: 1, columns: length, stride: length };
    for cpu in cpus() {
        let mut widened = vec![0.0; bits.len()];
        let output = Output::f32(&mut widened, bits.len());
        Convert { input: Numbers::F16(&bits), extent: extent(bits.len()), output }.run(&cpu);
        for (bits, &got) in bits.iter().zip(&widened) {
            let expected = f16::from_bits(*bits).to_f32();
            assert!(got == expected || got.is_nan() && expected.is_nan(), "f16 {bits:#x}");
        }
        let output = Output::f32(&mut widened, bits.len());
        Convert { input: Numbers::Bf16(&bits), extent: extent(bits.len()), output }.run(&cpu);
        assert!(bits.iter().zip(&widened).all(|(b, w)| u32::from(*b) << 16 == w.to_bits()));

        let mut narrowed = vec![0; floats.len()];
        let output = Output::bf16(&mut narrowed, floats.len());
        Convert { input: Numbers::F32(&floats), extent: extent(floats.len()), output }.run(&cpu);
        for ((&got, expected), x) in narrowed.iter().zip(to_bf16(&floats)).zip(&floats) {
            let tiny = x.is_subnormal() && got.trailing_zeros() >= 15;
            assert!(got == expected || tiny, "bf16 of {x:e} on {}", cpu.level());
        }
    }
}

#[test]
fn columns_are_cut_out_of_rows() {
    let input: Vec<f32> = (0..12_u16).map(f32::from).collect();
    let mut out = [0.0; 4];
    Convert {
        input: Numbers::F32(&input[1..]),
        extent: Extent { rows: 2, columns: 2, stride: 6 },
        output: Output::f32(&mut out, 2),
    }
    .run(&Cpu::detect(1));
    assert_eq!(out, [1.0, 2.0, 7.0, 8.0]);
}

#[test]
fn images_are_enlarged() {
    for (size, out_size) in [([3, 4], [6, 8]), ([5, 3], [9, 5]), ([1, 1], [2, 3])] {
        for channels in [1, 5, 40] {
            let input = numbers(1, 2 * size[0] * size[1] * channels);
            let bits = to_bf16(&input);
            for input in [Activations::F32(&input), Activations::Bf16(&bits)] {
                let length = 2 * out_size[0] * out_size[1] * channels;
                check(&format!("{size:?} to {out_size:?}"), length, 0.0, |cpu, mut output| {
                    output.stride = channels;
                    let op = Nearest { input, batch: 2, size, channels, out_size, output };
                    match cpu {
                        Some(cpu) => op.run(cpu),
                        None => reference::nearest(op),
                    }
                });
            }
        }
    }
}
