//! The register tile of a matrix product.
//!
//! The plain algorithm: `acc[r][c] += a[r][k] · b[k][c]` for each `k`. The tricks:
//!
//! 1. All accumulators stay in registers; so do one row of `b` and one broadcast number of `a`.
//! 2. A number of `a` is four bytes, one `f32`, two bf16 or four unsigned bytes, and a vector of `b`
//!    is sixteen such groups, so that one body serves all formats; only the multiplication differs.
//!    Sums of bytes are integers, whose bits stay where `f32` would be until they are finished.
//! 3. Rows of `a` are found and checked once per tile and tap; the loads inside are unchecked.
//! 4. Where bytes are multiplied in lanes of 16 bits, products of narrow weights are summed there for
//!    a few steps, before the sum, times the multiplier of its group, goes to lanes of 32 bits.
//! 5. Where nothing but sums and a factor follow the product, finished accumulators go from the
//!    registers to their place, whose cache lines were asked for before the first multiplication.

#![allow(unsafe_code, reason = "unchecked loads of checked rows, in the innermost loop")]

mod arithmetic;

pub(crate) use arithmetic::{Arithmetic, Fma, NarrowDot, PairDot, QuadDot, WordDot};

use crate::isa::{Apart, Isa, LANES};

/// Bytes of one group of `k`.
const GROUP: usize = 4;

/// Bytes of a cache line.
const LINE: usize = 64;

/// What every tile of sums that have pieces is given.
const MULTIPLIERS: &str = "multipliers of all groups and lanes";

/// Groups of `k` that share multipliers.
const SHARED: usize = crate::format::int::GROUP / GROUP;

/// Rows of a register tile at most.
pub(crate) const MAX_ROWS: usize = 6;

/// Segments of a strip at most.
pub(crate) use crate::isa::tiles::MAX_SEGMENTS;

/// The rows of `a` that a tile reads in one segment; those beyond the tile are not looked at.
pub(crate) type Rows<'a> = [&'a [u8]; MAX_ROWS];

/// The product of a few rows of `a` with some columns of `b`.
pub(crate) struct Strip<'a> {
    /// Rows of `a`: [`Arithmetic::ROWS`], or a smaller power of two.
    pub(crate) count: usize,
    /// The rows of `a` of each segment, such as a tap of a convolution; `groups` groups long.
    pub(crate) rows: &'a [Rows<'a>],
    /// Groups of `k` per segment.
    pub(crate) groups: usize,
    /// `[segments, groups, b_stride]`.
    pub(crate) b: &'a [f32],
    /// Distance of two rows of `b` in vectors of sixteen.
    pub(crate) b_stride: usize,
    /// `[segments, groups / 16, b_stride]`, where sums have pieces: the multiplier of each lane, twice in 16 bits.
    pub(crate) multipliers: &'a [f32],
    /// Vectors per row that are multiplied.
    pub(crate) vectors: usize,
    /// What will be read soon.
    pub(crate) ahead: Ahead,
    /// Whether sums start from what the buffer of sums holds.
    pub(crate) accumulate: bool,
}

/// Memory that will be read soon, of which a line is asked for with every group of `k`, or every few.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    at: *const f32,
    /// Numbers per line, or zero if nothing is to be asked for.
    step: usize,
    lines: usize,
    tiles: usize,
}

impl Ahead {
    /// The `bytes` bytes that start `offset` bytes after the start of `memory`, in parts of `lines`
    /// cache lines; they may reach beyond its end.
    #[inline(always)]
    pub(crate) fn new(memory: &[u8], (offset, bytes): (usize, usize), lines: usize) -> Self {
        let at = memory.as_ptr().wrapping_add(offset).cast();
        Self { at, step: LANES, lines, tiles: bytes.div_ceil(lines.max(1) * LINE) }
    }

    /// Nothing new: `b` is asked for, which is near.
    #[inline(always)]
    pub(crate) fn nothing(b: &[f32]) -> Self {
        Self { at: b.as_ptr(), step: 0, lines: 0, tiles: 0 }
    }

    /// The part that tile number `tile` is to ask for; the first few ask for all.
    #[inline(always)]
    pub(crate) fn of_tile(self, tile: usize) -> Self {
        if tile < self.tiles {
            Self { at: self.at.wrapping_add(tile * self.lines * LANES), ..self }
        } else {
            let near = std::ptr::from_ref(&self.lines).cast();
            Self { at: near, step: 0, ..self }
        }
    }
}

/// Where the sums of a tile are kept between blocks of `k`.
pub(crate) struct Sums<'a> {
    /// Rows of vectors.
    pub(crate) values: &'a mut [f32],
    /// Distance of two rows in vectors.
    pub(crate) stride: usize,
}

/// What becomes of the accumulators of a tile.
pub(crate) trait Sink<I: Isa> {
    /// Bring near what vectors `vector..vector + C` of row `row` will touch.
    fn expect<const C: usize>(&mut self, isa: I, row: usize, vector: usize);

