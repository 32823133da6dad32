//! What is printed about services and replicas.

use serde_json::{Value, json};

use crate::golden;
use crate::process::Registry;

/// Two groups of `catalog`: one carries everything, one is dark.
fn registry() -> (Registry, Vec<crate::process::Held>) {
    let registry = Registry::start();
    let held = vec![
        registry.register("catalog", "v41", "a1", "127.0.0.1:9001"),
        registry.register("catalog", "v41", "a2", "127.0.0.1:9002"),
        registry.register("catalog", "v42", "b1", "127.0.0.1:9003"),
    ];
    (registry, held)
}

#[test]
fn answers_have_a_stable_json_form() {
    let (registry, _held) = registry();
    let catalog = "catalog";
    golden::check_json("services.json", &registry.json(&["services"]));
    golden::check_json("resolve.json", &registry.json(&["resolve", catalog]));
    golden::check_json("status.json", &registry.json(&["status", catalog]));
    golden::check_json("status-all.json", &registry.json(&["status"]));
    golden::check_json("history.json", &registry.json(&["history", catalog]));
    golden::check_json(
        "cluster-status.json",
        &registry.json(&["cluster", "status"]),
    );
}

#[test]
fn people_get_tables() {
    let (registry, _held) = registry();
    let services = registry.run(&["services"]).stdout;
    let first: Vec<&str> = services
        .lines()
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    assert_eq!(
        first,
        ["SERVICE", "GROUPS", "INSTANCES", "READY", "REVISION"]
    );
    assert!(
        services.contains("catalog       2          3      3"),
        "{services}"
    );
    let status = registry.run(&["status", "catalog"]).stdout;
    assert!(
        status.starts_with("catalog: v41 100%, revision "),
        "{status}"
    );
    assert!(status.contains("v42    dark"), "{status}");
    let coloured = registry
        .run(&["status", "catalog", "--color", "always"])
        .stdout;
    assert!(coloured.contains("\u{1b}["), "{coloured}");
    assert!(!status.contains("\u{1b}["), "{status}");
}

#[test]
fn a_watch_prints_each_change_as_a_line() {
    let (registry, held) = registry();
    let watch = registry.start_command(&["watch", "catalog", "--output", "json"]);
    let line = || -> Value { serde_json::from_str(&watch.line()).unwrap() };
    let first = line();
    assert_eq!(first["event"], "view");
    assert_eq!(first["route"]["weights"], json!({"v41": 10_000}));
    registry.json(&["canary", "catalog", "v42", "--share", "5%"]);
    let second = line();
    assert_eq!(
        second["route"]["weights"],
        json!({"v41": 9_500, "v42": 500})
    );
    assert!(second["revision"].as_u64() > first["revision"].as_u64());
    drop(held);
}

#[test]
fn a_watch_outlives_the_replica_it_asks() {
    let (mut registry, _held) = registry();
    let watch = registry.start_command(&["watch", "catalog", "--output", "json"]);
    let line = || -> Value { serde_json::from_str(&watch.line()).unwrap() };
    let mut revision = line()["revision"].as_u64();
    registry.kill_and_restart();
    registry.json(&["canary", "catalog", "v42", "--share", "5%", "--force"]);
    loop {
        let view = line();
        assert!(view["revision"].as_u64() > revision, "{view}");
        revision = view["revision"].as_u64();
        if view["route"]["weights"] == json!({"v41": 9_500, "v42": 500}) {
            break;
        }
    }
}

#[test]
fn a_held_registration_is_given_back_when_it_ends() {
    let registry = Registry::start();
    let held = registry.register("catalog", "v41", "a1", "127.0.0.1:9001");
    let instance = &registry.json(&["resolve", "catalog"])["instances"][0];
    assert_eq!(instance["status"], "ready");
    assert_eq!(instance["capacity"], 100);
    assert_eq!(held.terminate(), Some(0));
    registry.until(&["resolve", "catalog"], |view| {
        view["instances"].as_array().is_some_and(Vec::is_empty)
    });
}
