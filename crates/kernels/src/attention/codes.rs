//! Queries and keys as whole numbers.
//!
//! A key is taken relative to the mean of all keys of its head. That changes all scores of a query by the
//! same amount, which the softmax does not see, and what keys have in common takes no codes (smooth-K of
//! `SageAttention`, Zhang et al. 2024). Then every query and every key is rounded to −127…127 in a unit of
//! its own. Products are of unsigned with signed bytes, so queries are stored 128 higher, and each key
//! knows what that adds to its scores.

use super::{Heads, packing::Sizes};
use crate::{
    Cpu,
    format::{Activations, PANEL, int::QUAD},
    isa::{Isa, LANES, SimdOp},
    math,
    matmul::Sink,
};

/// The greatest code.
const MOST: f32 = 127.0;

/// What is added to the codes of queries.
const SHIFT: f32 = 128.0;

/// Bytes of a panel of keys of so many bytes: `[bytes / 4, 64, 4]`, then a unit and a summand for each key.
pub(super) fn panel_bytes(code_bytes: usize) -> usize {
    (code_bytes + 2 * size_of::<f32>()) * PANEL
}

/// A row of one head, relative to a center.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) values: Activations<'a>,
    pub(super) start: usize,
    pub(super) length: usize,
    /// Whole vectors, zero behind the row.
    pub(super) center: Option<&'a [f32]>,
}

impl Row<'_> {
    /// The elements from `at` on as a vector; lanes beyond the row are zero.
    #[inline(always)]
    pub(super) fn read<I: Isa>(&self, isa: I, at: usize) -> I::V {
        let range = self.start + at..self.start + self.length.min(at + LANES);
        let x = match self.values {
            Activations::F32(values) => isa.read(&values[range]),
            Activations::Bf16(bits) => isa.read_bf16(&bits[range]),
            // Refused before.
            Activations::U8(_) => isa.splat(f32::NAN),
        };
        match self.center {
            Some(center) => isa.sub(x, isa.read(&center[at..at + LANES])),
            None => x,
        }
    }

    /// What one of a code stands for; not a number where the row is not finite.
    #[inline(always)]
    fn unit<I: Isa>(&self, isa: I) -> f32 {
        let (mut most, mut check) = (isa.splat(0.0), isa.splat(0.0));
        for at in (0..self.length).step_by(LANES) {
            let x = self.read(isa, at);
            most = isa.max(isa.abs(x), most);
            // Zero times what is not finite is not a number, and stays so in the sum.
            check = isa.fma(x, isa.splat(0.0), check);
        }
        let unit = (isa.reduce_max(most) + isa.reduce_add(check)) / MOST;
        if unit < f32::MIN_POSITIVE { 1.0 } else { unit }
    }

    /// The codes of the elements from `at` on, as real numbers.
    #[inline(always)]
    fn codes<I: Isa>(&self, isa: I, at: usize, inverse: I::V) -> I::V {
        let round = isa.splat(math::ROUND);
        let steps = isa.mul(self.read(isa, at), inverse);
        let code = isa.sub(isa.add(steps, round), round);
        isa.max(isa.splat(-MOST), isa.min(isa.splat(MOST), code))
    }
}

/// Write the codes of the query that starts at element `start`, of one or two bytes each, and give back its unit.
#[inline(always)]
pub(super) fn encode_query<I: Isa>(
    isa: I,
    (values, start, length): (Activations<'_>, usize, usize),
    (to, size): (&mut [u8], usize),
) -> f32 {
    let row = Row { values, start, length, center: None };
    let unit = row.unit(isa);
    let inverse = isa.splat(1.0 / unit);
    for (at, to) in (0..).step_by(LANES).zip(to.chunks_mut(LANES * size)) {
        let codes = isa.add(row.codes(isa, at, inverse), isa.splat(SHIFT));
        let mut lanes = [0; LANES];
        isa.narrow_u8(codes, &mut lanes);
        if size == 1 {
            to.copy_from_slice(&lanes[..to.len()]);
        } else {
            // Of a known size, so that compilers turn it into vectors.
            for (to, code) in to.as_chunks_mut().0.iter_mut().zip(lanes) {
                *to = u16::from(code).to_le_bytes();
            }
        }
    }
    unit
}

/// The mean of all keys of each head, `[batch, heads, padded head]`.
pub(super) fn means(cpu: &Cpu, sizes: &Sizes, keys: Heads<'_>, to: &mut [f32]) {
    cpu.threads.run_pieces(to, sizes.padded_dim(), |index, to| {
        cpu.eval(Mean { sizes, keys, index, to });
    });
}

struct Mean<'a> {
    sizes: &'a Sizes,
    keys: Heads<'a>,
    /// Batch entry times heads, plus head.
    index: usize,
    to: &'a mut [f32],
}

