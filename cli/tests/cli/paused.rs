//! A registry whose only replica stood still for longer than any lease removes nobody when it wakes.

use std::time::Duration;

use serde_json::Value;

use crate::process::{Held, Registry};

/// Longer than the TTL and the longest hold together.
const PAUSE: Duration = Duration::from_secs(5);

#[test]
fn who_renews_stays_when_the_replica_stood_still() {
    let registry = Registry::start_with(&["--brake-hold", "1s"]);
    let arguments = |id| {
        [
            "register",
            "catalog",
            "v1",
            "127.0.0.1:1",
            "--id",
            id,
            "--ttl",
            "3s",
        ]
    };
    let living: Vec<Held> = ["a", "b", "c", "d"]
        .map(|id| registry.start_command(&arguments(id)))
        .into();
    for instance in &living {
        instance.line();
    }
    let dead = registry.start_command(&arguments("dead"));
    dead.line();
    let before = registry.until(&["status", "catalog"], |status| ready(status).len() == 5);

    drop(dead);
    registry.pause(PAUSE);

    // Who was dead is gone when the others' leases could be over as well.
    let after = registry.until(&["status", "catalog"], |status| {
        ready(status).len() == 4 && status["instances"].as_array().unwrap().len() == 4
    });
    let before: Vec<(String, u64)> = ready(&before)
        .into_iter()
        .filter(|(id, _)| id != "dead")
        .collect();
    assert_eq!(ready(&after), before, "the same leases");
}

/// Ids and leases of those that are ready.
fn ready(status: &Value) -> Vec<(String, u64)> {
    let instances = status["instances"].as_array().cloned().unwrap_or_default();
    instances
        .iter()
        .filter(|instance| instance["status"] == "ready")
        .map(|it| {
            (
                it["id"].as_str().unwrap().to_owned(),
                it["lease"].as_u64().unwrap(),
            )
        })
        .collect()
}
