//! The sizes of chunks and blocks.

use super::{Gate, Geometry, MAX_ROWS, MAX_SEGMENTS, Ranges};
use crate::{
    Cpu,
    format::{ActivationFormat, PANEL, PanelFormat, PanelLayout, int},
    isa::{
        LANES,
        tiles::{STEP, STRIP},
    },
    scratch,
    threads::{Grid, Order},
};

/// Elements of `k`, four bytes each, that a block holds at most.
const BLOCK: usize = 320;

/// Rows of a chunk at most.
const ROWS: usize = 126;

/// The same where panels are widened, which many rows should share.
const WIDENED_ROWS: usize = 512;

/// The same where rows are gathered in scratch, or whole tiles are multiplied.
const GATHERED_ROWS: usize = 256;

/// The same where whole tiles are multiplied, which leave little time for partial sums.
const TILED_BLOCK: usize = 1024;

/// Rows below which a chunk is not cut to occupy more threads.
const FEW_ROWS: usize = 24;

/// How a product is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Products of bf16 pairs; both operands are read in place.
    Bf16Dot,
    /// `f32` arithmetic on activations read in place.
    F32,
    /// `f32` arithmetic on activations widened into scratch.
    Widened,
    /// Products of bytes; activations are read in place.
    Int8,
    /// Products of bytes that were widened to 16 bits into scratch, both of them.
    Int16,
    /// Products of bytes and narrower weights in lanes of 16 bits; activations are read in place.
    Narrow,
    /// Products of tiles of bytes; activations are read in place where rows lie equally far apart.
    ByteTiles,
    /// Products of tiles of bf16 pairs, likewise.
    PairTiles,
}

impl Way {
    pub(super) fn new(input: ActivationFormat, layout: &PanelLayout, cpu: &Cpu) -> Self {
        let tiled =
            |bytes: usize| cpu.has_tiles() && (layout.channels * bytes).is_multiple_of(STEP);
        match (input, layout.format) {
            (ActivationFormat::U8, _) if tiled(1) => Self::ByteTiles,
            (ActivationFormat::U8, PanelFormat::Int8) if cpu.has_int16_only() => Self::Int16,
            (ActivationFormat::U8, _) if cpu.has_int16_only() => Self::Narrow,
            (ActivationFormat::U8, _) => Self::Int8,
            (ActivationFormat::F32, _) => Self::F32,
            (ActivationFormat::Bf16, PanelFormat::F32) => Self::Widened,
            (ActivationFormat::Bf16, _) if tiled(2) => Self::PairTiles,
            (ActivationFormat::Bf16, _)
                if cpu.has_bf16_dot() && layout.channels.is_multiple_of(2) =>
            {
                Self::Bf16Dot
            }
            (ActivationFormat::Bf16, _) => Self::Widened,
        }
    }
}

/// Sizes that follow from the shapes and the number of threads, and from nothing else.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) way: Way,
    /// Whether panels are widened into scratch.
    widen_panels: bool,
    /// Output rows of an image of a convolution.
    image_rows: usize,
    /// Rows of a chunk.
    row_block: usize,
    /// Taps of a block; more than one only if `channel_block` is all channels.
    pub(super) tap_block: usize,
    /// Channels of a block.
    pub(super) channel_block: usize,
    rows: usize,
    order: Order,
    is_conv: bool,
    taps: usize,
    channels: usize,
    workers: usize,
}

impl Plan {
    pub(super) fn new(
        input: ActivationFormat,
        geometry: &Geometry,
        layout: &PanelLayout,
        cpu: &Cpu,
    ) -> Self {
        let PanelLayout { format, taps, channels, .. } = *layout;
        let way = Way::new(input, layout, cpu);
        let block = if way.is_tiled() { TILED_BLOCK } else { BLOCK } * way.per_group();
        let parts = channels.div_ceil(block).max(1);
        let unit = if way == Way::Narrow || way.is_tiled() { int::GROUP } else { LANES };
        let channel_block = channels.div_ceil(parts).next_multiple_of(unit).min(channels).max(1);
        let tap_block = (block / channels.max(1)).clamp(1, taps.clamp(1, MAX_SEGMENTS));
        let rows = geometry.rows();
        let workers = cpu.threads.count();
        let widen_panels = match way {
            Way::Int8 | Way::ByteTiles => format != PanelFormat::Int8,
            Way::Bf16Dot | Way::PairTiles => format != PanelFormat::Bf16,
            Way::F32 | Way::Widened => format != PanelFormat::F32,
            Way::Int16 | Way::Narrow => true,
        };
        let most = match way {
            Way::Widened | Way::Int16 | Way::ByteTiles | Way::PairTiles => GATHERED_ROWS,
            _ if widen_panels => WIDENED_ROWS,
            _ => ROWS,
        };
        let unit_rows = if way.is_tiled() { STRIP } else { MAX_ROWS };
        Self {
            way,
            widen_panels,
            image_rows: match geometry {
                Geometry::Conv(conv) => conv.out_height * conv.out_width,
                Geometry::Rows { .. } => rows,
            },
            row_block: row_block((rows, most, unit_rows), layout.panels(), workers),
            tap_block,
            channel_block,
            rows,
            // The larger operand is read once; the smaller one stays in the shared cache.
            order: if rows > layout.n { Order::ColumnsFirst } else { Order::RowsFirst },
            is_conv: matches!(geometry, Geometry::Conv(_)),
            taps,
            channels,
            workers,
        }
    }

    /// Whether activations are gathered into scratch, widened.
    pub(super) fn is_gathered(&self) -> bool {
        matches!(self.way, Way::Widened | Way::Int16)
    }

    pub(super) fn widens_panels(&self) -> bool {
        self.widen_panels
    }