    /// Whether accumulators go to [`Sink::take`] and not to the sums, of which there may then be none.
    fn takes(&self) -> bool;

    /// Take vectors `vector..vector + C` of row `row`, where `place` is `(row, vector)`.
    fn take<const C: usize>(&mut self, isa: I, place: (usize, usize), acc: [I::V; C]);
}

/// Everything goes to the sums.
pub(crate) struct Keep;

impl<I: Isa> Sink<I> for Keep {
    #[inline(always)]
    fn expect<const C: usize>(&mut self, _: I, _: usize, _: usize) {}

    #[inline(always)]
    fn takes(&self) -> bool {
        false
    }

    #[inline(always)]
    fn take<const C: usize>(&mut self, _: I, _: (usize, usize), _: [I::V; C]) {}
}

/// Whether strips are cut into tiles of `rows` rows where the largest have `most`: into these, and the rest into powers
/// of two. Each size is compiled for every arithmetic of every instruction set, which is most of the time that it takes.
const fn is_cut(rows: usize, most: usize) -> bool {
    rows == most || rows < most && rows.is_power_of_two()
}

/// Multiply the rows of a strip.
#[inline(always)]
pub(crate) fn multiply<I: Isa, A: Arithmetic<I>, S: Sink<I>>(
    (isa, arithmetic): (I, A),
    strip: &Strip<'_>,
    (mut sums, mut sink): (Sums<'_>, S),
) {
    let mut vector = 0;
    while vector < strip.vectors {
        let left = strip.vectors - vector;
        let vectors = I::TILE_VECTORS.min(1 << left.ilog2());
        let tile = Tile { strip, vector };
        macro_rules! by_size {
            ($($r:literal: $($c:literal)+),+) => {
                match (strip.count, vectors) {
                    // A constant block, so that what no strip is cut into is not even compiled.
                    $($(($r, $c) if const { is_cut($r, A::ROWS) && $c <= I::TILE_VECTORS } => {
                        let (sums, sink) = (&mut sums, &mut sink);
                        isa.apart(SizedTile::<A, S, $r, $c> { tile, arithmetic, sums, sink });
                    })+)+
                    _ => unreachable!("no tile has {} rows", strip.count),
                }
            };
        }
        by_size!(1: 1 2 4, 2: 1 2 4, 3: 1 2 4, 4: 1 2 4, 6: 1 2 4);
        vector += vectors;
    }
}

/// Repeat a block for each row of a tile, with the row's number as a constant: accumulators stay in
/// registers only if every index is known before the compiler decides where arrays live.
macro_rules! for_each_row {
    ($r:ident < $rows:ident $body:block) => {
        for_each_row!($r < $rows $body 0 1 2 3 4 5)
    };
    ($r:ident < $rows:ident $body:block $($n:literal)+) => {
        $(if $rows > $n {
            let $r = $n;
            $body
        })+
    };
}

/// One register tile of a strip.
struct Tile<'s, 'a> {
    strip: &'s Strip<'a>,
    /// First vector of each row of `b` and of the sums.
    vector: usize,
}

/// A tile of `R` rows of `C` vectors, and what it is computed with.
struct SizedTile<'m, 's, 'a, A, S, const R: usize, const C: usize> {
    tile: Tile<'s, 'a>,
    arithmetic: A,
    sums: &'m mut Sums<'a>,
    sink: &'m mut S,
}

impl<I: Isa, A: Arithmetic<I>, S: Sink<I>, const R: usize, const C: usize> Apart<I>
    for SizedTile<'_, '_, '_, A, S, R, C>
{
    type Output = ();

    #[inline(always)]
    fn eval(self, isa: I) {
        let Self { tile, arithmetic, sums, sink } = self;
        tile.run::<I, A, S, R, C>((isa, arithmetic), (sums, sink));
    }
}

