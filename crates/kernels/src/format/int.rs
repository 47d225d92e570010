//! Integer weights in panels.
//!
//! A weight is `scale[n] · multiplier[n, group] · code`: one real unit per output channel, and where
//! groups of 64 input channels are told apart a small whole multiple of it for each. Multipliers are
//! applied while a panel is unpacked to 8 bits, so that every format meets the same products of
//! bytes, or to sums of a group where narrow codes are multiplied as they are; a single scale is left
//! for the finished sum.

use super::{PANEL, PanelFormat, PanelLayout};

/// Input channels that share a multiplier, within one tap.
pub const GROUP: usize = 64;

/// Input elements that lie together in a lane.
pub(crate) const QUAD: usize = 4;

/// Store the codes of `rows`, `taps · channels` for each lane, as panel number `panel`.
///
/// # Panics
///
/// Panics if an operand is smaller than the layout says.
pub fn pack(layout: &PanelLayout, panel: usize, rows: &[&[i8]], out: &mut [u8]) {
    let (width, depth) = (layout.width(panel), layout.taps * layout.channels);
    let (quads, bits) = quads_per_byte(layout.format);
    assert_eq!(rows.len(), width, "a row for each lane");
    out.fill(0);
    // Line by line of the panel, which is written once, while the rows are read side by side.
    for (line, out) in out.chunks_exact_mut(width * QUAD).enumerate() {
        for quad in line * quads..((line + 1) * quads).min(depth / QUAD) {
            let shift = quad % quads * bits;
            for (to, row) in out.as_chunks_mut::<QUAD>().0.iter_mut().zip(rows) {
                let codes = &row[quad * QUAD..][..QUAD];
                for (to, &code) in to.iter_mut().zip(codes) {
                    *to |= stored(layout.format, code) << shift;
                }
            }
        }
    }
}

/// What stands for a code.
#[inline(always)]
fn stored(format: PanelFormat, code: i8) -> u8 {
    match format {
        PanelFormat::Int4 => (code + 8).cast_unsigned(),
        PanelFormat::Int2 => (code + 3).cast_unsigned() / 2,
        _ => code.cast_unsigned(),
    }
}

/// Unpack rows `first..first + count` of `k` of a panel, both multiples of four, to 8 bits,
/// `[count / 4, width, 4]`, multipliers included.
///
/// `multipliers` are those of the panel, `[groups, 64]`.
#[inline(always)]
pub(crate) fn unpack(
    (layout, width): (&PanelLayout, usize),
    (bytes, multipliers): (&[u8], Option<&[i8]>),
    (first, count): (usize, usize),
    to: &mut [i8],
) {
    let (quads, bits) = quads_per_byte(layout.format);
    let (mask, line) = ((1_u8 << bits.min(7)).wrapping_sub(1), width * QUAD);
    let mut factors = [1_i8; PANEL * QUAD];
    let mut known = usize::MAX;
    for (to, quad) in to.chunks_exact_mut(line).zip(first / QUAD..(first + count) / QUAD) {
        let from = &bytes[quad / quads * line..][..line];
        let shift = quad % quads * bits;
        match layout.format {
            PanelFormat::Int2 => spread(from, to, |b| 2 * ((b >> shift) & mask).cast_signed() - 3),
            PanelFormat::Int4 => spread(from, to, |b| ((b >> shift) & mask).cast_signed() - 8),
            _ => spread(from, to, u8::cast_signed),
        }
        if let Some(multipliers) = multipliers {
            let (tap, channel) = (quad * QUAD / layout.channels, quad * QUAD % layout.channels);
            let group = tap * layout.channels.div_ceil(GROUP) + channel / GROUP;
            if group != known {
                known = group;
                let lanes = &multipliers[group * PANEL..][..width];
                for (factors, &m) in factors.as_chunks_mut::<QUAD>().0.iter_mut().zip(lanes) {
                    *factors = [m; QUAD];
                }
            }
            for (to, &factor) in to.iter_mut().zip(&factors) {
                *to = to.wrapping_mul(factor);
            }
        }
    }
}

#[inline(always)]
fn spread(from: &[u8], to: &mut [i8], value: impl Fn(u8) -> i8) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = value(from);
    }
}

/// How many groups of four share a byte, and the bits of each.
#[inline(always)]
fn quads_per_byte(format: PanelFormat) -> (usize, usize) {
    match format {
        PanelFormat::Int4 => (2, 4),
        PanelFormat::Int2 => (4, 2),
        _ => (1, 8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_is_unpacked() {
        for format in [PanelFormat::Int8, PanelFormat::Int4, PanelFormat::Int2] {
            for (n, taps, channels) in [(1, 9, 4), (64, 1, 128), (80, 9, 64), (100, 1, 12)] {
                let layout = PanelLayout { format, n, taps, channels };
                let panel = layout.panels() - 1;
                let (width, depth) = (layout.width(panel), taps * channels);
                let code = |i: usize| match format {
                    PanelFormat::Int8 => (i * 37 % 255) as i8,
                    PanelFormat::Int4 => (i * 7 % 16) as i8 - 8,
                    _ => 2 * (i * 5 % 4) as i8 - 3,
                };
                let codes: Vec<i8> = (0..width * depth).map(code).collect();
                let mut out = vec![0xff; layout.range(panel).len()];
                let rows: Vec<&[i8]> = codes.chunks(depth).collect();
                pack(&layout, panel, &rows, &mut out);
                let multipliers: Vec<i8> =
                    (0..layout.groups() * PANEL).map(|i| (i % 31) as i8 - 15).collect();
                for multipliers in [None, Some(&*multipliers)] {
                    let mut all = vec![0; width * depth];
                    unpack((&layout, width), (&out, multipliers), (0, depth), &mut all);
                    for lane in 0..width {
                        for k in 0..depth {
                            let group =
                                k / channels * channels.div_ceil(GROUP) + k % channels / GROUP;
                            let m = multipliers.map_or(1, |m| m[group * PANEL + lane]);
                            let found = all[(k / QUAD * width + lane) * QUAD + k % QUAD];
                            let expected = codes[lane * depth + k].wrapping_mul(m);
                            assert_eq!(found, expected, "{format:?} {n} lane {lane} k {k}");
                        }
                    }
                }
            }
        }
    }
}
