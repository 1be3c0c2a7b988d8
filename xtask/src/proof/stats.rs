//! How sure a number of trials makes.

/// The largest share of failures that so many trials with so many failures leave possible at 95 % confidence
/// (Clopper and Pearson, one-sided).
pub(super) fn upper95(cases: u64, failures: u64) -> f64 {
    if cases == 0 || failures >= cases {
        return 1.0;
    }
    let (mut low, mut high) = (0.0f64, 1.0f64);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if at_most(cases, failures, middle) > 0.05 {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// The probability of at most `failures` in `cases` when each fails with probability `p`.
fn at_most(cases: u64, failures: u64, p: f64) -> f64 {
    let (n, mut log_choose, mut sum) = (cases as f64, 0.0f64, 0.0f64);
    for k in 0..=failures {
        let k = k as f64;
        if k > 0.0 {
            log_choose += ((n - k + 1.0) / k).ln();
        }
        sum += (log_choose + k * p.ln() + (n - k) * (1.0 - p).ln()).exp();
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_as_in_the_tables() {
        // With no failure the bound is 1 - 0.05^(1/n); with one in ten the tables say 0.394.
        assert!((upper95(200, 0) - (1.0 - 0.05f64.powf(1.0 / 200.0))).abs() < 1e-9);
        assert!((upper95(10, 1) - 0.3942).abs() < 1e-3);
        assert_eq!(upper95(0, 0), 1.0);
        assert_eq!(upper95(5, 5), 1.0);
    }
}
