//! AVX2, FMA and F16C: two 256-bit registers per vector; x86-64 since 2013.

use std::arch::x86_64::{
    __m128i, __m256, __m256i, _CMP_LT_OQ, _CMP_UNORD_Q, _MM_FROUND_NO_EXC,
    _MM_FROUND_TO_NEAREST_INT, _MM_HINT_T0, _MM_HINT_T1, _mm_loadu_si128, _mm_packus_epi16,
    _mm_prefetch, _mm_sfence, _mm_storeu_si128, _mm256_add_epi8, _mm256_add_epi32, _mm256_add_ps,
    _mm256_and_ps, _mm256_and_si256, _mm256_blendv_ps, _mm256_castps_si256, _mm256_castsi256_ps,
    _mm256_castsi256_si128, _mm256_cmp_ps, _mm256_cvtepu16_epi32, _mm256_cvtph_ps,
    _mm256_cvtps_epi32, _mm256_div_ps, _mm256_extracti128_si256, _mm256_fmadd_ps, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_max_ps, _mm256_min_ps, _mm256_mul_ps, _mm256_or_si256,
    _mm256_packs_epi32, _mm256_packus_epi32, _mm256_permute4x64_epi64, _mm256_round_ps,
    _mm256_set_epi64x, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_shuffle_epi8,
    _mm256_slli_epi32, _mm256_srai_epi16, _mm256_srli_epi32, _mm256_storeu_ps, _mm256_storeu_si256,
    _mm256_stream_ps, _mm256_sub_ps,
};

use super::{Apart, Int16OnlyOp, Isa, LANES, Level, token};

token! {
    /// Proof that the CPU has AVX2, FMA and F16C.
    Avx2, int16, is_x86_feature_detected: "avx2", "fma", "f16c"
}

token! {
    /// Proof that the CPU has AVX2, FMA, F16C and products of bytes in 256-bit registers.
    AvxVnni, int16, is_x86_feature_detected: "avxvnni", "avx2", "fma", "f16c"
}

type V = [__m256; 2];

/// An expression for each of both registers. Closures may be left out of line, where every intrinsic is a call.
macro_rules! both {
    ($i:ident => $x:expr) => {
        [
            {
                let $i = 0;
                $x
            },
            {
                let $i = 1;
                $x
            },
        ]
    };
}

/// Implement operations that are one intrinsic on each register.
macro_rules! lanewise {
    ($($name:ident($($arg:ident),*) = $intrinsic:ident;)+) => {$(
        #[inline(always)]
        fn $name(self, $($arg: V),*) -> V {
            // SAFETY: `self` proves that the CPU has the instruction.
            unsafe { [$intrinsic($($arg[0]),*), $intrinsic($($arg[1]),*)] }
        }
    )+};
}

mod integers;

