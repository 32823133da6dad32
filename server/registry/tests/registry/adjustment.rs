//! What operators set on an instance.

use trimtab_registry::command::{AdjustInstance, Adjustment, Command};
use trimtab_registry::instance::{DeclaredStatus, Status};
use trimtab_registry::outcome::Outcome;
use trimtab_registry::rejection::{Missing, Rejection};
use trimtab_registry::revision::Revision;

use crate::world::*;

fn warnings(outcome: Result<Outcome, Rejection>) -> Vec<String> {
    match outcome {
        Ok(Outcome::Adjusted { warnings, .. }) => warnings,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_hold_drains_whatever_the_instance_says() {
    let mut world = World::with(&[("v1", 2)]);
    assert!(warnings(world.ask(&adjust("s", "v1-0", Adjustment::Drain(true)))).is_empty());
    assert_eq!(world.status("s", "v1-0"), Some(Status::Draining));
    let lease = world.lease("s", "v1-0");
    world
        .ask(&set_status(lease, DeclaredStatus::Ready))
        .unwrap();
    assert_eq!(world.status("s", "v1-0"), Some(Status::Draining));
    world
        .ask(&adjust("s", "v1-0", Adjustment::Drain(false)))
        .unwrap();
    assert_eq!(world.status("s", "v1-0"), Some(Status::Ready));
}

#[test]
fn capacity_is_overruled_and_restored() {
    let mut world = World::with(&[("v1", 1)]);
    let effective = |world: &World| {
        let view = world.registry.view(&service("s")).unwrap();
        view.instances[0].capacity()
    };
    let half = Adjustment::Capacity(Some(capacity(50)));
    world.ask(&adjust("s", "v1-0", half)).unwrap();
    assert_eq!(effective(&world), 50);
    world
        .ask(&adjust("s", "v1-0", Adjustment::Capacity(None)))
        .unwrap();
    assert_eq!(effective(&world), 100);
}

#[test]
fn what_already_is_changes_nothing() {
    let mut world = World::with(&[("v1", 1)]);
    world
        .ask(&adjust("s", "v1-0", Adjustment::Drain(false)))
        .unwrap();
    assert!(world.events.is_empty());
    let view = world.registry.view(&service("s")).unwrap();
    assert_eq!(view.revision, Revision(1));
}

#[test]
fn draining_the_last_ready_instance_is_a_warning() {
    let mut world = World::with(&[("v1", 1), ("v2", 1)]);
    let said = warnings(world.ask(&adjust("s", "v1-0", Adjustment::Drain(true))));
    assert_eq!(said.len(), 1);
    assert!(said[0].contains("group v1 gets 100%"), "{said:?}");
    assert!(warnings(world.ask(&adjust("s", "v2-0", Adjustment::Drain(true)))).is_empty());
}

#[test]
fn it_must_be_there_and_the_route_as_expected() {
    let mut world = World::with(&[("v1", 1)]);
    let rejection = world.refused(&adjust("s", "nobody", Adjustment::Drain(true)));
    assert!(matches!(
        rejection,
        Rejection::NotFound(Missing::Instance { .. })
    ));
    let rejection = world.refused(&Command::AdjustInstance(AdjustInstance {
        service: service("s"),
        instance: instance("v1-0"),
        adjustment: Adjustment::Drain(true),
        expected: Some(Revision(9)),
        change: change(),
    }));
    assert!(matches!(rejection, Rejection::RevisionMismatch { .. }));
}
