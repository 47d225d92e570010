//! The definitions of all operations: plain loops in double precision, obviously right, and slow.
//!
//! Each function takes the operation that it defines and writes to the operation's output, ignoring
//! its scratch. Tests hold the kernels against them, and a device built on them checks programs.

mod image;
mod product;

pub use image::{group_norm, layer_norm, nearest};
pub use product::{attention, centered, matmul, rounded, weight};

use half::{bf16, f16};

use crate::{
    activation::{Activate, Activation, Affine, Combine, Operation},
    convert::{Convert, Numbers},
    format::Activations,
    threads::Output,
};

/// `activation(x)` in double precision.
pub fn activation(activation: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::None => x,
        Activation::Silu => x * sigmoid(x),
        Activation::Gelu => x / 2.0 * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
            x / 2.0 * (1.0 + inner.tanh())
        }
        Activation::QuickGelu => x * sigmoid(1.702 * x),
        Activation::Relu => x.max(0.0),
        Activation::Tanh => x.tanh(),
        Activation::Sigmoid => sigmoid(x),
    }
}

/// The error function, by its series near zero and a continued fraction beyond.
pub fn erf(x: f64) -> f64 {
    let a = x.abs();
    let y = if a < 2.5 {
        let mut term = a;
        let mut sum = a;
        for n in 1..80 {
            term *= -a * a / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    } else {
        let fraction = (1..120).rev().fold(a, |fraction, n| a + f64::from(n) / 2.0 / fraction);
        1.0 - (-a * a).exp() / fraction / std::f64::consts::PI.sqrt()
    };
    y.copysign(x)
}

/// The definition of [`Activate`].
pub fn activate(op: Activate<'_>) {
    let Activate { input, extent, activation: function, mut output } = op;
    each(extent.rows, extent.columns, |row, column| {
        let x = f64::from(input[row * extent.stride + column]);
        put(&mut output, (row, column), activation(function, x));
    });
}

/// The definition of [`Affine`].
pub fn affine(op: Affine<'_>) {
    let Affine { input, extent, scale, offset, mut output } = op;
    each(extent.rows, extent.columns, |row, column| {
        let x = f64::from(input[row * extent.stride + column]);
        put(&mut output, (row, column), x * f64::from(scale) + f64::from(offset));
    });
}

/// The definition of [`Combine`].
pub fn combine(op: Combine<'_>) {
    let Combine { operation, left, extent, right, right_stride, repeat, mut output } = op;
    each(extent.rows, extent.columns, |row, column| {
        let a = f64::from(left[row * extent.stride + column]);
        let b = f64::from(right[row / repeat * right_stride + column]);
        let y = match operation {
            Operation::Add => a + b,
            Operation::Sub => a - b,
            Operation::Mul => a * b,
            Operation::Geglu => a * activation(Activation::Gelu, b),
        };
        put(&mut output, (row, column), y);
    });
}

/// The definition of [`Convert`].
pub fn convert(op: Convert<'_>) {
    let Convert { input, extent, mut output } = op;
    each(extent.rows, extent.columns, |row, column| {
        let index = row * extent.stride + column;
        let x = match input {
            Numbers::F32(values) => values[index],
            Numbers::F16(bits) => f16::from_bits(bits[index]).to_f32(),
            Numbers::Bf16(bits) => bf16::from_bits(bits[index]).to_f32(),
        };
        put(&mut output, (row, column), x.into());
    });
}

/// One element of the activations.
pub(crate) fn read(values: &Activations<'_>, index: usize) -> f64 {
    match values {
        Activations::F32(values) => values[index].into(),
        Activations::Bf16(bits) => bf16::from_bits(bits[index]).to_f64(),
        Activations::U8(codes) => codes[index].into(),
    }
}

/// Write one element in each format of the output.
fn put(output: &mut Output<'_>, (row, column): (usize, usize), y: f64) {
    let index = row * output.stride + column;
    if let Some(to) = &mut output.f32 {
        to[index] = y as f32;
    }
    if let Some(to) = &mut output.bf16 {
        to[index] = bf16::from_f32(y as f32).to_bits();
    }
}

fn each(rows: usize, columns: usize, mut f: impl FnMut(usize, usize)) {
    for row in 0..rows {
        for column in 0..columns {
            f(row, column);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::erf;

    #[test]
    fn the_error_function_has_its_known_values() {
        let known = [(0.0, 0.0), (0.5, 0.520_499_877_813_046_5), (1.0, 0.842_700_792_949_714_9)];
        let more = [(2.0, 0.995_322_265_018_952_7), (3.0, 0.999_977_909_503_001_4)];
        for (x, y) in known.into_iter().chain(more) {
            assert!((erf(x) - y).abs() < 1e-14 && (erf(-x) + y).abs() < 1e-14, "erf({x})");
        }
    }
}
