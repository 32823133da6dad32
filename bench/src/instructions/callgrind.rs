//! One run of the paths under callgrind: one dump for each path.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::failure::Failure;

/// The function that is counted, bench/paths/src/counted.rs; twice, since callgrind keeps one purpose for each pattern.
const COLLECT_IN: &str = "*paths::counted::counted*";
const DUMP_AFTER: &str = "*trimtab_paths::counted::counted*";

/// Instructions of running each path once, by its name.
pub(super) type Counts = BTreeMap<String, u64>;

/// Runs all paths of `binary` once and counts.
pub(super) fn count(binary: &Path) -> Result<Counts, Failure> {
    let directory =
        tempfile::tempdir().map_err(Failure::system("making a directory for counts"))?;
    let dump = directory.path().join("dump");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no"])
        .arg(format!("--toggle-collect={COLLECT_IN}"))
        .arg(format!("--dump-after={DUMP_AFTER}"))
        .arg(format!("--callgrind-out-file={}", dump.display()))
        .arg(binary)
        .output();
    let doing = "running valgrind (Debian: apt-get install valgrind)";
    let output = output.map_err(Failure::system(doing))?;
    if !output.status.success() {
        return Err(Failure::Wrong(format!(
            "valgrind with {} ended with {}: {}",
            binary.display(),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        )));
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let mut counts = Counts::new();
    for line in said.lines() {
        let read = |number: &str| fs::read_to_string(dump.with_extension(number)).ok();
        let (path, instructions) = one(line, read)?;
        if counts.insert(path.clone(), instructions).is_some() {
            return Err(Failure::Wrong(format!("two paths are called {path:?}")));
        }
    }
    match counts.is_empty() {
        true => Err(Failure::Wrong("no path was counted".to_owned())),
        false => Ok(counts),
    }
}

/// What a line of the program announces: number, times, name. `dump` has the dump with a number.
fn one(line: &str, dump: impl FnOnce(&str) -> Option<String>) -> Result<(String, u64), Failure> {
    let wrong = |what: &str| Failure::Wrong(format!("counting {line:?}: {what}"));
    let mut fields = line.split('\t');
    let (Some(number), Some(times), Some(path)) = (fields.next(), fields.next(), fields.next())
    else {
        return Err(wrong("it must be a number, how often, and a name"));
    };
    let times: u64 = times
        .parse()
        .map_err(|_| wrong("how often must be a number"))?;
    let dump = dump(number).ok_or_else(|| wrong("callgrind left no dump of it"))?;
    let total = total(&dump).ok_or_else(|| wrong("its dump has no total"))?;
    match total.checked_div(times) {
        Some(instructions) if instructions > 0 => Ok((path.to_owned(), instructions)),
        _ => Err(wrong("callgrind counted nothing")),
    }
}

/// The sum over a dump.
fn total(dump: &str) -> Option<u64> {
    let line = dump.lines().find_map(|line| line.strip_prefix("totals:"));
    line?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_is_divided_by_how_often_the_path_ran() {
        let dump =
            "version: 1\nevents: Ir\nsummary: 4000\n\nfn=(1) counted\n1 4000\n\ntotals: 4000\n";
        let count = one("3\t40\tapply a shift", |number| {
            assert_eq!(number, "3");
            Some(dump.to_owned())
        });
        assert_eq!(count.unwrap(), ("apply a shift".to_owned(), 100));
    }

    #[test]
    fn what_was_not_counted_is_an_error() {
        let counted = |dump: Option<&str>| one("1\t10\tpick", |_| dump.map(ToOwned::to_owned));
        assert!(counted(None).is_err());
        assert!(counted(Some("events: Ir\n")).is_err());
        assert!(counted(Some("totals: 0\n")).is_err());
        assert!(one("no number", |_| None).is_err());
    }
}
