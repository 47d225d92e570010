//! Products and sums of whole numbers.

use std::arch::x86_64::{
    __m128i, __m256, __m256i, _mm_loadu_si128, _mm256_add_epi16, _mm256_add_epi32,
    _mm256_and_si256, _mm256_blend_epi16, _mm256_castps_si256, _mm256_castsi256_ps,
    _mm256_cvtepi32_ps, _mm256_cvtepu8_epi16, _mm256_cvtps_epi32, _mm256_dpbusd_avx_epi32,
    _mm256_dpwssd_avx_epi32, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mullo_epi32,
    _mm256_set1_epi16, _mm256_slli_epi16, _mm256_slli_epi32, _mm256_srai_epi16, _mm256_srai_epi32,
    _mm256_srli_epi16, _mm256_sub_epi16, _mm256_sub_epi32,
};

use super::{Avx2, AvxVnni, V};
use crate::isa::{Int8Dot, Int16Dot, Int16Only, LANES};

/// Implement operations on whole numbers that are one intrinsic on each register.
macro_rules! integers {
    ($($name:ident = $intrinsic:ident;)+) => {$(
        #[inline(always)]
        fn $name(self, a: V, b: V) -> V {
            // SAFETY: `self` proves that the CPU has the instruction.
            unsafe {
                both!(i => {
                    let (a, b) = (_mm256_castps_si256(a[i]), _mm256_castps_si256(b[i]));
                    _mm256_castsi256_ps($intrinsic(a, b))
                })
            }
        }
    )+};
}

impl Int8Dot for Avx2 {
    // Factors take twice the registers of what they are made of.
    const INT8_ROWS: usize = 4;

    /// The even bytes and the odd ones, widened to 16 bits.
    type Factor = [[__m256i; 2]; 2];

    #[inline(always)]
    fn factor(self, b: V) -> Self::Factor {
        // SAFETY: `self` proves that the CPU has AVX2.
        unsafe { [widened_bytes(b[0]), widened_bytes(b[1])] }
    }

    #[inline(always)]
    fn dot_int8(self, acc: V, a: V, b: Self::Factor) -> V {
        // SAFETY: `self` proves that the CPU has AVX2.
        unsafe { [dot_widened(acc[0], a[0], b[0]), dot_widened(acc[1], a[1], b[1])] }
    }

    #[inline(always)]
    fn dot_int16(self, acc: V, a: V, b: V) -> V {
        // SAFETY: `self` proves that the CPU has AVX2.
        unsafe { [dot_words(acc[0], a[0], b[0]), dot_words(acc[1], a[1], b[1])] }
    }

    #[inline(always)]
    fn pair_i16(self, first: V, second: V) -> V {
        // SAFETY: `self` proves that the CPU has AVX2.
        unsafe {
            both!(i => {
                let upper = _mm256_slli_epi32::<16>(_mm256_cvtps_epi32(second[i]));
                let pairs = _mm256_blend_epi16::<0b1010_1010>(_mm256_cvtps_epi32(first[i]), upper);
                _mm256_castsi256_ps(pairs)
            })
        }
    }

    #[inline(always)]
    fn widen_i32(self, v: V) -> V {
        // SAFETY: `self` proves that the CPU has AVX.
        unsafe { both!(i => _mm256_cvtepi32_ps(_mm256_castps_si256(v[i]))) }
    }
}

/// Sums of numbers of 16 and 32 bits, the same for both tokens.
macro_rules! int16 {
    ($token:ident) => {
        impl Int16Dot for $token {
            #[inline(always)]
            fn center(self, from: &[u8; 2 * LANES]) -> V {
                // SAFETY: both halves are sixteen readable bytes; `self` proves that the CPU has AVX2.
                unsafe {
                    both!(i => {
                        let codes = _mm_loadu_si128(from.as_ptr().add(16 * i).cast::<__m128i>());
                        let words = _mm256_cvtepu8_epi16(codes);
                        _mm256_castsi256_ps(_mm256_sub_epi16(words, _mm256_set1_epi16(128)))
                    })
                }
            }

            integers! {
                add_i16 = _mm256_add_epi16;
                sub_i16 = _mm256_sub_epi16;
                add_i32 = _mm256_add_epi32;
                sub_i32 = _mm256_sub_epi32;
                mul_i32 = _mm256_mullo_epi32;
            }

            #[inline(always)]
            fn shift_i32<const N: i32>(self, a: V) -> V {
                // SAFETY: `self` proves that the CPU has AVX2.
                unsafe {
                    both!(i => _mm256_castsi256_ps(_mm256_srai_epi32::<N>(_mm256_castps_si256(a[i]))))
                }
            }

            #[inline(always)]
            fn narrow_i32(self, v: V) -> V {
                // SAFETY: `self` proves that the CPU has AVX.
                unsafe { both!(i => _mm256_castsi256_ps(_mm256_cvtps_epi32(v[i]))) }
            }
        }
    };
}

