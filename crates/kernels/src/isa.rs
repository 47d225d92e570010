//! Instruction sets, the tokens that prove them, and the dispatch between them.
//!
//! A type that implements [`Isa`] is a *token*: its value can only come from `detect`, so holding
//! one proves that the CPU has the instructions. That proof is what the `SAFETY` comments of the
//! submodules refer to. A vector has 16 lanes of `f32` on every instruction set; only the number
//! of registers behind it differs. With the same lanes, the same fused multiply-adds and the same
//! order of reduction, `f32` results are equal bit for bit on every instruction set.
//!
//! An operation is a struct that implements [`SimdOp`]; [`Simd::eval`] compiles its body once per
//! token, inside a function that has the token's target features. Bodies and everything they call
//! are `#[inline(always)]`: a function left out of line would lose the features, and each
//! intrinsic would become a call. [`Isa::apart`] leaves a part of a body out of line with the features.

#![allow(unsafe_code, reason = "intrinsics are unsafe to call; the tokens make them safe")]

mod level;
mod scalar;
pub(crate) mod tiles;

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

pub use level::{Level, Simd, UnknownLevel, run_on_every_isa};
pub use scalar::Scalar;

#[cfg(target_arch = "x86_64")]
pub use {
    amx::Amx,
    avx2::{Avx2, AvxVnni},
    avx512::{Avx512, Avx512Bf16, Avx512Vnni},
};

#[cfg(target_arch = "aarch64")]
pub use neon::Neon;

/// Number of `f32` lanes of a vector.
pub const LANES: usize = 16;