impl Tile<'_, '_> {
    #[inline(always)]
    fn run<I: Isa, A: Arithmetic<I>, S: Sink<I>, const R: usize, const C: usize>(
        &self,
        (isa, arithmetic): (I, A),
        (sums, sink): (&mut Sums<'_>, &mut S),
    ) {
        let Strip { rows, groups, b, b_stride, mut multipliers, accumulate, ahead, .. } =
            *self.strip;
        assert!(self.vector + C <= b_stride && self.vector + C <= sums.stride);
        assert!(b.len() >= rows.len() * groups * b_stride * LANES, "rows of b");
        let takes = sink.takes();
        let needed = ((R - 1) * sums.stride + self.vector + C) * LANES;
        assert!(takes && !accumulate || sums.values.len() >= needed, "sums");
        let stride = sums.stride;
        let sums = sums.values.as_mut_ptr().wrapping_add(self.vector * LANES);
        let mut acc = [[isa.splat(0.0); C]; R];
        for r in 0..R {
            sink.expect::<C>(isa, r, self.vector);
        }
        if accumulate {
            for (r, acc) in acc.iter_mut().enumerate() {
                for (c, acc) in acc.iter_mut().enumerate() {
                    // SAFETY: the third assertion bounds the rows of sums, which are accumulated here.
                    *acc = unsafe { load(isa, sums.add((r * stride + c) * LANES)) };
                }
            }
        }
        let mut b = b[self.vector * LANES..].as_ptr();
        let mut next = ahead.at;
        for rows in rows {
            let mut a = [std::ptr::null::<u8>(); R];
            for_each_row!(r < R {
                assert!(rows[r].len() >= groups * GROUP, "a row of a is too short");
                a[r] = rows[r].as_ptr();
            });
            if A::PIECE < usize::MAX {
                for start in (0..groups).step_by(SHARED) {
                    let shared: &[[f32; LANES]; C] =
                        multipliers.as_chunks().0[self.vector..].first_chunk().expect(MULTIPLIERS);
                    multipliers = &multipliers[b_stride * LANES..];
                    for start in (start..groups.min(start + SHARED)).step_by(A::PIECE) {
                        let mut piece = [[isa.splat(0.0); C]; R];
                        // A loop of a known length is unrolled.
                        if groups - start >= A::PIECE {
                            for i in 0..A::PIECE {
                                if i % A::GROUPS_PER_LINE == 0 {
                                    isa.prefetch_far(next);
                                    next = next.wrapping_add(ahead.step);
                                }
                                // SAFETY: the first two assertions bound row `k` of `b`, and each row of `a` was checked.
                                unsafe { step((isa, arithmetic), (&a, start + i), b, &mut piece) };
                                b = b.wrapping_add(b_stride * LANES);
                            }
                        } else {
                            for k in start..groups {
                                // SAFETY: as above.
                                unsafe { step((isa, arithmetic), (&a, k), b, &mut piece) };
                                b = b.wrapping_add(b_stride * LANES);
                            }
                        }
                        for c in 0..C {
                            let multiplier = isa.load(&shared[c]);
                            for_each_row!(r < R {
                                let piece = (piece[r][c], multiplier);
                                acc[r][c] = arithmetic.add_piece(isa, acc[r][c], piece);
                            });
                        }
                    }
                }
                continue;
            }
            for k in 0..groups {
                isa.prefetch_far(next);
                next = next.wrapping_add(ahead.step);
                // SAFETY: the first two assertions bound row `k` of `b`.
                let mut row = [arithmetic.factor(isa, unsafe { load(isa, b) }); C];
                for (c, row) in row.iter_mut().enumerate().skip(1) {
                    // SAFETY: as above.
                    *row = arithmetic.factor(isa, unsafe { load(isa, b.add(c * LANES)) });
                }
                b = b.wrapping_add(b_stride * LANES);
                for (a, acc) in a.iter().zip(&mut acc) {
                    // SAFETY: each row of `a` was checked to hold `groups` groups.
                    let a = isa.splat(unsafe { a.add(k * GROUP).cast::<f32>().read_unaligned() });
                    for (acc, &b) in acc.iter_mut().zip(&row) {
                        *acc = arithmetic.multiply_add(isa, *acc, (a, b));
                    }
                }
            }
        }
        if takes {
            for_each_row!(r < R {
                for acc in &mut acc[r] {
                    *acc = arithmetic.real(isa, *acc);
                }
                sink.take(isa, (r, self.vector), acc[r]);
            });
            return;
        }
        for (r, acc) in acc.iter().enumerate() {
            for (c, &acc) in acc.iter().enumerate() {
                // SAFETY: the third assertion bounds the rows of sums, which no sink takes here.
                unsafe {
                    let to = sums.add((r * stride + c) * LANES);
                    isa.store(acc, &mut *to.cast::<[f32; LANES]>());
                }
            }
        }
    }
}

/// Group `k` of a piece.
///
/// # Safety
///
/// `C` vectors must be readable at `b`, and group `k` in each row of `a`.
#[inline(always)]
unsafe fn step<I: Isa, A: Arithmetic<I>, const R: usize, const C: usize>(
    (isa, arithmetic): (I, A),
    (a, k): (&[*const u8; R], usize),
    b: *const f32,
    piece: &mut [[I::V; C]; R],
) {
    for c in 0..C {
        // SAFETY: the caller guarantees `C` vectors.
        let b = arithmetic.factor(isa, unsafe { load(isa, b.add(c * LANES)) });
        for (a, piece) in a.iter().zip(&mut *piece) {
            // SAFETY: the caller guarantees the group.
            let a = unsafe { a.add(k * GROUP).cast::<f32>().read_unaligned() };
            piece[c] = arithmetic.multiply_add(isa, piece[c], (isa.splat(a), b));
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
