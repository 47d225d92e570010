//! Codes one after the other, where each one's error is made up for by the weights that are still to come.

use super::Codes;
use crate::isa::{Isa, LANES, SimdOp};

/// Writes the codes of `weights` in order. What the code of one leaves over goes to those after it, as much to each as
/// `shares` says (Frantar et al. 2022, GPTQ, algorithm 1).
#[derive(Debug)]
pub struct Carry<'a> {
    /// Some weights, made a multiple of 16 with zeros. They are used up.
    pub weights: &'a mut [f32],
    /// What one of each weight's code stands for.
    pub units: &'a [f32],
    /// The codes.
    pub codes: Codes,
    /// For each weight, `shares[i][j]` of its error is taken from weight `j`: zero for all `j ≤ i`, and beyond the last.
    pub shares: &'a [f32],
    /// As many codes as units.
    pub to: &'a mut [i8],
}

impl SimdOp for Carry<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { weights, units, codes, shares, to } = self;
        let rows = shares.chunks_exact(weights.len());
        for (i, ((&unit, shares), to)) in units.iter().zip(rows).zip(to).enumerate() {
            let weight = weights[i];
            let code = codes.nearest_to(weight * (1.0 / unit));
            *to = code as i8;
            let error = isa.splat(code * unit - weight);
            // Those before it have no share.
            let first = i / LANES * LANES;
            let rest = weights[first..].as_chunks_mut::<LANES>().0.iter_mut();
            for (weights, shares) in rest.zip(shares[first..].as_chunks::<LANES>().0) {
                isa.store(isa.fma(error, isa.load(shares), isa.load(weights)), weights);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Carry, Codes};
    use crate::{Cpu, isa::Level, threads::Threads};

    #[test]
    fn errors_go_to_those_after() {
        for level in Level::available() {
            let cpu = Cpu::new(Threads::new(1), level).unwrap();
            let mut weights = [0.0; 16];
            weights[..3].copy_from_slice(&[1.4, 0.3, 2.0]);
            let mut shares = [0.0; 48];
            shares[1] = 1.0;
            shares[16 + 2] = 0.5;
            let mut to = [0; 3];
            let codes = Codes::Whole(-8, 7);
            cpu.eval(Carry {
                weights: &mut weights,
                units: &[1.0; 3],
                codes,
                shares: &shares,
                to: &mut to,
            });
            // 1.4 is 1 and takes 0.4 from the next: −0.1 is 0 and leaves 0.05 less.
            assert_eq!(to, [1, 0, 2], "{level}");
            assert!((weights[1] + 0.1).abs() < 1e-6 && (weights[2] - 2.05).abs() < 1e-6, "{level}");
        }
    }
}
