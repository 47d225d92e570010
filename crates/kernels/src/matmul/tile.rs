//! The register tile of a matrix product.
//!
//! The plain algorithm: `acc[r][c] += a[r][k] · b[k][c]` for each `k`. The tricks:
//!
//! 1. All accumulators stay in registers; so do one row of `b` and one broadcast number of `a`.
//! 2. A number of `a` is four bytes, one `f32` or two bf16, and a vector of `b` is sixteen such
//!    groups, so that one body serves both formats; only the multiplication differs.
//! 3. Rows of `a` are found and checked once per tile and tap; the loads inside are unchecked.

#![allow(unsafe_code, reason = "unchecked loads of checked rows, in the innermost loop")]

use crate::isa::{Bf16Dot, Isa, LANES};

/// Bytes of one group of `k`.
const GROUP: usize = 4;

/// How a tile multiplies.
pub(crate) trait Arithmetic<I: Isa>: Copy {
    /// `acc + a · b` in each lane.
    fn multiply_add(self, isa: I, acc: I::V, factors: (I::V, I::V)) -> I::V;
}

/// Fused multiply-add of `f32`.
#[derive(Clone, Copy)]
pub(crate) struct Fma;

impl<I: Isa> Arithmetic<I> for Fma {
    #[inline(always)]
    fn multiply_add(self, isa: I, acc: I::V, (a, b): (I::V, I::V)) -> I::V {
        isa.fma(a, b, acc)
    }
}

/// Two products of bf16 numbers per lane.
#[derive(Clone, Copy)]
pub(crate) struct PairDot;

impl<I: Bf16Dot> Arithmetic<I> for PairDot {
    #[inline(always)]
    fn multiply_add(self, isa: I, acc: I::V, (a, b): (I::V, I::V)) -> I::V {
        isa.dot_bf16(acc, a, b)
    }
}

/// The product of a few rows of `a` with some columns of `b`.
pub(crate) struct Strip<'a> {
    /// Groups of `k` per segment.
    pub(crate) groups: usize,
    /// Segments, the taps of a convolution: each has its own rows of `a`.
    pub(crate) segments: usize,
    /// `[segments, groups, b_stride]`.
    pub(crate) b: &'a [f32],
    /// Distance of two rows of `b` in vectors of sixteen.
    pub(crate) b_stride: usize,
    /// Vectors per row that are multiplied.
    pub(crate) vectors: usize,
    /// Whether sums start from what `sums` holds.
    pub(crate) accumulate: bool,
}

/// Multiply `count` rows, at most `I::TILE_ROWS`.
///
/// `row(segment, r)` is row `r` of `a` in a segment, at least `groups` groups long. The sums are
/// rows of `vectors` vectors in `sums`, `sums_stride` vectors apart.
#[inline(always)]
pub(crate) fn multiply<'r, I: Isa, A: Arithmetic<I>>(
    (isa, arithmetic): (I, A),
    strip: &Strip<'_>,
    (count, row): (usize, impl Fn(usize, usize) -> &'r [u8]),
    (sums, sums_stride): (&mut [f32], usize),
) {
    let mut vector = 0;
    while vector < strip.vectors {
        let vectors = I::TILE_VECTORS.min(strip.vectors - vector);
        let tile = Tile { strip, vector, sums_stride };
        macro_rules! by_size {
            ($($r:literal: $($c:literal)+),+) => {
                match (count, vectors) {
                    $($(($r, $c) if $r <= I::TILE_ROWS && $c <= I::TILE_VECTORS => {
                        tile.run::<I, A, $r, $c>((isa, arithmetic), &row, sums);
                    })+)+
                    _ => unreachable!("tiles have at most {} rows", I::TILE_ROWS),
                }
            };
        }
        by_size!(1: 1 2 3 4, 2: 1 2 3 4, 3: 1 2 3 4, 4: 1 2 3 4, 5: 1 2 3 4, 6: 1 2 3 4);
        vector += vectors;
    }
}

/// One register tile of a strip.
struct Tile<'s, 'a> {
    strip: &'s Strip<'a>,
    /// First vector of each row of `b` and of the sums.
    vector: usize,
    sums_stride: usize,
}

impl Tile<'_, '_> {
    #[inline(always)]
    fn run<'r, I: Isa, A: Arithmetic<I>, const R: usize, const C: usize>(
        &self,
        (isa, arithmetic): (I, A),
        row: &impl Fn(usize, usize) -> &'r [u8],
        sums: &mut [f32],
    ) {
        let Strip { groups, segments, b, b_stride, accumulate, .. } = *self.strip;
        assert!(self.vector + C <= b_stride && self.vector + C <= self.sums_stride);
        assert!(b.len() >= segments * groups * b_stride * LANES, "rows of b");
        assert!(sums.len() >= ((R - 1) * self.sums_stride + self.vector + C) * LANES, "sums");
        let sums = sums[self.vector * LANES..].as_mut_ptr();
        let mut acc = [[isa.splat(0.0); C]; R];
        if accumulate {
            for (r, acc) in acc.iter_mut().enumerate() {
                for (c, acc) in acc.iter_mut().enumerate() {
                    // SAFETY: the second assertion bounds the rows of sums.
                    *acc = unsafe { load(isa, sums.add((r * self.sums_stride + c) * LANES)) };
                }
            }
        }
        for segment in 0..segments {
            let a: [*const u8; R] = std::array::from_fn(|r| {
                let row = row(segment, r);
                assert!(row.len() >= groups * GROUP, "a row of a is too short");
                row.as_ptr()
            });
            let b = b[segment * groups * b_stride * LANES..][self.vector * LANES..].as_ptr();
            for k in 0..groups {
                // SAFETY: the first assertion bounds row `k` of `b`.
                let b: [I::V; C] = std::array::from_fn(|c| unsafe {
                    load(isa, b.add((k * b_stride + c) * LANES))
                });
                for (a, acc) in a.iter().zip(&mut acc) {
                    // SAFETY: each row of `a` was checked to hold `groups` groups.
                    let a = isa.splat(unsafe { a.add(k * GROUP).cast::<f32>().read_unaligned() });
                    for (acc, &b) in acc.iter_mut().zip(&b) {
                        *acc = arithmetic.multiply_add(isa, *acc, (a, b));
                    }
                }
            }
        }
        for (r, acc) in acc.iter().enumerate() {
            for (c, &acc) in acc.iter().enumerate() {
                // SAFETY: the second assertion bounds the rows of sums.
                unsafe {
                    let to = sums.add((r * self.sums_stride + c) * LANES);
                    isa.store(acc, &mut *to.cast::<[f32; LANES]>());
                }
            }
        }
    }
}

/// # Safety
///
/// Sixteen floats must be readable at `from`.
#[inline(always)]
unsafe fn load<I: Isa>(isa: I, from: *const f32) -> I::V {
    // SAFETY: the caller guarantees sixteen floats, aligned as floats are.
    isa.load(unsafe { &*from.cast::<[f32; LANES]>() })
}
