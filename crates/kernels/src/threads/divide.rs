//! Cutting slices into parts that threads may write at the same time.

use std::{marker::PhantomData, ops::Range};

use crate::isa::{Isa, LANES};

/// Where an operation writes: `f32`, bf16, or both with the same layout.
#[derive(Debug, Default)]
pub struct Output<'a> {
    /// Results as `f32`.
    pub f32: Option<&'a mut [f32]>,
    /// Results rounded to bf16.
    pub bf16: Option<&'a mut [u16]>,
    /// Distance of two rows in elements.
    pub stride: usize,
}

impl<'a> Output<'a> {
    /// Write `f32` only, rows `stride` apart.
    pub fn f32(values: &'a mut [f32], stride: usize) -> Self {
        Self { f32: Some(values), bf16: None, stride }
    }

    /// Write bf16 only, rows `stride` apart.
    pub fn bf16(values: &'a mut [u16], stride: usize) -> Self {
        Self { f32: None, bf16: Some(values), stride }
    }
}

/// In which order the tiles of a grid are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// All columns of a block of rows, then the next block of rows.
    ColumnsFirst,
    /// All rows of a block of columns, then the next block of columns.
    RowsFirst,
}

/// A division of `groups · rows` rows of `columns` columns into tiles that cross no group.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// Number of groups of rows.
    pub groups: usize,
    /// Rows of a group.
    pub rows: usize,
    /// Columns of all rows.
    pub columns: usize,
    /// Rows of a tile; the last tile of a group may have fewer.
    pub row_block: usize,
    /// Columns of a tile; the last may have fewer.
    pub column_block: usize,
    /// Numbering of the tiles.
    pub order: Order,
}

/// The place of a tile in its grid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Group of the tile.
    pub group: usize,
    /// Rows within the group.
    pub rows: Range<usize>,
    /// Columns.
    pub columns: Range<usize>,
}

impl Grid {
    /// One group of `rows`, cut into blocks of rows.
    pub fn by_rows(rows: usize, columns: usize, row_block: usize) -> Self {
        let order = Order::ColumnsFirst;
        Self { groups: 1, rows, columns, row_block, column_block: columns.max(1), order }
    }

    /// Number of tiles.
    pub fn count(&self) -> usize {
        self.row_blocks() * self.column_blocks()
    }

    /// The place of tile `index`.
    pub fn cell(&self, index: usize) -> Cell {
        let (row, column) = match self.order {
            Order::ColumnsFirst => (index / self.column_blocks(), index % self.column_blocks()),
            Order::RowsFirst => (index % self.row_blocks(), index / self.row_blocks()),
        };
        let blocks = self.rows.div_ceil(self.row_block);
        let (group, row) = (row / blocks, row % blocks);
        Cell {
            group,
            rows: block(row, self.row_block, self.rows),
            columns: block(column, self.column_block, self.columns),
        }
    }

    fn row_blocks(&self) -> usize {
        self.groups * self.rows.div_ceil(self.row_block)
    }

    fn column_blocks(&self) -> usize {
        self.columns.div_ceil(self.column_block)
    }
}

fn block(index: usize, length: usize, end: usize) -> Range<usize> {
    index * length..end.min((index + 1) * length)
}

/// Rows of equal length that one thread may write.
#[derive(Debug)]
pub struct Tile<'a, T> {
    start: *mut T,
    rows: usize,
    columns: usize,
    stride: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

impl<T> Tile<'_, T> {
    /// Row `index` of the tile.
    ///
    /// # Panics
    ///
    /// Panics if the tile has no such row.
    #[inline(always)]
    pub fn row(&mut self, index: usize) -> &mut [T] {
        assert!(index < self.rows, "a tile of {} rows has no row {index}", self.rows);
        // SAFETY: `Strided::tile` checked that all rows lie inside the slice.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(index * self.stride), self.columns) }
    }
}

/// The part of an [`Output`] that one call may write.
#[derive(Debug)]
pub struct OutputTile<'a> {
    /// Where the tile lies.
    pub cell: Cell,
    /// Rows of `f32`.
    pub f32: Option<Tile<'a, f32>>,
    /// Rows of bf16.
    pub bf16: Option<Tile<'a, u16>>,
}

impl OutputTile<'_> {
    /// Write the lanes of `v` from `column` of `row` on, both counted within the tile, in each
    /// format that was asked for; lanes beyond the tile are dropped.
    #[inline(always)]
    pub(crate) fn write<I: Isa>(&mut self, isa: I, (row, column): (usize, usize), v: I::V) {
        if let Some(tile) = &mut self.f32 {
            isa.write(v, first_lanes(&mut tile.row(row)[column..]));
        }
        if let Some(tile) = &mut self.bf16 {
            isa.write_bf16(v, first_lanes(&mut tile.row(row)[column..]));
        }
    }
}

