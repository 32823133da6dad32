//! A run as Markdown: one row for each figure, the ratios beside it.

use std::fmt::Write;

use super::{Peer, Report};
use crate::figures::{Better, Row, Spread};

/// Whose ratios to the others are shown.
pub(super) const OURS: &str = "trimtab";
/// Who is no peer, but the ceiling.
pub(super) const CEILING: &str = "null";

/// The whole report.
pub(crate) fn markdown(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _written = write_report(report, &mut text);
    text
}

fn write_report(report: &Report, out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "{}; {} rounds.\n",
        report.machine.described(),
        report.scale.rounds
    )?;
    writeln!(out, "| | version | on disk when it answers a write |")?;
    writeln!(out, "|---|---|---|")?;
    for Peer {
        name,
        version,
        syncs,
    } in &report.peers
    {
        writeln!(out, "| {name} | {version} | {syncs} |")?;
    }
    let mut workload = "";
    for row in &report.figures.rows {
        if row.subject.workload != workload {
            workload = row.subject.workload;
            write_head(workload, &report.peers, out)?;
        }
        write_row(row, &report.peers, out)?;
    }
    if !report.notices.is_empty() {
        writeln!(out)?;
    }
    for notice in &report.notices {
        writeln!(out, "- {notice}")?;
    }
    Ok(())
}

fn write_head(workload: &str, peers: &[Peer], out: &mut String) -> std::fmt::Result {
    writeln!(out)?;
    write!(out, "| {workload} | |")?;
    for peer in peers {
        write!(out, " {} |", peer.name)?;
    }
    writeln!(out, " {OURS} : {CEILING} | {OURS} : best peer |")?;
    write!(out, "|---|---|")?;
    for _ in peers {
        write!(out, "---:|")?;
    }
    writeln!(out, "---:|---:|")
}

fn write_row(row: &Row, peers: &[Peer], out: &mut String) -> std::fmt::Result {
    let subject = &row.subject;
    write!(
        out,
        "| {} | {}, {} |",
        subject.case, subject.what, subject.unit
    )?;
    for peer in peers {
        let cell = row.spread(peer.name).map(cell).unwrap_or_default();
        write!(out, " {cell} |")?;
    }
    let best = best_peer(row, peers);
    for other in [row.spread(CEILING).map(|own| own.median), best] {
        let ours = row.spread(OURS).map(|own| own.median);
        write!(out, " {} |", ratio(ours, other))?;
    }
    writeln!(out)
}

/// The best median of those who are neither ours nor the ceiling.
fn best_peer(row: &Row, peers: &[Peer]) -> Option<f64> {
    let others = peers
        .iter()
        .filter(|peer| peer.name != OURS && peer.name != CEILING)
        .filter_map(|peer| row.spread(peer.name))
        .map(|own| own.median);
    match row.subject.better {
        Better::Higher => others.max_by(f64::total_cmp),
        Better::Lower => others.min_by(f64::total_cmp),
    }
}

fn ratio(ours: Option<f64>, other: Option<f64>) -> String {
    match (ours, other) {
        (Some(ours), Some(other)) if other > 0.0 => format!("{:.2}", ours / other),
        _ => String::new(),
    }
}

/// The median, and least and most where there are several.
fn cell(spread: Spread) -> String {
    let middle = number(spread.median);
    let (least, most) = (number(spread.min), number(spread.max));
    match least == most {
        true => middle,
        false => format!("{middle} ({least}–{most})"),
    }
}

/// Three digits, and thousands apart.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 1_000.0 {
        // Whole numbers far below 2^52: exact.
        let digits = format!("{size:.0}");
        let mut grouped = String::new();
        for (place, digit) in digits.chars().enumerate() {
            if place > 0 && (digits.len() - place).is_multiple_of(3) {
                grouped.push(',');
            }
            grouped.push(digit);
        }
        return if value < 0.0 {
            format!("-{grouped}")
        } else {
            grouped
        };
    }
    match size {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        0.0 => "0".to_owned(),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::{Subject, Values};

    #[test]
    fn numbers_have_three_digits_or_thousands() {
        let said = [0.0, 0.1234, 1.5, 12.34, 123.4, 1_234.5, 1_234_567.0].map(number);
        let meant = ["0", "0.12", "1.50", "12.3", "123", "1,234", "1,234,567"];
        assert_eq!(said, meant);
    }

    #[test]
    fn the_best_peer_is_neither_ours_nor_the_ceiling() {
        let values = [
            ("null", 9.0),
            ("trimtab", 6.0),
            ("etcd", 2.0),
            ("r-nacos", 3.0),
        ];
        let peer = |name| Peer {
            name,
            version: String::new(),
            syncs: "",
        };
        let row = |better| Row {
            subject: Subject {
                workload: "lookup",
                case: "all".to_owned(),
                what: "rate",
                unit: "/s",
                better,
            },
            values: values
                .iter()
                .map(|&(backend, value)| Values {
                    backend,
                    by_round: vec![value],
                })
                .collect(),
        };
        let peers: Vec<Peer> = values.iter().map(|&(name, _)| peer(name)).collect();
        assert_eq!(best_peer(&row(Better::Higher), &peers), Some(3.0));
        assert_eq!(best_peer(&row(Better::Lower), &peers), Some(2.0));
        let mut line = String::new();
        write_row(&row(Better::Higher), &peers, &mut line).unwrap();
        let meant = "| all | rate, /s | 9.00 | 6.00 | 2.00 | 3.00 | 0.67 | 2.00 |\n";
        assert_eq!(line, meant);
    }
}
