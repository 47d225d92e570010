//! Low-rank corrections of a weight (`LoRA`, Hu et al. 2021): `W + scale · up · down`.
//!
//! They are merged when the weight is read, so only one merged weight exists at a time and the
//! file under it is never copied. Sums run in f32, the product first and then the weight, which
//! keeps the product's digits when it is much smaller than the weight.

use super::TensorView;

/// Columns of the weight that are worked on at once: their partial sums stay in the first cache
/// and the rows of `down` in the second.
const COLUMNS: usize = 1024;

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

    /// Adds the correction to `weight`, `[outputs, inner]`, which it must fit.
    pub(super) fn add_to(&self, weight: &mut [f32]) {
        let (rank, outputs) = (self.down.shape[0], self.up.shape[0]);
        if rank == 0 {
            return;
        }
        let inner = weight.len() / outputs;
        let (up, down) = (self.up.to_f32(), self.down.to_f32());
        for first in (0..inner).step_by(COLUMNS) {
            let columns = first..(first + COLUMNS).min(inner);
            for (weights, factors) in weight.chunks_exact_mut(inner).zip(up.chunks_exact(rank)) {
                let mut sums = [0.0; COLUMNS];
                for (factor, row) in factors.iter().zip(down.chunks_exact(inner)) {
                    add_scaled(&mut sums, *factor, &row[columns.clone()]);
                }
                add_scaled(&mut weights[columns.clone()], self.scale, &sums);
            }
        }
    }
}

/// `sums += factor · row`, over the shorter of the two.
fn add_scaled(sums: &mut [f32], factor: f32, row: &[f32]) {
    for (sum, value) in sums.iter_mut().zip(row) {
        *sum += factor * value;
    }
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
        let mut weight = [1.0; 6];
        assert_eq!(delta.obstacle(&[3, 1, 1, 2]), None);
        delta.add_to(&mut weight);
        assert_eq!(weight, [101.5, 1006.0, -49.0, -499.0, 27.5, 266.0]);
    }

    #[test]
    fn wide_rows_are_summed_in_parts() {
        let inner = 2 * COLUMNS + 3;
        let down: Vec<f32> = (0..inner).map(|i| i as f32).collect();
        let delta = Delta {
            up: TensorView::from_f32(&[2, 1], &[1.0, -2.0]),
            down: TensorView::from_f32(&[1, inner], &down),
            scale: 1.0,
        };
        let mut weight = vec![0.0; 2 * inner];
        delta.add_to(&mut weight);
        for i in 0..inner {
            assert_eq!((weight[i], weight[inner + i]), (i as f32, -2.0 * i as f32));
        }
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
