//! Products of whole tiles: sixteen rows of 64 bytes with as many groups of four bytes for sixteen lanes.
//!
//! The plain algorithm, which [`SoftTiles`] is, adds the products of a few rows with a few lanes along `k`. AMX does it
//! with eight registers of 1 KiB each: four hold the sums of up to 32 rows and 32 lanes, two hold rows of `a` and two
//! lanes of `b`, so that every load serves two products. What a register holds of a matrix is a number of rows, as far
//! apart as one likes, of 64 bytes each; fewer rows than sixteen take less time.

/// Bytes of a row of `a` that one product takes.
pub(crate) const STEP: usize = 64;

/// Rows of a tile.
pub(crate) const TILE: usize = 16;

/// Rows of a strip at most.
pub(crate) const STRIP: usize = 2 * TILE;

/// Segments of a strip at most.
pub(crate) const MAX_SEGMENTS: usize = 16;

/// Bytes of a group of `k`.
const GROUP: usize = 4;

/// What groups of four bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// Four unsigned bytes of `a`, four signed ones of `b`; sums are `i32`.
    Bytes,
    /// Two bf16 numbers of each; sums are `f32`.
    Pairs,
}

/// Up to sixteen rows of `a`.
#[derive(Clone, Copy)]
pub(crate) struct TileRows<'a> {
    /// What is read, from the first byte of the first row on.
    pub(crate) bytes: &'a [u8],
    /// Distance of two rows in bytes.
    pub(crate) stride: usize,
}

impl TileRows<'_> {
    pub(crate) const NONE: Self = Self { bytes: &[], stride: 0 };

    /// Panic unless `rows` rows of `length` bytes can be read.
    #[inline(always)]
    fn check(&self, rows: usize, length: usize) {
        let is_there = rows == 0 || self.bytes.len() >= (rows - 1) * self.stride + length;
        assert!(is_there, "rows of a are too short");
    }
}

/// The product of up to 32 rows of `a` with 16 or 32 lanes of `b`.
pub(crate) struct TileStrip<'a> {
    pub(crate) numbers: Numbers,
    /// From 1 to 32; those beyond sixteen are in the second half of each segment.
    pub(crate) rows: usize,
    /// Vectors of sixteen lanes: 1 or 2.
    pub(crate) vectors: usize,
    /// The rows of each segment of `k`, such as a tap of a convolution; at most [`MAX_SEGMENTS`].
    pub(crate) segments: &'a [[TileRows<'a>; 2]],
    /// Products along `k` of a segment, of 64 bytes each.
    pub(crate) steps: usize,
    /// `[segments, steps, 16, b_stride, 16]`: groups of four bytes.
    pub(crate) b: &'a [f32],
    /// Distance of two groups of `b` in vectors.
    pub(crate) b_stride: usize,
    /// Whether sums are added to what is there.
    pub(crate) accumulate: bool,
    /// Memory that will be read soon.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(dead_code, reason = "plain tiles ask for nothing")
    )]
    pub(crate) ahead: Ahead,
}

/// Memory of which [`Ahead::STEP`] bytes are asked for with each step of a strip, or none.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(dead_code, reason = "plain tiles ask for nothing")
    )]
    pub(super) at: *const u8,
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(dead_code, reason = "plain tiles ask for nothing")
    )]
    pub(super) step: usize,
}

impl Ahead {
    /// Bytes asked for with a step: four cache lines.
    pub(crate) const STEP: usize = 256;

    /// Nothing but what is near.
    #[inline(always)]
    pub(crate) fn nothing(near: &[f32]) -> Self {
        Self { at: near.as_ptr().cast(), step: 0 }
    }

    /// From byte `start` of `memory` on, or nothing if that lies beyond `end`; neither need be inside the memory.
    #[inline(always)]
    pub(crate) fn new(memory: &[u8], start: usize, end: usize) -> Self {
        if start < end {
            Self { at: memory.as_ptr().wrapping_add(start), step: Self::STEP }
        } else {
            Self { at: memory.as_ptr(), step: 0 }
        }
    }
}

