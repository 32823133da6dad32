//! Golden files: output that others depend on, with what differs from run to
//! run taken out.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

/// Numbers that are another in each run.
const NUMBERS: &[&str] = &[
    "revision",
    "route_revision",
    "restored_revision",
    "salt",
    "lease",
    "term",
    "commit_index",
    "applied_index",
    "snapshot_index",
    "uptime_ms",
    "window_ms",
    "elapsed_ms",
    "watchers",
    "confirmed",
    "index",
    "bytes",
    "unconfirmed_entries",
    "lag",
    "data_bytes",
    "disk_free_bytes",
    "snapshot_bytes",
];

/// Texts that are another in each run.
const TEXTS: &[&str] = &[
    "at",
    "actor",
    "request_id",
    "address",
    "version",
    "path",
    "data_dir",
    "cluster_id",
    "saved_at",
];

/// Compares with the golden file, or writes it when asked to.
pub(crate) fn check(name: &str, actual: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/cli/golden")
        .join(name);
    if std::env::var_os("TRIMTAB_BLESS").is_some() {
        fs::write(&path, actual).unwrap();
        return;
    }
    let expected = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; bless it", path.display()));
    assert_eq!(
        actual,
        expected,
        "{} differs; if that is meant, bless it with TRIMTAB_BLESS=1",
        path.display()
    );
}

/// As [`check`], for JSON.
pub(crate) fn check_json(name: &str, actual: &Value) {
    let mut actual = actual.clone();
    normalize(&mut actual);
    check(name, &format!("{actual:#}\n"));
}

fn normalize(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let name = name.as_str();
                let differs = match field {
                    Value::Number(_) => NUMBERS.contains(&name),
                    Value::String(_) => TEXTS.contains(&name),
                    _ => false,
                };
                if differs {
                    *field = format!("<{name}>").into();
                } else {
                    normalize(field);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(normalize),
        _ => {}
    }
}