    /// The chunks: blocks of rows times panels.
    pub(super) fn grid(&self, layout: &PanelLayout, gate: Gate) -> Grid {
        let (columns, column_block) = match gate {
            Gate::None => (layout.n, PANEL),
            Gate::Geglu { hidden } => {
                assert_eq!(layout.n, 2 * hidden.next_multiple_of(16), "lanes of a gated layer");
                (hidden, PANEL / 2)
            }
        };
        let (rows, row_block, order) = (self.rows, self.row_block, self.order);
        Grid { groups: 1, rows, columns, row_block, column_block, order }
    }

    /// Bytes of the rows that taps outside the image read: one, or for codes one for each image.
    pub(super) fn blank_bytes(&self) -> usize {
        match self.way {
            _ if !self.is_conv => 0,
            way if way.takes_codes() => {
                self.channels.saturating_mul(self.rows / self.image_rows.max(1))
            }
            _ => self.channels.saturating_mul(4),
        }
    }

    /// Fill those rows with what stands for zero.
    pub(super) fn fill_blank(&self, blank: &mut [u8], ranges: Option<Ranges<'_>>) {
        match ranges {
            Some(ranges) if self.is_conv => {
                for (image, row) in blank.chunks_exact_mut(self.channels.max(1)).enumerate() {
                    row.fill(ranges.of(image * self.image_rows).zero as u8);
                }
            }
            _ => blank.fill(0),
        }
    }

    /// Where the row begins in them that output row `row` reads outside its image.
    #[inline(always)]
    pub(super) fn blank_start(&self, row: usize) -> usize {
        if self.way.takes_codes() { row / self.image_rows * self.channels } else { 0 }
    }

    /// Entries of the table of pixels of a chunk.
    pub(super) fn table_length(&self) -> usize {
        if self.is_conv { self.taps.saturating_mul(self.row_block) } else { 0 }
    }

    /// Partial sums of a chunk.
    pub(super) fn partial_length(&self) -> usize {
        self.row_block * PANEL
    }

    /// Vectors' worth of four bytes of a widened block of a panel.
    pub(super) fn widened_length(&self) -> usize {
        let groups = self.block_depth().div_ceil(self.way.per_group());
        if self.widen_panels { groups * PANEL } else { 0 }
    }

    /// Groups of four bytes of the gathered activations of a block; of one strip, where some are read in place.
    pub(super) fn gathered_length(&self) -> usize {
        let groups = self.block_depth().div_ceil(self.way.per_group());
        let rows = match self.way {
            _ if self.is_gathered() => self.row_block,
            way if way.is_tiled() && self.is_conv => STRIP,
            _ => 0,
        };
        groups * rows
    }

    /// Multipliers of the groups of a block, one for each lane.
    pub(super) fn multipliers_length(&self) -> usize {
        let groups = self.tap_block * self.channel_block.div_ceil(int::GROUP);
        if self.way == Way::Narrow { groups * PANEL } else { 0 }
    }

    pub(super) fn scratch_bytes(&self) -> usize {
        let worker = scratch::bytes(&[
            self.table_length().saturating_mul(4),
            self.partial_length() * 4,
            self.widened_length() * 4,
            self.gathered_length() * 4,
            self.multipliers_length() * 4,
        ]);
        scratch::bytes(&[self.blank_bytes()]).saturating_add(worker.saturating_mul(self.workers))
    }

    fn block_depth(&self) -> usize {
        self.tap_block * self.channel_block
    }
}

impl Way {
    /// What is multiplied, and by which instructions, for reports.
    pub(super) fn name(self, cpu: &Cpu) -> String {
        match self {
            Self::ByteTiles => format!("u8 x i8 in tiles, {}", cpu.level()),
            Self::PairTiles => format!("bf16 x bf16 in tiles, {}", cpu.level()),
            Self::Int8 => format!("u8 x i8, {}", cpu.level().int8()),
            Self::Int16 => format!("u8 x i8 widened to 16 bits, {}", cpu.level()),
            Self::Narrow => format!("u8 x i4 summed in 16 bits, {}", cpu.level()),
            Self::Bf16Dot => format!("bf16 x bf16, {}", cpu.level()),
            Self::F32 | Self::Widened => format!("f32 x f32, {}", cpu.level()),
        }
    }

    /// Whether activations are codes of 8 bits.
    #[inline(always)]
    fn takes_codes(self) -> bool {
        matches!(self, Self::Int8 | Self::Int16 | Self::Narrow | Self::ByteTiles)
    }

    /// Whether whole tiles are multiplied.
    #[inline(always)]
    pub(super) fn is_tiled(self) -> bool {
        matches!(self, Self::ByteTiles | Self::PairTiles)
    }

    /// Elements of `k` in four bytes of an activation.
    #[inline(always)]
    pub(super) fn per_group(self) -> usize {
        match self {
            Self::F32 | Self::Widened => 1,
            Self::Bf16Dot | Self::Int16 | Self::PairTiles => 2,
            Self::Int8 | Self::Narrow | Self::ByteTiles => 4,
        }
    }
}

/// Rows of a chunk: many, so that a block of a panel is read often, but not so many that threads
/// run out of chunks at different times.
pub(super) fn row_block(
    (rows, most, unit): (usize, usize, usize),
    panels: usize,
    workers: usize,
) -> usize {
    let wanted = 8 * workers;
    let parts = rows.div_ceil(most).max(wanted.div_ceil(panels.max(1)));
    let parts = if workers == 1 { rows.div_ceil(most) } else { parts };
    rows.div_ceil(parts.max(1)).next_multiple_of(unit).max(FEW_ROWS).min(rows.max(1))
}
