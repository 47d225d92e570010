//! AVX-512: one 512-bit register per vector, with and without products of bf16 pairs.

use std::arch::x86_64::{
    __m128i, __m256bh, __m256i, __m512, __m512bh, __m512i, _CMP_LT_OQ, _CMP_UNORD_Q, _MM_HINT_T0,
    _MM_HINT_T1, _mm_cvtss_f32, _mm_max_ps, _mm_max_ss, _mm_movehdup_ps, _mm_movehl_ps,
    _mm_prefetch, _mm_set_epi64x, _mm_sfence, _mm_storeu_si128, _mm256_castps256_ps128,
    _mm256_extractf128_ps, _mm256_loadu_si256, _mm256_max_ps, _mm256_storeu_si256, _mm512_abs_ps,
    _mm512_add_epi8, _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512, _mm512_broadcast_i32x4,
    _mm512_castps_si512, _mm512_castps512_ps256, _mm512_castsi512_ps, _mm512_cmp_ps_mask,
    _mm512_cvtepi32_epi16, _mm512_cvtepu16_epi32, _mm512_cvtneps_pbh, _mm512_cvtph_ps,
    _mm512_cvtps_epi32, _mm512_cvtusepi32_epi8, _mm512_div_ps, _mm512_dpbf16_ps,
    _mm512_extractf32x8_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_mask_blend_epi32, _mm512_mask_blend_ps, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps,
    _mm512_or_si512, _mm512_scalef_ps, _mm512_set1_epi16, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_shuffle_epi8, _mm512_slli_epi32, _mm512_srai_epi16, _mm512_srli_epi32, _mm512_storeu_ps,
    _mm512_stream_ps, _mm512_sub_ps,
};

use super::{Apart, Avx2, Bf16Dot, Bf16Op, Isa, LANES, Level, intrinsics, token};

token! {
    /// Proof that the CPU has AVX-512 F, BW, VL and DQ.
    Avx512, is_x86_feature_detected:
        "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx2", "fma", "f16c"
}

token! {
    /// Proof that the CPU has AVX-512 F, BW, VL, DQ and VNNI.
    Avx512Vnni, int16, is_x86_feature_detected:
        "avx512vnni", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx2", "fma", "f16c"
}

token! {
    /// Proof that the CPU has AVX-512 F, BW, VL, DQ, VNNI and BF16.
    Avx512Bf16, int16, is_x86_feature_detected:
        "avx512bf16", "avx512vnni", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx2", "fma", "f16c"
}

type V = __m512;

/// The table, the same for all tokens.
macro_rules! isa {
    ($token:ident, $narrow:ident) => {
        impl Isa for $token {
            const LEVEL: Level = Level::$token;
            const TILE_ROWS: usize = 6;
            const TILE_VECTORS: usize = 4;

            type V = V;

            #[inline(always)]
            fn apart<O: Apart<Self>>(self, op: O) -> O::Output {
                self.enter(op)
            }

            intrinsics! {
                splat(x: f32) -> V = _mm512_set1_ps;
                add(a: V, b: V) -> V = _mm512_add_ps;
                sub(a: V, b: V) -> V = _mm512_sub_ps;
                mul(a: V, b: V) -> V = _mm512_mul_ps;
                div(a: V, b: V) -> V = _mm512_div_ps;
                fma(a: V, b: V, c: V) -> V = _mm512_fmadd_ps;
                max(a: V, b: V) -> V = _mm512_max_ps;
                min(a: V, b: V) -> V = _mm512_min_ps;
                abs(a: V) -> V = _mm512_abs_ps;
                scale_by_power_of_two(v: V, n: V) -> V = _mm512_scalef_ps;
            }

            #[inline(always)]
            fn load(self, from: &[f32; LANES]) -> V {
                // SAFETY: 16 floats are readable, and `self` proves that the CPU has AVX-512.
                unsafe { _mm512_loadu_ps(from.as_ptr()) }
            }

            #[inline(always)]
            fn store(self, v: V, to: &mut [f32; LANES]) {
                // SAFETY: 16 floats are writable, and `self` proves that the CPU has AVX-512.
                unsafe { _mm512_storeu_ps(to.as_mut_ptr(), v) }
            }

            #[inline(always)]
            fn stream(self, v: V, to: &mut [f32; LANES]) {
                if to.as_ptr().addr().is_multiple_of(64) {
                    // SAFETY: 16 floats are writable at an aligned place, and `self` proves that
                    // the CPU has AVX-512.
                    unsafe { _mm512_stream_ps(to.as_mut_ptr(), v) }
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
            fn select_less(self, a: V, b: V, [then, otherwise]: [V; 2]) -> V {
                // SAFETY: `self` proves that the CPU has AVX-512.
                unsafe {
                    let less = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b);
                    _mm512_mask_blend_ps(less, otherwise, then)
                }
            }

            #[inline(always)]
            fn widen_bf16(self, from: &[u16; LANES]) -> V {
                // SAFETY: 16 numbers are readable, and `self` proves that the CPU has AVX-512.
                unsafe {
                    let bits = _mm256_loadu_si256(from.as_ptr().cast::<__m256i>());
                    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits)))
                }
            }

            #[inline(always)]
            fn narrow_bf16(self, v: V, to: &mut [u16; LANES]) {
                // SAFETY: 16 numbers are writable, and `self` proves that the CPU has AVX-512.
                unsafe {
                    let narrow = $narrow(v);
                    _mm256_storeu_si256(to.as_mut_ptr().cast::<__m256i>(), narrow);
                }
            }

            #[inline(always)]
            fn narrow_u8(self, v: V, to: &mut [u8; LANES]) {
                // SAFETY: 16 bytes are writable, and `self` proves that the CPU has AVX-512.
                unsafe {
                    let bytes = _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(v));
                    _mm_storeu_si128(to.as_mut_ptr().cast::<__m128i>(), bytes);
                }
            }

            #[inline(always)]
            fn reduce_max(self, v: V) -> f32 {
                // SAFETY: `self` proves that the CPU has AVX-512. Halves are compared with their
                // neighbours in the order of the trait, so that equal results have equal signs.
                unsafe {
                    let eight =
                        _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
                    let four = _mm_max_ps(
                        _mm256_castps256_ps128(eight),
                        _mm256_extractf128_ps::<1>(eight),
                    );
                    let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
                    _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
                }
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
            fn widen_f16(self, from: &[u16; LANES]) -> V {
                // SAFETY: 16 numbers are readable, and `self` proves that the CPU has AVX-512.
                unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast::<__m256i>())) }
            }

            #[inline(always)]
            fn widen_bytes(self, from: &[i8; 4 * LANES]) -> [V; 2] {
                // SAFETY: 64 bytes are readable, and `self` proves that the CPU has AVX-512.
                unsafe {
                    let bytes = _mm512_loadu_si512(from.as_ptr().cast::<__m512i>());
                    // Bytes go to the upper halves of numbers of 16 bits, from where they are shifted down with their signs.
                    let places = _mm_set_epi64x(0x0dff_0cff_09ff_08ff, 0x05ff_04ff_01ff_00ff);
                    let first = _mm512_broadcast_i32x4(places);
                    let others = _mm512_add_epi8(first, _mm512_set1_epi16(0x0200));
                    let [first, others] =
                        [_mm512_shuffle_epi8(bytes, first), _mm512_shuffle_epi8(bytes, others)];
                    [
                        _mm512_castsi512_ps(_mm512_srai_epi16::<8>(first)),
                        _mm512_castsi512_ps(_mm512_srai_epi16::<8>(others)),
                    ]
                }
            }
        }
    };
}

