//! Exit codes and errors that scripts can tell apart.

use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::{Held, PATIENCE, Registry, closed_address, run};

#[test]
fn an_unreadable_command_line_is_usage() {
    assert_eq!(run(&["shift", "catalog", "v41"]).code, Some(2));
    assert_eq!(run(&["nonsense"]).code, Some(2));
    assert_eq!(run(&["switch", "catalog"]).code, Some(2));
    assert_eq!(run(&["status", "--timeout", "0s"]).code, Some(2));
}

#[test]
fn shares_that_do_not_sum_never_leave_the_machine() {
    let done = run(&["shift", "catalog", "v41=90", "v42=5"]);
    assert_eq!(done.code, Some(3));
    assert_eq!(
        done.stderr,
        "error: the shares sum to 95%; they must sum to 100%\n"
    );
    assert_eq!(done.stdout, "");
}

#[test]
fn a_registry_that_is_not_there_is_unavailable_and_named() {
    let nowhere = closed_address();
    let done = run(&["status", "--endpoints", &nowhere, "--timeout", "300ms"]);
    assert_eq!(done.code, Some(6));
    assert!(done.stderr.starts_with("error: "), "{}", done.stderr);
    assert!(done.stderr.contains(&nowhere), "{}", done.stderr);
    assert!(done.stderr.contains("hint: "), "{}", done.stderr);
}

/// Three addresses that nobody listens at, and the list of peers they make.
fn three() -> (Vec<String>, String) {
    let addresses: Vec<String> = (0..3).map(|_| closed_address()).collect();
    let named = addresses.iter().zip(1..);
    let peers: Vec<String> = named.map(|(at, id)| format!("{id}={at}")).collect();
    (addresses, peers.join(","))
}

fn replica(id: u64, peers: &str, directory: &Path) -> Held {
    let (id, data) = (id.to_string(), directory.join(id.to_string()));
    let data = data.to_str().unwrap();
    Held::start(&["serve", "--id", &id, "--peers", peers, "--data-dir", data])
}

#[test]
fn a_registry_that_is_not_founded_yet_is_unavailable_and_says_who_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let (addresses, peers) = three();
    let _replica = replica(1, &peers, directory.path());
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(&addresses[0]).is_err() {
        assert!(Instant::now() < deadline, "it does not listen");
        thread::sleep(Duration::from_millis(10));
    }
    let change = ["switch", "catalog", "v42", "--timeout", "3s"];
    let done = run(&[&change[..], &["--endpoints", &addresses[0]]].concat());
    assert_eq!(done.code, Some(6), "{}", done.stderr);
    assert!(done.stderr.contains("replicas 2, 3"), "{}", done.stderr);
}

#[test]
fn a_registry_without_a_quorum_is_unavailable() {
    let directory = tempfile::tempdir().unwrap();
    let (addresses, peers) = three();
    let mut replicas: Vec<Held> = (1..=3)
        .map(|id| replica(id, &peers, directory.path()))
        .collect();
    for replica in &replicas {
        assert!(replica.line().contains("ready"));
    }
    replicas.truncate(1);
    let change = ["switch", "catalog", "v42", "--timeout", "5s"];
    let done = run(&[&change[..], &["--endpoints", &addresses[0]]].concat());
    assert_eq!(done.code, Some(6), "{}", done.stderr);
    assert!(done.stderr.contains("quorum"), "{}", done.stderr);
}

#[test]
fn an_endpoint_that_is_none_is_an_invalid_argument() {
    let done = run(&["services", "--endpoints", "localhost"]);
    assert_eq!(done.code, Some(3));
    assert!(done.stderr.contains("has no port"), "{}", done.stderr);
}

#[test]
fn errors_are_json_where_results_are() {
    let registry = Registry::start();
    let done = registry.run(&["status", "nothing-here", "--output", "json"]);
    assert_eq!(done.code, Some(4));
    let error: Value = serde_json::from_str(&done.stderr).unwrap();
    assert_eq!(error["error"]["code"], "not_found");
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains("nothing-here"), "{message}");
    assert_eq!(done.stdout, "");
}

#[test]
fn a_bad_name_is_quoted_with_its_rule() {
    let registry = Registry::start();
    let done = registry.run(&["switch", "catalog", "V 42"]);
    assert_eq!(done.code, Some(3));
    assert!(done.stderr.contains("\"V 42\""), "{}", done.stderr);
    assert!(done.stderr.contains("[a-z0-9._-]"), "{}", done.stderr);
}
