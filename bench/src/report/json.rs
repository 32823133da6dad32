//! The whole of a run as JSON.

use std::fs;
use std::path::Path;

use super::Report;
use crate::failure::Failure;

/// Writes every value of every round.
pub(crate) fn write(report: &Report, path: &Path) -> Result<(), Failure> {
    let doing = || format!("writing {}", path.display());
    let text = serde_json::to_string_pretty(report)
        .map_err(|error| Failure::Wrong(format!("{}: {error}", doing())))?;
    fs::write(path, text + "\n").map_err(Failure::system(doing()))
}
