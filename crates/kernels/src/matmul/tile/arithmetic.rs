//! How a register tile multiplies: one of these for each format of its operands.

use crate::isa::{Bf16Dot, Int8Dot, Int16Only, Isa};

/// How a tile multiplies.
pub(crate) trait Arithmetic<I: Isa>: Copy {
    /// Rows of the register tile at most.
    const ROWS: usize = I::TILE_ROWS;

    /// Groups of `k` after which sums leave the narrow lanes that hold them; usually they are in none.
    const PIECE: usize = usize::MAX;

    /// Groups of `k` for each cache line of what will be read soon.
    const GROUPS_PER_LINE: usize = 1;

    /// What becomes of a vector of `b` before it meets the rows of `a`.
    type Factor: Copy;

    /// Prepare a vector of `b`.
    fn factor(self, isa: I, b: I::V) -> Self::Factor;

    /// `acc + a · b` in each lane.
    fn multiply_add(self, isa: I, acc: I::V, factors: (I::V, Self::Factor)) -> I::V;

    /// `acc` and the sum of a piece, in narrow lanes, times the multipliers of its group.
    #[inline(always)]
    fn add_piece(self, isa: I, acc: I::V, (piece, multipliers): (I::V, I::V)) -> I::V {
        let _ = (isa, multipliers, piece);
        acc
    }

    /// A sum as real numbers, which it is already unless said otherwise.
    #[inline(always)]
    fn real(self, _: I, acc: I::V) -> I::V {
        acc
    }
}

/// Fused multiply-add of `f32`.
#[derive(Clone, Copy)]
pub(crate) struct Fma;

impl<I: Isa> Arithmetic<I> for Fma {
    type Factor = I::V;

    #[inline(always)]
    fn factor(self, _: I, b: I::V) -> I::V {
        b
    }

    #[inline(always)]
    fn multiply_add(self, isa: I, acc: I::V, (a, b): (I::V, I::V)) -> I::V {
        isa.fma(a, b, acc)
    }
}

/// Two products of bf16 numbers per lane.
#[derive(Clone, Copy)]
pub(crate) struct PairDot;

impl<I: Bf16Dot> Arithmetic<I> for PairDot {
    type Factor = I::V;

    #[inline(always)]
    fn factor(self, _: I, b: I::V) -> I::V {
        b
    }

    #[inline(always)]
    fn multiply_add(self, isa: I, acc: I::V, (a, b): (I::V, I::V)) -> I::V {
        isa.dot_bf16(acc, a, b)
    }
}

/// Four products of bytes per lane, summed as integers.
#[derive(Clone, Copy)]
pub(crate) struct QuadDot;

impl<I: Int8Dot> Arithmetic<I> for QuadDot {
    const ROWS: usize = I::INT8_ROWS;

    type Factor = I::Factor;

    #[inline(always)]
    fn factor(self, isa: I, b: I::V) -> I::Factor {
        isa.factor(b)
    }

    #[inline(always)]
    fn real(self, isa: I, acc: I::V) -> I::V {
        isa.widen_i32(acc)
    }

    #[inline(always)]
    fn multiply_add(self, isa: I, acc: I::V, (a, b): (I::V, I::Factor)) -> I::V {
        isa.dot_int8(acc, a, b)
    }
}

/// Two products of numbers of 16 bits per lane, summed as integers.
#[derive(Clone, Copy)]
pub(crate) struct WordDot;

impl<I: Int8Dot> Arithmetic<I> for WordDot {
    type Factor = I::V;

    #[inline(always)]
    fn factor(self, _: I, b: I::V) -> I::V {
        b
    }

    #[inline(always)]
    fn real(self, isa: I, acc: I::V) -> I::V {
        isa.widen_i32(acc)
    }

    #[inline(always)]
    fn multiply_add(self, isa: I, acc: I::V, (a, b): (I::V, I::V)) -> I::V {
        isa.dot_int16(acc, a, b)
    }
}

/// Groups of `k` whose products fit into lanes of 16 bits: 8 groups × 2 products × 255 × 8 < 2¹⁵.
const NARROW: usize = 8;

/// Four products of bytes and weights of at most four bits per lane; two of each lie in a half of it until a piece ends.
#[derive(Clone, Copy)]
pub(crate) struct NarrowDot;

impl<I: Int16Only> Arithmetic<I> for NarrowDot {
    // Sums of pieces and sums of all take registers side by side.
    const ROWS: usize = 3;
    const PIECE: usize = NARROW;
    // Panels of four bits have few lines, and every instruction counts.
    const GROUPS_PER_LINE: usize = 2;

    type Factor = I::V;

    #[inline(always)]
    fn factor(self, _: I, b: I::V) -> I::V {
        b
    }

    #[inline(always)]
    fn real(self, isa: I, acc: I::V) -> I::V {
        isa.widen_i32(acc)
    }

    #[inline(always)]
    fn multiply_add(self, isa: I, acc: I::V, (a, b): (I::V, I::V)) -> I::V {
        isa.dot_narrow(acc, a, b)
    }

    #[inline(always)]
    fn add_piece(self, isa: I, acc: I::V, (piece, multipliers): (I::V, I::V)) -> I::V {
        isa.dot_int16(acc, piece, multipliers)
    }
}
