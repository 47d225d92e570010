//! What is transformed and multiplied: real numbers, or whole numbers of 16 bits.

use std::ops::Range;

use super::{Patches, transform};
use crate::{
    format::{Activations, PANEL, PanelFormat, int},
    isa::{Int16Dot, Isa, LANES},
    matmul::{
        chunk::Panel,
        tile::{Arithmetic, Fma, WordDot},
    },
};

/// Numbers that are transformed and multiplied.
pub(super) trait Numbers<I: Isa>: Copy {
    /// How they are multiplied.
    type Product: Arithmetic<I>;

    /// [`Self::Product`].
    const PRODUCT: Self::Product;

    /// How many lie in a lane.
    const PER_LANE: usize;

    /// `Bᵀ d B` of some channels of patches, `[points, patches, channels]`.
    fn input(self, isa: I, patches: (&Activations<'_>, &Patches<'_>), to: &mut [f32]);

    /// Some channels of all taps, `[taps, channels, width]`.
    fn widen(self, isa: I, some: (&Panel<'_>, Range<usize>), to: &mut [f32]);

    /// `Bᵀ d`.
    fn difference(self, isa: I, d: [I::V; 4]) -> [I::V; 4];

    /// `G g`, or a multiple of it.
    fn mean(self, isa: I, g: [I::V; 3]) -> [I::V; 4];

    /// `Aᵀ m`.
    fn total(self, isa: I, m: [I::V; 4]) -> [I::V; 2];

    /// The sums of products that transformed sums stand for, in lanes of the panel from `lane` on.
    fn result(self, isa: I, y: I::V, lane: usize) -> I::V;
}

/// What pixels are made of.
pub(super) trait Element<I: Isa>: Copy {
    /// The first lanes of `from`.
    fn load(isa: I, from: &[Self]) -> I::V;
}

/// What is read comes in whole vectors.
const WHOLE: &str = "channels come in whole vectors";

impl<I: Isa> Element<I> for f32 {
    #[inline(always)]
    fn load(isa: I, from: &[Self]) -> I::V {
        isa.load(from.first_chunk().expect(WHOLE))
    }
}

/// Raw bits of bf16.
impl<I: Isa> Element<I> for u16 {
    #[inline(always)]
    fn load(isa: I, from: &[Self]) -> I::V {
        isa.widen_bf16(from.first_chunk().expect(WHOLE))
    }
}

/// Codes, of which 128 is taken.
impl<I: Int16Dot> Element<I> for u8 {
    #[inline(always)]
    fn load(isa: I, from: &[Self]) -> I::V {
        isa.center(from.first_chunk().expect(WHOLE))
    }
}

/// Numbers of single precision.
#[derive(Clone, Copy)]
pub(super) struct Reals;

impl Reals {
    /// Channels whose weights are widened together, few, so that they stay in the nearest cache; whole groups of integers.
    pub(super) fn widened_channels(format: PanelFormat) -> usize {
        if format.is_int() { int::GROUP } else { 8 }
    }
}

impl<I: Isa> Numbers<I> for Reals {
    type Product = Fma;
    const PRODUCT: Fma = Fma;
    const PER_LANE: usize = 1;

    #[inline(always)]
    fn input(self, isa: I, (input, patches): (&Activations<'_>, &Patches<'_>), to: &mut [f32]) {
        match *input {
            Activations::F32(values) => transform::input((isa, self), (values, 0.0), patches, to),
            Activations::Bf16(bits) => transform::input((isa, self), (bits, 0), patches, to),
            Activations::U8(_) => unreachable!("codes are not real numbers"),
        }
    }

    #[inline(always)]
    fn widen(self, isa: I, (panel, channels): (&Panel<'_>, Range<usize>), to: &mut [f32]) {
        panel.widen(isa, channels, to);
    }

    #[inline(always)]
    fn difference(self, isa: I, d: [I::V; 4]) -> [I::V; 4] {
        [isa.sub(d[0], d[2]), isa.add(d[1], d[2]), isa.sub(d[2], d[1]), isa.sub(d[1], d[3])]
    }

    #[inline(always)]
    fn mean(self, isa: I, g: [I::V; 3]) -> [I::V; 4] {
        let half = isa.splat(0.5);
        let outer = isa.mul(isa.add(g[0], g[2]), half);
        [g[0], isa.fma(g[1], half, outer), isa.fma(g[1], isa.splat(-0.5), outer), g[2]]
    }

    #[inline(always)]
    fn total(self, isa: I, m: [I::V; 4]) -> [I::V; 2] {
        let outer = isa.add(m[1], m[2]);
        let inner = isa.sub(m[1], m[2]);
        [isa.add(m[0], outer), isa.sub(inner, m[3])]
    }

    #[inline(always)]
    fn result(self, _: I, y: I::V, _: usize) -> I::V {
        y
    }
}

/// Whole numbers: codes and weights, without any rounding.
///
/// Pixels are codes less 128, so that a transformed one is at most 512; taps are transformed by `2 G`, which has no halves,
/// and are at most 9 · 127. Sums of their products may leave the range of 32 bits on the way, since only four times the
/// result has to be in it: it is while there are fewer than [`Words::CHANNELS`] channels.
#[derive(Clone, Copy)]
pub(super) struct Words<'a> {
    /// The code of zero in the image.
    pub(super) zero: u8,
    /// The sums of all weights of each lane of the panel.
    pub(super) weights: &'a [f32],
}

impl Words<'_> {
    /// 4 · 9 · 128 · 127 times this exceeds the range of 32 bits.
    pub(super) const CHANNELS: usize = 3_669;

    /// Channels whose weights are widened together.
    pub(super) const WIDENED: usize = 16;
}

impl<I: Int16Dot> Numbers<I> for Words<'_> {
    type Product = WordDot;
    const PRODUCT: WordDot = WordDot;
    const PER_LANE: usize = 2;

