//! Normalisation of each row by its mean and variance.

use crate::{
    Cpu,
    isa::{Isa, LANES, SimdOp},
    threads::{Grid, Output, OutputTile},
};

/// `y = (x − mean(x)) / √(var(x) + eps) · gamma + beta` over each row.
#[derive(Debug)]
pub struct LayerNorm<'a> {
    /// `[rows, channels]`.
    pub input: &'a [f32],
    /// Number of rows.
    pub rows: usize,
    /// Elements of a row.
    pub channels: usize,
    /// Distance of two input rows in elements.
    pub stride: usize,
    /// Added to the variance.
    pub eps: f32,
    /// `[channels]`; ones if absent.
    pub gamma: Option<&'a [f32]>,
    /// `[channels]`; zeros if absent.
    pub beta: Option<&'a [f32]>,
    /// `[rows, channels]`.
    pub output: Output<'a>,
}

impl LayerNorm<'_> {
    /// Normalise all rows.
    ///
    /// # Panics
    ///
    /// Panics if an operand is smaller than its shape says.
    pub fn run(self, cpu: &Cpu) {
        let Self { input, rows, channels, stride, eps, gamma, beta, output } = self;
        let grid = Grid::by_rows(rows, channels, (1 << 14) / channels.clamp(1, 1 << 14));
        cpu.threads.run_tiles((output, grid), &mut [], |tile, _| {
            cpu.eval(LayerNormRows { input, stride, eps, gamma, beta, tile });
        });
    }
}

struct LayerNormRows<'a, 't> {
    input: &'a [f32],
    stride: usize,
    eps: f32,
    gamma: Option<&'a [f32]>,
    beta: Option<&'a [f32]>,
    tile: OutputTile<'t>,
}

impl SimdOp for LayerNormRows<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(mut self, isa: I) {
        let channels = self.tile.cell.columns.len();
        for (index, row) in self.tile.cell.rows.clone().enumerate() {
            let row = &self.input[row * self.stride..][..channels];
            let mean = sum(isa, row, |x, _| x) / channels as f32;
            let center = isa.splat(mean);
            let squares = sum(isa, row, |x, lanes| {
                let d = isa.sub(x, center);
                // Lanes beyond the row hold zeros, not the mean.
                isa.mul(d, isa.mul(d, lanes))
            });
            let deviation = (squares / channels as f32 + self.eps).sqrt();
            let scale = isa.splat(1.0 / deviation);
            for column in (0..channels).step_by(LANES) {
                let lanes = column..channels.min(column + LANES);
                let mut y = isa.mul(isa.sub(isa.read(&row[lanes.clone()]), center), scale);
                if let Some(gamma) = self.gamma {
                    y = isa.mul(y, isa.read(&gamma[lanes.clone()]));
                }
                if let Some(beta) = self.beta {
                    y = isa.add(y, isa.read(&beta[lanes]));
                }
                self.tile.write(isa, (index, column), y);
            }
        }
    }
}

/// Sum of `f(x, one where a lane belongs to the row)` over a row.
#[inline(always)]
fn sum<I: Isa>(isa: I, row: &[f32], f: impl Fn(I::V, I::V) -> I::V) -> f32 {
    const ONES: [f32; LANES] = [1.0; LANES];
    let mut sum = isa.splat(0.0);
    for x in row.chunks(LANES) {
        sum = isa.add(sum, f(isa.read(x), isa.read(&ONES[..x.len()])));
    }
    isa.reduce_add(sum)
}
