//! How numbers lie in memory: activations as they come, weights packed into panels.
//!
//! A panel holds 64 output channels (the last one 16, 32, 48 or 64) and for each input element `k`
//! a row with one weight per output channel: `[n / 64][k][64]`. With bf16 two neighbouring `k` lie
//! together, as the instruction that multiplies pairs wants them: `[n / 64][k / 2][64][2]`. So 64
//! bytes are always 16 output channels times 4 bytes of `k`, one vector. Lanes without an output
//! channel are zero.
//!
//! Integers lie in groups of four `k`: `[n / 64][k / 4][64][4]` in 8 bits. In 4 bits two groups share
//! a byte, the first in the lower half, and in 2 bits four of them: `[n / 64][k / 8][64][4]` and
//! `[n / 64][k / 16][64][4]`, with zeros behind the last `k`; see [`mod@int`].
//!
//! `k` counts (tap, channel): channels are innermost, so that one tap of a pixel is contiguous in
//! an image whose channels are contiguous. In bf16 panels the channels of each tap are padded to an
//! even number with a zero.

pub mod int;
mod pack;

pub use pack::{NonFinite, Rows, Source, pack};

use std::ops::Range;

/// Output channels of a full panel.
pub const PANEL: usize = 64;

/// Activations, as a kernel reads them.
#[derive(Clone, Copy, Debug)]
pub enum Activations<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// Raw bits of bf16.
    Bf16(&'a [u16]),
    /// Codes of [`crate::quantize`].
    U8(&'a [u8]),
}

/// The number format of [`Activations`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActivationFormat {
    /// Single precision.
    F32,
    /// bf16.
    Bf16,
    /// Codes of 8 bits.
    U8,
}

impl<'a> Activations<'a> {
    /// The bytes of all elements.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        match *self {
            Self::F32(values) => bytemuck::cast_slice(values),
            Self::Bf16(bits) => bytemuck::cast_slice(bits),
            Self::U8(codes) => codes,
        }
    }
}

impl Activations<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
            Self::U8(codes) => codes.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number format.
    pub fn format(&self) -> ActivationFormat {
        match self {
            Self::F32(_) => ActivationFormat::F32,
            Self::Bf16(_) => ActivationFormat::Bf16,
            Self::U8(_) => ActivationFormat::U8,
        }
    }
}

/// The number format of packed weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PanelFormat {
    /// Single precision.
    F32,
    /// IEEE half precision, brought into [`PanelFormat::F32`] or [`PanelFormat::Bf16`] block by block when it is used.
    F16,
    /// bf16 in pairs.
    Bf16,
    /// Integers from −127 to 127.
    Int8,
    /// Integers from −8 to 7, times the multiplier of their group.
    Int4,
    /// The integers −3, −1, 1 and 3, times the multiplier of their group.
    Int2,
}

impl PanelFormat {
    /// Bits of one weight.
    pub fn bits(self) -> usize {
        match self {
            Self::F32 => 32,
            Self::F16 | Self::Bf16 => 16,
            Self::Int8 => 8,
            Self::Int4 => 4,
            Self::Int2 => 2,
        }
    }

    /// Whether weights are integers, of which a channel knows the unit.
    pub fn is_int(self) -> bool {
        matches!(self, Self::Int8 | Self::Int4 | Self::Int2)
    }
}

/// The shape of packed weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PanelLayout {
    /// Number format.
    pub format: PanelFormat,
    /// Output channels; lanes of a gated layer, see [`PanelLayout::gated`].
    pub n: usize,
    /// Kernel positions: 1 for a linear layer, 9 for a 3×3 convolution.
    pub taps: usize,
    /// Input channels per tap; for integers a multiple of four.
    pub channels: usize,
}

impl PanelLayout {
    /// A linear layer from `channels` to `n`.
    pub fn linear(format: PanelFormat, n: usize, channels: usize) -> Self {
        Self { format, n, taps: 1, channels }
    }

    /// A gated linear layer with `hidden` outputs and as many gates, interleaved by 16.
    pub fn gated(format: PanelFormat, hidden: usize, channels: usize) -> Self {
        Self::linear(format, 2 * hidden.next_multiple_of(16), channels)
    }

    /// Channels per tap, padding included.
    pub fn padded_channels(&self) -> usize {
        match self.format {
            PanelFormat::Bf16 => self.channels.next_multiple_of(2),
            _ => self.channels,
        }
    }

    /// Rows of `k` in a panel: taps times padded channels, in whole bytes.
    pub fn depth(&self) -> usize {
        let rows = self.taps.saturating_mul(self.padded_channels());
        let whole = match self.format {
            PanelFormat::Int4 => 8,
            PanelFormat::Int2 => 16,
            _ => 1,
        };
        rows.checked_next_multiple_of(whole).unwrap_or(usize::MAX)
    }

    /// Bytes of `rows` rows of `k` in a panel of `width` lanes.
    pub fn row_bytes(&self, rows: usize, width: usize) -> usize {
        rows.saturating_mul(width).saturating_mul(self.format.bits()) / 8
    }

    /// Groups of 64 input channels, each of which has a multiplier for each lane.
    pub fn groups(&self) -> usize {
        self.taps * self.channels.div_ceil(int::GROUP)
    }

    /// Number of panels.
    pub fn panels(&self) -> usize {
        self.n.div_ceil(PANEL)
    }

    /// Lanes of panel `panel`: 64, or fewer for the last.
    pub fn width(&self, panel: usize) -> usize {
        PANEL.min(self.n.next_multiple_of(16).saturating_sub(panel * PANEL))
    }

    /// The bytes of panel `panel`.
    pub fn range(&self, panel: usize) -> Range<usize> {
        let start = self.row_bytes(self.depth(), panel * PANEL);
        start..start + self.row_bytes(self.depth(), self.width(panel))
    }

    /// Bytes of all panels; `usize::MAX` where no memory could hold them.
    pub fn bytes(&self) -> usize {
        let lanes = self.n.checked_next_multiple_of(16).unwrap_or(usize::MAX);
        self.row_bytes(self.depth(), lanes)
    }
}

/// Packed weights.
#[derive(Clone, Copy, Debug)]
pub struct Panels<'a> {
    /// Their shape.
    pub layout: PanelLayout,
    /// [`PanelLayout::bytes`] bytes that start on a multiple of 4, better of 64.
    pub bytes: &'a [u8],
    /// `[n / 64, groups, 64]`, the multipliers of groups of integers; ones if absent.
    pub multipliers: Option<&'a [i8]>,
}

#[cfg(test)]
mod tests {
    use super::{PanelFormat, PanelLayout};

    #[test]
    fn panels_follow_each_other_without_gaps() {
        for n in [1, 15, 16, 17, 63, 64, 65, 100, 128, 200] {
            for format in [PanelFormat::F32, PanelFormat::F16, PanelFormat::Bf16] {
                let layout = PanelLayout { format, n, taps: 9, channels: 5 };
                let mut end = 0;
                for panel in 0..layout.panels() {
                    assert_eq!(layout.range(panel).start, end);
                    end = layout.range(panel).end;
                }
                assert_eq!(end, layout.bytes(), "{n} {format:?}");
            }
        }
    }
}
