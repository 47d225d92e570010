//! Packing weights from the order of a checkpoint into panels.
//!
//! A checkpoint stores `[n, channels, taps]`; a panel wants `[taps, channels, n]`. For each panel
//! the rows of its output channels are read side by side in short stretches, converted to the
//! number format of the panel into a tile that stays in cache, and written out transposed.

use half::f16;

use super::{PANEL, PanelFormat, PanelLayout};
use crate::{
    Cpu,
    isa::{Isa, SimdOp},
};

/// Weights as a checkpoint stores them: `[n, channels, taps]`.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// Raw bits of IEEE half precision.
    F16(&'a [u16]),
    /// Raw bits of bf16.
    Bf16(&'a [u16]),
}

impl Source<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(bits) | Self::Bf16(bits) => bits.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Which row of the source becomes which lane of the panels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Lane `i` is row `i`.
    Natural,
    /// For a gated layer whose first half of rows is hidden and whose second half is the gate:
    /// sixteen hidden lanes, their sixteen gates, the next sixteen hidden lanes, and so on.
    Interleaved16,
}

/// A weight that is not a number or infinite, in the source or after conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("weights contain a value that is not finite; use an undamaged checkpoint")]
pub struct NonFinite;

/// Pack `source` into `out`, which must have [`PanelLayout::bytes`] bytes.
///
/// Values that do not fit the panel's format (65520 and more in [`PanelFormat::F16`], and what
/// bf16 would round to infinity) count as not finite.
///
/// # Errors
///
/// [`NonFinite`], after which `out` holds nothing useful.
///
/// # Panics
///
/// Panics if `source` or `out` does not have the size that `layout` and `rows` say.
pub fn pack(
    cpu: &Cpu,
    (source, rows): (Source<'_>, Rows),
    layout: PanelLayout,
    out: &mut [u8],
) -> Result<(), NonFinite> {
    let row_length = layout.taps * layout.channels;
    let n = source.len().checked_div(row_length).unwrap_or(0);
    let expected = match rows {
        Rows::Natural => layout.n,
        Rows::Interleaved16 => 2 * (n / 2).next_multiple_of(16),
    };
    assert_eq!(n * row_length, source.len(), "the source is not a whole number of rows");
    assert!(layout.n == expected, "{n} rows do not make {} lanes", layout.n);
    assert!(!layout.format.is_int(), "integers are packed by `int::pack`");
    assert_eq!(out.len(), layout.bytes(), "the output is not of the layout's size");
    let bad = std::sync::atomic::AtomicBool::new(false);
    let length = layout.row_bytes(layout.depth(), PANEL);
    cpu.threads.run_pieces(out, length, |panel, out| {
        let lanes = PANEL.min(layout.n - panel * PANEL);
        let rows = std::array::from_fn(|lane| {
            (lane < lanes).then(|| source_row(rows, n, panel * PANEL + lane)).flatten()
        });
        let width = layout.width(panel);
        if !cpu.eval(PackPanel { source, layout, width, rows, out }) {
            bad.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    });
    if bad.into_inner() { Err(NonFinite) } else { Ok(()) }
}

impl Rows {
    /// The row of the source, out of `n`, that belongs to `lane`; some lanes have none.
    pub fn source(self, n: usize, lane: usize) -> Option<usize> {
        source_row(self, n, lane)
    }
}

fn source_row(rows: Rows, n: usize, lane: usize) -> Option<usize> {
    match rows {
        Rows::Natural => (lane < n).then_some(lane),
        Rows::Interleaved16 => {
            let row = lane / 32 * 16 + lane % 16;
            (row < n / 2).then_some(if lane % 32 < 16 { row } else { n / 2 + row })
        }
    }
}

/// Elements of a source row that are transposed together.
const STRETCH: usize = 128;

/// Packs one panel; false if a value is not finite.
struct PackPanel<'a> {
    source: Source<'a>,
    layout: PanelLayout,
    width: usize,
    rows: [Option<usize>; PANEL],
    out: &'a mut [u8],
}

impl SimdOp for PackPanel<'_> {
    type Output = bool;

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> bool {
        let Self { source, layout, width, rows, out } = self;
        let panel = Panel { layout, width, rows };
        if layout.padded_channels() != layout.channels {
            out.fill(0);
        }
        match layout.format {
            PanelFormat::F32 => {
                let out = bytemuck::cast_slice_mut::<u8, f32>(out);
                panel.transpose(out, |from, to| widen(isa, source, from, to))
            }
            PanelFormat::F16 => {
                let out = bytemuck::cast_slice_mut::<u8, u16>(out);
                panel.transpose(out, |from, to| to_f16(isa, source, from, to))
            }
            // `pack` refuses integers, which have units that a conversion does not know.
            PanelFormat::Int8 | PanelFormat::Int4 | PanelFormat::Int2 => false,
            PanelFormat::Bf16 => {
                let out = bytemuck::cast_slice_mut::<u8, u16>(out);
                panel.transpose(out, |from, to| to_bf16(isa, source, from, to))
            }
        }
    }
}