impl SimdOp for Mean<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { sizes, keys, index, to } = self;
        let shape = &sizes.shape;
        let (batch, head) = (index / shape.heads, index % shape.heads);
        let share = isa.splat(1.0 / shape.tokens_k as f32);
        for (at, to) in (0..).step_by(LANES).zip(to.as_chunks_mut().0) {
            let mut sum = isa.splat(0.0);
            for token in 0..shape.tokens_k {
                let start = sizes.start(&keys, batch * shape.tokens_k + token, head);
                let (values, length) = (keys.values, shape.head_dim);
                sum = isa.add(sum, Row { values, start, length, center: None }.read(isa, at));
            }
            isa.store(isa.mul(sum, share), to);
        }
    }
}

/// Packs the keys of one panel.
pub(super) struct PackKeys<'a> {
    pub(super) sizes: &'a Sizes,
    pub(super) keys: Heads<'a>,
    pub(super) head: usize,
    /// First row and number of rows.
    pub(super) rows: (usize, usize),
    /// Lanes of the panel.
    pub(super) width: usize,
    /// The mean of the keys.
    pub(super) center: &'a [f32],
    pub(super) to: &'a mut [u8],
}

impl SimdOp for PackKeys<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { sizes, keys, head, rows: (first, count), width, center, to } = self;
        let length = sizes.shape.head_dim;
        let (codes, rest) = to.split_at_mut(sizes.code_bytes() * PANEL);
        codes.fill(0);
        let (units, summands) = bytemuck::cast_slice_mut::<u8, f32>(rest).split_at_mut(PANEL);
        units.fill(0.0);
        // Lanes without a key never have the greatest score.
        summands.fill(f32::MIN);
        for i in 0..count {
            let start = sizes.start(&keys, first + i, head);
            let row = Row { values: keys.values, start, length, center: Some(center) };
            let unit = row.unit(isa);
            let inverse = isa.splat(1.0 / unit);
            let mut sum = isa.splat(0.0);
            let column = codes.as_chunks_mut::<QUAD>().0[i..].chunks_mut(width);
            let mut cells = column.map(|cells| &mut cells[0]);
            for at in (0..length).step_by(LANES) {
                let found = row.codes(isa, at, inverse);
                sum = isa.add(sum, found);
                let mut lanes = [0; LANES];
                isa.narrow_u8(isa.add(found, isa.splat(SHIFT)), &mut lanes);
                // A byte that is 128 higher differs in its first bit alone.
                let lanes = lanes.map(|code| (code ^ 0x80).cast_signed());
                if sizes.has_words() {
                    for (from, to) in lanes.as_chunks::<2>().0.iter().zip(&mut cells) {
                        *to = bytemuck::cast(from.map(i16::from));
                    }
                } else {
                    for (from, to) in lanes.as_chunks::<QUAD>().0.iter().zip(&mut cells) {
                        *to = bytemuck::cast(*from);
                    }
                }
            }
            units[i] = unit;
            summands[i] = -SHIFT * isa.reduce_add(sum) * unit;
        }
    }
}

/// Turns sums of products of codes into scores in the unit of the query, and stores them.
pub(super) struct Scores<'a> {
    /// `[64]`, the units of the keys.
    pub(super) units: &'a [f32],
    /// `[64]`, what the shift of the queries takes away.
    pub(super) summands: &'a [f32],
    /// `[rows, 16]`, the greatest scores so far, lane by lane.
    pub(super) most: &'a mut [f32],
    /// Rows of scores.
    pub(super) to: &'a mut [f32],
    /// Distance of two rows.
    pub(super) stride: usize,
}

impl<I: Isa> Sink<I> for Scores<'_> {
    #[inline(always)]
    fn expect<const C: usize>(&mut self, _: I, _: usize, _: usize) {}

    #[inline(always)]
    fn takes(&self) -> bool {
        true
    }

    #[inline(always)]
    fn take<const C: usize>(&mut self, isa: I, (row, vector): (usize, usize), acc: [I::V; C]) {
        let lanes = vector * LANES..(vector + C) * LANES;
        let to = &mut self.to[row * self.stride..][lanes.clone()];
        let units = self.units[lanes.clone()].as_chunks().0;
        let summands = self.summands[lanes].as_chunks().0;
        let place = &mut self.most.as_chunks_mut().0[row];
        let mut most = isa.load(place);
        for (c, to) in to.as_chunks_mut().0.iter_mut().enumerate() {
            let score = isa.fma(acc[c], isa.load(&units[c]), isa.load(&summands[c]));
            most = isa.max(score, most);
            isa.store(score, to);
        }
        isa.store(most, place);
    }
}
