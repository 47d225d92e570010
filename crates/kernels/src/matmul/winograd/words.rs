//! Whole numbers of 16 bits that are transformed and multiplied.

use std::ops::Range;

use super::{LARGE_PATCHES, PATCHES, Patches, numbers::Numbers, transform};
use crate::{
    format::{Activations, PANEL},
    isa::{Int16Dot, LANES},
    matmul::{chunk::Panel, tile::WordDot},
};

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

    /// What the 128 add up to that were taken from each code.
    #[inline(always)]
    fn centers<I: Int16Dot>(self, isa: I, lane: usize) -> I::V {
        isa.narrow_i32(isa.mul(isa.read(&self.weights[lane..][..LANES]), isa.splat(128.0)))
    }
}

impl<I: Int16Dot> Numbers<I, 4, 2> for Words<'_> {
    type Product = WordDot;
    const PRODUCT: WordDot = WordDot;
    const PER_LANE: usize = 2;
    const PATCHES: usize = PATCHES;

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
            let codes = panel.unpack((tap, channels.clone()), &mut codes[..length]);
            let quads = codes.chunks_exact(4 * width);
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
    fn result(self, isa: I, y: I::V, (lane, _): (usize, Option<I::V>)) -> I::V {
        isa.add_i32(isa.shift_i32::<2>(y), self.centers(isa, lane))
    }
}

/// The same in patches of 4×4 results.
///
/// A transformed pixel is at most 100 · 128. Taps are transformed by `G` less its factors 1/4, 1/6, 1/24 and 1, and are at
/// most 49 · 128. The factors belong to `A`, of which 24 times is taken in their place: transformed sums are 24² = 9 · 2⁶
/// times the results, in 32 bits of which the higher ones were lost on the way. Times the inverse of 9 among numbers of 32
/// bits they are 2⁶ times the results, exactly, if these have 26 bits: so that only some channels are summed at a time.
#[derive(Clone, Copy)]
pub(super) struct LargeWords<'a>(pub(super) Words<'a>);

/// What 9 is to be multiplied by, that all but the lowest bit of 32 vanish.
const INVERSE_OF_9: i32 = 0x38e3_8e39;

impl LargeWords<'_> {
    /// 9 · 128 · 128 times this is within 26 bits.
    pub(super) const CHANNELS: usize = 224;
}

impl<I: Int16Dot> Numbers<I, 6, 4> for LargeWords<'_> {
    type Product = WordDot;
    const PRODUCT: WordDot = WordDot;
    const PER_LANE: usize = 2;
    const PATCHES: usize = LARGE_PATCHES;

    #[inline(always)]
    fn input(self, isa: I, (input, patches): (&Activations<'_>, &Patches<'_>), to: &mut [f32]) {
        let Activations::U8(codes) = *input else { unreachable!("real numbers are no codes") };
        transform::input((isa, self), (codes, self.0.zero), patches, to);
    }

    #[inline(always)]
    fn widen(self, isa: I, some: (&Panel<'_>, Range<usize>), to: &mut [f32]) {
        self.0.widen(isa, some, to);
    }

    #[inline(always)]
    fn difference(self, isa: I, d: [I::V; 6]) -> [I::V; 6] {
        let even = isa.sub_i16(d[4], d[2]);
        let odd = isa.sub_i16(d[3], d[1]);
        let odd = twice_i16(isa, odd);
        [
            isa.add_i16(four_i16(isa, isa.sub_i16(d[0], d[2])), even),
            isa.sub_i16(four_i16(isa, isa.add_i16(d[1], d[2])), isa.add_i16(d[3], d[4])),
            isa.add_i16(four_i16(isa, isa.sub_i16(d[2], d[1])), isa.sub_i16(d[3], d[4])),
            isa.add_i16(even, odd),
            isa.sub_i16(even, odd),
            isa.sub_i16(isa.sub_i16(d[5], d[3]), twice_i16(isa, odd)),
        ]
    }

    #[inline(always)]
    fn mean(self, isa: I, g: [I::V; 3]) -> [I::V; 6] {
        let outer = isa.add_i16(g[0], g[2]);
        let further = isa.add_i16(g[0], four_i16(isa, g[2]));
        let middle = twice_i16(isa, g[1]);
        [
            g[0],
            isa.add_i16(outer, g[1]),
            isa.sub_i16(outer, g[1]),
            isa.add_i16(further, middle),
            isa.sub_i16(further, middle),
            g[2],
        ]
    }

    #[inline(always)]
    fn total(self, isa: I, m: [I::V; 6]) -> [I::V; 4] {
        let near = four_i32(isa, isa.add_i32(m[1], m[2]));
        let rise = four_i32(isa, isa.sub_i32(m[1], m[2]));
        let far = isa.add_i32(m[3], m[4]);
        let climb = twice_i32(isa, isa.sub_i32(m[3], m[4]));
        let first = six_i32(isa, m[0]);
        let last = six_i32(isa, m[5]);
        [
            isa.add_i32(isa.add_i32(first, near), far),
            isa.add_i32(rise, climb),
            isa.add_i32(near, four_i32(isa, far)),
            isa.add_i32(rise, four_i32(isa, isa.add_i32(climb, last))),
        ]
    }

    #[inline(always)]
    fn result(self, isa: I, y: I::V, (lane, before): (usize, Option<I::V>)) -> I::V {
        let inverse = isa.splat(f32::from_bits(INVERSE_OF_9.cast_unsigned()));
        let sums = isa.shift_i32::<6>(isa.mul_i32(y, inverse));
        match before {
            Some(before) => isa.add_i32(before, sums),
            None => isa.add_i32(self.0.centers(isa, lane), sums),
        }
    }
}

#[inline(always)]
fn twice_i16<I: Int16Dot>(isa: I, x: I::V) -> I::V {
    isa.add_i16(x, x)
}

#[inline(always)]
fn four_i16<I: Int16Dot>(isa: I, x: I::V) -> I::V {
    twice_i16(isa, twice_i16(isa, x))
}

#[inline(always)]
fn twice_i32<I: Int16Dot>(isa: I, x: I::V) -> I::V {
    isa.add_i32(x, x)
}

#[inline(always)]
fn four_i32<I: Int16Dot>(isa: I, x: I::V) -> I::V {
    twice_i32(isa, twice_i32(isa, x))
}

#[inline(always)]
fn six_i32<I: Int16Dot>(isa: I, x: I::V) -> I::V {
    isa.add_i32(four_i32(isa, x), twice_i32(isa, x))
}
