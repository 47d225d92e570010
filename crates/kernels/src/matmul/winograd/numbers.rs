//! What is transformed and multiplied: numbers of any kind, and real ones.

use std::ops::Range;

use super::{PATCHES, Patches, transform};
use crate::{
    format::{Activations, PanelFormat, int},
    isa::{Int16Dot, Isa},
    matmul::{
        chunk::Panel,
        tile::{Arithmetic, Fma},
    },
};

/// Numbers that are transformed and multiplied, in patches of `P × P` pixels and `R × R` results.
pub(super) trait Numbers<I: Isa, const P: usize, const R: usize>: Copy {
    /// How they are multiplied.
    type Product: Arithmetic<I>;

    /// [`Self::Product`].
    const PRODUCT: Self::Product;

    /// How many lie in a lane.
    const PER_LANE: usize;

    /// Patches that are transformed together at most.
    const PATCHES: usize;

    /// `Bᵀ d B` of some channels of patches, `[points, patches, channels]`.
    fn input(self, isa: I, patches: (&Activations<'_>, &Patches<'_>), to: &mut [f32]);

    /// Some channels of all taps, `[taps, channels, width]`.
    fn widen(self, isa: I, some: (&Panel<'_>, Range<usize>), to: &mut [f32]);

    /// `Bᵀ d`.
    fn difference(self, isa: I, d: [I::V; P]) -> [I::V; P];

    /// `G g`, or a multiple of it.
    fn mean(self, isa: I, g: [I::V; 3]) -> [I::V; P];

    /// `Aᵀ m`, or a multiple of it.
    fn total(self, isa: I, m: [I::V; P]) -> [I::V; R];

    /// The sums of products that transformed sums stand for, in lanes of the panel from `lane` on, added to those of the
    /// channels before.
    fn result(self, isa: I, y: I::V, place: (usize, Option<I::V>)) -> I::V;
}

/// What pixels are made of.
pub(super) trait Element<I: Isa>: Copy {
    /// How many lie in a lane once they are loaded.
    const PER_LANE: usize = 1;

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
    const PER_LANE: usize = 2;

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

impl<I: Isa> Numbers<I, 4, 2> for Reals {
    type Product = Fma;
    const PRODUCT: Fma = Fma;
    const PER_LANE: usize = 1;
    const PATCHES: usize = PATCHES;

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
    fn result(self, _: I, y: I::V, _: (usize, Option<I::V>)) -> I::V {
        y
    }
}
