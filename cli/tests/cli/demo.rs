//! The demo in its fast form, and its end when it is interrupted.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::{read_all, trimtab};

/// Command lines of the processes that use a directory, where the system
/// tells.
fn processes_using(directory: &Path) -> Vec<String> {
    let directory = directory.to_str().unwrap();
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "))
        .filter(|line| line.contains(directory))
        .collect()
}

fn nothing_is_left(directory: &Path) {
    let files: Vec<_> = fs::read_dir(directory).unwrap().collect();
    assert!(files.is_empty(), "{files:?}");
    assert_eq!(processes_using(directory), Vec::<String>::new());
}

#[test]
fn every_promise_of_the_demo_holds() {
    let directory = tempfile::tempdir().unwrap();
    let done = trimtab(&["demo", "--fast", "--output", "json"])
        .env("TMPDIR", directory.path())
        .output()
        .unwrap();
    let story = String::from_utf8_lossy(&done.stderr);
    let report: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|_| panic!("{story}"));
    assert_eq!(done.status.code(), Some(0), "{report:#}\n{story}");
    assert_eq!(report["held"], true);
    assert_eq!(report["totals"]["failed_by_shift_or_registry"], 0);
    assert_ne!(report["totals"]["failed_by_broken_release"], 0);
    assert!(report["promises"].as_array().unwrap().len() >= 7);
    nothing_is_left(directory.path());
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let mut demo = trimtab(&["demo", "--fast"])
        .env("TMPDIR", directory.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Interrupted when replicas, and mostly instances too, are there.
    let deadline = Instant::now() + Duration::from_secs(30);
    while processes_using(directory.path()).len() < 3 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    let killed = Command::new("kill")
        .args(["-INT", &demo.id().to_string()])
        .status();
    assert!(killed.unwrap().success());
    let told = read_all(demo.stderr.take().unwrap());
    assert_eq!(demo.wait().unwrap().code(), Some(1), "{told}");
    assert!(told.contains("stopped on request"), "{told}");
    nothing_is_left(directory.path());
}
