//! Low-rank corrections of a weight (`LoRA`, Hu et al. 2021): `W + scale · up · down`.
//!
//! They are merged when the weight is read, so only one merged weight exists at a time and the
//! file under it is never copied. The product is a matrix product like any other and is left to
//! the kernels: rows of `up` against `down` as packed weights, with the original weight as the
//! residual. It runs on the calling thread; sums are in f32.

use super::TensorView;
use kernels::format::{Activations, PanelFormat, PanelLayout, Panels, Rows, Source, pack};
use kernels::matmul::{Epilogue, Geometry, Matmul, Residual, scratch_bytes};
use kernels::threads::Output;

/// A low-rank correction of one weight.
#[derive(Clone, Debug)]
pub struct Delta {
    /// `[outputs, rank]`, or `[outputs, rank, 1, 1]` of a convolution.
    pub up: TensorView,
    /// `[rank, inputs]`, or `[rank, inputs, height, width]` of a convolution.
    pub down: TensorView,
    /// What the product is multiplied by: the user's strength times alpha over rank.
    pub scale: f32,
}

impl Delta {
    /// Why this cannot be added to a weight of `shape`, as a clause after "which"; or nothing.
    pub(super) fn obstacle(&self, shape: &[usize]) -> Option<String> {
        let outputs = shape.first().copied().unwrap_or(0);
        let inner: usize = shape.iter().skip(1).product();
        let rank = self.down.shape.first().copied().unwrap_or(0);
        let fits = self.up.shape.first() == Some(&outputs)
            && self.up.count() == outputs * rank
            && self.down.count() == rank * inner
            && outputs * inner != 0;
        (!fits).then(|| {
            format!(
                "a correction of up {:?} and down {:?} does not fit",
                self.up.shape, self.down.shape
            )
        })
    }

    /// `weight`, `[outputs, inner]`, which it must fit, with the correction added; `None` if the
    /// correction holds NaN or infinity.
    pub(super) fn added_to(&self, weight: &[f32]) -> Option<Vec<f32>> {
        let (rank, outputs) = (self.down.shape[0], self.up.shape[0]);
        let inner = weight.len() / outputs;
        if rank == 0 {
            return Some(weight.to_vec());
        }
        let up: Vec<f32> = self.up.to_f32().iter().map(|value| self.scale * value).collect();
        let cpu = kernels::Cpu::detect(1);
        let layout = PanelLayout::linear(PanelFormat::F32, inner, rank);
        let mut packed: Vec<u32> = vec![0; layout.bytes().div_ceil(4)];
        let packed: &mut [u8] = &mut bytemuck::cast_slice_mut(&mut packed)[..layout.bytes()];
        let down = columns(&self.down.to_f32(), inner);
        pack(&cpu, (Source::F32(&down), Rows::Natural), layout, packed).ok()?;
        let (input, geometry) =
            (Activations::F32(&up), Geometry::Rows { rows: outputs, stride: rank });
        let mut scratch = vec![0; scratch_bytes(input.format(), &geometry, &layout, &cpu)];
        let mut sum = vec![0.0; weight.len()];
        let residual = Residual { values: Activations::F32(weight), stride: inner };
        Matmul {
            input,
            geometry,
            weights: Panels { layout, bytes: packed, multipliers: None },
            epilogue: Epilogue { residual: Some(residual), ..Epilogue::default() },
            output: Output::f32(&mut sum, inner),
            scratch: &mut scratch,
        }
        .run(&cpu);
        self.up.drop_pages();
        self.down.drop_pages();
        up.iter().all(|value| value.is_finite()).then_some(sum)
    }
}

/// The matrix `[rows, columns]` column by column.
fn columns(matrix: &[f32], columns: usize) -> Vec<f32> {
    let column = |column| matrix.iter().skip(column).step_by(columns);
    (0..columns).flat_map(column).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_product_is_added() {
        let delta = Delta {
            up: TensorView::from_f32(&[3, 2, 1, 1], &[1.0, 2.0, 0.0, -1.0, 3.0, 0.5]),
            down: TensorView::from_f32(&[2, 1, 1, 2], &[1.0, 10.0, 100.0, 1000.0]),
            scale: 0.5,
        };
        assert_eq!(delta.obstacle(&[3, 1, 1, 2]), None);
        let sum = delta.added_to(&[1.0; 6]).unwrap();
        assert_eq!(sum, [101.5, 1006.0, -49.0, -499.0, 27.5, 266.0]);
    }

    #[test]
    fn wide_rows_are_summed() {
        let inner = 2051;
        let down: Vec<f32> = (0..inner).map(|i| i as f32).collect();
        let delta = |factor| Delta {
            up: TensorView::from_f32(&[2, 1], &[1.0, factor]),
            down: TensorView::from_f32(&[1, inner], &down),
            scale: 1.0,
        };
        let sum = delta(-2.0).added_to(&vec![0.0; 2 * inner]).unwrap();
        for i in 0..inner {
            assert_eq!((sum[i], sum[inner + i]), (i as f32, -2.0 * i as f32));
        }
        assert_eq!(delta(f32::NAN).added_to(&vec![0.0; 2 * inner]), None);
    }

    #[test]
    fn misfits_are_named() {
        let delta = Delta {
            up: TensorView::from_f32(&[3, 2], &[0.0; 6]),
            down: TensorView::from_f32(&[2, 4], &[0.0; 8]),
            scale: 1.0,
        };
        assert_eq!(delta.obstacle(&[3, 4]), None);
        for shape in [&[4, 4][..], &[3, 5], &[3], &[], &[0, 4]] {
            let obstacle = delta.obstacle(shape).expect("a misfit");
            assert!(obstacle.contains("[3, 2]") && obstacle.contains("[2, 4]"));
        }
    }
}