/// As much of `row` as a vector covers.
#[inline(always)]
fn first_lanes<T>(row: &mut [T]) -> &mut [T] {
    let lanes = row.len().min(LANES);
    &mut row[..lanes]
}

/// An output together with the grid that cuts it.
pub(super) struct Division<'a> {
    grid: Grid,
    f32: Option<Strided<'a, f32>>,
    bf16: Option<Strided<'a, u16>>,
}

impl<'a> Division<'a> {
    pub(super) fn new(output: Output<'a>, grid: Grid) -> Self {
        let stride = output.stride;
        Self {
            grid,
            f32: output.f32.map(|values| Strided::new(values, stride, &grid)),
            bf16: output.bf16.map(|values| Strided::new(values, stride, &grid)),
        }
    }

    /// # Safety
    ///
    /// No other tile of this index may be alive.
    pub(super) unsafe fn tile(&self, index: usize) -> OutputTile<'_> {
        let cell = self.grid.cell(index);
        let row = cell.group * self.grid.rows + cell.rows.start;
        // SAFETY: the caller guarantees that the tile is not shared.
        let f32 = self.f32.as_ref().map(|values| unsafe { values.tile(row, &cell) });
        // SAFETY: as above.
        let bf16 = self.bf16.as_ref().map(|values| unsafe { values.tile(row, &cell) });
        OutputTile { cell, f32, bf16 }
    }
}

/// A slice seen as rows.
struct Strided<'a, T> {
    start: *mut T,
    stride: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: threads only get at the elements through `tile`, whose caller keeps tiles apart.
unsafe impl<T: Send> Sync for Strided<'_, T> {}

impl<'a, T> Strided<'a, T> {
    fn new(values: &'a mut [T], stride: usize, grid: &Grid) -> Self {
        let rows = grid.groups * grid.rows;
        let needed = if rows * grid.columns == 0 { 0 } else { (rows - 1) * stride + grid.columns };
        assert!(stride >= grid.columns || rows <= 1, "output rows must not overlap");
        assert!(values.len() >= needed, "output of {} elements, not {needed}", values.len());
        Self { start: values.as_mut_ptr(), stride, lifetime: PhantomData }
    }

    /// # Safety
    ///
    /// `cell` must belong to the grid of `new`, and no other tile of it may be alive.
    unsafe fn tile(&self, row: usize, cell: &Cell) -> Tile<'_, T> {
        Tile {
            // SAFETY: `new` checked that every row of the grid lies inside the slice.
            start: unsafe { self.start.add(row * self.stride + cell.columns.start) },
            rows: cell.rows.len(),
            columns: cell.columns.len(),
            stride: self.stride,
            lifetime: PhantomData,
        }
    }
}

/// A slice cut into pieces of equal length.
pub(super) struct Pieces<'a, T> {
    start: *mut T,
    total: usize,
    length: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: threads only get at the elements through `piece`, whose caller keeps pieces apart.
unsafe impl<T: Send> Sync for Pieces<'_, T> {}

impl<'a, T> Pieces<'a, T> {
    pub(super) fn new(data: &'a mut [T], length: usize) -> Self {
        assert!(length > 0 || data.is_empty(), "pieces must not be empty");
        let length = length.max(1);
        Self { start: data.as_mut_ptr(), total: data.len(), length, lifetime: PhantomData }
    }

    pub(super) fn count(&self) -> usize {
        self.total.div_ceil(self.length)
    }

    /// # Safety
    ///
    /// No other piece of this index may be alive.
    #[expect(clippy::mut_from_ref, reason = "the caller keeps pieces apart")]
    pub(super) unsafe fn piece(&self, index: usize) -> &mut [T] {
        let range = block(index, self.length, self.total);
        assert!(range.start <= range.end, "piece {index} of {}", self.count());
        // SAFETY: the range lies inside the slice, and the caller keeps pieces apart.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Grid, Order};

    #[test]
    fn the_cells_of_a_grid_cover_it_once() {
        for order in [Order::ColumnsFirst, Order::RowsFirst] {
            let grid =
                Grid { groups: 2, rows: 7, columns: 10, row_block: 3, column_block: 4, order };
            let mut seen = vec![0; 2 * 7 * 10];
            for cell in (0..grid.count()).map(|index| grid.cell(index)) {
                for row in cell.rows.clone() {
                    for column in cell.columns.clone() {
                        seen[(cell.group * 7 + row) * 10 + column] += 1;
                    }
                }
            }
            assert!(seen.iter().all(|&times| times == 1), "{order:?}");
        }
    }
}
