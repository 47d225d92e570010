//! Normal noise, equal bit for bit to what PyTorch's CPU generator draws on x86-64 with AVX2.
//!
//! `Generator::new(seed).normal(n)` is `torch.randn(n, generator=g.manual_seed(seed))` in `f32`, so
//! that a seed means the same picture here and there. Three parts have to agree:
//!
//! 1. The bits come from the Mersenne twister MT19937 (Matsumoto and Nishimura 1998), seeded with
//!    the low 32 bits of the seed by the linear recurrence of the 2002 revision.
//! 2. Requests of 16 values or more take the vector path: one uniform per value, then the
//!    Box–Muller transform on blocks of 8 + 8 lanes, in single precision with the Cephes
//!    polynomials for logarithm, sine and cosine. The compiler that builds PyTorch contracts
//!    products and sums into fused multiply-adds there, so the places where one rounding is missing
//!    are part of the definition; they are written as `mul_add` below. When the request is not a
//!    multiple of 16, its last 16 values are drawn again.
//! 3. Smaller requests take the scalar path in double precision, where the second value of a
//!    Box–Muller pair is kept for the next small request.
//!
//! Only correctly rounded operations are used on the vector path, so every machine gives the same
//! bits.
//!
//! ```
//! let mut noise = pipeline::noise::Generator::new(42);
//! assert_eq!(noise.normal(16)[0], 1.926_915_3);
//! ```

use std::f64::consts::PI;

/// Words in the state of MT19937.
const WORDS: usize = 624;
/// Distance of the recurrence's second term.
const MIDDLE: usize = 397;
/// Values in one block of the vector path: eight radii, then eight angles.
const BLOCK: usize = 16;

/// PyTorch's CPU generator: MT19937 with the normal transforms on top.
#[derive(Clone, Debug)]
pub struct Generator {
    state: Box<[u32; WORDS]>,
    /// Index of the next word; `WORDS` when the state is used up.
    next: usize,
    /// Second value of the last Box–Muller pair of the scalar path.
    kept: Option<f64>,
}

impl Generator {
    /// A generator as `torch.Generator().manual_seed(seed)` leaves it: the low 32 bits count.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut state = Box::new([0_u32; WORDS]);
        state[0] = seed as u32;
        for i in 1..WORDS {
            let last = state[i - 1];
            state[i] = 1_812_433_253_u32.wrapping_mul(last ^ (last >> 30)).wrapping_add(i as u32);
        }
        Self { state, next: WORDS, kept: None }
    }

    /// `n` values of the standard normal distribution, as one call of `torch.randn` gives them.
    ///
    /// Successive calls continue the same stream; two calls of `n` are not one call of `2 n`.
    pub fn normal(&mut self, n: usize) -> Vec<f32> {
        if n < BLOCK {
            return (0..n).map(|_| self.scalar_normal() as f32).collect();
        }
        let mut values: Vec<f32> = (0..n).map(|_| self.uniform()).collect();
        let (blocks, tail) = values.as_chunks_mut::<BLOCK>();
        blocks.iter_mut().for_each(box_muller);
        if !tail.is_empty() {
            let mut block = [0.0; BLOCK];
            block.fill_with(|| self.uniform());
            box_muller(&mut block);
            values[n - BLOCK..].copy_from_slice(&block);
        }
        values
    }

    /// One normal value in double precision, from a fresh pair or from the value kept.
    fn scalar_normal(&mut self) -> f64 {
        if let Some(value) = self.kept.take() {
            return value;
        }
        let (u1, u2) = (self.uniform_double(), self.uniform_double());
        let radius = (-2.0 * (-u2).ln_1p()).sqrt();
        let theta = 2.0 * PI * u1;
        self.kept = Some(radius * theta.sin());
        radius * theta.cos()
    }

    /// Uniform in [0, 1) from the low 24 bits of one word.
    fn uniform(&mut self) -> f32 {
        (self.word() & 0x00ff_ffff) as f32 * (1.0 / 16_777_216.0)
    }

    /// Uniform in [0, 1) from the low 53 bits of two words, the first being the high one.
    fn uniform_double(&mut self) -> f64 {
        let (high, low) = (u64::from(self.word()), u64::from(self.word()));
        let bits = (high << 32 | low) & ((1 << 53) - 1);
        bits as f64 * (1.0 / 9_007_199_254_740_992.0)
    }

    /// The next tempered word of the twister.
    fn word(&mut self) -> u32 {
        if self.next == WORDS {
            self.twist();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// Replaces the whole state by the next 624 words of the recurrence.
    fn twist(&mut self) {
        for i in 0..WORDS {
            let (u, v) = (self.state[i], self.state[(i + 1) % WORDS]);
            let mixed = (u & 0x8000_0000) | (v & 0x7fff_ffff);
            let odd = if v & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + MIDDLE) % WORDS] ^ (mixed >> 1) ^ odd;
        }
        self.next = 0;
    }
}