/// The table, the same for both tokens.
macro_rules! isa {
    ($token:ident) => {
        impl Isa for $token {
            const LEVEL: Level = Level::$token;
            const TILE_ROWS: usize = 6;
            const TILE_VECTORS: usize = 1;

            type V = V;

            #[inline(always)]
            fn apart<O: Apart<Self>>(self, op: O) -> O::Output {
                self.enter(op)
            }

            lanewise! {
                add(a, b) = _mm256_add_ps;
                sub(a, b) = _mm256_sub_ps;
                mul(a, b) = _mm256_mul_ps;
                div(a, b) = _mm256_div_ps;
                fma(a, b, c) = _mm256_fmadd_ps;
                max(a, b) = _mm256_max_ps;
                min(a, b) = _mm256_min_ps;
            }

            #[inline(always)]
            fn splat(self, x: f32) -> V {
                // SAFETY: `self` proves that the CPU has AVX.
                unsafe { [_mm256_set1_ps(x); 2] }
            }

            #[inline(always)]
            fn load(self, from: &[f32; LANES]) -> V {
                // SAFETY: 16 floats are readable, and `self` proves that the CPU has AVX.
                unsafe { [_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))] }
            }

            #[inline(always)]
            fn store(self, v: V, to: &mut [f32; LANES]) {
                // SAFETY: 16 floats are writable, and `self` proves that the CPU has AVX.
                unsafe {
                    _mm256_storeu_ps(to.as_mut_ptr(), v[0]);
                    _mm256_storeu_ps(to.as_mut_ptr().add(8), v[1]);
                }
            }

            #[inline(always)]
            fn stream(self, v: V, to: &mut [f32; LANES]) {
                if to.as_ptr().addr().is_multiple_of(64) {
                    // SAFETY: 16 floats are writable at an aligned place, and `self` proves that
                    // the CPU has AVX.
                    unsafe {
                        _mm256_stream_ps(to.as_mut_ptr(), v[0]);
                        _mm256_stream_ps(to.as_mut_ptr().add(8), v[1]);
                    }
                } else {
                    self.store(v, to);
                }
            }

            #[inline(always)]
            fn fence(self) {
                // SAFETY: every x86-64 CPU has it.
                unsafe { _mm_sfence() }
            }

            #[inline(always)]
            fn prefetch<T>(self, at: *const T) {
                // SAFETY: a prefetch reads nothing, and every x86-64 CPU has it.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
            }

            #[inline(always)]
            fn prefetch_far<T>(self, at: *const T) {
                // SAFETY: a prefetch reads nothing, and every x86-64 CPU has it.
                unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
            }

            #[inline(always)]
            fn select_less(self, a: V, b: V, [then, otherwise]: [V; 2]) -> V {
                // SAFETY: `self` proves that the CPU has AVX.
                unsafe {
                    both!(i => {
                        let less = _mm256_cmp_ps::<_CMP_LT_OQ>(a[i], b[i]);
                        _mm256_blendv_ps(otherwise[i], then[i], less)
                    })
                }
            }

            #[inline(always)]
            fn abs(self, a: V) -> V {
                // SAFETY: `self` proves that the CPU has AVX.
                unsafe {
                    let rest = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fff_ffff));
                    both!(i => _mm256_and_ps(a[i], rest))
                }
            }

            #[inline(always)]
            fn scale_by_power_of_two(self, v: V, n: V) -> V {
                const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
                // SAFETY: `self` proves that the CPU has AVX2.
                unsafe {
                    both!(i => {
                        // Two factors, because 2ⁿ itself may be out of range; only the second rounds.
                        let half = _mm256_mul_ps(n[i], _mm256_set1_ps(0.5));
                        let half = _mm256_round_ps::<NEAREST>(half);
                        let rest = power_of_two(_mm256_sub_ps(n[i], half));
                        _mm256_mul_ps(_mm256_mul_ps(v[i], power_of_two(half)), rest)
                    })
                }
            }

            #[inline(always)]
            fn shift_exponent(self, v: V, n: V) -> V {
                // SAFETY: `self` proves that the CPU has AVX2.
                unsafe {
                    both!(i => {
                        let places = _mm256_slli_epi32::<23>(_mm256_cvtps_epi32(n[i]));
                        _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(v[i]), places))
                    })
                }
            }

            #[inline(always)]
            fn widen_bf16(self, from: &[u16; LANES]) -> V {
                // SAFETY: both halves are eight readable numbers; `self` proves that the CPU has AVX2.
                unsafe {
                    both!(i => {
                        let bits = _mm_loadu_si128(from.as_ptr().add(8 * i).cast::<__m128i>());
                        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits)))
                    })
                }
            }

            #[inline(always)]
            fn narrow_bf16(self, v: V, to: &mut [u16; LANES]) {
                // SAFETY: 16 numbers are writable; `self` proves that the CPU has AVX2.
                unsafe {
                    let [low, high] = both!(i => round_to_bf16(v[i]));
                    // The pack works within 128-bit halves; the permutation puts them in order.
                    let packed =
                        _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(low, high));
                    _mm256_storeu_si256(to.as_mut_ptr().cast::<__m256i>(), packed);
                }
            }

            #[inline(always)]
            fn widen_f16(self, from: &[u16; LANES]) -> V {
                // SAFETY: both halves are eight readable numbers; `self` proves that the CPU has F16C.
                unsafe {
                    both!(i => {
                        let bits = _mm_loadu_si128(from.as_ptr().add(8 * i).cast::<__m128i>());
                        _mm256_cvtph_ps(bits)
                    })
                }
            }

            #[inline(always)]
            fn narrow_u8(self, v: V, to: &mut [u8; LANES]) {
                // SAFETY: 16 bytes are writable; `self` proves that the CPU has AVX2.
                unsafe {
                    let [low, high] = both!(i => _mm256_cvtps_epi32(v[i]));
                    let words =
                        _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high));
                    let bytes = _mm_packus_epi16(
                        _mm256_castsi256_si128(words),
                        _mm256_extracti128_si256::<1>(words),
                    );
                    _mm_storeu_si128(to.as_mut_ptr().cast::<__m128i>(), bytes);
                }
            }

            #[inline(always)]
            fn widen_bytes(self, from: &[i8; 4 * LANES]) -> [V; 2] {
                // SAFETY: 64 bytes are readable; `self` proves that the CPU has AVX2.
                unsafe {
                    let bytes = both!(i => {
                        _mm256_loadu_si256(from.as_ptr().add(32 * i).cast::<__m256i>())
                    });
                    // Bytes go to the upper halves of numbers of 16 bits, from where they are shifted down with their signs.
                    let (low, high) = (0x05ff_04ff_01ff_00ff, 0x0dff_0cff_09ff_08ff);
                    let first = _mm256_set_epi64x(high, low, high, low);
                    let others = _mm256_add_epi8(first, _mm256_set1_epi16(0x0200));
                    both!(half => {
                        let places = if half == 0 { first } else { others };
                        both!(i => {
                            let upper = _mm256_shuffle_epi8(bytes[i], places);
                            _mm256_castsi256_ps(_mm256_srai_epi16::<8>(upper))
                        })
                    })
                }
            }
        }
    };
}

