//! The sizes of chunks and blocks.

use super::{Gate, Geometry, MAX_SEGMENTS};
use crate::{
    Cpu,
    format::{ActivationFormat, PANEL, PanelFormat, PanelLayout},
    scratch,
    threads::{Grid, Order},
};

/// Elements of `k`, four bytes each, that a block holds at most.
const BLOCK: usize = 320;

/// Rows of a chunk at most.
const ROWS: usize = 126;

/// The same where panels are widened, which many rows should share.
const WIDENED_ROWS: usize = 256;

/// Rows below which a chunk is not cut to occupy more threads.
const FEW_ROWS: usize = 24;

/// How a product is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Products of bf16 pairs; both operands are read in place.
    Bf16Dot,
    /// `f32` arithmetic on activations read in place.
    F32,
    /// `f32` arithmetic on activations widened into scratch.
    Widened,
}

/// Sizes that follow from the shapes and the number of threads, and from nothing else.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    way: Way,
    /// Whether panels are widened into scratch.
    widen_panels: bool,
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
        let way = match (input, format) {
            (ActivationFormat::F32, _) => Way::F32,
            (ActivationFormat::Bf16, PanelFormat::Bf16)
                if cpu.has_bf16_dot() && channels.is_multiple_of(2) =>
            {
                Way::Bf16Dot
            }
            (ActivationFormat::Bf16, _) => Way::Widened,
        };
        let block = if way == Way::Bf16Dot { 2 * BLOCK } else { BLOCK };
        let parts = channels.div_ceil(block).max(1);
        let channel_block = channels.div_ceil(parts).next_multiple_of(16).min(channels).max(1);
        let tap_block = (block / channels.max(1)).clamp(1, taps.clamp(1, MAX_SEGMENTS));
        let rows = geometry.rows();
        let workers = cpu.threads.count();
        let widen_panels = way != Way::Bf16Dot && format != PanelFormat::F32;
        let most = if widen_panels { WIDENED_ROWS } else { ROWS };
        Self {
            way,
            widen_panels,
            row_block: row_block((rows, most), layout.panels(), workers),
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

    pub(super) fn is_bf16_dot(&self) -> bool {
        self.way == Way::Bf16Dot
    }

    /// Whether activations are gathered into scratch as `f32`.
    pub(super) fn is_gathered(&self) -> bool {
        self.way == Way::Widened
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

    /// Bytes of the row of zeros that taps outside the image read.
    pub(super) fn blank_bytes(&self) -> usize {
        if self.is_conv { self.channels.saturating_mul(4) } else { 0 }
    }

    /// Entries of the table of pixels of a chunk.
    pub(super) fn table_length(&self) -> usize {
        if self.is_conv { self.taps.saturating_mul(self.row_block) } else { 0 }
    }

    /// Partial sums of a chunk.
    pub(super) fn partial_length(&self) -> usize {
        self.row_block * PANEL
    }

    /// Elements of a widened block of a panel.
    pub(super) fn widened_length(&self) -> usize {
        if self.widen_panels { self.block_depth() * PANEL } else { 0 }
    }

    /// Elements of the gathered activations of a block.
    pub(super) fn gathered_length(&self) -> usize {
        if self.is_gathered() { self.block_depth() * self.row_block } else { 0 }
    }

    pub(super) fn scratch_bytes(&self) -> usize {
        let worker = scratch::bytes(&[
            self.table_length().saturating_mul(4),
            self.partial_length() * 4,
            self.widened_length() * 4,
            self.gathered_length() * 4,
        ]);
        scratch::bytes(&[self.blank_bytes()]).saturating_add(worker.saturating_mul(self.workers))
    }

    fn block_depth(&self) -> usize {
        self.tap_block * self.channel_block
    }
}

/// Rows of a chunk: many, so that a block of a panel is read often, but not so many that threads
/// run out of chunks at different times.
fn row_block((rows, most): (usize, usize), panels: usize, workers: usize) -> usize {
    let wanted = 8 * workers;
    let parts = rows.div_ceil(most).max(wanted.div_ceil(panels.max(1)));
    let parts = if workers == 1 { rows.div_ceil(most) } else { parts };
    rows.div_ceil(parts.max(1)).next_multiple_of(6).max(FEW_ROWS).min(rows.max(1))
}