/// The vector operations of one instruction set.
///
/// Lane-wise unless said otherwise; rounding is to nearest, ties to even.
pub trait Isa: Copy + Send + Sync + 'static {
    /// The level that this token proves.
    const LEVEL: Level;

    /// Rows of the register tile of a matrix product.
    const TILE_ROWS: usize;

    /// Vectors per row of the register tile: 1, 2 or 4.
    const TILE_VECTORS: usize;

    /// Sixteen lanes of `f32`.
    type V: Copy;

    /// Evaluate `op` in a function of its own that has the features of this token.
    ///
    /// What is large and takes long is better there: compilers need far more time for one huge function than for its
    /// parts.
    fn apart<O: Apart<Self>>(self, op: O) -> O::Output;

    /// All lanes equal to `x`.
    fn splat(self, x: f32) -> Self::V;

    /// The sixteen numbers of `from`.
    fn load(self, from: &[f32; LANES]) -> Self::V;

    /// Write all lanes to `to`.
    fn store(self, v: Self::V, to: &mut [f32; LANES]);

    /// [`Isa::store`], past the caches where `to` is a cache line: for what will not be read soon. Others see it after
    /// [`Isa::fence`].
    #[inline(always)]
    fn stream(self, v: Self::V, to: &mut [f32; LANES]) {
        self.store(v, to);
    }

    /// Let others see what was streamed.
    #[inline(always)]
    fn fence(self) {}

    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;

    /// `a − b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;

    /// `a · b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;

    /// `a / b`.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;

    /// `a · b + c`, rounded once.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;

    /// `a > b ? a : b`; `b` where either is not a number.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;

    /// `a < b ? a : b`; `b` where either is not a number.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;

    /// `a < b ? chosen[0] : chosen[1]`.
    fn select_less(self, a: Self::V, b: Self::V, chosen: [Self::V; 2]) -> Self::V;

    /// `a` without its sign.
    fn abs(self, a: Self::V) -> Self::V;

    /// `v · 2ⁿ`, rounded once, for integral `n` in −252..=254 and normal `v`.
    fn scale_by_power_of_two(self, v: Self::V, n: Self::V) -> Self::V;

    /// `v · 2ⁿ` for integral `n`, where `v` and the result are normal numbers.
    #[inline(always)]
    fn shift_exponent(self, v: Self::V, n: Self::V) -> Self::V {
        self.scale_by_power_of_two(v, n)
    }

    /// Sixteen bf16 numbers as `f32`.
    fn widen_bf16(self, from: &[u16; LANES]) -> Self::V;

    /// Round to bf16; what is not a number stays so. What is less than 2⁻¹²⁶ may become zero.
    fn narrow_bf16(self, v: Self::V, to: &mut [u16; LANES]);

    /// Sixteen IEEE half-precision numbers as `f32`.
    fn widen_f16(self, from: &[u16; LANES]) -> Self::V;

    /// Write lanes that are whole numbers from 0 to 255 as bytes; what is not a number may become
    /// any byte.
    #[inline(always)]
    fn narrow_u8(self, v: Self::V, to: &mut [u8; LANES]) {
        *to = self.to_array(v).map(|x| x as u8);
    }

    /// Signed bytes in 16 bits, two to a lane: the first two of each four, and the others.
    #[inline(always)]
    fn widen_bytes(self, from: &[i8; 4 * LANES]) -> [Self::V; 2] {
        let mut pairs = [[[0_i16; 2]; LANES]; 2];
        for (i, &[a, b, c, d]) in from.as_chunks().0.iter().enumerate() {
            pairs[0][i] = [a, b].map(i16::from);
            pairs[1][i] = [c, d].map(i16::from);
        }
        [self.load(&bytemuck::cast(pairs[0])), self.load(&bytemuck::cast(pairs[1]))]
    }

    /// [`Isa::widen_bytes`] of a row: a row of first pairs, and one of the others.
    #[inline(always)]
    fn widen_quads(self, from: &[i8], to: &mut [f32]) {
        let (first, others) = to.split_at_mut(to.len() / 2);
        let pairs = first.as_chunks_mut().0.iter_mut().zip(others.as_chunks_mut().0);
        for ((first, others), from) in pairs.zip(from.as_chunks().0) {
            let widened = self.widen_bytes(from);
            self.store(widened[0], first);
            self.store(widened[1], others);
        }
    }

    /// Bring the cache line of `at` near; it need not be readable.
    #[inline(always)]
    fn prefetch<T>(self, at: *const T) {
        let _ = at;
    }

    /// Bring the cache line of `at` into the second-level cache; it need not be readable.
    #[inline(always)]
    fn prefetch_far<T>(self, at: *const T) {
        let _ = at;
    }

    /// All lanes as an array.
    #[inline(always)]
    fn to_array(self, v: Self::V) -> [f32; LANES] {
        let mut lanes = [0.0; LANES];
        self.store(v, &mut lanes);
        lanes
    }

    /// The first sixteen numbers of `from`, or all of them followed by zeros.
    #[inline(always)]
    fn read(self, from: &[f32]) -> Self::V {
        if let Some(full) = from.first_chunk() {
            return self.load(full);
        }
        let mut lanes = [0.0; LANES];
        lanes[..from.len()].copy_from_slice(from);
        self.load(&lanes)
    }

    /// Write as many lanes as `to` has room for.
    #[inline(always)]
    fn write(self, v: Self::V, to: &mut [f32]) {
        if let Some(full) = to.first_chunk_mut() {
            return self.store(v, full);
        }
        let n = to.len();
        to.copy_from_slice(&self.to_array(v)[..n]);
    }

    /// [`Isa::read`] of bf16 numbers.
    #[inline(always)]
    fn read_bf16(self, from: &[u16]) -> Self::V {
        if let Some(full) = from.first_chunk() {
            return self.widen_bf16(full);
        }
        self.widen_bf16(&padded(from))
    }

    /// [`Isa::write`] of bf16 numbers.
    #[inline(always)]
    fn write_bf16(self, v: Self::V, to: &mut [u16]) {
        if let Some(full) = to.first_chunk_mut() {
            return self.narrow_bf16(v, full);
        }
        let mut lanes = [0; LANES];
        self.narrow_bf16(v, &mut lanes);
        let n = to.len();
        to.copy_from_slice(&lanes[..n]);
    }

    /// [`Isa::read`] of half-precision numbers.
    #[inline(always)]
    fn read_f16(self, from: &[u16]) -> Self::V {
        if let Some(full) = from.first_chunk() {
            return self.widen_f16(full);
        }
        self.widen_f16(&padded(from))
    }

    /// Sum of all lanes: halves are added lane by lane until one is left.
    #[inline(always)]
    fn reduce_add(self, v: Self::V) -> f32 {
        fold(self.to_array(v), |a, b| a + b)
    }

    /// Greatest lane, in the order of [`Isa::reduce_add`].
    #[inline(always)]
    fn reduce_max(self, v: Self::V) -> f32 {
        fold(self.to_array(v), |a, b| if a > b { a } else { b })
    }
}

/// Instruction sets that multiply pairs of bf16 numbers.
pub trait Bf16Dot: Int8Dot {
    /// `acc[i] + a[2i] · b[2i] + a[2i + 1] · b[2i + 1]`, where the vectors `a` and `b` hold
    /// 32 bf16 numbers each, two per lane, the first in the lower half.
    fn dot_bf16(self, acc: Self::V, a: Self::V, b: Self::V) -> Self::V;
}