isa!(Avx512, round_to_bf16);
isa!(Avx512Vnni, round_to_bf16);
isa!(Avx512Bf16, convert_to_bf16);

impl Avx512Vnni {
    /// The token of what it builds on.
    pub fn without_vnni(self) -> Avx512 {
        Avx512(())
    }
}

mod integers;

impl Bf16Dot for Avx512Bf16 {
    #[inline(always)]
    fn dot_bf16(self, acc: V, a: V, b: V) -> V {
        // SAFETY: `self` proves that the CPU has AVX512-BF16; the types are 64 bytes each.
        unsafe {
            let a = std::mem::transmute::<V, __m512bh>(a);
            _mm512_dpbf16_ps(acc, a, std::mem::transmute::<V, __m512bh>(b))
        }
    }
}

impl Avx512Bf16 {
    /// Evaluate `op` with the features of this token enabled.
    pub fn eval_bf16<O: Bf16Op>(self, op: O) -> O::Output {
        struct Adapter<O>(O);

        impl<O: Bf16Op> Adapter<O> {
            #[target_feature(
                enable = "avx512bf16,avx512vnni,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma"
            )]
            fn enabled(self, isa: Avx512Bf16) -> O::Output {
                self.0.eval(isa)
            }
        }

        // SAFETY: `self` proves that the CPU has the features enabled here.
        unsafe { Adapter(op).enabled(self) }
    }
}

impl Avx512 {
    /// The token of AVX2, which it includes.
    pub fn avx2(self) -> Avx2 {
        Avx2::included()
    }
}

/// Each lane rounded to bf16 by the instruction for it, which takes what is below the least normal
/// number for zero.
///
/// # Safety
///
/// The CPU must have AVX512-BF16.
#[inline(always)]
unsafe fn convert_to_bf16(v: V) -> __m256i {
    // SAFETY: the caller guarantees AVX512-BF16; the types are 32 bytes each.
    unsafe { std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(v)) }
}

/// Each lane rounded to bf16.
///
/// # Safety
///
/// The CPU must have AVX-512 F.
#[inline(always)]
unsafe fn round_to_bf16(v: V) -> __m256i {
    // SAFETY: the caller guarantees AVX-512.
    unsafe {
        let bits = _mm512_castps_si512(v);
        let top = _mm512_srli_epi32::<16>(bits);
        let odd = _mm512_and_si512(top, _mm512_set1_epi32(1));
        let bias = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
        let rounded = _mm512_srli_epi32::<16>(_mm512_add_epi32(bits, bias));
        // A mantissa cut to zero would turn "not a number" into infinity: set its quiet bit.
        let quiet = _mm512_or_si512(top, _mm512_set1_epi32(0x40));
        let unordered = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
        _mm512_cvtepi32_epi16(_mm512_mask_blend_epi32(unordered, rounded, quiet))
    }
}
