//! Better codes for single weights, while all others stay.

use super::Codes;
use crate::isa::{Isa, LANES, SimdOp};

/// Multiplies some numbers with a symmetric matrix.
#[derive(Debug)]
pub struct Times<'a> {
    /// The numbers.
    pub numbers: &'a [f32],
    /// A row for each, a multiple of 16 long.
    pub matrix: &'a [f32],
    /// The product, as long as a row.
    pub to: &'a mut [f32],
}

impl SimdOp for Times<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { numbers, matrix, to } = self;
        to.fill(0.0);
        for (&number, row) in numbers.iter().zip(matrix.chunks_exact(to.len())) {
            add(isa, number, row, to);
        }
    }
}

/// Gives each weight in turn the code with which `Σ dᵢ dⱼ Hᵢⱼ` is least, where `d` is what all weights are off by: it never grows.
#[derive(Debug)]
pub struct Improve<'a> {
    /// `Σ dⱼ Hᵢⱼ`, kept up to date.
    pub slopes: &'a mut [f32],
    /// What one of each weight's code stands for.
    pub units: &'a [f32],
    /// The codes that there are.
    pub codes: Codes,
    /// `H`, a row for each weight, as long as there are slopes.
    pub moments: &'a [f32],
    /// The code of each weight.
    pub to: &'a mut [i8],
}

impl SimdOp for Improve<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { slopes, units, codes, moments, to } = self;
        let rows = moments.chunks_exact(slopes.len());
        for (i, ((&unit, row), to)) in units.iter().zip(rows).zip(to).enumerate() {
            let code = f32::from(*to);
            let better = codes.nearest_to(code - slopes[i] / (row[i] * unit));
            if better != code {
                *to = better as i8;
                add(isa, (better - code) * unit, row, slopes);
            }
        }
    }
}

/// Adds a multiple of a row.
#[inline(always)]
fn add<I: Isa>(isa: I, number: f32, row: &[f32], to: &mut [f32]) {
    let number = isa.splat(number);
    for (to, row) in to.as_chunks_mut::<LANES>().0.iter_mut().zip(row.as_chunks::<LANES>().0) {
        isa.store(isa.fma(number, isa.load(row), isa.load(to)), to);
    }
}

#[cfg(test)]
mod tests {
    use super::{Codes, Improve, Times};
    use crate::{Cpu, isa::Level, threads::Threads};

    #[test]
    fn codes_make_up_for_each_other() {
        // Channels that are nearly alike: what one of them lacks, the other can have.
        let mut moments = [0.0; 32];
        (moments[0], moments[1], moments[16], moments[17]) = (1.0, 0.9, 0.9, 1.0);
        let weights = [0.4_f32, 0.4];
        for level in Level::available() {
            let cpu = Cpu::new(Threads::new(1), level).unwrap();
            let mut to = [0_i8; 2];
            let off = [0.0 - weights[0], 0.0 - weights[1]];
            let mut slopes = [0.0; 16];
            cpu.eval(Times { numbers: &off, matrix: &moments, to: &mut slopes });
            assert!((slopes[0] + 0.76).abs() < 1e-6 && slopes[2] == 0.0, "{level}: {slopes:?}");
            let codes = Codes::Whole(-8, 7);
            let units = [1.0; 2];
            let op = Improve {
                slopes: &mut slopes,
                units: &units,
                codes,
                moments: &moments,
                to: &mut to,
            };
            cpu.eval(op);
            assert_eq!(to, [1, 0], "{level}");
            assert!((slopes[1] - 0.14).abs() < 1e-6, "{level}: {slopes:?}");
        }
    }
}
