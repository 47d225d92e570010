//! One chunk of a matrix product: a panel times a block of rows.

use std::ops::Range;

use super::{
    Ahead, Arithmetic, Epilogue, Fma, Geometry, MAX_ROWS, MAX_SEGMENTS, NarrowDot, PairDot,
    QuadDot, Rows, Strip, Sums, WordDot,
    epilogue::Direct,
    multiply,
    plan::{Plan, Way},
    rows::{Block, RowTable},
};
use crate::{
    format::{
        Activations, PANEL, PanelFormat, PanelLayout, Panels,
        int::{self, GROUP, QUAD},
    },
    isa::{Apart, Bf16Dot, Bf16Op, Int8Dot, Int8Op, Int16Only, Int16OnlyOp, Isa, LANES, SimdOp},
    matmul::Gate,
    scratch::Scratch,
    threads::OutputTile,
};

/// The work of one call.
pub(super) struct Chunk<'a, 't> {
    pub(super) input: &'a Activations<'a>,
    pub(super) geometry: &'a Geometry,
    pub(super) weights: Panels<'a>,
    pub(super) epilogue: &'a Epilogue<'a>,
    pub(super) plan: &'a Plan,
    /// A row of zeros.
    pub(super) blank: &'a [u8],
    /// Whether results are written past the caches.
    pub(super) streams: bool,
    pub(super) output: OutputTile<'t>,
    pub(super) workspace: &'t mut [u8],
}

impl SimdOp for Chunk<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        self.compute(isa, Fma);
    }
}

impl Bf16Op for Chunk<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Bf16Dot>(self, isa: I) {
        self.compute(isa, PairDot);
    }
}

impl Int8Op for Chunk<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Int8Dot>(self, isa: I) {
        self.compute(isa, QuadDot);
    }
}

impl Int16OnlyOp for Chunk<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Int16Only>(self, isa: I) {
        self.compute(isa, WordDot);
    }
}

/// A chunk whose weights have at most four bits.
pub(super) struct NarrowChunk<'a, 't>(pub(super) Chunk<'a, 't>);

impl Int16OnlyOp for NarrowChunk<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Int16Only>(self, isa: I) {
        self.0.compute(isa, NarrowDot);
    }
}

impl Chunk<'_, '_> {
    #[inline(always)]
    fn compute<I: Isa, A: Arithmetic<I>>(self, isa: I, arithmetic: A) {
        let Self { input, geometry, weights, epilogue, plan, blank, streams, .. } = self;
        let Self { mut output, workspace, .. } = self;
        let layout = weights.layout;
        let column_block = if epilogue.gate == Gate::None { PANEL } else { PANEL / 2 };
        let panel = Panel::of(&weights, output.cell.columns.start / column_block);
        let Panel { width, bytes, .. } = panel;
        let count = output.cell.rows.len();

        let mut scratch = Scratch::new(workspace);
        let table = scratch.take(plan.table_length());
        let table = RowTable::new(geometry, (output.cell.rows.start, count), table);
        let sums = scratch.take::<f32>(plan.partial_length());
        if layout.depth() == 0 {
            sums.fill(0.0);
            let sums = &sums[..count * width];
            epilogue.finish((isa, arithmetic), &mut output, (0..count, sums, width));
        }
        let widened = scratch.take::<f32>(plan.widened_length());
        let gathered = scratch.take::<f32>(plan.gathered_length());
        let spread = scratch.take::<u32>(plan.multipliers_length());

        let size = 4 / plan.way.per_group();
        let raw = input.bytes();
        let is_whole = output.cell.columns.len() == width;
        let is_direct = is_whole && epilogue.is_linear();
        let blocks = Blocks { layout, plan };
        for (block, is_first, is_last) in blocks.iter() {
            let start = block.taps.start * layout.padded_channels() + block.channels.start;
            let b = panel.factors(isa, (plan, &block), widened);
            if plan.way == Way::Narrow {
                spread_multipliers(&panel, &block, spread);
            }
            let depth = block.taps.len() * block.channels.len();
            let following =
                (layout.row_bytes(start + depth, width), layout.row_bytes(depth, width));
            let (segments, groups) = if plan.is_gathered() {
                let blank = |row| &blank[plan.blank_start(output.cell.rows.start + row)..];
                table.gather(isa, (input, &block), blank, gathered);
                (1, depth / plan.way.per_group())
            } else {
                (block.taps.len(), block.channels.len() * size / 4)
            };
            let gathered = bytemuck::cast_slice::<f32, u8>(gathered);
            let vectors = width / LANES;
            let ahead = Ahead::new(bytes, following, segments * groups / A::GROUPS_PER_LINE);
            let mut found: [Rows<'_>; MAX_SEGMENTS] = [[blank; MAX_ROWS]; MAX_SEGMENTS];
            for (tile, rows) in tiles(count, A::ROWS).enumerate() {
                for (tap, found) in block.taps.clone().zip(&mut found) {
                    for (row, found) in rows.clone().zip(found) {
                        *found = if plan.is_gathered() {
                            &gathered[row * groups * 4..]
                        } else if let Some(start) = table.start(tap, row) {
                            &raw[(start + block.channels.start) * size..]
                        } else {
                            &blank[plan.blank_start(output.cell.rows.start + row)..]
                        };
                    }
                }
                let strip = Strip {
                    count: rows.len(),
                    rows: &found[..segments],
                    groups,
                    b,
                    b_stride: vectors,
                    multipliers: bytemuck::cast_slice(spread),
                    vectors,
                    ahead: ahead.of_tile(tile),
                    accumulate: !is_first,
                };
                let values = &mut sums[rows.start * width..rows.end * width];
                let to = Sums { values, stride: vectors };
                let sink = Direct {
                    epilogue,
                    output: &mut output,
                    first: rows.start,
                    takes: is_direct && is_last,
                    streams,
                };
                multiply((isa, arithmetic), &strip, (to, sink));
                if is_last && !is_direct {
                    // While the tile is near, and while its stores overlap with the next tile.
                    let sums = &sums[rows.start * width..rows.end * width];
                    epilogue.finish((isa, arithmetic), &mut output, (rows, sums, width));
                }
            }
        }
        if streams {
            isa.fence();
        }
    }
}

/// The blocks of `k` in order.
pub(super) struct Blocks<'a> {
    pub(super) layout: PanelLayout,
    pub(super) plan: &'a Plan,
}

