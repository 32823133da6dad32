//! The bytes of commands, answers and snapshots, pinned: logs on disk and replicas of
//! another version hold them.
//!
//! When one of these fails, the encoding has changed. Do not just renew the
//! file: raise `FORMAT_VERSION` and keep reading what the older one wrote. To
//! write the files of a new version, run the test with `UPDATE_GOLDEN=1`.

use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use trimtab_registry::FORMAT_VERSION;
use trimtab_registry::command::{Adjustment, Command, Expiry, JudgeLeases, Target};
use trimtab_registry::instance::DeclaredStatus;
use trimtab_registry::outcome::Outcome;
use trimtab_registry::rejection::Rejection;
use trimtab_registry::revision::Revision;

use crate::snapshot::full_world;
use crate::world::*;

/// One of each kind, with each of its options.
fn commands() -> Vec<Command> {
    let key = |lease| trimtab_registry::instance::LeaseKey {
        service: service("catalog"),
        instance: instance("a"),
        lease: Revision(lease),
    };
    let mut guarded = to("catalog", weights(&[("v1", 9_000), ("v2", 1_000)]));
    guarded.expected = Some(Revision(300));
    guarded.min_ready = Some(5);
    guarded.policy = Some(every_policy());
    let shifts = vec![
        guarded,
        to("cart", switch("v2")),
        to("web", canary("v2", 500)),
        to("api", even("v2")),
        to("mail", Target::Keep),
    ];
    let judged = JudgeLeases {
        term: TERM,
        suspect: vec![key(1)],
        revive: vec![key(2)],
        expire: vec![Expiry {
            key: key(3),
            suspect_since: Revision(70_000),
        }],
    };
    vec![
        register("catalog", "v1", "a"),
        set_status(key(1), DeclaredStatus::Draining),
        deregister(key(1)),
        Command::JudgeLeases(judged),
        shift(shifts, named("deploy-1")),
        rollback("catalog", None),
        rollback("catalog", Some(Revision(300))),
        teardown("catalog", "v1", forced()),
        adjust("catalog", "a", Adjustment::Drain(true)),
        adjust("catalog", "a", Adjustment::Capacity(Some(capacity(200)))),
    ]
}

/// What a world answers to one of each kind of command, good and bad.
fn answers() -> Vec<Result<Outcome, Rejection>> {
    let mut world = full_world();
    let lease = world.lease("s", "v1-1");
    let asked = vec![
        register("s", "v1", "new"),
        set_status(lease.clone(), DeclaredStatus::Starting),
        suspect(vec![lease.clone()]),
        shift(vec![to("s", even("v1"))], change()),
        shift(vec![to("s", switch("v2"))], change()),
        shift(vec![to("s", switch("v2"))], forced()),
        rollback("s", None),
        rollback("s", Some(Revision(2))),
        teardown("s", "v1", change()),
        teardown("s", "v9", change()),
        adjust("s", "new", Adjustment::Drain(true)),
        deregister(lease),
    ];
    asked.iter().map(|command| world.ask(command)).collect()
}

#[test]
fn commands_keep_their_bytes() {
    pinned("commands", &commands());
}

#[test]
fn answers_keep_their_bytes() {
    pinned("answers", &answers());
}

#[test]
fn snapshots_keep_their_bytes() {
    pinned("snapshot", &full_world().registry.snapshot());
}

/// Compares the encoding with the golden file, and reads the file back.
fn pinned<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(name: &str, value: &T) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(format!("{name}-v{FORMAT_VERSION}.hex"));
    let bytes = postcard::to_allocvec(value).unwrap();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, to_hex(&bytes)).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert_eq!(to_hex(&bytes), golden, "the encoding of {name} has changed");
    let read: T = postcard::from_bytes(&from_hex(&golden)).unwrap();
    assert_eq!(&read, value);
}

fn to_hex(bytes: &[u8]) -> String {
    let line = |line: &[u8]| {
        let digits: String = line.iter().map(|byte| format!("{byte:02x}")).collect();
        digits + "\n"
    };
    bytes.chunks(32).map(line).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}
