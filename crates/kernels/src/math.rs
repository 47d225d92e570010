//! Functions of vectors: the exponential and what is built on it.
//!
//! All are the same polynomials on every instruction set, so their results are equal bit for bit.

use crate::isa::Isa;

/// `2^23 · 1.5`: adding and subtracting it rounds a small number to an integer.
pub(crate) const ROUND: f32 = 12_582_912.0;

/// `c[0] + c[1] x + c[2] x² + …`.
#[inline(always)]
fn polynomial<I: Isa, const N: usize>(isa: I, x: I::V, c: [f32; N]) -> I::V {
    let mut sum = isa.splat(c[N - 1]);
    for &c in c[..N - 1].iter().rev() {
        sum = isa.fma(sum, x, isa.splat(c));
    }
    sum
}

/// `eˣ` to about one unit in the last place; infinite from 88.73, gradually zero below −87.3.
///
/// `x = n ln 2 + r` with integral `n`, so that `eˣ = 2ⁿ eʳ`, and `eʳ` is a polynomial on
/// `|r| ≤ ln 2 / 2`. `n ln 2` is subtracted in two parts, the first of which is exact.
#[inline(always)]
pub fn exp<I: Isa>(isa: I, x: I::V) -> I::V {
    // The bound comes first in `min`, so that what is not a number stays so.
    let x = isa.max(isa.splat(-110.0), isa.min(isa.splat(90.0), x));
    let n = isa.fma(x, isa.splat(std::f32::consts::LOG2_E), isa.splat(ROUND));
    let n = isa.sub(n, isa.splat(ROUND));
    let r = isa.fma(n, isa.splat(-0.693_359_4), x);
    let r = isa.fma(n, isa.splat(2.121_944_4e-4), r);
    let tail = polynomial(
        isa,
        r,
        [0.5, 1.666_666_5e-1, 4.166_579_6e-2, 8.333_452e-3, 1.398_199_9e-3, 1.987_569_1e-4],
    );
    let one_plus_r = isa.add(isa.splat(1.0), r);
    let e = isa.fma(isa.mul(r, r), tail, one_plus_r);
    isa.scale_by_power_of_two(e, n)
}

/// `2ˣ` to about one unit in the last place, for `x` up to 127; below −125 it is that of −125.
///
/// `x = n + f` with integral `n`, and `2ᶠ` is a polynomial on `|f| ≤ 1/2`. It costs less than
/// [`exp`], where the factor `log₂ e` can be put elsewhere.
#[inline(always)]
pub fn exp2<I: Isa>(isa: I, x: I::V) -> I::V {
    let c = [
        1.0,
        std::f32::consts::LN_2,
        0.240_226_48,
        5.550_332_4e-2,
        9.618_437e-3,
        1.339_887_5e-3,
        1.535_336e-4,
    ];
    power_of_two(isa, x, c)
}

/// [`exp2`] to one part in 13,000, for results that are rounded to bf16.
#[inline(always)]
pub fn exp2_coarse<I: Isa>(isa: I, x: I::V) -> I::V {
    power_of_two(isa, x, [0.999_928_07, 0.693_260_99, 0.242_611_13, 5.517_167e-2])
}

/// `2ⁿ p(f)` where `x = n + f`, and `p` are the coefficients of a polynomial for `2ᶠ`.
#[inline(always)]
fn power_of_two<I: Isa, const N: usize>(isa: I, x: I::V, p: [f32; N]) -> I::V {
    let x = isa.max(isa.splat(-125.0), x);
    let n = isa.sub(isa.add(x, isa.splat(ROUND)), isa.splat(ROUND));
    let f = isa.sub(x, n);
    isa.shift_exponent(polynomial(isa, f, p), n)
}

/// `1 / (1 + e⁻ˣ)`.
#[inline(always)]
pub fn sigmoid<I: Isa>(isa: I, x: I::V) -> I::V {
    let one = isa.splat(1.0);
    isa.div(one, isa.add(one, exp(isa, isa.sub(isa.splat(0.0), x))))
}

/// `x / (1 + e⁻ˣ)`.
#[inline(always)]
pub fn silu<I: Isa>(isa: I, x: I::V) -> I::V {
    isa.div(x, isa.add(isa.splat(1.0), exp(isa, isa.sub(isa.splat(0.0), x))))
}

