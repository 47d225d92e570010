//! Conversion between number formats, and copies of rows between layouts.

use crate::{
    Cpu,
    activation::Extent,
    format::Source,
    isa::{Isa, LANES, SimdOp},
    threads::{Output, OutputTile},
};

/// Numbers in one of the formats in which they are read.
pub type Numbers<'a> = Source<'a>;

/// `output = input`, element by element, in other formats or at other places.
///
/// With the strides of input and output, it cuts columns out of rows and puts them into others:
/// pass slices that start at the first column.
#[derive(Debug)]
pub struct Convert<'a> {
    /// Numbers of shape `extent`.
    pub input: Numbers<'a>,
    /// Shape of the input.
    pub extent: Extent,
    /// As many rows and columns as the input.
    pub output: Output<'a>,
}

impl Convert<'_> {
    /// Convert all elements.
    ///
    /// # Panics
    ///
    /// Panics if an operand is smaller than its shape says.
    pub fn run(self, cpu: &Cpu) {
        let Self { input, extent, output } = self;
        cpu.threads.run_tiles((output, extent.grid()), &mut [], |tile, _| {
            cpu.eval(ConvertRows { input, stride: extent.stride, tile });
        });
    }
}

struct ConvertRows<'a, 't> {
    input: Numbers<'a>,
    stride: usize,
    tile: OutputTile<'t>,
}

impl SimdOp for ConvertRows<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(mut self, isa: I) {
        let columns = self.tile.cell.columns.clone();
        for (index, row) in self.tile.cell.rows.clone().enumerate() {
            let start = row * self.stride + columns.start;
            for column in (0..columns.len()).step_by(LANES) {
                let lanes = start + column..start + columns.len().min(column + LANES);
                let v = match self.input {
                    Numbers::F32(values) => isa.read(&values[lanes]),
                    Numbers::F16(bits) => isa.read_f16(&bits[lanes]),
                    Numbers::Bf16(bits) => isa.read_bf16(&bits[lanes]),
                };
                self.tile.write(isa, (index, column), v);
            }
        }
    }
}
