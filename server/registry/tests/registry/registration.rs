//! Instances come, say how they are, and go.

use trimtab_registry::bounds::{GROUPS_MAX, INSTANCES_MAX};
use trimtab_registry::command::Adjustment;
use trimtab_registry::event::Event;
use trimtab_registry::history::ChangeKind;
use trimtab_registry::instance::{DeclaredStatus, Status, Ttl};
use trimtab_registry::outcome::Outcome;
use trimtab_registry::rejection::{Missing, Rejection};
use trimtab_registry::revision::Revision;

use crate::world::*;

#[test]
fn the_first_group_gets_all_and_others_are_dark() {
    let mut world = World::default();
    world.register("s", "v1", "a");
    assert_eq!(world.weights("s"), "v1=10000");
    world.register("s", "v2", "b");
    assert_eq!(world.weights("s"), "v1=10000");
    assert_eq!(world.groups("s"), "v1:ACTIVE v2:DARK");

    let history: Vec<_> = world
        .registry
        .service(&service("s"))
        .unwrap()
        .history()
        .collect();
    assert_eq!(history.len(), 1);
    assert_eq!(history[0].kind, ChangeKind::Found);
    assert_eq!(history[0].before, None);
    assert_eq!(history[0].revision, Revision(1));
    assert_eq!(history[0].at_ms, 1_700_000_000_000);
}

#[test]
fn dark_stays_dark_when_the_weighted_group_is_empty() {
    let mut world = World::with(&[("v1", 1)]);
    let lease = world.lease("s", "v1-0");
    world.ask(&deregister(lease)).unwrap();
    world.register("s", "v2", "b");
    assert_eq!(world.weights("s"), "v1=10000");
    assert_eq!(world.groups("s"), "v1:ACTIVE v2:DARK");
}

#[test]
fn a_registration_tells_its_lease_and_its_events() {
    let mut world = World::default();
    let outcome = world.ask(&register("s", "v1", "a")).unwrap();
    let (revision, lease) = (Revision(1), Revision(1));
    assert_eq!(outcome, Outcome::Registered { revision, lease });
    let key = world.lease("s", "a");
    let granted = |key| Event::LeaseGranted {
        key,
        ttl: Ttl::default(),
        zone: spec("v1", "a").zone,
        leaving: false,
    };
    let changed = Event::ServiceChanged(service("s"));
    assert_eq!(world.events, vec![granted(key.clone()), changed.clone()]);

    world.ask(&register("s", "v1", "a")).unwrap();
    let ended = Event::LeaseEnded { key };
    let key = world.lease("s", "a");
    assert_eq!(key.lease, Revision(2));
    assert_eq!(world.events, vec![ended, granted(key), changed]);
}

#[test]
fn registering_again_replaces_and_keeps_what_operators_set() {
    let mut world = World::with(&[("v1", 1)]);
    world
        .ask(&adjust("s", "v1-0", Adjustment::Drain(true)))
        .unwrap();
    let held = Adjustment::Capacity(Some(capacity(7)));
    world.ask(&adjust("s", "v1-0", held)).unwrap();

    let mut again = spec("v2", "v1-0");
    again.capacity = capacity(300);
    world.ask(&register_spec("s", again)).unwrap();
    let view = world.registry.view(&service("s")).unwrap();
    assert_eq!(view.instances.len(), 1);
    let instance = &view.instances[0];
    assert_eq!(instance.group(), &group("v2"));
    assert_eq!(instance.spec.capacity.get(), 300);
    assert_eq!(
        (instance.status(), instance.capacity()),
        (Status::Draining, 7)
    );
    assert_eq!(world.groups("s"), "v1:ACTIVE v2:DARK");

    // It ends with the lease.
    let lease = world.lease("s", "v1-0");
    world.ask(&deregister(lease)).unwrap();
    world.register("s", "v2", "v1-0");
    assert_eq!(world.status("s", "v1-0"), Some(Status::Ready));
}

#[test]
fn a_suspect_that_registers_again_is_trusted() {
    let mut world = World::with(&[("v1", 1)]);
    let lease = world.lease("s", "v1-0");
    world.ask(&suspect(vec![lease])).unwrap();
    assert_eq!(world.status("s", "v1-0"), Some(Status::Suspect));
    world.register("s", "v1", "v1-0");
    assert_eq!(world.status("s", "v1-0"), Some(Status::Ready));
}

