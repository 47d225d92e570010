//! Which input row each output row reads at each tap.

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

    /// Widen what the block reads at `taps` and `channels` into `[count, taps · channels]`.
    #[inline(always)]
    pub(super) fn gather<I: Isa>(
        &self,
        isa: I,
        (input, block): (&Activations<'_>, &Block),
        to: &mut [f32],
    ) {
        let channels = block.channels.len();
        let depth = block.taps.len() * channels;
        for (row, to) in to.chunks_exact_mut(depth).take(self.count).enumerate() {
            for (tap, to) in block.taps.clone().zip(to.chunks_exact_mut(channels)) {
                match (self.start(tap, row), input) {
                    (None, _) => to.fill(0.0),
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

/// A block of `k`: several taps with all channels, or channels of one tap.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) taps: std::ops::Range<usize>,
    pub(super) channels: std::ops::Range<usize>,
}

/// Fill `table[tap · count + row]` with pixel numbers.
fn fill(conv: &Conv2d, (first, count): (usize, usize), table: &mut [u32]) {
    let [seen_height, seen_width] = conv.seen();
    let image = conv.out_height * conv.out_width;
    for row in 0..count {
        let (batch, pixel) = ((first + row) / image, (first + row) % image);
        let y = pixel / conv.out_width * conv.stride[0];
        let x = pixel % conv.out_width * conv.stride[1];
        for i in 0..conv.kernel[0] {
            let source_y = source(y + i, conv.pad_top, (seen_height, conv.height));
            for j in 0..conv.kernel[1] {
                let source_x = source(x + j, conv.pad_left, (seen_width, conv.width));
                let found = source_y
                    .zip(source_x)
                    .map_or(OUTSIDE, |(y, x)| ((batch * conv.height + y) * conv.width + x) as u32);
                table[(i * conv.kernel[1] + j) * count + row] = found;
            }
        }
    }
}

/// The stored position of a padded position, where `seen` positions show `stored` ones.
fn source(padded: usize, pad: usize, (seen, stored): (usize, usize)) -> Option<usize> {
    let position = padded.checked_sub(pad).filter(|&position| position < seen)?;
    Some(if seen == stored { position } else { nearest(position, seen, stored) })
}
