//! What moved, in Markdown.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::record::Record;

/// A count for each path, beside the recorded one.
pub(super) fn markdown(recorded: Option<&Record>, now: &Record) -> String {
    let mut text = String::new();
    if let Some(recorded) = recorded {
        let differences = recorded.made_with.differences(&now.made_with);
        if !differences.is_empty() {
            let what = differences.join(", ");
            let _infallible = writeln!(
                text,
                "Recorded and counted with unlike things, so that small changes mean nothing: {what}.\n"
            );
        }
    }
    text.push_str("| instructions of | recorded | now | change |\n|---|---:|---:|---:|\n");
    let empty = Record::default();
    let recorded = &recorded.unwrap_or(&empty).instructions;
    let paths: BTreeSet<&String> = recorded.keys().chain(now.instructions.keys()).collect();
    for path in paths {
        let (before, after) = (recorded.get(path), now.instructions.get(path));
        let change = match (before, after) {
            (Some(&before), Some(&after)) => percent(before, after),
            (None, _) => "new".to_owned(),
            (_, None) => "gone".to_owned(),
        };
        let shown = |count: Option<&u64>| count.map_or_else(String::new, |it| grouped(*it));
        let (before, after) = (shown(before), shown(after));
        let _infallible = writeln!(text, "| {path} | {before} | {after} | {change} |");
    }
    text
}

/// By how much a count moved; nothing where that rounds to nothing.
fn percent(before: u64, after: u64) -> String {
    let percent = (after as f64 / before.max(1) as f64 - 1.0) * 100.0;
    match percent.abs() < 0.05 {
        true => String::new(),
        false => format!("{percent:+.1} %"),
    }
}

/// "1,234,567".
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instructions::record::MadeWith;

    fn record(rustc: &str, counts: &[(&str, u64)]) -> Record {
        let counts = counts
            .iter()
            .map(|(path, count)| ((*path).to_owned(), *count));
        Record {
            made_with: MadeWith {
                rustc: rustc.to_owned(),
                ..MadeWith::default()
            },
            instructions: counts.collect(),
        }
    }

    #[test]
    fn what_moved_came_or_went_is_said() {
        let before = record("1", &[("gone", 5), ("moved", 1_000), ("same", 1_234_567)]);
        let now = record("1", &[("came", 7), ("moved", 1_100), ("same", 1_234_568)]);
        let table = markdown(Some(&before), &now);
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            rows,
            [
                "| came |  | 7 | new |",
                "| gone | 5 |  | gone |",
                "| moved | 1,000 | 1,100 | +10.0 % |",
                "| same | 1,234,567 | 1,234,568 |  |",
            ]
        );
    }

    #[test]
    fn another_compiler_is_named() {
        let (before, now) = (
            record("1.95", &[("pick", 9)]),
            record("1.96", &[("pick", 9)]),
        );
        let table = markdown(Some(&before), &now);
        assert!(table.starts_with("Recorded and counted with unlike things"));
        assert!(table.contains("\"1.95\" and \"1.96\""));
    }
}
