//! Enlarging images by repeating the nearest pixel.
//!
//! A convolution that follows can do this on its way: see [`crate::matmul::Conv2d::upsampled`].

use crate::{
    Cpu,
    format::Activations,
    isa::{Isa, LANES, SimdOp},
    threads::{Grid, Output, OutputTile},
};

/// `output[y, x] = input[⌊y · height / out_height⌋, ⌊x · width / out_width⌋]`.
#[derive(Debug)]
pub struct Nearest<'a> {
    /// `[batch, height, width, channels]`.
    pub input: Activations<'a>,
    /// Number of images.
    pub batch: usize,
    /// Height and width of the input.
    pub size: [usize; 2],
    /// Channels of a pixel.
    pub channels: usize,
    /// Height and width of the output.
    pub out_size: [usize; 2],
    /// `[batch, out_height, out_width, channels]`.
    pub output: Output<'a>,
}

/// The input position that output position `position` shows.
///
/// In single precision, as the reference implementation computes it.
pub(crate) fn nearest(position: usize, out: usize, input: usize) -> usize {
    let scale = input as f32 / out as f32;
    ((position as f32 * scale) as usize).min(input.saturating_sub(1))
}

impl Nearest<'_> {
    /// Compute all pixels.
    ///
    /// # Panics
    ///
    /// Panics if an operand is smaller than its shape says.
    pub fn run(self, cpu: &Cpu) {
        let Self { input, batch, size, channels, out_size, output } = self;
        let pixels = batch * out_size[0] * out_size[1];
        let grid = Grid::by_rows(pixels, channels, (1 << 14) / channels.clamp(1, 1 << 14));
        cpu.threads.run_tiles((output, grid), &mut [], |tile, _| {
            cpu.eval(NearestRows { input, size, out_size, tile });
        });
    }
}

struct NearestRows<'a, 't> {
    input: Activations<'a>,
    size: [usize; 2],
    out_size: [usize; 2],
    tile: OutputTile<'t>,
}

impl SimdOp for NearestRows<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(mut self, isa: I) {
        let [height, width] = self.size;
        let [out_height, out_width] = self.out_size;
        let channels = self.tile.cell.columns.len();
        for (index, pixel) in self.tile.cell.rows.clone().enumerate() {
            let (line, x) = (pixel / out_width, pixel % out_width);
            let (batch, y) = (line / out_height, line % out_height);
            let y = nearest(y, out_height, height);
            let from = (batch * height + y) * width + nearest(x, out_width, width);
            for column in (0..channels).step_by(LANES) {
                let lanes =
                    from * channels + column..from * channels + channels.min(column + LANES);
                let v = match self.input {
                    Activations::F32(values) => isa.read(&values[lanes]),
                    Activations::Bf16(bits) => isa.read_bf16(&bits[lanes]),
                    Activations::U8(_) => unreachable!("codes are not resized"),
                };
                self.tile.write(isa, (index, column), v);
            }
        }
    }
}