impl Blocks<'_> {
    /// Each block, and whether it is the first and the last.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Block, bool, bool)> {
        let PanelLayout { taps, channels, .. } = self.layout;
        let Plan { tap_block, channel_block, .. } = *self.plan;
        (0..taps).step_by(tap_block).flat_map(move |tap| {
            (0..channels).step_by(channel_block).map(move |channel| {
                let block = Block {
                    taps: tap..taps.min(tap + tap_block),
                    channels: channel..channels.min(channel + channel_block),
                };
                let is_last = block.taps.end == taps && block.channels.end == channels;
                (block, (tap, channel) == (0, 0), is_last)
            })
        })
    }
}

/// Cut `count` rows into tiles of `most` rows, and what is left into the sizes that are compiled beside it: powers of two.
pub(crate) fn tiles(count: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let mut next = 0;
    std::iter::from_fn(move || {
        let left = count - next;
        let rows = if left >= most { most } else { 1 << left.checked_ilog2()? };
        let start = next;
        next += rows;
        Some(start..next)
    })
}

/// A panel as it is stored.
pub(super) struct Panel<'a> {
    layout: &'a PanelLayout,
    pub(super) width: usize,
    pub(super) bytes: &'a [u8],
    multipliers: Option<&'a [i8]>,
}

impl<'a> Panel<'a> {
    /// Panel number `number` of some weights.
    #[inline(always)]
    pub(super) fn of(weights: &'a Panels<'_>, number: usize) -> Self {
        let layout = &weights.layout;
        let multipliers = weights.multipliers.map(|all| {
            let length = layout.groups() * PANEL;
            &all[number * length..][..length]
        });
        let bytes = &weights.bytes[layout.range(number)];
        Self { layout, width: layout.width(number), bytes, multipliers }
    }

    /// A block in the form that is multiplied: as it is stored, or brought into it in `widened`.
    #[inline(always)]
    pub(super) fn factors<'w, I: Isa>(
        &'w self,
        isa: I,
        (plan, block): (&Plan, &Block),
        widened: &'w mut [f32],
    ) -> &'w [f32] {
        if plan.widens_panels() {
            isa.apart(Widen { way: plan.way, panel: self, block, to: &mut *widened });
            return widened;
        }
        let first = block.taps.start * self.layout.padded_channels() + block.channels.start;
        bytemuck::cast_slice(&self.bytes[self.layout.row_bytes(first, self.width)..])
    }
}