isa!(Avx2);
isa!(AvxVnni);

impl Avx2 {
    /// The token, for a caller whose own token stands for the same features among others.
    pub(super) fn included() -> Self {
        Self(())
    }

    /// Evaluate `op` with the features of this token enabled.
    pub fn eval_int16_only<O: Int16OnlyOp>(self, op: O) -> O::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn enabled<O: Int16OnlyOp>(isa: Avx2, op: O) -> O::Output {
            op.eval(isa)
        }
        // SAFETY: `self` proves that the CPU has the features enabled here.
        unsafe { enabled(self, op) }
    }
}

impl AvxVnni {
    /// The token of what it builds on.
    pub fn without_vnni(self) -> Avx2 {
        Avx2(())
    }
}

/// `2ⁿ` for integral `n` in −126..=127.
///
/// # Safety
///
/// The CPU must have AVX2.
#[inline(always)]
unsafe fn power_of_two(n: __m256) -> __m256 {
    // SAFETY: the caller guarantees AVX2.
    unsafe {
        let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
    }
}

/// The bf16 bits of each lane in its lower half.
///
/// # Safety
///
/// The CPU must have AVX2.
#[inline(always)]
unsafe fn round_to_bf16(v: __m256) -> __m256i {
    // SAFETY: the caller guarantees AVX2.
    unsafe {
        let bits = _mm256_castps_si256(v);
        let top = _mm256_srli_epi32::<16>(bits);
        let odd = _mm256_and_si256(top, _mm256_set1_epi32(1));
        let bias = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
        let rounded = _mm256_srli_epi32::<16>(_mm256_add_epi32(bits, bias));
        // A mantissa cut to zero would turn "not a number" into infinity: set its quiet bit.
        let quiet = _mm256_or_si256(top, _mm256_set1_epi32(0x40));
        let unordered = _mm256_cmp_ps::<_CMP_UNORD_Q>(v, v);
        let chosen =
            _mm256_blendv_ps(_mm256_castsi256_ps(rounded), _mm256_castsi256_ps(quiet), unordered);
        _mm256_castps_si256(chosen)
    }
}