/// Instruction sets as far as they are used for products of whole numbers.
///
/// Vectors hold the bits of integers: sixteen lanes of `i32`, 32 numbers of 16 bits of which each lane has two, or 64
/// bytes of which it has four. Results are exact, as long as no sum leaves the range of `i32`.
pub trait Int8Dot: Isa {
    /// Rows of the register tile of a matrix product of bytes.
    const INT8_ROWS: usize = Self::TILE_ROWS;

    /// What [`Int8Dot::factor`] makes of a vector of signed bytes.
    type Factor: Copy;

    /// Prepare 64 signed bytes for many products.
    fn factor(self, b: Self::V) -> Self::Factor;

    /// `acc[i] + a[4i] · b[4i] + … + a[4i + 3] · b[4i + 3]` for unsigned `a` and signed `b`.
    fn dot_int8(self, acc: Self::V, a: Self::V, b: Self::Factor) -> Self::V;

    /// `acc[i] + a[2i] · b[2i] + a[2i + 1] · b[2i + 1]` for signed numbers of 16 bits.
    fn dot_int16(self, acc: Self::V, a: Self::V, b: Self::V) -> Self::V;

    /// Lanes of `i32` as `f32`.
    fn widen_i32(self, v: Self::V) -> Self::V;

    /// Lanes of `f32` rounded to numbers of 16 bits, which they have to be in the range of: those of `first` in the lower
    /// halves of lanes, those of `second` in the upper ones.
    fn pair_i16(self, first: Self::V, second: Self::V) -> Self::V;
}

/// Instruction sets that multiply and add numbers of 16 bits.
pub trait Int16Dot: Int8Dot {
    /// 32 bytes less 128 in 16 bits each.
    fn center(self, from: &[u8; 2 * LANES]) -> Self::V;

    /// `a + b` of numbers of 16 bits.
    fn add_i16(self, a: Self::V, b: Self::V) -> Self::V;

    /// `a − b` of numbers of 16 bits.
    fn sub_i16(self, a: Self::V, b: Self::V) -> Self::V;

    /// `a + b` of numbers of 32 bits, which may wrap.
    fn add_i32(self, a: Self::V, b: Self::V) -> Self::V;

    /// `a − b` of numbers of 32 bits, which may wrap.
    fn sub_i32(self, a: Self::V, b: Self::V) -> Self::V;

    /// `a · b` of numbers of 32 bits, which may wrap.
    fn mul_i32(self, a: Self::V, b: Self::V) -> Self::V;

    /// `a / 2ᴺ` of numbers of 32 bits, rounded down.
    fn shift_i32<const N: i32>(self, a: Self::V) -> Self::V;

    /// Lanes of `f32` that are whole as `i32`.
    fn narrow_i32(self, v: Self::V) -> Self::V;
}

/// Instruction sets that multiply bytes exactly in lanes of 16 bits only, where a signed byte times an unsigned one
/// fits and a sum of two may not.
///
/// Such a CPU has two fast ways: both factors widened to 16 bits beforehand, or weights of at most four bits, of whose
/// products sixteen fit into a lane.
pub trait Int16Only: Int16Dot {
    /// `acc[i] + a[2i] · b[2i] + a[2i + 1] · b[2i + 1]`, where `acc` holds 32 numbers of 16 bits, `a` 64 unsigned bytes
    /// and `b` 64 signed ones. No sum may leave the range of 16 bits.
    fn dot_narrow(self, acc: Self::V, a: Self::V, b: Self::V) -> Self::V;
}

/// A part of a computation that is compiled apart, see [`Isa::apart`].
pub trait Apart<I: Isa> {
    /// The result of the part.
    type Output;

    /// The part itself, marked `#[inline(always)]` as in [`SimdOp::eval`].
    fn eval(self, isa: I) -> Self::Output;
}

/// A computation that can be compiled for any [`Isa`].
pub trait SimdOp: Sized {
    /// The result of the computation.
    type Output;

    /// The computation itself. Mark the implementation `#[inline(always)]`, so that its body is
    /// compiled with the features of its caller.
    fn eval<I: Isa>(self, isa: I) -> Self::Output;
}

/// A computation that needs products of bf16 numbers.
pub trait Bf16Op: Sized {
    /// The result of the computation.
    type Output;

    /// The computation itself, marked `#[inline(always)]` as in [`SimdOp::eval`].
    fn eval<I: Bf16Dot>(self, isa: I) -> Self::Output;
}

/// A computation that needs products of numbers of 16 bits.
pub trait Int16Op: Sized {
    /// The result of the computation.
    type Output;

