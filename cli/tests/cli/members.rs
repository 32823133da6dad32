//! Replicas added, promoted, put in charge and removed from the command line.

use serde_json::{Value, json};

use crate::process::{Done, Held, Registry, closed_address};

/// Starts a replica that waits to be taken in.
fn joining(registry: &Registry, id: &str, address: &str) -> Held {
    let data = registry.beside(id);
    Held::start(&[
        "serve",
        "--id",
        id,
        "--listen",
        address,
        "--join",
        &registry.endpoint,
        "--data-dir",
        &data,
    ])
}

fn code(done: &Done) -> Option<i32> {
    done.code
}

#[test]
fn a_registry_of_one_becomes_one_of_two_and_goes_back() {
    let registry = Registry::start();
    let address = closed_address();
    let replica = joining(&registry, "2", &address);
    // The newcomer may not listen yet.
    let added = registry.until(&["cluster", "add", &address], |added| added["id"] == 2);
    assert_eq!(added["address"], address.as_str());
    assert_eq!(
        (&added["voters"], &added["learners"]),
        (&json!([1]), &json!([2]))
    );
    assert!(replica.line().contains("replica 2 ready"));
    let again = registry.json(&["cluster", "add", &address]);
    assert_eq!(again["changed"], false);

    let promote = ["cluster", "promote", "2"];
    let promoted = registry.until(&promote, |it| it["voters"] == json!([1, 2]));
    assert_eq!(promoted["learners"], json!([]));
    let led = registry.json(&["cluster", "transfer", "2"]);
    assert_eq!(led, json!({ "leader_id": 2 }));
    let led = registry.run(&["cluster", "transfer"]);
    assert_eq!(led.stdout, "replica 1 leads\n", "{}", led.stderr);

    let removed = registry.run(&["cluster", "remove", "2"]);
    assert_eq!(
        removed.stdout, "replica 2 is removed; 1 vote\n",
        "{}",
        removed.stderr
    );
    let mut replica = replica;
    assert_eq!(replica.ended(), Some(1));
    let again = registry.run(&["cluster", "remove", "2"]);
    assert_eq!(again.stdout, "replica 2 is removed already; 1 vote\n");
}

#[test]
fn what_cannot_be_done_is_refused_with_the_reason_and_an_exit_code() {
    let registry = Registry::start();
    let nobody = closed_address();
    let refused = registry.run(&["cluster", "add", &nobody]);
    assert_eq!(code(&refused), Some(5), "{}", refused.stderr);
    assert!(refused.stderr.contains("--join"), "{}", refused.stderr);
    let other = Registry::start();
    let refused = registry.run(&["cluster", "add", &other.endpoint]);
    assert_eq!(code(&refused), Some(5), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("another cluster"),
        "{}",
        refused.stderr
    );
    let last = registry.run(&["cluster", "remove", "1", "--force"]);
    assert_eq!(code(&last), Some(5), "{}", last.stderr);
    assert!(last.stderr.contains("last voter"), "{}", last.stderr);
    let alone = registry.run(&["cluster", "transfer"]);
    assert_eq!(code(&alone), Some(5), "{}", alone.stderr);
    let unknown = registry.run(&["cluster", "promote", "9", "--output", "json"]);
    assert_eq!(code(&unknown), Some(4), "{}", unknown.stderr);
    let error: Value = serde_json::from_str(&unknown.stderr).unwrap();
    assert_eq!(error["error"]["code"], "not_found");
    // The usual one is about services.
    assert_eq!(error["error"]["hints"], serde_json::json!([]));
    assert_eq!(code(&registry.run(&["cluster", "remove", "0"])), Some(2));
}
