//! Counts as they are kept in the tree, with what they depend on beside its code.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::callgrind::Counts;
use crate::failure::Failure;

/// Counts, and where they were made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) made_with: MadeWith,
    pub(super) instructions: Counts,
}

/// What else the counts depend on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct MadeWith {
    pub(super) rustc: String,
    /// The C library: it allocates and copies, by what the processor can do.
    pub(super) libc: String,
    pub(super) processor: String,
    pub(super) valgrind: String,
}

impl Record {
    pub(super) fn read(file: &Path) -> Result<Self, Failure> {
        let doing = || format!("reading {}", file.display());
        let text = fs::read_to_string(file).map_err(Failure::system(doing()))?;
        let read = serde_json::from_str(&text);
        read.map_err(|error| Failure::Wrong(format!("{}: {error}", doing())))
    }

    pub(super) fn write(&self, file: &Path) -> Result<(), Failure> {
        let doing = || format!("writing {}", file.display());
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| Failure::Wrong(format!("{}: {error}", doing())))?;
        fs::write(file, text + "\n").map_err(Failure::system(doing()))
    }
}

impl MadeWith {
    /// What is here.
    pub(super) fn here() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
        let model = model.and_then(|line| line.split_once(':'));
        Self {
            rustc: version("rustc"),
            libc: version("ldd"),
            processor: model.map_or_else(String::new, |(_, model)| model.trim().to_owned()),
            valgrind: version("valgrind"),
        }
    }

    /// What differs, in words.
    pub(super) fn differences(&self, other: &Self) -> Vec<String> {
        let pairs = [
            (&self.rustc, &other.rustc),
            (&self.libc, &other.libc),
            (&self.processor, &other.processor),
            (&self.valgrind, &other.valgrind),
        ];
        let differ = pairs.into_iter().filter(|(mine, others)| mine != others);
        differ
            .map(|(mine, others)| format!("{mine:?} and {others:?}"))
            .collect()
    }
}

/// The first line of what a program says of its version; empty if it says nothing.
fn version(program: &str) -> String {
    let output = Command::new(program).arg("--version").output();
    let printed = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let printed = printed.unwrap_or_default();
    printed.lines().next().unwrap_or_default().to_owned()
}