int16!(Avx2);
int16!(AvxVnni);

impl Int16Only for Avx2 {
    #[inline(always)]
    fn dot_narrow(self, acc: V, a: V, b: V) -> V {
        // SAFETY: `self` proves that the CPU has AVX2.
        unsafe { [dot_to_words(acc[0], a[0], b[0]), dot_to_words(acc[1], a[1], b[1])] }
    }
}

impl Int8Dot for AvxVnni {
    type Factor = V;

    #[inline(always)]
    fn factor(self, b: V) -> V {
        b
    }

    #[inline(always)]
    fn dot_int8(self, acc: V, a: V, b: V) -> V {
        // SAFETY: `self` proves that the CPU has AVX-VNNI.
        unsafe { [dot_bytes(acc[0], a[0], b[0]), dot_bytes(acc[1], a[1], b[1])] }
    }

    #[inline(always)]
    fn dot_int16(self, acc: V, a: V, b: V) -> V {
        // SAFETY: `self` proves that the CPU has AVX-VNNI.
        unsafe { [add_dot_words(acc[0], a[0], b[0]), add_dot_words(acc[1], a[1], b[1])] }
    }

    #[inline(always)]
    fn pair_i16(self, first: V, second: V) -> V {
        self.without_vnni().pair_i16(first, second)
    }

    #[inline(always)]
    fn widen_i32(self, v: V) -> V {
        self.without_vnni().widen_i32(v)
    }
}

/// The even signed bytes and the odd ones, widened to 16 bits.
///
/// # Safety
///
/// The CPU must have AVX2.
#[inline(always)]
unsafe fn widened_bytes(b: __m256) -> [__m256i; 2] {
    // SAFETY: the caller guarantees AVX2.
    unsafe {
        let b = _mm256_castps_si256(b);
        let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(b));
        [even, _mm256_srai_epi16::<8>(b)]
    }
}

/// `acc` and the products of unsigned bytes with [`widened_bytes`], four to a lane. The instruction that multiplies
/// bytes saturates; that for 16 bits is exact.
///
/// # Safety
///
/// The CPU must have AVX2.
#[inline(always)]
unsafe fn dot_widened(acc: __m256, a: __m256, b: [__m256i; 2]) -> __m256 {
    // SAFETY: the caller guarantees AVX2.
    unsafe {
        let a = _mm256_castps_si256(a);
        let even = _mm256_and_si256(a, _mm256_set1_epi16(0xff));
        let odd = _mm256_srli_epi16::<8>(a);
        let sum = _mm256_add_epi32(_mm256_madd_epi16(even, b[0]), _mm256_madd_epi16(odd, b[1]));
        _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(acc), sum))
    }
}

/// `acc` and the products of numbers of 16 bits, two to a lane.
///
/// # Safety
///
/// The CPU must have AVX2.
#[inline(always)]
unsafe fn dot_words(acc: __m256, a: __m256, b: __m256) -> __m256 {
    // SAFETY: the caller guarantees AVX2.
    unsafe {
        let sums = _mm256_madd_epi16(_mm256_castps_si256(a), _mm256_castps_si256(b));
        _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(acc), sums))
    }
}

/// `acc` and the products of numbers of 16 bits, two to a lane.
///
/// # Safety
///
/// The CPU must have AVX-VNNI.
#[inline(always)]
unsafe fn add_dot_words(acc: __m256, a: __m256, b: __m256) -> __m256 {
    // SAFETY: the caller guarantees AVX-VNNI.
    unsafe {
        let (a, b) = (_mm256_castps_si256(a), _mm256_castps_si256(b));
        _mm256_castsi256_ps(_mm256_dpwssd_avx_epi32(_mm256_castps_si256(acc), a, b))
    }
}

/// `acc`, in lanes of 16 bits, and the products of unsigned with signed bytes, two to a lane.
///
/// # Safety
///
/// The CPU must have AVX2.
#[inline(always)]
unsafe fn dot_to_words(acc: __m256, a: __m256, b: __m256) -> __m256 {
    // SAFETY: the caller guarantees AVX2.
    unsafe {
        let sums = _mm256_maddubs_epi16(_mm256_castps_si256(a), _mm256_castps_si256(b));
        _mm256_castsi256_ps(_mm256_add_epi16(_mm256_castps_si256(acc), sums))
    }
}

/// `acc` and the products of unsigned with signed bytes, four to a lane.
///
/// # Safety
///
/// The CPU must have AVX-VNNI.
#[inline(always)]
unsafe fn dot_bytes(acc: __m256, a: __m256, b: __m256) -> __m256 {
    // SAFETY: the caller guarantees AVX-VNNI.
    unsafe {
        let (a, b) = (_mm256_castps_si256(a), _mm256_castps_si256(b));
        _mm256_castsi256_ps(_mm256_dpbusd_avx_epi32(_mm256_castps_si256(acc), a, b))
    }
}
