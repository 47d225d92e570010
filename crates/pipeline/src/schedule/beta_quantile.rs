//! Quantiles of the symmetric beta distribution, for the schedule of Lee et al. 2024.

/// The `x` at which the distribution function of Beta(`a`, `a`) is `p`.
///
/// Bisection on the regularised incomplete beta function; by symmetry only the lower half is
/// searched, where the logarithm of `x` is halved so that tiny quantiles keep their digits.
pub(super) fn symmetric_quantile(p: f64, a: f64) -> f64 {
    if p <= 0.0 {
        return 0.0;
    }
    if p > 0.5 {
        return 1.0 - symmetric_quantile(1.0 - p, a);
    }
    let norm = unnormalised(0.5, a) * 2.0;
    let (mut low, mut high) = (-700.0_f64, 0.5_f64.ln());
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if unnormalised(middle.exp(), a) / norm < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high).exp()
}

/// Integral of `t^(a-1) (1-t)^(a-1)` from 0 to `x <= 1/2`, by its power series
/// `x^a sum_k (1-a)_k x^k / (k! (a+k))`.
fn unnormalised(x: f64, a: f64) -> f64 {
    let mut term = 1.0;
    let mut sum = 0.0;
    for k in 0..120 {
        let k = f64::from(k);
        sum += term / (a + k);
        term *= (1.0 - a + k) * x / (k + 1.0);
    }
    x.powf(a) * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arcsine_distribution_has_a_closed_form() {
        // Beta(1/2, 1/2) has the quantile function sin²(pi p / 2).
        for i in 0..=100_u8 {
            let p = f64::from(i) / 100.0;
            let exact = (std::f64::consts::FRAC_PI_2 * p).sin().powi(2);
            assert!((symmetric_quantile(p, 0.5) - exact).abs() < 1e-14, "{p}");
        }
    }

    #[test]
    fn uniform_distribution_is_its_own_quantile() {
        for p in [0.0, 1e-9, 0.25, 0.5, 0.75, 1.0] {
            assert!((symmetric_quantile(p, 1.0) - p).abs() < 1e-15);
        }
    }
}
