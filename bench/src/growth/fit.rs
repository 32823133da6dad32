//! How fast something grows: the slope of a line through logarithms.

/// The exponent of growth over all points, by least squares; `None` where there are fewer than two of them that are
/// greater than nothing.
pub(super) fn exponent(points: &[(f64, f64)]) -> Option<f64> {
    let logs: Vec<(f64, f64)> = points
        .iter()
        .filter(|(x, y)| *x > 0.0 && *y > 0.0)
        .map(|(x, y)| (x.ln(), y.ln()))
        .collect();
    let count = logs.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| logs.iter().map(of).sum::<f64>() / count;
    let (x_mean, y_mean) = (mean(|point| point.0), mean(|point| point.1));
    let across = |(x, y): &(f64, f64)| (x - x_mean) * (y - y_mean);
    let along = |(x, _): &(f64, f64)| (x - x_mean).powi(2);
    let spread: f64 = logs.iter().map(along).sum();
    (spread > 0.0).then(|| logs.iter().map(across).sum::<f64>() / spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sizes: &[f64], cost: impl Fn(f64) -> f64) -> Option<f64> {
        let points: Vec<(f64, f64)> = sizes.iter().map(|&size| (size, cost(size))).collect();
        exponent(&points).map(|slope| (slope * 1e3).round() / 1e3)
    }

    #[test]
    fn a_power_has_its_exponent() {
        let sizes = [10.0, 100.0, 1_000.0, 10_000.0];
        assert_eq!(of(&sizes, |_| 7.0), Some(0.0));
        assert_eq!(of(&sizes, |size| 3.0 * size), Some(1.0));
        assert_eq!(of(&sizes, |size| size.sqrt()), Some(0.5));
        assert_eq!(of(&sizes, |size| size * size / 9.0), Some(2.0));
    }

    #[test]
    fn one_point_has_no_slope() {
        assert_eq!(exponent(&[]), None);
        assert_eq!(exponent(&[(10.0, 3.0)]), None);
        assert_eq!(exponent(&[(10.0, 3.0), (100.0, 0.0)]), None);
    }
}