/// Box–Muller on eight pairs: lane `j` holds the radius' uniform, lane `j + 8` the angle's.
fn box_muller(block: &mut [f32; BLOCK]) {
    for j in 0..BLOCK / 2 {
        let radius = (-2.0 * log(1.0 - block[j])).sqrt();
        let (sin, cos) = sin_cos(2.0 * std::f32::consts::PI * block[j + 8]);
        // Adding the mean 0 turns a negative zero into a positive one.
        block[j] = radius * cos + 0.0;
        block[j + 8] = radius * sin + 0.0;
    }
}

/// Natural logarithm for `x` in (0, 1]: Cephes' single precision polynomial.
///
/// With `x = 2^e (1 + f)`, `sqrt(1/2) <= 1 + f < sqrt(2)`:
/// `log x = f - f²/2 + f³ P(f) + e log 2`, where `log 2` is split in two so that the larger part
/// times `e` is exact.
fn log(x: f32) -> f32 {
    const P: [f32; 9] = [
        7.037_683_6e-2,
        -1.151_461e-1,
        1.167_699_84e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_7e-1,
        2.000_071_4e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ];
    const LOG_2_LOW: f32 = -2.121_944_4e-4;
    const LOG_2_HIGH: f32 = 0.693_359_4;
    let bits = x.max(f32::MIN_POSITIVE).to_bits();
    let mut e = (bits >> 23) as f32 - 126.0;
    // The mantissa as a number in [1/2, 1).
    let mantissa = f32::from_bits(bits & 0x807f_ffff | 0x3f00_0000);
    let mut f = mantissa - 1.0;
    if mantissa < std::f32::consts::FRAC_1_SQRT_2 {
        e -= 1.0;
        f += mantissa;
    }
    let square = f * f;
    let p = P[1..].iter().fold(P[0], |sum, &term| sum.mul_add(f, term));
    let y = (p * f).mul_add(square, e * LOG_2_LOW);
    let y = (-square).mul_add(0.5, y);
    e.mul_add(LOG_2_HIGH, f + y)
}

/// Sine and cosine for `x >= 0`: Cephes' single precision polynomials on octants.
///
/// `x` is brought into [-pi/4, pi/4] by subtracting a multiple of pi/4 that is held in three parts.
fn sin_cos(x: f32) -> (f32, f32) {
    const QUARTER_PI: [f32; 3] = [0.785_156_25, 2.418_756_5e-4, 3.774_895e-8];
    let octant = ((x * (4.0 / std::f32::consts::PI)) as i32 + 1) & !1;
    let y = octant as f32;
    let x = QUARTER_PI.iter().fold(x, |rest, &part| y.mul_add(-part, rest));
    let z = x * x;
    let p = 2.443_315_7e-5_f32.mul_add(z, -1.388_731_6e-3).mul_add(z, 4.166_664_6e-2) * z;
    let near_one = p.mul_add(z, -(z * 0.5)) + 1.0;
    let p = (-1.951_529_6e-4_f32).mul_add(z, 8.332_161e-3).mul_add(z, -1.666_665_5e-1) * z;
    let near_zero = p.mul_add(x, x);
    let (sin, cos) = if octant & 2 == 0 { (near_zero, near_one) } else { (near_one, near_zero) };
    let sin = if octant & 4 == 0 { sin } else { -sin };
    let cos = if (octant - 2) & 4 == 0 { -cos } else { cos };
    (sin, cos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twister_matches_the_published_first_words() {
        // The test vector of the authors' program for `init_genrand(5489)`.
        let mut generator = Generator::new(5489);
        assert_eq!([0; 3].map(|_| generator.word()), [3_499_211_612, 581_869_302, 3_890_346_734]);
    }

    #[test]
    fn only_the_low_half_of_the_seed_counts() {
        assert_eq!(Generator::new(7).normal(20), Generator::new(7 | 1 << 40).normal(20));
    }

    #[test]
    fn polynomials_are_close_to_the_functions() {
        for i in 1..=1000_u16 {
            let x = f32::from(i) / 1000.0;
            assert!((log(x) - x.ln()).abs() <= 4e-7 * x.ln().abs().max(1.0), "log {x}");
            let (sin, cos) = sin_cos(x * 6.0);
            assert!((sin - (x * 6.0).sin()).abs() < 2e-7, "sin {x}");
            assert!((cos - (x * 6.0).cos()).abs() < 2e-7, "cos {x}");
        }
    }
}
