//! Better codes for single weights, while all others stay.

use super::Codes;
use crate::isa::{Isa, LANES, SimdOp};

/// Multiplies rows of numbers with a symmetric matrix, which is read once for all of them.
#[derive(Debug)]
pub struct Times<'a, const N: usize> {
    /// The numbers, rows of one length.
    pub numbers: [&'a [f32]; N],
    /// A row for each number, a multiple of 16 long.
    pub matrix: &'a [f32],
    /// The products, as long as a row of the matrix.
    pub to: [&'a mut [f32]; N],
}

/// Rows of a matrix that are added together, so that sums are read and written less often.
const TOGETHER: usize = 4;

impl<const N: usize> SimdOp for Times<'_, N> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { numbers, matrix, mut to } = self;
        let width = to.first().map_or(0, |to| to.len());
        for to in &mut to {
            to.fill(0.0);
        }
        let count = numbers.first().map_or(0, |numbers| numbers.len());
        for (start, rows) in (0..count).step_by(TOGETHER).zip(matrix.chunks(TOGETHER * width)) {
            for (numbers, to) in numbers.iter().zip(&mut to) {
                let numbers = &numbers[start..count.min(start + TOGETHER)];
                if let (&[a, b, c, d], true) = (numbers, rows.len() == TOGETHER * width) {
                    let factors = [a, b, c, d].map(|number| isa.splat(number));
                    add_rows(isa, factors, rows, to);
                } else {
                    for (&number, row) in numbers.iter().zip(rows.chunks_exact(width)) {
                        add(isa, number, row, to);
                    }
                }
            }
        }
    }
}

/// Adds multiples of rows as long as `to`, one after the other.
#[inline(always)]
fn add_rows<I: Isa>(isa: I, factors: [I::V; TOGETHER], rows: &[f32], to: &mut [f32]) {
    let rows = rows.as_chunks::<LANES>().0;
    let vectors = to.len() / LANES;
    let (first, rest) = rows.split_at(vectors);
    let (second, rest) = rest.split_at(vectors);
    let (third, fourth) = rest.split_at(vectors);
    let rows = first.iter().zip(second).zip(third.iter().zip(fourth));
    for (to, ((a, b), (c, d))) in to.as_chunks_mut::<LANES>().0.iter_mut().zip(rows) {
        let mut sum = isa.load(to);
        sum = isa.fma(factors[0], isa.load(a), sum);
        sum = isa.fma(factors[1], isa.load(b), sum);
        sum = isa.fma(factors[2], isa.load(c), sum);
        sum = isa.fma(factors[3], isa.load(d), sum);
        isa.store(sum, to);
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
            cpu.eval(Times { numbers: [&off], matrix: &moments, to: [&mut slopes] });
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