    /// The computation itself, marked `#[inline(always)]` as in [`SimdOp::eval`].
    fn eval<I: Int16Dot>(self, isa: I) -> Self::Output;
}

/// A computation that needs products of bytes in lanes of 16 bits.
pub trait Int16OnlyOp: Sized {
    /// The result of the computation.
    type Output;

    /// The computation itself, marked `#[inline(always)]` as in [`SimdOp::eval`].
    fn eval<I: Int16Only>(self, isa: I) -> Self::Output;
}

/// A computation that needs products of bytes.
pub trait Int8Op: Sized {
    /// The result of the computation.
    type Output;

    /// The computation itself, marked `#[inline(always)]` as in [`SimdOp::eval`].
    fn eval<I: Int8Dot>(self, isa: I) -> Self::Output;
}

#[inline(always)]
fn padded(from: &[u16]) -> [u16; LANES] {
    let mut lanes = [0; LANES];
    lanes[..from.len()].copy_from_slice(from);
    lanes
}

#[inline(always)]
fn fold(v: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    let eight: [f32; 8] = std::array::from_fn(|i| f(v[i], v[i + 8]));
    let four: [f32; 4] = std::array::from_fn(|i| f(eight[i], eight[i + 4]));
    f(f(four[0], four[2]), f(four[1], four[3]))
}

/// Declare a token: the features it stands for, how to detect them, and the function that enables
/// them around an operation. One list serves all three, so they cannot drift apart.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! token {
    ($(#[$doc:meta])* $name:ident, $detect:ident: $($feature:tt),+) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name(());

        impl $name {
            /// The token, if this CPU has the instructions.
            pub fn detect() -> Option<Self> {
                ($(std::arch::$detect!($feature))&&+).then_some(Self(()))
            }

            /// Evaluate `op` with the features of this token enabled.
            pub fn eval<O: $crate::isa::SimdOp>(self, op: O) -> O::Output {
                $(#[target_feature(enable = $feature)])+
                fn enabled<O: $crate::isa::SimdOp>(isa: $name, op: O) -> O::Output {
                    op.eval(isa)
                }
                // SAFETY: `self` proves that the CPU has the features enabled here.
                unsafe { enabled(self, op) }
            }

            /// What [`Isa::apart`] does for this token.
            #[inline(always)]
            fn enter<O: $crate::isa::Apart<Self>>(self, op: O) -> O::Output {
                $(#[target_feature(enable = $feature)])+
                #[inline(never)]
                fn enabled<O: $crate::isa::Apart<$name>>(isa: $name, op: O) -> O::Output {
                    op.eval(isa)
                }
                // SAFETY: `self` proves that the CPU has the features enabled here.
                unsafe { enabled(self, op) }
            }
        }
    };
    ($(#[$doc:meta])* $name:ident, int8, $detect:ident: $($feature:tt),+) => {
        $crate::isa::token!($(#[$doc])* $name, $detect: $($feature),+);

        impl $name {
            /// Evaluate `op` with the features of this token enabled.
            pub fn eval_int8<O: $crate::isa::Int8Op>(self, op: O) -> O::Output {
                $(#[target_feature(enable = $feature)])+
                fn enabled<O: $crate::isa::Int8Op>(isa: $name, op: O) -> O::Output {
                    op.eval(isa)
                }
                // SAFETY: `self` proves that the CPU has the features enabled here.
                unsafe { enabled(self, op) }
            }
        }
    };
    ($(#[$doc:meta])* $name:ident, int16, $detect:ident: $($feature:tt),+) => {
        $crate::isa::token!($(#[$doc])* $name, int8, $detect: $($feature),+);

        impl $name {
            /// Evaluate `op` with the features of this token enabled.
            pub fn eval_int16<O: $crate::isa::Int16Op>(self, op: O) -> O::Output {
                $(#[target_feature(enable = $feature)])+
                fn enabled<O: $crate::isa::Int16Op>(isa: $name, op: O) -> O::Output {
                    op.eval(isa)
                }
                // SAFETY: `self` proves that the CPU has the features enabled here.
                unsafe { enabled(self, op) }
            }
        }
    };
}

/// Implement operations that are one intrinsic each on one register each.
#[cfg(target_arch = "x86_64")]
macro_rules! intrinsics {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $ret:ty = $intrinsic:ident;)+) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $ty),*) -> $ret {
            // SAFETY: `self` proves that the CPU has the instruction.
            unsafe { $intrinsic($($arg),*) }
        }
    )+};
}

#[cfg(target_arch = "x86_64")]
use intrinsics;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use token;