impl Panel<'_> {
    /// Bring some channels of all taps into `f32`, `[taps, channels, width]`.
    #[inline(always)]
    pub(super) fn widen<I: Isa>(&self, isa: I, channels: Range<usize>, to: &mut [f32]) {
        let length = channels.len() * self.width;
        for (tap, to) in to.chunks_exact_mut(length).take(self.layout.taps).enumerate() {
            let block = &Block { taps: tap..tap + 1, channels: channels.clone() };
            isa.apart(Widen { way: Way::F32, panel: self, block, to });
        }
    }
}

impl Panel<'_> {
    /// Some channels of a tap as bytes, `[channels / 4, width, 4]`: as they are stored, or brought into that form in `to`.
    #[inline(always)]
    pub(super) fn unpack<'w>(
        &'w self,
        (tap, channels): (usize, Range<usize>),
        to: &'w mut [i8],
    ) -> &'w [i8] {
        let Self { layout, width, bytes, multipliers } = *self;
        let first = tap * layout.channels + channels.start;
        if layout.format == PanelFormat::Int8 && multipliers.is_none() {
            return bytemuck::cast_slice(&bytes[first * width..][..to.len()]);
        }
        int::unpack((layout, width), (bytes, multipliers), (first, channels.len()), to);
        to
    }
}

/// Brings a block of a panel into the form that is multiplied, leaving out padding.
struct Widen<'w> {
    way: Way,
    panel: &'w Panel<'w>,
    block: &'w Block,
    to: &'w mut [f32],
}

impl<I: Isa> Apart<I> for Widen<'_> {
    type Output = ();

    #[inline(always)]
    fn eval(self, isa: I) {
        let Self { way, panel, block, to } = self;
        if panel.layout.format.is_int() {
            widen_integers(isa, (way, panel), block, to);
        } else {
            widen_reals(isa, (way, panel), block, to);
        }
    }
}

/// The multipliers of the groups of a block, twice in each lane; ones where a panel has none.
#[inline(always)]
fn spread_multipliers(panel: &Panel<'_>, block: &Block, to: &mut [u32]) {
    let groups = block.channels.len().div_ceil(GROUP);
    let all = panel.layout.channels.div_ceil(GROUP);
    for (tap, to) in block.taps.clone().zip(to.chunks_mut(groups * panel.width)) {
        let first = tap * all + block.channels.start / GROUP;
        for (to, group) in to.chunks_exact_mut(panel.width).zip(first..) {
            match panel.multipliers {
                None => to.fill(0x0001_0001),
                Some(multipliers) => {
                    for (to, &m) in to.iter_mut().zip(&multipliers[group * PANEL..]) {
                        *to = u32::from(i16::from(m).cast_unsigned()) * 0x0001_0001;
                    }
                }
            }
        }
    }
}

/// Bytes to 16 bits, `[k / 2, width, 2]`.
#[inline(always)]
fn widen_bytes<I: Isa>(isa: I, panel: &Panel<'_>, (first, count): (usize, usize), to: &mut [f32]) {
    let line = panel.width * QUAD;
    let from = bytemuck::cast_slice::<u8, i8>(panel.bytes).chunks_exact(line).skip(first / QUAD);
    for (to, from) in to.chunks_exact_mut(line / 2).zip(from).take(count / QUAD) {
        isa.widen_quads(from, to);
    }
}

