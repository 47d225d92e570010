//! One block of queries of one head against all keys.

use std::ops::Range;

use super::{
    Heads, Mask,
    codes::{Scores, encode_query},
    packing::{Packed, Sizes, widen},
    softmax::{Brain, PAIRED, Real, State, Weights, Words},
    tiled::ByTiles,
    values::Channels,
};
use crate::{
    format::{Activations, PANEL},
    isa::{
        Bf16Dot, Bf16Op, Int8Dot, Int8Op, Int16Only, Int16OnlyOp, Isa, LANES, SimdOp,
        tiles::{TileOp, Tiles},
    },
    matmul::{
        Ahead, Arithmetic, Fma, Keep, MAX_ROWS, PairDot, QuadDot, Rows, Strip, Sums, WordDot,
        multiply, tiles,
    },
    scratch::Scratch,
    threads::OutputTile,
};

/// The work of one call.
pub(super) struct QueryBlock<'a, 't> {
    pub(super) sizes: &'a Sizes,
    pub(super) q: Heads<'a>,
    pub(super) packed: &'a Packed<'a>,
    pub(super) scale: f32,
    pub(super) mask: Mask,
    pub(super) output: OutputTile<'t>,
    pub(super) workspace: &'t mut [u8],
}

/// How the products of an attention are computed.
pub(super) trait Products<I: Isa>: Copy {
    /// How weights are kept.
    type Weights: Weights<I>;

    /// Products of queries and a block of keys.
    fn score(
        self,
        isa: I,
        work: &mut Work<'_>,
        keys: (&Range<usize>, usize, &[u8]),
        queries: Queries<'_>,
    );

    /// Add the values of a block of keys, times their weights.
    fn add_values(self, isa: I, work: &mut Work<'_>, values: (&Range<usize>, usize, &[u8]));

    /// There are no more products for a while.
    #[inline(always)]
    fn end(self) {}
}

/// Products by register tiles, of scores and of values.
#[derive(Clone, Copy)]
struct ByRows<S, V>(S, V);

impl<I: Isa, S: Arithmetic<I>, V: Values<I>> Products<I> for ByRows<S, V> {
    type Weights = V::Weights;

    #[inline(always)]
    fn score(
        self,
        isa: I,
        work: &mut Work<'_>,
        keys: (&Range<usize>, usize, &[u8]),
        queries: Queries<'_>,
    ) {
        work.score((isa, self.0), keys, queries);
    }

    #[inline(always)]
    fn add_values(self, isa: I, work: &mut Work<'_>, values: (&Range<usize>, usize, &[u8])) {
        self.1.add(isa, work, values);
    }
}

/// How values are multiplied.
pub(super) trait Values<I: Isa>: Copy {
    /// How their weights are kept.
    type Weights: Weights<I>;

    /// Add the values of a block of keys, times their weights.
    fn add(self, isa: I, work: &mut Work<'_>, values: (&Range<usize>, usize, &[u8]));
}

impl<I: Isa> Values<I> for Fma {
    type Weights = Real;

    #[inline(always)]
    fn add(self, isa: I, work: &mut Work<'_>, values: (&Range<usize>, usize, &[u8])) {
        work.add_values((isa, self), values);
    }
}

impl<I: Bf16Dot> Values<I> for PairDot {
    type Weights = Brain;

    #[inline(always)]
    fn add(self, isa: I, work: &mut Work<'_>, values: (&Range<usize>, usize, &[u8])) {
        work.add_values((isa, self), values);
    }
}

impl<I: Int8Dot> Values<I> for WordDot {
    type Weights = Words;

    #[inline(always)]
    fn add(self, isa: I, work: &mut Work<'_>, values: (&Range<usize>, usize, &[u8])) {
        work.add_words(isa, values);
    }
}

/// The rows of a block of queries, as they are multiplied.
#[derive(Clone, Copy)]
pub(super) struct Queries<'a> {
    /// From the first row on.
    pub(super) bytes: &'a [u8],
    /// Distance of two rows in bytes.
    pub(super) stride: usize,
}

impl SimdOp for QueryBlock<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        self.compute(isa, ByRows(Fma, Fma));
    }
}

