//! The training table: cumulative alphas and noise levels of every timestep.
//!
//! Everything is single precision with the roundings of PyTorch: near the first timestep `1 - a`
//! has lost so many digits that another order of operations moves sigma by parts in ten thousand.

use super::{BetaCurve, Family, Settings};

/// Cumulative alphas and sigmas, from the first timestep of training to the last.
#[derive(Clone, Debug)]
pub struct Table {
    /// `a_t`: product of `1 - beta` up to the timestep.
    pub alphas_cumprod: Vec<f32>,
    /// `sqrt((1 - a_t) / a_t)`.
    pub sigmas: Vec<f32>,
}

impl Table {
    /// The table of a configuration.
    #[must_use]
    pub fn new(family: Family, settings: &Settings) -> Self {
        let betas = betas(&settings.betas, settings.train_steps);
        let mut alphas: Vec<f32> = betas.iter().map(|beta| 1.0 - beta).collect();
        if settings.zero_terminal_snr {
            alphas = zero_terminal_snr(&alphas);
        }
        let mut alphas_cumprod = products(&alphas);
        let divides = matches!(
            family,
            Family::Euler | Family::EulerAncestral | Family::DpmMultistep | Family::UniPc
        );
        if let Some(last) =
            alphas_cumprod.last_mut().filter(|_| settings.zero_terminal_snr && divides)
        {
            // Nearly pure noise, so that its sigma stays finite.
            *last = 1.0 / 16_777_216.0;
        }
        let sigmas = alphas_cumprod.iter().map(|a| ((1.0 - a) / a).sqrt()).collect();
        Self { alphas_cumprod, sigmas }
    }

    /// Natural logarithms of the sigmas.
    #[must_use]
    pub fn log_sigmas(&self) -> Vec<f32> {
        self.sigmas.iter().map(|&sigma| log(sigma)).collect()
    }
}

/// Natural logarithm of a positive number as NumPy takes it in single precision: a quotient of two
/// polynomials in `f`, with `x = 2^e (1 + f)` and `sqrt(1/2) < 1 + f <= sqrt(2)`.
///
/// A place between two levels is cut to a whole timestep, so the last digit of the logarithm can
/// move the timestep by one; hence NumPy's roundings.
pub(super) fn log(x: f32) -> f32 {
    const P: [f32; 5] = [0.025_899_792, 0.380_883_78, 1.480_000_6, 2.112_677_6, 1.0];
    const Q: [f32; 6] = [0.005_875_095_3, 0.154_647_63, 0.986_494_3, 2.453_006, 2.612_677_6, 1.0];
    let bits = x.to_bits();
    let mut e = (bits >> 23) as f32 - 127.0;
    let mut mantissa = f32::from_bits(bits & 0x007f_ffff | 0x3f80_0000);
    if mantissa > std::f32::consts::SQRT_2 {
        mantissa *= 0.5;
        e += 1.0;
    }
    let f = mantissa - 1.0;
    let horner = |terms: &[f32]| terms.iter().fold(0.0_f32, |sum, &term| sum.mul_add(f, term));
    let quotient = horner(&P).mul_add(f, 0.0) / horner(&Q);
    e.mul_add(std::f32::consts::LN_2, quotient)
}

fn betas(curve: &BetaCurve, steps: usize) -> Vec<f32> {
    match curve {
        BetaCurve::Linear(start, end) => line(*start, *end, steps),
        BetaCurve::ScaledLinear(start, end) => {
            line(start.sqrt(), end.sqrt(), steps).iter().map(|root| root * root).collect()
        }
        BetaCurve::Cosine => capped(steps, |t| {
            let angle = (t + 0.008) / 1.008 * std::f64::consts::PI / 2.0;
            angle.cos() * angle.cos()
        }),
        BetaCurve::Exponential => capped(steps, |t| (t * -12.0).exp()),
        BetaCurve::Trained(list) => list.clone(),
    }
}

/// Evenly spaced numbers, both ends included, each half counted from its own end.
pub(super) fn line(start: f64, end: f64, count: usize) -> Vec<f32> {
    let (start, end) = (start as f32, end as f32);
    let step = if count > 1 { (end - start) / (count - 1) as f32 } else { 0.0 };
    (0..count)
        .map(|i| {
            if i < count / 2 || count == 1 {
                step.mul_add(i as f32, start)
            } else {
                (-step).mul_add((count - 1 - i) as f32, end)
            }
        })
        .collect()
}

/// Betas from a cumulative alpha as a function of time in [0, 1], each at most 0.999.
fn capped(steps: usize, alpha_bar: fn(f64) -> f64) -> Vec<f32> {
    let time = |i: usize| i as f64 / steps as f64;
    (0..steps)
        .map(|i| (1.0 - alpha_bar(time(i + 1)) / alpha_bar(time(i))).min(0.999) as f32)
        .collect()
}

/// Running products, carried in double precision.
fn products(alphas: &[f32]) -> Vec<f32> {
    let mut product = 1.0_f64;
    let running = alphas.iter().map(|&alpha| {
        product *= f64::from(alpha);
        product as f32
    });
    running.collect()
}

/// Algorithm 1 of Lin et al. 2024: shifts and stretches `sqrt(a)` so that it ends at zero.
fn zero_terminal_snr(alphas: &[f32]) -> Vec<f32> {
    let roots: Vec<f32> = products(alphas).iter().map(|a| a.sqrt()).collect();
    let (Some(&first), Some(&last)) = (roots.first(), roots.last()) else { return Vec::new() };
    let stretch = first / (first - last);
    let bars: Vec<f32> = roots.iter().map(|root| (root - last) * stretch).map(|x| x * x).collect();
    let ratios = bars.windows(2).map(|pair| pair[1] / pair[0]);
    // By way of the betas, which rounds once more.
    std::iter::once(bars[0]).chain(ratios).map(|alpha| 1.0 - (1.0 - alpha)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_where_they_should() {
        assert_eq!(line(1.0, 3.0, 5), [1.0, 1.5, 2.0, 2.5, 3.0]);
        assert_eq!(line(0.25, 3.0, 1), [0.25]);
    }

    #[test]
    fn logarithms_have_the_last_digit_of_numpy() {
        // Bits of `numpy.log` where it is not the correctly rounded logarithm.
        let cases: [(f32, u32); 6] = [
            (0.715_883_3, 0xbeab_2142),
            (0.280_302_8, 0xbfa2_cd20),
            (1.244_259_1, 0x3e5f_c906),
            (0.697_155_7, 0xbeb8_b3c4),
            (0.920_558_4, 0xbda9_85db),
            (20.839_676, 0x4042_5be5),
        ];
        let wrong: Vec<_> = cases.iter().filter(|(x, bits)| log(*x).to_bits() != *bits).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    #[test]
    fn stretched_table_ends_in_pure_noise() {
        let alphas: Vec<f32> = line(0.999, 0.98, 1000);
        let stretched = products(&zero_terminal_snr(&alphas));
        assert_eq!(stretched[999], 0.0);
        assert!((stretched[0] - 0.999).abs() < 1e-6);
    }
}
