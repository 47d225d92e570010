//! NEON: four 128-bit registers per vector; every 64-bit ARM CPU has it.

use std::arch::aarch64::{
    float32x4_t, vabsq_f32, vaddq_f32, vaddq_s32, vaddq_u32, vandq_u32, vbslq_f32, vbslq_u32,
    vceqq_f32, vcltq_f32, vcvtnq_s32_f32, vcvtq_f32_s32, vdivq_f32, vdupq_n_f32, vdupq_n_s32,
    vdupq_n_u32, vfmaq_f32, vget_high_s8, vget_high_u8, vget_low_s8, vget_low_s16, vget_low_u8,
    vld1_u16, vld1q_f32, vmovl_s8, vmovl_u8, vmovn_u32, vmull_high_s16, vmull_s16, vmulq_f32,
    vmulq_s16, vorrq_u32, vpaddlq_s16, vpaddq_s32, vreinterpretq_f32_s32, vreinterpretq_f32_u32,
    vreinterpretq_s8_f32, vreinterpretq_s16_f32, vreinterpretq_s16_u16, vreinterpretq_s32_f32,
    vreinterpretq_u8_f32, vreinterpretq_u32_f32, vrndnq_f32, vshll_n_u16, vshlq_n_s32, vshrq_n_u32,
    vsliq_n_s32, vst1_u16, vst1q_f32, vsubq_f32,
};

use half::f16;

use super::{Apart, Int8Dot, Isa, LANES, Level, token};

token! {
    /// Proof that the CPU has NEON.
    Neon, int8, is_aarch64_feature_detected: "neon"
}

type V = [float32x4_t; 4];

/// Implement operations that are one intrinsic on each register.
macro_rules! lanewise {
    ($($name:ident($($arg:ident),*) = $intrinsic:ident;)+) => {$(
        #[inline(always)]
        fn $name(self, $($arg: V),*) -> V {
            // SAFETY: `self` proves that the CPU has NEON.
            std::array::from_fn(|i| unsafe { $intrinsic($($arg[i]),*) })
        }
    )+};
}

impl Isa for Neon {
    const LEVEL: Level = Level::Neon;
    const TILE_ROWS: usize = 6;
    const TILE_VECTORS: usize = 1;

    type V = V;

    #[inline(always)]
    fn apart<O: Apart<Self>>(self, op: O) -> O::Output {
        self.enter(op)
    }

    lanewise! {
        add(a, b) = vaddq_f32;
        sub(a, b) = vsubq_f32;
        mul(a, b) = vmulq_f32;
        div(a, b) = vdivq_f32;
        abs(a) = vabsq_f32;
    }

    #[inline(always)]
    fn splat(self, x: f32) -> V {
        // SAFETY: `self` proves that the CPU has NEON.
        unsafe { [vdupq_n_f32(x); 4] }
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> V {
        // SAFETY: 16 floats are readable, and `self` proves that the CPU has NEON.
        std::array::from_fn(|i| unsafe { vld1q_f32(from.as_ptr().add(4 * i)) })
    }

    #[inline(always)]
    fn store(self, v: V, to: &mut [f32; LANES]) {
        for (i, v) in v.into_iter().enumerate() {
            // SAFETY: 16 floats are writable, and `self` proves that the CPU has NEON.
            unsafe { vst1q_f32(to.as_mut_ptr().add(4 * i), v) }
        }
    }

    #[inline(always)]
    fn fma(self, a: V, b: V, c: V) -> V {
        // SAFETY: `self` proves that the CPU has NEON.
        std::array::from_fn(|i| unsafe { vfmaq_f32(c[i], a[i], b[i]) })
    }

    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        self.select_less(b, a, [a, b])
    }

    #[inline(always)]
    fn min(self, a: V, b: V) -> V {
        self.select_less(a, b, [a, b])
    }

    #[inline(always)]
    fn select_less(self, a: V, b: V, [then, otherwise]: [V; 2]) -> V {
        // SAFETY: `self` proves that the CPU has NEON.
        std::array::from_fn(|i| unsafe { vbslq_f32(vcltq_f32(a[i], b[i]), then[i], otherwise[i]) })
    }

