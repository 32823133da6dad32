//! A replica's life: ready, killed, stopped.

use crate::process::{Held, Registry, run};

#[test]
fn a_replica_stops_in_order_when_asked() {
    let mut registry = Registry::start();
    assert_eq!(registry.stop(), Some(0));
    assert_eq!(
        registry.run(&["services", "--timeout", "200ms"]).code,
        Some(6)
    );
}

#[test]
fn a_killed_replica_comes_back_with_what_it_acknowledged() {
    let mut registry = Registry::start();
    let _held = registry.register("catalog", "v41", "a", "127.0.0.1:9001");
    let before = registry.json(&["history", "catalog"]);
    registry.kill_and_restart();
    assert_eq!(registry.json(&["history", "catalog"]), before);
}

#[test]
fn a_replica_can_be_tied_to_its_parent() {
    let directory = tempfile::tempdir().unwrap();
    let replica = Held::start(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        directory.path().to_str().unwrap(),
        "--until-stdin-closes",
    ]);
    let line = replica.line();
    assert!(
        line.starts_with("trimtab replica 1 ready on 127.0.0.1:"),
        "{line}"
    );
    assert_eq!(replica.close_stdin(), Some(0));
}

#[test]
fn an_address_that_others_can_reach_wants_a_word() {
    let directory = tempfile::tempdir().unwrap();
    let done = run(&[
        "serve",
        "--listen",
        "0.0.0.0:0",
        "--data-dir",
        directory.path().to_str().unwrap(),
    ]);
    assert_eq!(done.code, Some(3));
    assert!(done.stderr.contains("--insecure"), "{}", done.stderr);
}
