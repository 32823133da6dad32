//! What `explain` prints and serializes of a service with nearly everything that can be unusual about one.

use std::path::PathBuf;

use tokio::time::Instant;

use super::*;
use crate::connection::Link;
use crate::fakes::{moment, rng};
use crate::lineup::Lineup;
use crate::load::Loads;
use crate::record::Standing;
use crate::view::{GroupState, View};
use crate::watcher::Standpoint;

use GroupState::{Active, Dark};
use InstanceStatus::{Draining, Ready, Starting, Suspect};
use LinkState::{Down, Untried, Up};

/// An instance, and what is known of it here.
struct Known {
    instance: Instance,
    link: LinkState,
    failures: u32,
    ejected: bool,
    in_flight: u32,
    milliseconds: u64,
}

fn known(id: &str, zone: &str, status: InstanceStatus, link: LinkState) -> Known {
    let instance = Instance {
        id: id.into(),
        address: format!("{id}.catalog:8080").into(),
        zone: zone.into(),
        capacity: 100,
        metadata: Arc::default(),
        status,
    };
    Known {
        instance,
        link,
        failures: 0,
        ejected: false,
        in_flight: 0,
        milliseconds: 0,
    }
}

fn scene() -> Vec<(Group, Vec<Known>)> {
    let group = |name: &str, state, weight| Group {
        name: name.into(),
        state,
        weight,
        instances: Vec::new(),
    };
    let good = |id: &str, zone: &str| known(id, zone, Ready, Up);
    let ejected = |id: &str| Known {
        ejected: true,
        failures: 7,
        milliseconds: 350,
        ..good(id, "a")
    };
    let mut large = good("v1-1", "b");
    large.instance.capacity = 250;
    vec![
        (
            group("v1", Active, 8_000),
            vec![
                Known {
                    in_flight: 3,
                    milliseconds: 12,
                    ..good("v1-0", "a")
                },
                large,
                good("v1-2", ""),
                ejected("v1-3"),
                known("v1-4", "a", Suspect, Up),
                known("v1-5", "a", Ready, Down),
                known("v1-6", "a", Draining, Up),
                known("v1-7", "a", Starting, Up),
            ],
        ),
        (
            group("v2", Active, 1_000),
            vec![ejected("v2-0"), ejected("v2-1"), good("v2-2", "a")],
        ),
        (
            group("v3", Active, 600),
            vec![
                known("v3-0", "a", Suspect, Up),
                known("v3-1", "a", Ready, Untried),
            ],
        ),
        (
            group("v4", Active, 400),
            vec![known("v4-0", "a", Ready, Down)],
        ),
        (group("v5", Dark, 0), vec![good("v5-0", "a")]),
        (group("v6", Dark, 0), Vec::new()),
    ]
}

fn explained() -> Explanation {
    let scene = scene();
    let origin = Instant::now();
    let groups = scene.iter().map(|(group, known)| Group {
        instances: known.iter().map(|it| it.instance.clone()).collect(),
        ..group.clone()
    });
    let view = View {
        revision: 8_812,
        groups: groups.collect(),
        policy: Policy {
            prefer_zone: true,
            ..Policy::default()
        },
        salt: 7,
    };
    let standpoint = Standpoint {
        caller: "test".into(),
        zone: "a".into(),
        origin,
        instance_metrics: false,
    };
    let mut lineup = Lineup::new("catalog".into(), standpoint);
    let loads = Loads::of(&"catalog".into());
    lineup.follow(Arc::new(view), &loads, origin, |address| {
        let mut known = scene.iter().flat_map(|(_, known)| known);
        let known = known.find(|it| it.instance.address == *address).unwrap();
        let link = Link::unopened(address);
        link.vitals().went(known.link);
        (0..known.in_flight).for_each(|_| link.vitals().call_begins());
        if known.milliseconds > 0 {
            let latency = Duration::from_millis(known.milliseconds);
            link.vitals().answered(moment(), latency);
        }
        for _ in 0..known.failures {
            link.record().failed();
        }
        if known.ejected {
            link.record().set(Standing::Ejected);
        }
        Arc::new(link)
    });
    let picker = lineup.picker(origin, &mut rng());
    explain("catalog", &picker, origin)
}

/// Compares with a file, or writes it where `UPDATE_GOLDEN` is set.
fn is_golden(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("src/explain")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, golden, "UPDATE_GOLDEN=1 writes {}", path.display());
}

#[test]
fn the_table_is_as_it_was() {
    is_golden("golden.txt", &format!("{}\n", explained()));
}

#[test]
fn what_programs_read_is_as_it_was() {
    let json = serde_json::to_string_pretty(&explained()).unwrap();
    is_golden("golden.json", &format!("{json}\n"));
}
