//! The running softmax, and the forms in which its weights are kept.

use crate::{
    isa::{Int8Dot, Isa, LANES},
    math,
};

/// Keys whose weights are made together. Where two lie in a lane, those of the first half lie in the lower halves.
pub(super) const PAIRED: usize = 2 * LANES;

/// How weights are kept.
pub(super) trait Weights<I: Isa> {
    /// A weight of one is two to this power.
    const BITS: f32 = 0.0;

    /// The weight of a score, which is the exponent to base two.
    #[inline(always)]
    fn of(isa: I, score: I::V) -> I::V {
        math::exp2_coarse(isa, score)
    }

    /// Keep weights in place of their scores, or as `[i, 32]` among those of 16 bits.
    fn keep(isa: I, p: [I::V; 2], scores: &mut [[f32; LANES]; 2], place: (&mut [u16], usize));
}

/// Real weights.
#[derive(Clone, Copy)]
pub(super) struct Real;

impl<I: Isa> Weights<I> for Real {
    #[inline(always)]
    fn of(isa: I, score: I::V) -> I::V {
        math::exp2(isa, score)
    }

    #[inline(always)]
    fn keep(isa: I, p: [I::V; 2], scores: &mut [[f32; LANES]; 2], _: (&mut [u16], usize)) {
        isa.store(p[0], &mut scores[0]);
        isa.store(p[1], &mut scores[1]);
    }
}

/// Weights in bf16.
#[derive(Clone, Copy)]
pub(super) struct Brain;

impl<I: Isa> Weights<I> for Brain {
    #[inline(always)]
    fn keep(isa: I, p: [I::V; 2], _: &mut [[f32; LANES]; 2], (weights, i): (&mut [u16], usize)) {
        let to = weights.as_chunks_mut().0;
        isa.narrow_bf16(p[0], &mut to[2 * i]);
        isa.narrow_bf16(p[1], &mut to[2 * i + 1]);
    }
}

/// Weights that are whole numbers of 16 bits, in lanes.
#[derive(Clone, Copy)]
pub(super) struct Words;

impl<I: Int8Dot> Weights<I> for Words {
    const BITS: f32 = 14.0;

    #[inline(always)]
    fn keep(isa: I, p: [I::V; 2], _: &mut [[f32; LANES]; 2], (weights, i): (&mut [u16], usize)) {
        let lanes = bytemuck::cast_slice_mut::<u16, f32>(weights);
        isa.store(isa.pair_i16(p[0], p[1]), &mut lanes.as_chunks_mut().0[i]);
    }
}

/// The running softmax of one query.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct State {
    /// Sums of weights, relative to the greatest score so far, lane by lane.
    pub(super) totals: [f32; LANES],
    /// The greatest score so far, times the scale.
    pub(super) greatest: f32,
    /// What it was before the block at hand.
    pub(super) before: f32,
}

impl State {
    pub(super) const START: Self =
        Self { totals: [0.0; LANES], greatest: f32::NEG_INFINITY, before: f32::NEG_INFINITY };

    /// Turn the scores of a block, of which the first `seen` count, into weights; give back the factor by which earlier sums
    /// are to be multiplied.
    #[inline(always)]
    pub(super) fn weigh<I: Isa, W: Weights<I>>(
        &mut self,
        isa: I,
        scale: f32,
        (scores, seen): (&mut [f32], usize),
        weights: &mut [u16],
    ) -> f32 {
        let (scale, center) = (isa.splat(scale), isa.splat(W::BITS - self.greatest));
        let factor = if self.before == self.greatest {
            1.0
        } else {
            isa.to_array(math::exp2(isa, isa.splat(self.before - self.greatest)))[0]
        };
        let mut total = isa.mul(isa.load(&self.totals), isa.splat(factor));
        for (i, pair) in scores.as_chunks_mut::<LANES>().0.as_chunks_mut().0.iter_mut().enumerate()
        {
            let mut p = [
                W::of(isa, isa.fma(isa.load(&pair[0]), scale, center)),
                W::of(isa, isa.fma(isa.load(&pair[1]), scale, center)),
            ];
            if seen < (i + 1) * PAIRED {
                p = first(isa, p, seen.saturating_sub(i * PAIRED));
            }
            total = isa.add(isa.add(total, p[0]), p[1]);
            W::keep(isa, p, pair, (&mut *weights, i));
        }
        isa.store(total, &mut self.totals);
        factor
    }
}

/// The first `count` of some weights, and zeros.
#[inline(always)]
fn first<I: Isa>(isa: I, p: [I::V; 2], count: usize) -> [I::V; 2] {
    const COUNT: [f32; PAIRED] = {
        let mut numbers = [0.0; PAIRED];
        let mut i = 0;
        while i < PAIRED {
            numbers[i] = i as f32;
            i += 1;
        }
        numbers
    };
    let (numbers, zero) = (COUNT.as_chunks().0, isa.splat(0.0));
    let count = isa.splat(count as f32);
    [
        isa.select_less(isa.load(&numbers[0]), count, [p[0], zero]),
        isa.select_less(isa.load(&numbers[1]), count, [p[1], zero]),
    ]
}
