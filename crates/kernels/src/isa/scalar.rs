//! Plain Rust, one lane at a time: the definition that the other instruction sets reproduce.

use half::{bf16, f16};

use super::{Apart, Int8Dot, Isa, LANES, Level};

/// The instruction set that every CPU has.
#[derive(Clone, Copy, Debug)]
pub struct Scalar;

type V = [f32; LANES];

#[inline(always)]
fn map2(a: V, b: V, f: impl Fn(f32, f32) -> f32) -> V {
    std::array::from_fn(|i| f(a[i], b[i]))
}

/// `2ⁿ` for integral `n` in −126..=127.
#[inline(always)]
fn power_of_two(n: f32) -> f32 {
    f32::from_bits(((n as i32).wrapping_add(127) << 23) as u32)
}

// Never inlined: no target feature is at stake here, and sixteen lanes of straight code in every kernel would take the compiler minutes.
impl Isa for Scalar {
    const LEVEL: Level = Level::Scalar;
    const TILE_ROWS: usize = 4;
    const TILE_VECTORS: usize = 1;

    type V = V;

    #[inline(never)]
    fn apart<O: Apart<Self>>(self, op: O) -> O::Output {
        op.eval(self)
    }

    #[inline(never)]
    fn splat(self, x: f32) -> V {
        [x; LANES]
    }

    #[inline(never)]
    fn load(self, from: &V) -> V {
        *from
    }

    #[inline(never)]
    fn store(self, v: V, to: &mut V) {
        *to = v;
    }

    #[inline(never)]
    fn add(self, a: V, b: V) -> V {
        map2(a, b, |a, b| a + b)
    }

    #[inline(never)]
    fn sub(self, a: V, b: V) -> V {
        map2(a, b, |a, b| a - b)
    }

    #[inline(never)]
    fn mul(self, a: V, b: V) -> V {
        map2(a, b, |a, b| a * b)
    }

    #[inline(never)]
    fn div(self, a: V, b: V) -> V {
        map2(a, b, |a, b| a / b)
    }

    #[inline(never)]
    fn fma(self, a: V, b: V, c: V) -> V {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }

    #[inline(never)]
    fn max(self, a: V, b: V) -> V {
        map2(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(never)]
    fn min(self, a: V, b: V) -> V {
        map2(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(never)]
    fn select_less(self, a: V, b: V, [then, otherwise]: [V; 2]) -> V {
        std::array::from_fn(|i| if a[i] < b[i] { then[i] } else { otherwise[i] })
    }

    #[inline(never)]
    fn abs(self, a: V) -> V {
        a.map(f32::abs)
    }

    #[inline(never)]
    fn scale_by_power_of_two(self, v: V, n: V) -> V {
        // Two factors, because 2ⁿ itself may be out of range; only the second product rounds.
        map2(v, n, |v, n| {
            let half = (n * 0.5).round_ties_even();
            v * power_of_two(half) * power_of_two(n - half)
        })
    }

    #[inline(never)]
    fn widen_bf16(self, from: &[u16; LANES]) -> V {
        from.map(|bits| f32::from_bits(u32::from(bits) << 16))
    }

    #[inline(never)]
    fn narrow_bf16(self, v: V, to: &mut [u16; LANES]) {
        *to = v.map(|x| bf16::from_f32(x).to_bits());
    }

    #[inline(never)]
    fn widen_f16(self, from: &[u16; LANES]) -> V {
        from.map(|bits| f16::from_bits(bits).to_f32_const())
    }
}

impl Int8Dot for Scalar {
    type Factor = V;

    #[inline(always)]
    fn factor(self, b: V) -> V {
        b
    }

    #[inline(never)]
    fn dot_int8(self, acc: V, a: V, b: V) -> V {
        std::array::from_fn(|i| {
            let (a, b) = (a[i].to_bits().to_le_bytes(), b[i].to_bits().to_le_bytes());
            let products = a.iter().zip(b).map(|(&a, b)| i32::from(a) * i32::from(b as i8));
            f32::from_bits((acc[i].to_bits() as i32).wrapping_add(products.sum()) as u32)
        })
    }

    #[inline(never)]
    fn dot_int16(self, acc: V, a: V, b: V) -> V {
        let words = |x: f32| bytemuck::cast::<f32, [i16; 2]>(x).map(i32::from);
        std::array::from_fn(|i| {
            let ([a, c], [b, d]) = (words(a[i]), words(b[i]));
            let sum = (acc[i].to_bits() as i32).wrapping_add(a * b).wrapping_add(c * d);
            f32::from_bits(sum as u32)
        })
    }

    #[inline(never)]
    fn pair_i16(self, first: V, second: V) -> V {
        map2(first, second, |first, second| {
            bytemuck::cast([first, second].map(|x| x.round_ties_even() as i16))
        })
    }

    #[inline(never)]
    fn widen_i32(self, v: V) -> V {
        v.map(|v| v.to_bits() as i32 as f32)
    }
}