/// `tanh x`, accurate relative to itself also near zero.
#[inline(always)]
pub fn tanh<I: Isa>(isa: I, x: I::V) -> I::V {
    let one = isa.splat(1.0);
    let two = isa.splat(2.0);
    let large = isa.sub(one, isa.div(two, isa.add(exp(isa, isa.mul(two, x)), one)));
    let square = isa.mul(x, x);
    let series = polynomial(
        isa,
        square,
        [-0.333_332_8, 0.133_314_42, -0.053_739_715, 2.063_909e-2, -5.704_988_6e-3],
    );
    let small = isa.fma(isa.mul(x, square), series, x);
    isa.select_less(isa.abs(x), isa.splat(0.625), [small, large])
}

/// The error function, to 1e-7 absolute.
///
/// An odd polynomial up to 0.95; from there `1 − exp(p(|x|))`, where `p` approximates the
/// logarithm of `1 − erf`. Both were fitted to minimise the greatest error.
#[inline(always)]
pub fn erf<I: Isa>(isa: I, x: I::V) -> I::V {
    let a = isa.min(isa.splat(4.0), isa.abs(x));
    let series = polynomial(
        isa,
        isa.mul(x, x),
        [0.128_379_03, -0.376_122_03, 0.112_798_43, -0.026_712_053, 0.004_927_23, -0.000_570_141_8],
    );
    let small = isa.fma(x, series, x);
    let log = polynomial(
        isa,
        a,
        [
            -0.000_256_446_22,
            -1.127_426,
            -0.637_600_06,
            -0.103_566_885,
            0.022_051_996,
            -0.002_999_540_2,
            0.000_191_504_1,
        ],
    );
    let large = isa.sub(isa.splat(1.0), exp(isa, log));
    let negative = isa.sub(isa.splat(0.0), large);
    let large = isa.select_less(x, isa.splat(0.0), [negative, large]);
    isa.select_less(a, isa.splat(0.95), [small, large])
}

/// `x/2 (1 + erf(x / √2))`.
#[inline(always)]
pub fn gelu<I: Isa>(isa: I, x: I::V) -> I::V {
    let e = erf(isa, isa.mul(x, isa.splat(std::f32::consts::FRAC_1_SQRT_2)));
    let half = isa.mul(x, isa.splat(0.5));
    isa.fma(half, e, half)
}

/// [`gelu`] for results that are rounded to bf16: the error function is one odd polynomial, right to 7e-5, up
/// to 2.9, and one from there.
#[inline(always)]
pub fn gelu_coarse<I: Isa>(isa: I, x: I::V) -> I::V {
    let half = isa.mul(x, isa.splat(0.5));
    let a =
        isa.min(isa.splat(2.9), isa.abs(isa.mul(x, isa.splat(std::f32::consts::FRAC_1_SQRT_2))));
    let series = polynomial(
        isa,
        isa.mul(a, a),
        [
            1.127_997_8,
            -0.373_743_06,
            0.108_443_476,
            -0.023_131_613,
            0.003_457_388,
            -0.000_337_444_57,
            1.905_993_7e-5,
            -4.682_707_7e-7,
        ],
    );
    // x erf(x / √2) is even.
    isa.fma(isa.abs(half), isa.min(isa.splat(1.0), isa.mul(a, series)), half)
}

/// `x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))`.
#[inline(always)]
pub fn gelu_tanh<I: Isa>(isa: I, x: I::V) -> I::V {
    let cube = isa.mul(isa.mul(x, x), x);
    let inner = isa.fma(isa.splat(0.044_715), cube, x);
    let t = tanh(isa, isa.mul(isa.splat(0.797_884_6), inner));
    let half = isa.mul(x, isa.splat(0.5));
    isa.fma(half, t, half)
}

/// `x · sigmoid(1.702 x)`.
#[inline(always)]
pub fn quick_gelu<I: Isa>(isa: I, x: I::V) -> I::V {
    let e = exp(isa, isa.mul(isa.splat(-1.702), x));
    isa.div(x, isa.add(isa.splat(1.0), e))
}

