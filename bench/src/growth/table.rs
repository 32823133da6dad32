//! Costs by size, and how fast they grow, in Markdown.

use std::fmt::Write;

use super::Sweep;
use super::cost::{METRICS, Metric};
use super::fit::exponent;

/// By so much an exponent may be above its bound and be taken for noise.
const TOLERANCE: f64 = 0.25;
/// What costs less than so many times what it did at the smallest size has not grown much, whatever its last step was.
const GROWN: f64 = 2.0;

/// A table for each dimension.
pub(super) fn markdown(sweeps: &[Sweep]) -> String {
    let tables: Vec<String> = sweeps.iter().map(one).collect();
    format!(
        "Processor time of all servers, less what they use at rest. Last step: the exponent between the last two sizes; \
         bold where it is more than {TOLERANCE} above the most that it may be, and the cost more than {GROWN} times the \
         first.\n\n{}",
        tables.join("\n")
    )
}

fn one(sweep: &Sweep) -> String {
    let mut text = format!("| {} |", sweep.axis.title());
    for metric in METRICS {
        let _infallible = write!(text, " {}, {} |", metric.name, metric.unit);
    }
    text.push_str("\n|---:|");
    text.push_str(&"---:|".repeat(METRICS.len()));
    text.push('\n');
    for (size, cost) in &sweep.points {
        let costs = METRICS.map(|metric| shown((metric.of)(cost)));
        row(&mut text, &size.to_string(), &costs);
    }
    row(
        &mut text,
        "exponent",
        &METRICS.map(|metric| {
            exponent(&points(sweep, &metric))
                .map_or_else(String::new, |slope| format!("{slope:.2}"))
        }),
    );
    row(
        &mut text,
        "last step",
        &METRICS.map(|metric| last_step(sweep, &metric)),
    );
    row(
        &mut text,
        "at most",
        &METRICS.map(|metric| format!("{:.0}", metric.bound(sweep.axis))),
    );
    text
}

fn row(text: &mut String, head: &str, cells: &[String]) {
    let _infallible = writeln!(text, "| {head} | {} |", cells.join(" | "));
}

fn points(sweep: &Sweep, metric: &Metric) -> Vec<(f64, f64)> {
    let points = sweep.points.iter();
    points
        .map(|(size, cost)| (*size as f64, (metric.of)(cost)))
        .collect()
}

fn last_step(sweep: &Sweep, metric: &Metric) -> String {
    let points = points(sweep, metric);
    let last = points
        .get(points.len().saturating_sub(2)..)
        .unwrap_or_default();
    let has_grown = match (points.first(), points.last()) {
        (Some((_, first)), Some((_, last))) => *last > first * GROWN,
        _ => false,
    };
    match exponent(last) {
        Some(slope) if has_grown && slope > metric.bound(sweep.axis) + TOLERANCE => {
            format!("**{slope:.2}**")
        }
        Some(slope) => format!("{slope:.2}"),
        None => String::new(),
    }
}

/// Three digits, or all of a whole number.
fn shown(value: f64) -> String {
    let digits = match value {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::growth::axis::Axis;
    use crate::growth::cost::Cost;

    #[test]
    fn what_grows_too_fast_is_bold() {
        let cost = |shift, lookup| Cost {
            shift,
            lookup,
            ..Cost::default()
        };
        let sweep = Sweep {
            axis: Axis::Services,
            points: vec![(10, cost(5.0, 2.0)), (100, cost(5.1, 20.0))],
        };
        let table = markdown(&[sweep]);
        let line = table.lines().find(|line| line.starts_with("| last step"));
        let cells: Vec<&str> = line.unwrap().split('|').map(str::trim).collect();
        assert_eq!(cells[5], "0.01");
        assert_eq!(cells[7], "**1.00**");
        assert!(table.contains("| 100 | 0.00 | 0.00 | 0.00 | 5.10 | 0.00 | 20.0 | 0.00 |"));
    }
}
