//! How well whole numbers times a unit stand for weights.

use crate::isa::{Isa, LANES, SimdOp};
use crate::math::ROUND;

/// The codes that weights can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codes {
    /// All whole numbers from the first to the second.
    Whole(i8, i8),
    /// −3, −1, 1 and 3.
    Odd,
}

/// Compares `weights` with the nearest codes times `unit`.
#[derive(Clone, Copy, Debug)]
pub struct Fit<'a> {
    /// Some weights.
    pub weights: &'a [f32],
    /// What one of the codes stands for.
    pub unit: f32,
    /// The codes.
    pub codes: Codes,
}

/// What [`Fit`] finds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fitted {
    /// `Σ (w − unit · q)²`.
    pub error: f32,
    /// `Σ w q`.
    pub products: f32,
    /// `Σ q²`.
    pub squares: f32,
}

/// Writes the codes themselves.
#[derive(Debug)]
pub struct Encode<'a> {
    /// What is encoded.
    pub fit: Fit<'a>,
    /// As many codes as weights.
    pub to: &'a mut [i8],
}

impl Codes {
    /// The codes of `x`, which counts units.
    #[inline(always)]
    fn nearest<I: Isa>(self, isa: I, x: I::V) -> I::V {
        let round = |x| isa.sub(isa.add(x, isa.splat(ROUND)), isa.splat(ROUND));
        let within =
            |x, least: f32, most: f32| isa.max(isa.splat(least), isa.min(isa.splat(most), x));
        match self {
            Self::Whole(least, most) => within(round(x), least.into(), most.into()),
            // Odd numbers are a whole number of pairs away from −3.
            Self::Odd => {
                let pairs = isa.fma(x, isa.splat(0.5), isa.splat(1.5));
                isa.fma(within(round(pairs), 0.0, 3.0), isa.splat(2.0), isa.splat(-3.0))
            }
        }
    }

    /// [`Codes::nearest`] of one number.
    #[inline(always)]
    pub(super) fn nearest_to(self, x: f32) -> f32 {
        match self {
            Self::Whole(least, most) => x.round_ties_even().clamp(least.into(), most.into()),
            Self::Odd => {
                let pairs = 0.5_f32.mul_add(x, 1.5).round_ties_even().clamp(0.0, 3.0);
                2.0_f32.mul_add(pairs, -3.0)
            }
        }
    }
}

impl SimdOp for Fit<'_> {
    type Output = Fitted;

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> Fitted {
        let (unit, inverse) = (isa.splat(self.unit), isa.splat(1.0 / self.unit));
        let [mut error, mut products, mut squares] = [isa.splat(0.0); 3];
        for weights in self.weights.chunks(LANES) {
            let w = isa.read(weights);
            let mut q = self.codes.nearest(isa, isa.mul(w, inverse));
            if weights.len() < LANES {
                // Lanes beyond the weights are zeros, whose codes need not be.
                let mut lanes = isa.to_array(q);
                lanes[weights.len()..].fill(0.0);
                q = isa.load(&lanes);
            }
            let d = isa.sub(w, isa.mul(q, unit));
            error = isa.fma(d, d, error);
            products = isa.fma(w, q, products);
            squares = isa.fma(q, q, squares);
        }
        Fitted {
            error: isa.reduce_add(error),
            products: isa.reduce_add(products),
            squares: isa.reduce_add(squares),
        }
    }
}

impl SimdOp for Encode<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let inverse = isa.splat(1.0 / self.fit.unit);
        for (weights, to) in self.fit.weights.chunks(LANES).zip(self.to.chunks_mut(LANES)) {
            let q = self.fit.codes.nearest(isa, isa.mul(isa.read(weights), inverse));
            for (to, q) in to.iter_mut().zip(isa.to_array(q)) {
                *to = q as i8;
            }
        }
    }
}