/// `max(x, 0)`; what is not a number stays so.
#[inline(always)]
pub fn relu<I: Isa>(isa: I, x: I::V) -> I::V {
    isa.max(isa.splat(0.0), x)
}

#[cfg(test)]
mod tests {
    use super::{exp, exp2, exp2_coarse, gelu, gelu_coarse};
    use crate::isa::{Isa, LANES, SimdOp, run_on_every_isa};

    /// All exponentials of some numbers.
    #[derive(Clone, Copy)]
    struct Exponentials<'a>(&'a [f32]);

    impl SimdOp for Exponentials<'_> {
        type Output = Vec<[f32; 3]>;

        fn eval<I: Isa>(self, isa: I) -> Vec<[f32; 3]> {
            let chunks = self.0.chunks(LANES).flat_map(|x| {
                let e = isa.to_array(exp(isa, isa.read(x)));
                let exponents = isa.min(isa.splat(127.0), isa.read(x));
                let two = isa.to_array(exp2(isa, exponents));
                let coarse = isa.to_array(exp2_coarse(isa, exponents));
                (0..x.len()).map(move |i| [e[i], two[i], coarse[i]])
            });
            chunks.collect()
        }
    }

    #[test]
    fn exponentials_are_accurate_from_zero_to_infinity() {
        let inputs: Vec<f32> = (-170_000..128_000).map(|i| i as f32 * 1e-3).collect();
        for (level, results) in run_on_every_isa(&Exponentials(&inputs)) {
            for (&x, got) in inputs.iter().zip(results) {
                let (e, two) = (f64::from(x).exp(), f64::from(x).clamp(-125.0, 127.0).exp2());
                for (got, exact, error) in
                    [(got[0], e, 1.3e-7), (got[1], two, 1.3e-7), (got[2], two, 7.7e-5)]
                {
                    let allowed = exact * error + 1.5e-45;
                    // A tiny result has fewer digits; what exceeds the format is infinite.
                    let error = (f64::from(got) - exact).abs();
                    let close = error <= allowed;
                    let infinite = exact > f64::from(f32::MAX) && got == f32::INFINITY;
                    assert!(close || infinite, "{got} not {exact} at {x} on {level}");
                }
            }
        }
    }

    /// Both forms of `gelu` of some numbers.
    #[derive(Clone, Copy)]
    struct Gelus<'a>(&'a [f32]);

    impl SimdOp for Gelus<'_> {
        type Output = Vec<[f32; 2]>;

        fn eval<I: Isa>(self, isa: I) -> Vec<[f32; 2]> {
            let chunks = self.0.chunks(LANES).flat_map(|x| {
                let exact = isa.to_array(gelu(isa, isa.read(x)));
                let coarse = isa.to_array(gelu_coarse(isa, isa.read(x)));
                (0..x.len()).map(move |i| [exact[i], coarse[i]])
            });
            chunks.collect()
        }
    }

    #[test]
    fn the_coarse_gelu_is_right_to_what_bf16_keeps() {
        let inputs: Vec<f32> = (-20_000..20_000).map(|i| i as f32 * 1e-3).collect();
        for (level, results) in run_on_every_isa(&Gelus(&inputs)) {
            for (&x, [exact, coarse]) in inputs.iter().zip(results) {
                let error = (coarse - exact).abs();
                assert!(error <= 3.6e-5 * x.abs(), "{coarse} not {exact} at {x} on {level}");
                assert!(x > -4.2 || coarse == 0.0, "{coarse} at {x} on {level}");
            }
        }
        for (_, results) in run_on_every_isa(&Gelus(&[f32::NAN, 1e30])) {
            assert!(results[0][1].is_nan() && results[1][1] == 1e30);
        }
    }

    #[test]
    fn what_is_not_a_number_stays_so() {
        let inputs = [f32::NAN, f32::NEG_INFINITY, f32::INFINITY];
        for (level, results) in run_on_every_isa(&Exponentials(&inputs)) {
            assert!(results[0].iter().all(|e| e.is_nan()), "{level}");
            assert_eq!(results[1][0], 0.0, "{level}");
            assert!(results[1][1..].iter().all(|&e| e < 2.4e-38), "{level}");
            assert_eq!(results[2][0], f32::INFINITY, "{level}");
        }
    }
}