    #[inline(always)]
    fn input(self, isa: I, (input, patches): (&Activations<'_>, &Patches<'_>), to: &mut [f32]) {
        let Activations::U8(codes) = *input else { unreachable!("real numbers are no codes") };
        transform::input((isa, self), (codes, self.zero), patches, to);
    }

    #[inline(always)]
    fn widen(self, isa: I, (panel, channels): (&Panel<'_>, Range<usize>), to: &mut [f32]) {
        let (width, length) = (panel.width, channels.len() * panel.width);
        let mut codes = [0; Self::WIDENED * PANEL];
        for (tap, to) in to.chunks_exact_mut(length / 2).enumerate() {
            panel.unpack((tap, channels.clone()), &mut codes[..length]);
            let quads = codes[..length].chunks_exact(4 * width);
            for (to, quads) in to.chunks_exact_mut(2 * width).zip(quads) {
                isa.widen_quads(quads, to);
            }
        }
    }

    #[inline(always)]
    fn difference(self, isa: I, d: [I::V; 4]) -> [I::V; 4] {
        let [a, b, c, d] = d;
        [isa.sub_i16(a, c), isa.add_i16(b, c), isa.sub_i16(c, b), isa.sub_i16(b, d)]
    }

    #[inline(always)]
    fn mean(self, isa: I, g: [I::V; 3]) -> [I::V; 4] {
        let outer = isa.add_i16(g[0], g[2]);
        [
            isa.add_i16(g[0], g[0]),
            isa.add_i16(outer, g[1]),
            isa.sub_i16(outer, g[1]),
            isa.add_i16(g[2], g[2]),
        ]
    }

    #[inline(always)]
    fn total(self, isa: I, m: [I::V; 4]) -> [I::V; 2] {
        let outer = isa.add_i32(m[1], m[2]);
        let inner = isa.sub_i32(m[1], m[2]);
        [isa.add_i32(m[0], outer), isa.sub_i32(inner, m[3])]
    }

    #[inline(always)]
    fn result(self, isa: I, y: I::V, lane: usize) -> I::V {
        let weights = isa.mul(isa.read(&self.weights[lane..][..LANES]), isa.splat(128.0));
        isa.add_i32(isa.quarter_i32(y), isa.narrow_i32(weights))
    }
}