impl TileOp for QueryBlock<'_, '_> {
    #[inline(always)]
    fn eval<I: Int8Dot, T: Tiles>(self, isa: I, tiles: T) {
        self.compute(isa, ByTiles(tiles));
    }
}

impl Int8Op for QueryBlock<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Int8Dot>(self, isa: I) {
        self.compute(isa, ByRows(QuadDot, WordDot));
    }
}

impl Int16OnlyOp for QueryBlock<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Int16Only>(self, isa: I) {
        self.compute(isa, ByRows(WordDot, WordDot));
    }
}

impl Bf16Op for QueryBlock<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Bf16Dot>(self, isa: I) {
        if self.sizes.has_codes() {
            self.compute(isa, ByRows(QuadDot, PairDot));
        } else {
            self.compute(isa, ByRows(PairDot, PairDot));
        }
    }
}

impl QueryBlock<'_, '_> {
    #[inline(always)]
    fn compute<I: Isa, P: Products<I>>(self, isa: I, products: P) {
        let Self { sizes, q, packed, scale, mask, mut output, workspace } = self;
        let dim = sizes.shape.head_dim;
        let count = output.cell.rows.len();
        let head = output.cell.columns.start / dim.max(1);
        let first = output.cell.group * sizes.shape.tokens_q + output.cell.rows.start;
        let mut scratch = Scratch::new(workspace);
        let queries = scratch.take::<f32>(sizes.queries_length());
        if let Activations::Bf16(bits) = q.values
            && sizes.gathers_queries()
        {
            for (row, to) in queries.chunks_exact_mut(dim.max(1)).take(count).enumerate() {
                let start = sizes.start(&q, first + row, head);
                widen(isa, &bits[start..start + dim], to);
            }
        }
        let queries = &*queries;
        // Exponentials are taken to base two, which costs less.
        let scale = scale * std::f32::consts::LOG2_E;
        let codes = scratch.take::<u8>(sizes.codes_length());
        let units = scratch.take::<f32>(sizes.query_block());
        units.fill(scale);
        if sizes.has_codes() {
            let rows = codes.chunks_exact_mut(4 * sizes.groups()).zip(&mut *units);
            for (row, (to, unit)) in rows.take(count).enumerate() {
                let start = sizes.start(&q, first + row, head);
                *unit = scale * encode_query(isa, (q.values, start, dim), (to, sizes.code_size()));
            }
        }
        let (codes, units) = (&*codes, &*units);
        let raw = q.values.bytes();
        let queries = if sizes.has_codes() {
            Queries { bytes: codes, stride: 4 * sizes.groups() }
        } else if sizes.gathers_queries() {
            Queries { bytes: bytemuck::cast_slice(queries), stride: 4 * dim }
        } else {
            let start = sizes.start(&q, first, head) * sizes.size();
            Queries { bytes: raw.get(start..).unwrap_or_default(), stride: q.stride * sizes.size() }
        };
        let mut work = Work::new(sizes, count, scratch);
        let panels = (output.cell.group * sizes.shape.heads + head) * sizes.panels();
        let mut keys = 0..0;
        while keys.end < sizes.shape.tokens_k {
            keys = keys.end..sizes.shape.tokens_k.min(keys.end + sizes.key_block());
            if mask == Mask::Causal && keys.start >= output.cell.rows.end {
                break;
            }
            products.score(isa, &mut work, (&keys, panels, packed.keys), queries);
            work.weigh::<I, P::Weights>(isa, units, keys.len(), |row| {
                seen(mask, output.cell.rows.start + row, &keys)
            });
            products.add_values(isa, &mut work, (&keys, panels, packed.values));
        }
        products.end();
        let channels = sizes
            .has_value_words()
            .then(|| Channels::of(packed.channels, panels / sizes.panels(), sizes));
        work.finish(isa, channels, &mut output);
    }
}

