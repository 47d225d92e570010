//! Products and sums of whole numbers.

use std::arch::x86_64::{
    __m256i, _mm256_loadu_si256, _mm512_add_epi16, _mm512_add_epi32, _mm512_castps_si512,
    _mm512_castsi512_ps, _mm512_cvtepi32_ps, _mm512_cvtepu8_epi16, _mm512_cvtps_epi32,
    _mm512_dpbusd_epi32, _mm512_dpwssd_epi32, _mm512_mask_blend_epi16, _mm512_mullo_epi32,
    _mm512_set1_epi16, _mm512_set1_epi32, _mm512_slli_epi32, _mm512_srav_epi32, _mm512_sub_epi16,
    _mm512_sub_epi32,
};

use super::{Avx512Bf16, Avx512Vnni, V};
use crate::isa::{Int8Dot, Int16Dot, LANES};

/// Implement operations on whole numbers that are one intrinsic.
macro_rules! integers {
    ($($name:ident = $intrinsic:ident;)+) => {$(
        #[inline(always)]
        fn $name(self, a: V, b: V) -> V {
            // SAFETY: `self` proves that the CPU has AVX-512.
            unsafe {
                _mm512_castsi512_ps($intrinsic(_mm512_castps_si512(a), _mm512_castps_si512(b)))
            }
        }
    )+};
}

/// The table, the same for both tokens that multiply whole numbers.
macro_rules! dots {
    ($token:ident) => {
        impl Int8Dot for $token {
            type Factor = V;

            #[inline(always)]
            fn factor(self, b: V) -> V {
                b
            }

            #[inline(always)]
            fn dot_int8(self, acc: V, a: V, b: V) -> V {
                // SAFETY: `self` proves that the CPU has AVX512-VNNI.
                unsafe {
                    let (a, b) = (_mm512_castps_si512(a), _mm512_castps_si512(b));
                    _mm512_castsi512_ps(_mm512_dpbusd_epi32(_mm512_castps_si512(acc), a, b))
                }
            }

            #[inline(always)]
            fn dot_int16(self, acc: V, a: V, b: V) -> V {
                // SAFETY: `self` proves that the CPU has AVX512-VNNI.
                unsafe {
                    let (a, b) = (_mm512_castps_si512(a), _mm512_castps_si512(b));
                    _mm512_castsi512_ps(_mm512_dpwssd_epi32(_mm512_castps_si512(acc), a, b))
                }
            }

            #[inline(always)]
            fn pair_i16(self, first: V, second: V) -> V {
                // SAFETY: `self` proves that the CPU has AVX-512.
                unsafe {
                    let upper = _mm512_slli_epi32::<16>(_mm512_cvtps_epi32(second));
                    let first = _mm512_cvtps_epi32(first);
                    _mm512_castsi512_ps(_mm512_mask_blend_epi16(0xaaaa_aaaa, first, upper))
                }
            }

            #[inline(always)]
            fn widen_i32(self, v: V) -> V {
                // SAFETY: `self` proves that the CPU has AVX-512.
                unsafe { _mm512_cvtepi32_ps(_mm512_castps_si512(v)) }
            }
        }

        impl Int16Dot for $token {
            #[inline(always)]
            fn center(self, from: &[u8; 2 * LANES]) -> V {
                // SAFETY: 32 bytes are readable, and `self` proves that the CPU has AVX-512.
                unsafe {
                    let codes = _mm256_loadu_si256(from.as_ptr().cast::<__m256i>());
                    let words = _mm512_cvtepu8_epi16(codes);
                    _mm512_castsi512_ps(_mm512_sub_epi16(words, _mm512_set1_epi16(128)))
                }
            }

            integers! {
                add_i16 = _mm512_add_epi16;
                sub_i16 = _mm512_sub_epi16;
                add_i32 = _mm512_add_epi32;
                sub_i32 = _mm512_sub_epi32;
                mul_i32 = _mm512_mullo_epi32;
            }

            #[inline(always)]
            fn shift_i32<const N: i32>(self, a: V) -> V {
                // SAFETY: `self` proves that the CPU has AVX-512.
                unsafe {
                    let places = _mm512_set1_epi32(N);
                    _mm512_castsi512_ps(_mm512_srav_epi32(_mm512_castps_si512(a), places))
                }
            }

            #[inline(always)]
            fn narrow_i32(self, v: V) -> V {
                // SAFETY: `self` proves that the CPU has AVX-512.
                unsafe { _mm512_castsi512_ps(_mm512_cvtps_epi32(v)) }
            }
        }
    };
}

dots!(Avx512Vnni);
dots!(Avx512Bf16);