impl TileStrip<'_> {
    /// Rows in each half of a segment.
    #[inline(always)]
    fn halves(&self) -> [usize; 2] {
        [self.rows.min(TILE), self.rows.saturating_sub(TILE)]
    }

    /// Panic unless every operand is as large as the strip says; `sums` are rows `stride` vectors apart.
    #[inline(always)]
    pub(super) fn check(&self, sums: &[f32], stride: usize) {
        let Self { rows, vectors, segments, steps, b, b_stride, .. } = *self;
        assert!((1..=STRIP).contains(&rows), "a strip of {rows} rows");
        assert!((1..=MAX_SEGMENTS).contains(&segments.len()) && steps > 0, "nothing to multiply");
        assert!((1..=2).contains(&vectors) && vectors <= b_stride && vectors <= stride, "lanes");
        for segment in segments {
            for (half, rows) in segment.iter().zip(self.halves()) {
                half.check(rows, steps * STEP);
            }
        }
        let groups = segments.len() * steps * STEP / GROUP;
        let needed = ((groups - 1) * b_stride + vectors) * TILE;
        assert!(b.len() >= needed, "lanes of b are too short");
        assert!(sums.len() >= ((rows - 1) * stride + vectors) * TILE, "too few sums");
    }
}

/// What multiplies tiles.
pub(crate) trait Tiles: Copy {
    /// Compute a strip into `sums`, whose rows are `stride` vectors apart. Sums of bytes are the bits of integers.
    ///
    /// # Panics
    ///
    /// Panics if an operand is smaller than the strip says.
    fn multiply(self, strip: &TileStrip<'_>, sums: (&mut [f32], usize));

    /// Say that the calling thread multiplies no more for a while.
    fn release(self);
}

/// A computation that multiplies tiles.
pub(crate) trait TileOp: Sized {
    /// The computation itself, marked `#[inline(always)]` as in [`super::SimdOp::eval`].
    fn eval<I: super::Int8Dot, T: Tiles>(self, isa: I, tiles: T);
}

/// A [`TileOp`] with its tiles, for an instruction set.
#[cfg(target_arch = "x86_64")]
pub(super) struct With<O, T>(pub(super) O, pub(super) T);

#[cfg(target_arch = "x86_64")]
impl<O: TileOp, T: Tiles> super::Int8Op for With<O, T> {
    type Output = ();

    #[inline(always)]
    fn eval<I: super::Int8Dot>(self, isa: I) {
        self.0.eval(isa, self.1);
    }
}

/// Tiles in plain Rust: the definition, and what tests run where the CPU has none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SoftTiles;

impl Tiles for SoftTiles {
    fn multiply(self, strip: &TileStrip<'_>, (sums, stride): (&mut [f32], usize)) {
        strip.check(sums, stride);
        let groups = strip.steps * STEP / GROUP;
        for row in 0..strip.rows {
            for lane in 0..strip.vectors * TILE {
                let sum = &mut sums[row * stride * TILE + lane];
                let mut total = if strip.accumulate { *sum } else { 0.0 };
                for (segment, halves) in strip.segments.iter().enumerate() {
                    let half = &halves[row / TILE];
                    let a = half.bytes[row % TILE * half.stride..].as_chunks::<GROUP>().0;
                    for (group, a) in a.iter().take(groups).enumerate() {
                        let b = (segment * groups + group) * strip.b_stride * TILE + lane;
                        total = strip.numbers.add_products(total, *a, strip.b[b].to_ne_bytes());
                    }
                }
                *sum = total;
            }
        }
    }

    fn release(self) {}
}

impl Numbers {
    /// `sum` and the products of two groups.
    fn add_products(self, sum: f32, a: [u8; GROUP], b: [u8; GROUP]) -> f32 {
        match self {
            Self::Bytes => {
                let products = a.iter().zip(b).map(|(&a, b)| i32::from(a) * i32::from(b as i8));
                let sum = sum.to_bits().cast_signed() + products.sum::<i32>();
                f32::from_bits(sum.cast_unsigned())
            }
            Self::Pairs => {
                let number = |group: [u8; GROUP], i: usize| {
                    let bits = u16::from_ne_bytes([group[2 * i], group[2 * i + 1]]);
                    f32::from_bits(u32::from(bits) << 16)
                };
                (0..2).fold(sum, |sum, i| number(a, i).mul_add(number(b, i), sum))
            }
        }
    }
}