/// What a block of queries needs while it meets the keys.
pub(super) struct Work<'a> {
    pub(super) sizes: &'a Sizes,
    /// Number of queries.
    pub(super) count: usize,
    /// `[queries, keys of a block]`: scores, then weights.
    pub(super) scores: &'a mut [f32],
    /// `[queries, 16]`, the greatest scores of a block of keys, lane by lane, where codes are multiplied.
    pub(super) most: &'a mut [f32],
    /// The weights, where they have 16 bits.
    pub(super) weights: &'a mut [u16],
    /// `[queries, padded head]`: values times weights.
    pub(super) sums: &'a mut [f32],
    states: &'a mut [State],
}

impl<'a> Work<'a> {
    #[inline(always)]
    fn new(sizes: &'a Sizes, count: usize, mut scratch: Scratch<'a>) -> Self {
        let scores = scratch.take(sizes.scores_length());
        let most = scratch.take(sizes.most_length());
        let weights = scratch.take(sizes.weights_length());
        let sums = scratch.take::<f32>(sizes.sums_length());
        let states = scratch.take::<State>(sizes.query_block());
        sums.fill(0.0);
        states.fill(State::START);
        Self { sizes, count, scores, most, weights, sums, states }
    }

    /// Products of queries and a block of keys.
    #[inline(always)]
    fn score<I: Isa, A: Arithmetic<I>>(
        &mut self,
        tools: (I, A),
        (keys, panels, packed): (&Range<usize>, usize, &[u8]),
        queries: Queries<'_>,
    ) {
        let (sizes, stride) = (self.sizes, self.sizes.key_block());
        self.most.fill(f32::NEG_INFINITY);
        for panel in keys.start / PANEL..keys.end.div_ceil(PANEL) {
            let vectors = sizes.width(panel) / LANES;
            let bytes = sizes.key_panel_bytes();
            let b = bytemuck::cast_slice::<u8, f32>(&packed[(panels + panel) * bytes..][..bytes]);
            let behind = if sizes.has_codes() { 2 * PANEL } else { 0 };
            let (units, summands) = b[b.len() - behind..].split_at(behind / 2);
            for rows in tiles(self.count, A::ROWS) {
                let mut found: [Rows<'_>; 1] = [[&[]; MAX_ROWS]];
                for (row, found) in rows.clone().zip(found.as_flattened_mut()) {
                    *found = &queries.bytes[row * queries.stride..];
                }
                let strip = Strip {
                    count: rows.len(),
                    rows: &found,
                    groups: sizes.groups(),
                    b,
                    b_stride: vectors,
                    multipliers: &[],
                    vectors,
                    ahead: Ahead::nothing(b),
                    accumulate: false,
                };
                let start = rows.start * stride + panel * PANEL - keys.start;
                let values = &mut self.scores[start..];
                if sizes.has_codes() {
                    let sums = Sums { values: &mut [], stride: vectors };
                    let most = &mut self.most[rows.start * LANES..];
                    let scores = Scores { units, summands, most, to: values, stride };
                    multiply(tools, &strip, (sums, scores));
                } else {
                    let sums = Sums { values, stride: stride / LANES };
                    multiply(tools, &strip, (sums, Keep));
                }
            }
        }
    }

    /// Turn the scores of `keys` keys, in the units of their queries, into weights; `seen(row)` of them count for a
    /// query.
    #[inline(always)]
    fn weigh<I: Isa, W: Weights<I>>(
        &mut self,
        isa: I,
        units: &[f32],
        keys: usize,
        seen: impl Fn(usize) -> usize,
    ) {
        let (stride, padded) = (self.sizes.key_block(), self.sizes.padded_dim());
        let states = &mut self.states[..self.count];
        // All queries first, because finding the greatest is a chain that others can overlap.
        for (row, state) in states.iter_mut().enumerate() {
            // Products of codes have found it already, for all keys of the block.
            let found = self.most.as_chunks().0.get(row).filter(|_| seen(row) == keys);
            let most = match found {
                Some(most) => isa.reduce_max(isa.load(most)),
                None => greatest(isa, &self.scores[row * stride..][..seen(row)]),
            };
            // The unit is positive, so the greatest score is also the greatest of the scaled.
            state.before = state.greatest;
            state.greatest = state.greatest.max(units[row] * most);
        }
        for (row, state) in states.iter_mut().enumerate() {
            let scores = &mut self.scores[row * stride..][..keys.next_multiple_of(PAIRED)];
            let weights = self.weights.get_mut(row * stride..(row + 1) * stride);
            let weights = weights.unwrap_or_default();
            let factor = state.weigh::<I, W>(isa, units[row], (scores, seen(row)), weights);
            if factor != 1.0 {
                for sum in self.sums[row * padded..][..padded].as_chunks_mut().0 {
                    isa.store(isa.mul(isa.load(sum), isa.splat(factor)), sum);
                }
            }
        }
    }

    /// Add the values of a block of keys, times their weights.
    #[inline(always)]
    fn add_values<I: Isa, A: Arithmetic<I>>(
        &mut self,
        tools: (I, A),
        (keys, panels, packed): (&Range<usize>, usize, &[u8]),
    ) {
        let (sizes, stride) = (self.sizes, self.sizes.key_block());
        let vectors = sizes.padded_dim() / LANES;
        let start = (panels + keys.start / PANEL) * sizes.value_panel_bytes();
        let b = bytemuck::cast_slice(&packed[start..]);
        let weights = if sizes.is_bf16_dot() {
            bytemuck::cast_slice::<u16, u8>(self.weights)
        } else {
            bytemuck::cast_slice(self.scores)
        };
        for rows in tiles(self.count, A::ROWS) {
            let mut found: [Rows<'_>; 1] = [[&[]; MAX_ROWS]];
            for (row, found) in rows.clone().zip(found.as_flattened_mut()) {
                *found = &weights[row * stride * sizes.size()..];
            }
            let strip = Strip {
                count: rows.len(),
                rows: &found,
                groups: keys.len().div_ceil(4 / sizes.size()),
                b,
                b_stride: vectors,
                multipliers: &[],
                vectors,
                ahead: Ahead::nothing(b),
                accumulate: true,
            };
            let values = &mut self.sums[rows.start * sizes.padded_dim()..];
            multiply(tools, &strip, (Sums { values, stride: vectors }, Keep));
        }
    }

    /// Divide by the sums of weights and write; `channels` say what whole numbers stand for.
    #[inline(always)]
    fn finish<I: Isa>(&self, isa: I, channels: Option<Channels<'_>>, output: &mut OutputTile<'_>) {
        let padded = self.sizes.padded_dim();
        for (row, state) in self.states[..self.count].iter().enumerate() {
            let total = isa.splat(isa.reduce_add(isa.load(&state.totals)));
            for column in (0..self.sizes.shape.head_dim).step_by(LANES) {
                let mut y = isa.div(isa.read(&self.sums[row * padded + column..]), total);
                if let Some(Channels { means, units }) = channels {
                    y = isa.fma(y, isa.read(&units[column..]), isa.read(&means[column..]));
                }
                output.write(isa, (row, column), y);
            }
        }
    }
}

/// The greatest of some scores.
#[inline(always)]
fn greatest<I: Isa>(isa: I, scores: &[f32]) -> f32 {
    let lowest = isa.splat(f32::NEG_INFINITY);
    let (whole, rest) = scores.as_chunks::<LANES>();
    let (pairs, odd) = whole.as_chunks::<2>();
    let mut most = [lowest; 2];
    for [even, odd] in pairs {
        most[0] = isa.max(isa.load(even), most[0]);
        most[1] = isa.max(isa.load(odd), most[1]);
    }
    for scores in odd {
        most[0] = isa.max(isa.load(scores), most[0]);
    }
    let mut last = [f32::NEG_INFINITY; LANES];
    last[..rest.len()].copy_from_slice(rest);
    if !rest.is_empty() {
        most[1] = isa.max(isa.load(&last), most[1]);
    }
    isa.reduce_max(isa.max(most[0], most[1]))
}

/// How many of `keys` the query at `position` sees.
fn seen(mask: Mask, position: usize, keys: &Range<usize>) -> usize {
    match mask {
        Mask::None => keys.len(),
        Mask::Causal => (position + 1).saturating_sub(keys.start).min(keys.len()),
    }
}