/// Integers to bytes `[k / 4, width, 4]`, pairs of bf16 or of 16 bits `[k / 2, width, 2]` or `f32` `[k, width]`.
#[inline(always)]
fn widen_integers<I: Isa>(isa: I, (way, panel): (Way, &Panel<'_>), block: &Block, to: &mut [f32]) {
    let Panel { layout, width, bytes, multipliers } = *panel;
    let first = block.taps.start * layout.channels + block.channels.start;
    let count = block.taps.len() * block.channels.len();
    if way == Way::Int16 {
        return widen_bytes(isa, panel, (first, count), to);
    }
    // Where sums have pieces, multipliers come after them.
    let stored = (bytes, multipliers.filter(|_| way != Way::Narrow));
    if matches!(way, Way::Int8 | Way::Narrow | Way::ByteTiles) {
        let to = &mut bytemuck::cast_slice_mut(to)[..count * width];
        int::unpack((layout, width), stored, (first, count), to);
        return;
    }
    // A group at a time, whose multipliers are then spread over the lanes once.
    let mut codes = [0; PANEL * GROUP];
    // In both forms four elements of `k` take as many lines of the destination as they have bytes.
    let line = width * QUAD / way.per_group();
    let pieces = to[..count / QUAD * line].chunks_mut(GROUP / QUAD * line);
    for (to, first) in pieces.zip((first..).step_by(GROUP)) {
        let codes = &mut codes[..to.len() / line * width * QUAD];
        int::unpack((layout, width), stored, (first, to.len() / line * QUAD), codes);
        for (to, quads) in to.chunks_exact_mut(line).zip(codes.chunks_exact(width * QUAD)) {
            let quads = quads.as_chunks::<QUAD>().0;
            if matches!(way, Way::Bf16Dot | Way::PairTiles) {
                // Lanes of 32 bits throughout, which compilers turn into vectors.
                let (low, high) = bytemuck::cast_slice_mut::<f32, u32>(to).split_at_mut(width);
                for ((low, high), quad) in low.iter_mut().zip(high).zip(quads) {
                    let quad = i32::from_le_bytes(quad.map(i8::cast_unsigned));
                    // Small integers are exact in bf16.
                    let bits = |place: i32| ((quad << (24 - 8 * place) >> 24) as f32).to_bits();
                    *low = bits(0) >> 16 | bits(1) & 0xffff_0000;
                    *high = bits(2) >> 16 | bits(3) & 0xffff_0000;
                }
            } else {
                for (place, to) in to.chunks_exact_mut(width).enumerate() {
                    for (to, quad) in to.iter_mut().zip(quads) {
                        *to = f32::from(quad[place]);
                    }
                }
            }
        }
    }
}

/// Real numbers to `f32` `[k, width]`, or those of half precision to pairs of bf16 `[k / 2, width, 2]`.
#[inline(always)]
fn widen_reals<I: Isa>(isa: I, (way, panel): (Way, &Panel<'_>), block: &Block, to: &mut [f32]) {
    let Panel { layout, width, bytes, .. } = *panel;
    let channels = block.channels.len();
    let length = channels * width / way.per_group();
    for (tap, to) in block.taps.clone().zip(to.chunks_exact_mut(length)) {
        let first = tap * layout.padded_channels() + block.channels.start;
        if layout.format == PanelFormat::F32 {
            let from = &bytemuck::cast_slice::<u8, f32>(bytes)[first * width..];
            to.copy_from_slice(&from[..to.len()]);
            continue;
        }
        let from = &bytemuck::cast_slice::<u8, u16>(bytes)[first * width..];
        if layout.format == PanelFormat::Bf16 {
            // Blocks start at even channels, so pairs are whole.
            for (to, pairs) in to.chunks_mut(2 * width).zip(from.chunks_exact(2 * width)) {
                let (even, odd) = to.split_at_mut(width);
                for (even, pair) in even.iter_mut().zip(pairs.as_chunks::<2>().0) {
                    *even = f32::from_bits(u32::from(pair[0]) << 16);
                }
                for (odd, pair) in odd.iter_mut().zip(pairs.as_chunks::<2>().0) {
                    *odd = f32::from_bits(u32::from(pair[1]) << 16);
                }
            }
        } else if way.per_group() == 2 {
            for (to, from) in to.chunks_exact_mut(width).zip(from.chunks_exact(2 * width)) {
                pair_halves(isa, from.split_at(width), to);
            }
        } else {
            for (to, from) in to.as_chunks_mut().0.iter_mut().zip(from.as_chunks().0) {
                isa.store(isa.widen_f16(from), to);
            }
        }
    }
}

/// Two rows of half precision to pairs of bf16.
#[inline(always)]
fn pair_halves<I: Isa>(isa: I, (even, odd): (&[u16], &[u16]), to: &mut [f32]) {
    let rows = even.as_chunks().0.iter().zip(odd.as_chunks().0);
    for (to, (even, odd)) in to.as_chunks_mut::<LANES>().0.iter_mut().zip(rows) {
        let [mut low, mut high] = [[0; LANES]; 2];
        isa.narrow_bf16(isa.widen_f16(even), &mut low);
        isa.narrow_bf16(isa.widen_f16(odd), &mut high);
        for (to, (low, high)) in to.iter_mut().zip(low.into_iter().zip(high)) {
            *to = f32::from_bits(u32::from(low) | u32::from(high) << 16);
        }
    }
}