#[test]
fn a_status_is_said_by_who_holds_the_lease() {
    let mut world = World::default();
    let mut starting = spec("v1", "a");
    starting.status = DeclaredStatus::Starting;
    world.ask(&register_spec("s", starting)).unwrap();
    assert_eq!(world.status("s", "a"), Some(Status::Starting));

    let lease = world.lease("s", "a");
    let revision = Revision(2);
    let ready = set_status(lease.clone(), DeclaredStatus::Ready);
    assert_eq!(world.ask(&ready), Ok(Outcome::StatusSet { revision }));
    assert_eq!(world.events, vec![Event::ServiceChanged(service("s"))]);
    assert_eq!(world.status("s", "a"), Some(Status::Ready));

    // Said again it changes nothing.
    assert_eq!(world.ask(&ready), Ok(Outcome::StatusSet { revision }));
    assert!(world.events.is_empty());

    world.register("s", "v1", "a");
    let rejection = world.refused(&set_status(lease, DeclaredStatus::Draining));
    assert!(matches!(
        rejection,
        Rejection::NotFound(Missing::Lease { .. })
    ));
}

#[test]
fn a_draining_instance_does_not_register() {
    let mut world = World::default();
    let mut draining = spec("v1", "a");
    draining.status = DeclaredStatus::Draining;
    let Rejection::Invalid(invalid) = world.refused(&register_spec("s", draining)) else {
        panic!("must be invalid");
    };
    assert_eq!(invalid.field, "status");
    assert_eq!(world.registry.services().len(), 0);
}

#[test]
fn leaving_twice_is_no_error() {
    let mut world = World::with(&[("v1", 2)]);
    let lease = world.lease("s", "v1-0");
    let existed = |outcome| match outcome {
        Ok(Outcome::Deregistered { existed, .. }) => existed,
        other => panic!("{other:?}"),
    };
    assert!(existed(world.ask(&deregister(lease.clone()))));
    let ended = Event::LeaseEnded { key: lease.clone() };
    let changed = Event::ServiceChanged(service("s"));
    assert_eq!(world.events, vec![ended, changed]);
    assert!(!existed(world.ask(&deregister(lease))));
    assert!(world.events.is_empty());
    assert_eq!(world.status("s", "v1-0"), None);
}

#[test]
fn an_old_lease_does_not_end_a_new_one() {
    let mut world = World::with(&[("v1", 1)]);
    let old = world.lease("s", "v1-0");
    world.register("s", "v1", "v1-0");
    world.ask(&deregister(old)).unwrap();
    assert_eq!(world.status("s", "v1-0"), Some(Status::Ready));
}

#[test]
fn a_group_that_never_carried_vanishes_with_its_last_instance() {
    let mut world = World::with(&[("v1", 1), ("v2", 2)]);
    for id in ["v2-0", "v2-1"] {
        let lease = world.lease("s", id);
        world.ask(&deregister(lease)).unwrap();
    }
    assert_eq!(world.groups("s"), "v1:ACTIVE");

    world.register("s", "v3", "moving");
    world.register("s", "v4", "moving");
    assert_eq!(world.groups("s"), "v1:ACTIVE v4:DARK");
}

#[test]
fn too_many_groups_forget_the_oldest_that_is_empty() {
    let mut world = World::with(&[("v1", 1), ("v2", 1)]);
    world.shift(switch("v2")).unwrap();
    let lease = world.lease("s", "v1-0");
    world.ask(&deregister(lease)).unwrap();
    for i in 2..GROUPS_MAX {
        world.register("s", &format!("g{i}"), &format!("g{i}"));
    }
    assert!(world.groups("s").contains("v1:STANDBY"));

    world.register("s", "one-more", "one-more");
    assert!(!world.groups("s").contains("v1:"), "forgotten");
    let rejection = world.refused(&register("s", "too-many", "x"));
    assert!(
        rejection.to_string().contains("the bound of 100"),
        "{rejection}"
    );

    let gone = world.refused(&rollback("s", None));
    assert!(matches!(gone, Rejection::GroupGone { .. }), "{gone}");
}

#[test]
fn too_many_instances_are_refused() {
    let mut world = World::default();
    for i in 0..INSTANCES_MAX {
        world.ask(&register("s", "v1", &format!("i{i}"))).unwrap();
    }
    let rejection = world.ask(&register("s", "v1", "one-more")).unwrap_err();
    assert!(rejection.to_string().contains("20000"), "{rejection}");
    // One that is there may still come again.
    world.ask(&register("s", "v1", "i0")).unwrap();
}