struct Panel {
    layout: PanelLayout,
    width: usize,
    rows: [Option<usize>; PANEL],
}

impl Panel {
    /// Convert with `convert(start in the source, destination)`, which says whether all values are
    /// finite, and write transposed.
    #[inline(always)]
    fn transpose<T: Copy + Default>(
        &self,
        out: &mut [T],
        convert: impl Fn(usize, &mut [T]) -> bool,
    ) -> bool {
        let length = self.layout.taps * self.layout.channels;
        let mut tile = [[T::default(); STRETCH]; PANEL];
        let mut finite = true;
        for start in (0..length).step_by(STRETCH) {
            let count = STRETCH.min(length - start);
            for (row, tile) in self.rows.iter().zip(&mut tile) {
                if let Some(row) = row {
                    finite &= convert(row * length + start, &mut tile[..count]);
                }
            }
            // Tap by tap, so that neighbouring channels are written one after the other.
            for tap in 0..self.layout.taps.min(count) {
                for i in (tap..count).step_by(self.layout.taps) {
                    self.scatter(out, self.row_of(start + i), |lane| tile[lane][i]);
                }
            }
        }
        finite
    }

    /// The row of the panel for element `index` of a source row.
    #[inline(always)]
    fn row_of(&self, index: usize) -> usize {
        let (channel, tap) = (index / self.layout.taps, index % self.layout.taps);
        tap * self.layout.padded_channels() + channel
    }

    /// Write row `k` of the panel.
    #[inline(always)]
    fn scatter<T: Copy>(&self, out: &mut [T], k: usize, value: impl Fn(usize) -> T) {
        if self.layout.format == PanelFormat::Bf16 {
            let pairs = &mut out[k / 2 * 2 * self.width..][..2 * self.width];
            for (lane, pair) in pairs.chunks_exact_mut(2).take(PANEL).enumerate() {
                pair[k % 2] = value(lane);
            }
        } else {
            let row = &mut out[k * self.width..][..self.width];
            for (lane, out) in row.iter_mut().take(PANEL).enumerate() {
                *out = value(lane);
            }
        }
    }
}

/// Sixteen or fewer source values as a vector. Those of the next stretch are asked for: with as
/// many rows as a panel has lanes, the memory system does not see them coming.
#[inline(always)]
fn read<I: Isa>(isa: I, source: Source<'_>, start: usize, count: usize) -> I::V {
    let ahead = start + STRETCH;
    match source {
        Source::F32(values) => {
            isa.prefetch(values.as_ptr().wrapping_add(ahead));
            isa.read(&values[start..start + count])
        }
        Source::F16(bits) => {
            isa.prefetch(bits.as_ptr().wrapping_add(ahead));
            isa.read_f16(&bits[start..start + count])
        }
        Source::Bf16(bits) => {
            isa.prefetch(bits.as_ptr().wrapping_add(ahead));
            isa.read_bf16(&bits[start..start + count])
        }
    }
}

#[inline(always)]
fn widen<I: Isa>(isa: I, source: Source<'_>, from: usize, to: &mut [f32]) -> bool {
    let mut check = isa.splat(0.0);
    for (i, to) in to.chunks_mut(16).enumerate() {
        let v = read(isa, source, from + 16 * i, to.len());
        // Zero times what is not finite is not a number, and stays so in the sum.
        check = isa.fma(v, isa.splat(0.0), check);
        isa.write(v, to);
    }
    isa.reduce_add(check) == 0.0
}

#[inline(always)]
fn to_bf16<I: Isa>(isa: I, source: Source<'_>, from: usize, to: &mut [u16]) -> bool {
    let mut check = isa.splat(0.0);
    for (i, to) in to.chunks_mut(16).enumerate() {
        isa.write_bf16(read(isa, source, from + 16 * i, to.len()), to);
        check = isa.fma(isa.read_bf16(to), isa.splat(0.0), check);
    }
    isa.reduce_add(check) == 0.0
}

#[inline(always)]
fn to_f16<I: Isa>(isa: I, source: Source<'_>, from: usize, to: &mut [u16]) -> bool {
    let mut check = isa.splat(0.0);
    for (i, to) in to.chunks_mut(16).enumerate() {
        if let Source::F16(bits) = source {
            isa.prefetch(bits.as_ptr().wrapping_add(from + 16 * i + STRETCH));
            to.copy_from_slice(&bits[from + 16 * i..][..to.len()]);
        } else {
            let lanes = isa.to_array(read(isa, source, from + 16 * i, to.len()));
            for (to, lane) in to.iter_mut().zip(lanes) {
                *to = f16::from_f32_const(lane).to_bits();
            }
        }
        check = isa.fma(isa.read_f16(to), isa.splat(0.0), check);
    }
    isa.reduce_add(check) == 0.0
}
