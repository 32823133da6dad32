//! Teardown: what stands in its way, and what is left afterwards.

use trimtab_registry::event::Event;
use trimtab_registry::instance::Status;
use trimtab_registry::outcome::Outcome;
use trimtab_registry::rejection::{Missing, Rejection};

use crate::world::*;

fn told(outcome: Result<Outcome, Rejection>) -> u32 {
    match outcome {
        Ok(Outcome::TornDown { instances, .. }) => instances,
        other => panic!("{other:?}"),
    }
}

#[test]
fn its_instances_are_told_and_it_goes_with_the_last() {
    let mut world = World::with(&[("v1", 2), ("v2", 2)]);
    world.shift(switch("v2")).unwrap();
    assert_eq!(told(world.ask(&teardown("s", "v1", change()))), 2);
    let retiring = Event::GroupRetiring {
        service: service("s"),
        group: group("v1"),
    };
    let leaving = |id| Event::LeaseLeaving {
        key: world.lease("s", id),
        leaving: true,
    };
    let changed = Event::ServiceChanged(service("s"));
    assert_eq!(
        world.events,
        vec![leaving("v1-0"), leaving("v1-1"), retiring, changed]
    );
    assert_eq!(world.groups("s"), "v1:RETIRING v2:ACTIVE");
    assert_eq!(
        world.status("s", "v1-0"),
        Some(Status::Ready),
        "until it drains"
    );

    // Asked again it answers the same.
    assert_eq!(told(world.ask(&teardown("s", "v1", change()))), 2);
    assert!(world.events.is_empty());

    let rejection = world.refused(&register("s", "v1", "late"));
    assert!(matches!(rejection, Rejection::GroupRetiring { .. }));
    for id in ["v1-0", "v1-1"] {
        let lease = world.lease("s", id);
        world.ask(&deregister(lease)).unwrap();
    }
    assert_eq!(world.groups("s"), "v2:ACTIVE");
    let rejection = world.refused(&teardown("s", "v1", change()));
    assert!(matches!(
        rejection,
        Rejection::NotFound(Missing::Group { .. })
    ));
}

#[test]
fn an_empty_group_goes_at_once() {
    let mut world = World::with(&[("v1", 1), ("v2", 1)]);
    world.shift(switch("v2")).unwrap();
    let lease = world.lease("s", "v1-0");
    world.ask(&deregister(lease)).unwrap();
    assert_eq!(world.groups("s"), "v1:STANDBY v2:ACTIVE");
    assert_eq!(told(world.ask(&teardown("s", "v1", change()))), 0);
    assert_eq!(world.groups("s"), "v2:ACTIVE");
    assert_eq!(world.events, vec![Event::ServiceChanged(service("s"))]);
}

#[test]
fn a_group_with_weight_stays() {
    let mut world = World::with(&[("v1", 2), ("v2", 2)]);
    world.shift(canary("v2", 1_250)).unwrap();
    for change in [change(), forced()] {
        let rejection = world.refused(&teardown("s", "v2", change));
        assert_eq!(
            rejection.to_string(),
            "group v2 of service s still gets 12.5% of its traffic: shift it away first"
        );
    }
}

#[test]
fn the_only_group_goes_by_force_and_the_service_with_it() {
    let mut world = World::with(&[("v1", 1)]);
    let rejection = world.refused(&teardown("s", "v1", change()));
    assert!(
        rejection
            .to_string()
            .contains("use force to end the service")
    );

    assert_eq!(told(world.ask(&teardown("s", "v1", forced()))), 1);
    let at = world.registry.applied().revision();
    assert!(
        world
            .events
            .contains(&Event::ServiceEnded(service("s"), at))
    );
    assert_eq!(world.registry.view(&service("s")), None);
    let rejection = world.refused(&shift(vec![to("s", switch("v1"))], forced()));
    assert!(matches!(
        rejection,
        Rejection::NotFound(Missing::Service(_))
    ));

    let lease = world.lease("s", "v1-0");
    world.ask(&deregister(lease.clone())).unwrap();
    assert_eq!(world.events, vec![Event::LeaseEnded { key: lease }]);
    assert_eq!(world.registry.services().len(), 0);
}

#[test]
fn an_ended_service_can_be_founded_anew() {
    let mut world = World::with(&[("v1", 1)]);
    world.ask(&teardown("s", "v1", forced())).unwrap();
    world.register("s", "v2", "new");
    assert_eq!(world.weights("s"), "v2=10000");
    assert_eq!(world.groups("s"), "v1:RETIRING v2:ACTIVE");
    let rejection = world.refused(&rollback("s", None));
    assert!(
        matches!(rejection, Rejection::NoEarlierRoute { .. }),
        "{rejection}"
    );
}

#[test]
fn a_service_without_instances_ends_at_once() {
    let mut world = World::with(&[("v1", 1)]);
    let lease = world.lease("s", "v1-0");
    world.ask(&deregister(lease)).unwrap();
    assert_eq!(
        world.groups("s"),
        "v1:ACTIVE",
        "its name and route are kept"
    );
    assert_eq!(told(world.ask(&teardown("s", "v1", forced()))), 0);
    assert_eq!(world.registry.services().len(), 0);
}