    #[inline(always)]
    fn scale_by_power_of_two(self, v: V, n: V) -> V {
        // SAFETY: `self` proves that the CPU has NEON.
        std::array::from_fn(|i| unsafe {
            // Two factors, because 2ⁿ itself may be out of range; only the second rounds.
            let half = vrndnq_f32(vmulq_f32(n[i], vdupq_n_f32(0.5)));
            let rest = vsubq_f32(n[i], half);
            vmulq_f32(vmulq_f32(v[i], power_of_two(half)), power_of_two(rest))
        })
    }

    #[inline(always)]
    fn widen_bf16(self, from: &[u16; LANES]) -> V {
        // SAFETY: 16 numbers are readable, and `self` proves that the CPU has NEON.
        std::array::from_fn(|i| unsafe {
            vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(from.as_ptr().add(4 * i))))
        })
    }

    #[inline(always)]
    fn narrow_bf16(self, v: V, to: &mut [u16; LANES]) {
        for (i, v) in v.into_iter().enumerate() {
            // SAFETY: 16 numbers are writable, and `self` proves that the CPU has NEON.
            unsafe {
                let bits = vreinterpretq_u32_f32(v);
                let top = vshrq_n_u32::<16>(bits);
                let odd = vandq_u32(top, vdupq_n_u32(1));
                let bias = vaddq_u32(odd, vdupq_n_u32(0x7fff));
                let rounded = vshrq_n_u32::<16>(vaddq_u32(bits, bias));
                // A mantissa cut to zero would turn "not a number" into infinity.
                let quiet = vorrq_u32(top, vdupq_n_u32(0x40));
                let chosen = vbslq_u32(vceqq_f32(v, v), rounded, quiet);
                vst1_u16(to.as_mut_ptr().add(4 * i), vmovn_u32(chosen));
            }
        }
    }

    #[inline(always)]
    fn widen_f16(self, from: &[u16; LANES]) -> V {
        self.load(&from.map(|bits| f16::from_bits(bits).to_f32_const()))
    }
}

/// `2ⁿ` for integral `n` in −126..=127.
///
/// # Safety
///
/// The CPU must have NEON.
#[inline(always)]
unsafe fn power_of_two(n: float32x4_t) -> float32x4_t {
    // SAFETY: the caller guarantees NEON.
    unsafe {
        let biased = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
        vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased))
    }
}

impl Int8Dot for Neon {
    type Factor = V;

    #[inline(always)]
    fn factor(self, b: V) -> V {
        b
    }

    #[inline(always)]
    fn dot_int8(self, acc: V, a: V, b: V) -> V {
        std::array::from_fn(|i| {
            // SAFETY: `self` proves that the CPU has NEON.
            unsafe {
                let a = vreinterpretq_u8_f32(a[i]);
                let b = vreinterpretq_s8_f32(b[i]);
                // Products of an unsigned and a signed byte fit 16 bits, their sums in pairs do not.
                let low = vmulq_s16(
                    vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(a))),
                    vmovl_s8(vget_low_s8(b)),
                );
                let high = vmulq_s16(
                    vreinterpretq_s16_u16(vmovl_u8(vget_high_u8(a))),
                    vmovl_s8(vget_high_s8(b)),
                );
                let fours = vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high));
                vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(acc[i]), fours))
            }
        })
    }

    #[inline(always)]
    fn dot_int16(self, acc: V, a: V, b: V) -> V {
        std::array::from_fn(|i| {
            // SAFETY: `self` proves that the CPU has NEON.
            unsafe {
                let (a, b) = (vreinterpretq_s16_f32(a[i]), vreinterpretq_s16_f32(b[i]));
                let low = vmull_s16(vget_low_s16(a), vget_low_s16(b));
                let sums = vpaddq_s32(low, vmull_high_s16(a, b));
                vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(acc[i]), sums))
            }
        })
    }

    #[inline(always)]
    fn pair_i16(self, first: V, second: V) -> V {
        std::array::from_fn(|i| {
            // SAFETY: `self` proves that the CPU has NEON.
            unsafe {
                let (first, second) = (vcvtnq_s32_f32(first[i]), vcvtnq_s32_f32(second[i]));
                vreinterpretq_f32_s32(vsliq_n_s32::<16>(first, second))
            }
        })
    }

    #[inline(always)]
    fn widen_i32(self, v: V) -> V {
        // SAFETY: `self` proves that the CPU has NEON.
        v.map(|v| unsafe { vcvtq_f32_s32(vreinterpretq_s32_f32(v)) })
    }
}
