//! Which input row each output row reads at each tap.

use std::ops::Range;

use super::{Conv2d, Geometry};
use crate::{
    format::Activations,
    isa::{Isa, LANES},
    resample::nearest,
};

/// A table entry for taps outside the image.
const OUTSIDE: u32 = u32::MAX;

/// The input rows that a block of output rows reads.
#[derive(Clone, Copy)]
pub(super) struct RowTable<'a> {
    /// `[taps, count]` pixel numbers of a convolution; otherwise rows are read in order.
    table: Option<&'a [u32]>,
    first: usize,
    count: usize,
    /// Distance of two input rows in elements.
    stride: usize,
}

impl<'a> RowTable<'a> {
    /// The rows that `count` output rows from `first` on read; `table` has room for all taps.
    pub(super) fn new(
        geometry: &Geometry,
        (first, count): (usize, usize),
        table: &'a mut [u32],
    ) -> Self {
        match *geometry {
            Geometry::Rows { stride, .. } => Self { table: None, first, count, stride },
            Geometry::Conv(conv) => {
                fill(&conv, (first, count), table);
                Self { table: Some(table), first, count, stride: conv.channels }
            }
        }
    }

    /// The element at which the row starts that output row `row` of the block reads at `tap`;
    /// `None` outside the image.
    #[inline(always)]
    pub(super) fn start(&self, tap: usize, row: usize) -> Option<usize> {
        let Some(table) = self.table else { return Some((self.first + row) * self.stride) };
        let pixel = table[tap * self.count + row];
        (pixel != OUTSIDE).then_some(pixel as usize * self.stride)
    }

    /// The element at which the first of `rows` reads at `tap` and the distance to the next one's, if all are inside
    /// the image and equally far apart.
    #[inline(always)]
    pub(super) fn evenly(&self, tap: usize, rows: Range<usize>) -> Option<(usize, usize)> {
        let start = self.start(tap, rows.start)?;
        let Some(table) = self.table else { return Some((start, self.stride)) };
        let pixels = &table[tap * self.count..][rows];
        let step = pixels.get(1).map_or(0, |second| second.wrapping_sub(pixels[0]));
        let is_even = pixels.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) == step);
        // Steps backwards, and those to what is outside, are no steps that a tile can take.
        let is_inside = pixels.iter().all(|&pixel| pixel != OUTSIDE && pixel >= pixels[0]);
        (is_even && is_inside).then_some((start, step as usize * self.stride))
    }

    /// Widen what the block reads at `taps` and `channels` into `[count, taps · channels]`, codes to pairs of 16 bits;
    /// `blank(row)` is what a row reads outside its image.
    #[inline(always)]
    pub(super) fn gather<'b, I: Isa>(
        &self,
        isa: I,
        (input, block): (&Activations<'_>, &Block),
        blank: impl Fn(usize) -> &'b [u8],
        to: &mut [f32],
    ) {
        let per_group = if matches!(input, Activations::U8(_)) { 2 } else { 1 };
        let channels = block.channels.len() / per_group;
        let depth = block.taps.len() * channels;
        for (row, to) in to.chunks_exact_mut(depth).take(self.count).enumerate() {
            for (tap, to) in block.taps.clone().zip(to.chunks_exact_mut(channels)) {
                match (self.start(tap, row), input) {
                    (None, Activations::U8(_)) => widen_codes(blank(row), to),
                    (None, _) => to.fill(0.0),
                    (Some(start), Activations::U8(from)) => {
                        widen_codes(&from[start + block.channels.start..], to);
                    }
                    (Some(start), Activations::F32(from)) => {
                        to.copy_from_slice(&from[start + block.channels.start..][..channels]);
                    }
                    (Some(start), Activations::Bf16(from)) => {
                        let from = &from[start + block.channels.start..][..channels];
                        for (to, from) in to.chunks_mut(LANES).zip(from.chunks(LANES)) {
                            isa.write(isa.read_bf16(from), to);
                        }
                    }
                }
            }
        }
    }
}

/// Bytes become numbers of 16 bits.
#[inline(always)]
fn widen_codes(from: &[u8], to: &mut [f32]) {
    let to = bytemuck::cast_slice_mut::<f32, u16>(to);
    for (to, &from) in to.iter_mut().zip(from) {
        *to = from.into();
    }
}

/// A block of `k`: several taps with all channels, or channels of one tap.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) taps: Range<usize>,
    pub(super) channels: Range<usize>,
}

/// Fill `table[tap · count + row]` with pixel numbers.
///
/// Done for stretches of pixels of one image row: what depends on the row is found once for each,
/// and what is left for a pixel is an addition and a comparison.
fn fill(conv: &Conv2d, (first, count): (usize, usize), table: &mut [u32]) {
    let [seen_height, seen_width] = conv.seen();
    let mut row = 0;
    while row < count {
        let (line, x) = ((first + row) / conv.out_width, (first + row) % conv.out_width);
        let (batch, y) = (line / conv.out_height, line % conv.out_height);
        let length = (conv.out_width - x).min(count - row);
        for i in 0..conv.kernel[0] {
            let source_y = source(y * conv.stride[0] + i, conv.pad_top, (seen_height, conv.height));
            for j in 0..conv.kernel[1] {
                let start = (i * conv.kernel[1] + j) * count + row;
                let to = &mut table[start..start + length];
                match source_y {
                    None => to.fill(OUTSIDE),
                    Some(y) => {
                        let line = (batch * conv.height + y) * conv.width;
                        fill_stretch(to, conv, (x, j), (line, seen_width));
                    }
                }
            }
        }
        row += length;
    }
}

/// The pixels that outputs from column `x` on read at column `j` of the kernel, in the image row
/// that starts at pixel `line`.
fn fill_stretch(
    to: &mut [u32],
    conv: &Conv2d,
    (x, j): (usize, usize),
    (line, seen): (usize, usize),
) {
    if seen == conv.width {
        let (line, width, step) = (line as u32, conv.width as u32, conv.stride[1] as u32);
        // Left of the image the position wraps to a number beyond its width.
        let mut position = ((x * conv.stride[1] + j) as u32).wrapping_sub(conv.pad_left as u32);
        for to in to {
            *to = if position < width { line + position } else { OUTSIDE };
            position = position.wrapping_add(step);
        }
    } else {
        for (n, to) in to.iter_mut().enumerate() {
            let position = (x + n) * conv.stride[1] + j;
            *to = source(position, conv.pad_left, (seen, conv.width))
                .map_or(OUTSIDE, |x| (line + x) as u32);
        }
    }
}

/// The stored position of a padded position, where `seen` positions show `stored` ones.
pub(super) fn source(padded: usize, pad: usize, (seen, stored): (usize, usize)) -> Option<usize> {
    let position = padded.checked_sub(pad).filter(|&position| position < seen)?;
    Some(if seen == stored { position } else { nearest(position, seen, stored) })
}
