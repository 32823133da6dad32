//! Shifts: what they make of the weights, and what refuses them.

use trimtab_registry::command::Change;
use trimtab_registry::event::Event;
use trimtab_registry::history::ChangeKind;
use trimtab_registry::instance::DeclaredStatus;
use trimtab_registry::outcome::{Effect, Outcome};
use trimtab_registry::policy::RoutePolicy;
use trimtab_registry::rejection::{Missing, Needed, Rejection, TooFewReady};
use trimtab_registry::revision::Revision;
use trimtab_registry::route::{BasisPoints, Weights};

use crate::world::*;

fn too_few(rejection: Rejection) -> TooFewReady {
    match rejection {
        Rejection::TooFewReady(numbers) => *numbers,
        other => panic!("not a guard: {other}"),
    }
}

#[test]
fn an_even_canary_of_1_of_101_is_99_basis_points() {
    let mut world = World::with(&[("v41", 100), ("v42", 1)]);
    let routed = world.shift(even("v42")).unwrap();
    assert_eq!(world.weights("s"), "v41=9901 v42=99");
    assert_eq!(routed.changes[0].kind, ChangeKind::Canary);
    assert_eq!(world.groups("s"), "v41:ACTIVE v42:ACTIVE");
}

#[test]
fn an_even_canary_counts_ready_capacity() {
    let mut world = World::with(&[("v1", 3)]);
    let mut large = spec("v2", "large");
    large.capacity = capacity(300);
    world.ask(&register_spec("s", large)).unwrap();
    let mut starting = spec("v2", "starting");
    starting.status = DeclaredStatus::Starting;
    world.ask(&register_spec("s", starting)).unwrap();
    world.shift(even("v2")).unwrap();
    assert_eq!(world.weights("s"), "v1=5000 v2=5000");
}

#[test]
fn an_even_canary_is_not_refused_for_rounding() {
    // 1 of 202 is 49.5 basis points, which rounds up to more than its part.
    let mut world = World::with(&[("v1", 201), ("v2", 1)]);
    world.shift(even("v2")).unwrap();
    assert_eq!(world.weights("s"), "v1=9950 v2=50");
}

#[test]
fn a_canary_leaves_the_others_their_proportions() {
    let mut world = World::with(&[("v1", 30), ("v2", 30), ("v3", 30)]);
    world
        .shift(weights(&[("v1", 7_500), ("v2", 2_500)]))
        .unwrap();
    world.shift(canary("v3", 1_000)).unwrap();
    assert_eq!(world.weights("s"), "v1=6750 v2=2250 v3=1000");
    world.shift(canary("v3", 500)).unwrap();
    assert_eq!(world.weights("s"), "v1=7125 v2=2375 v3=500");
    let routed = world.shift(canary("v3", 9_999)).unwrap();
    assert_eq!(world.weights("s"), "v1=1 v3=9999");
    assert!(
        routed.warnings[0].contains("group v2"),
        "{:?}",
        routed.warnings
    );
}

#[test]
fn what_is_left_over_goes_to_the_largest_remainder_and_ties_to_the_first() {
    let rest = |a: u32, share: u32| {
        let pairs = [(group("a"), a), (group("b"), 10_000 - a)];
        let share = BasisPoints::new(share).unwrap();
        let weights = Weights::new(pairs).unwrap();
        show(&weights.with_share(&group("c"), share).unwrap())
    };
    // 1999.4 and 7997.6; 999.5 and 8995.5.
    assert_eq!(rest(2_000, 3), "a=1999 b=7998 c=3");
    assert_eq!(rest(1_000, 5), "a=1000 b=8995 c=5");
}

#[test]
fn a_canary_needs_others() {
    let mut world = World::with(&[("v1", 2)]);
    for target in [even("v1"), canary("v1", 500)] {
        let rejection = world.refused(&shift(vec![to("s", target)], change()));
        assert!(
            rejection
                .to_string()
                .contains("no other group that has weight exists")
        );
    }
    world.grow("s", "v2", 1);
    for id in ["v1-0", "v1-1"] {
        let lease = world.lease("s", id);
        world.ask(&suspect(vec![lease])).unwrap();
    }
    let rejection = world.refused(&shift(vec![to("s", even("v2"))], change()));
    assert!(
        rejection.to_string().contains("has a ready instance"),
        "{rejection}"
    );
}

#[test]
fn a_switch_moves_everything_at_one_revision() {
    let mut world = World::with(&[("v1", 2), ("v2", 2)]);
    let routed = world.shift(switch("v2")).unwrap();
    assert_eq!(world.weights("s"), "v2=10000");
    assert_eq!(world.groups("s"), "v1:STANDBY v2:ACTIVE");
    assert_eq!(routed.effect, Effect::Changed);
    assert_eq!(routed.revision, world.registry.applied().revision());
    assert_eq!(world.events, vec![Event::ServiceChanged(service("s"))]);
    let view = world.registry.view(&service("s")).unwrap();
    assert_eq!(
        (view.revision, view.route_revision),
        (routed.revision, routed.revision)
    );
    let recorded = &routed.changes[0];
    assert_eq!(recorded.kind, ChangeKind::Switch);
    assert_eq!(show(&recorded.before.as_ref().unwrap().weights), "v1=10000");
    assert_eq!(
        (recorded.actor.as_str(), recorded.reason.as_str()),
        ("ops", "release")
    );
}

#[test]
fn what_already_is_changes_nothing() {
    let mut world = World::with(&[("v1", 1)]);
    let routed = world.shift(switch("v1")).unwrap();
    assert_eq!(routed.effect, Effect::Unchanged);
    assert_eq!((routed.revision, routed.changes.len()), (Revision(1), 0));
    assert!(world.events.is_empty());

    let mut policy = to("s", switch("v1"));
    policy.policy = Some(RoutePolicy {
        fall_back_to_dark: true,
        ..RoutePolicy::default()
    });
    let routed = world.routed(&shift(vec![policy], change())).unwrap();
    assert_eq!(routed.effect, Effect::Changed);
    // Another shift keeps the policy.
    world.grow("s", "v2", 1);
    world.shift(switch("v2")).unwrap();
    let view = world.registry.view(&service("s")).unwrap();
    assert!(view.route.policy.fall_back_to_dark);
}

#[test]
fn a_switch_needs_as_much_ready_capacity_as_carries_the_traffic() {
    let mut world = World::with(&[("v1", 5), ("v2", 4)]);
    let command = shift(vec![to("s", switch("v2"))], change());
    let rejection = world.refused(&command);
    assert_eq!(
        rejection.to_string(),
        "group v2 of service s is not ready for 100% of the traffic: 4 of its 4 instances are \
         ready, with capacity 400, and it needs capacity 500 (capacity 500 carries the traffic \
         now); start more instances, lower min-ready, or use force"
    );
    let numbers = too_few(rejection);
    assert_eq!((numbers.ready, numbers.ready_capacity), (4, 400));
    let (needed, carrying) = (500, 500);
    assert_eq!(numbers.needed, Needed::Capacity { needed, carrying });

    world.register("s", "v2", "v2-4");
    world.ask(&command).unwrap();
}

#[test]
fn a_shift_needs_capacity_in_proportion_to_the_new_weight() {
    let mut world = World::with(&[("v1", 10), ("v2", 2)]);
    world
        .shift(weights(&[("v1", 8_000), ("v2", 2_000)]))
        .unwrap();
    let more = shift(
        vec![to("s", weights(&[("v1", 7_999), ("v2", 2_001)]))],
        change(),
    );
    assert_eq!(too_few(world.refused(&more)).ready_capacity, 200);
    // What shrinks needs nothing.
    world
        .shift(weights(&[("v1", 9_000), ("v2", 1_000)]))
        .unwrap();
}

#[test]
fn two_full_groups_do_not_double_what_is_needed() {
    let mut world = World::with(&[("v1", 10), ("v2", 10)]);
    world
        .shift(weights(&[("v1", 5_000), ("v2", 5_000)]))
        .unwrap();
    world.shift(switch("v2")).unwrap();
    assert_eq!(world.weights("s"), "v2=10000");
}

#[test]
fn nothing_ready_is_refused_even_when_nothing_carries() {
    let mut world = World::with(&[("v1", 1), ("v2", 1)]);
    let leases = vec![world.lease("s", "v1-0"), world.lease("s", "v2-0")];
    world.ask(&suspect(leases)).unwrap();
    let numbers = too_few(world.refused(&shift(vec![to("s", switch("v2"))], change())));
    assert_eq!((numbers.ready, numbers.needed), (0, Needed::Instances(1)));
}

#[test]
fn min_ready_counts_instances_instead() {
    let mut world = World::with(&[("v1", 9), ("v2", 2)]);
    let with = |min_ready| {
        let mut asked = to("s", switch("v2"));
        asked.min_ready = Some(min_ready);
        shift(vec![asked], change())
    };
    let numbers = too_few(world.refused(&with(3)));
    assert_eq!((numbers.ready, numbers.needed), (2, Needed::Instances(3)));
    world.ask(&with(2)).unwrap();

    // Zero still means one: a group without any cannot serve.
    let lease = world.lease("s", "v1-0");
    world.grow("s", "v3", 1);
    let v3 = world.lease("s", "v3-0");
    world.ask(&suspect(vec![lease, v3])).unwrap();
    let mut asked = to("s", switch("v3"));
    asked.min_ready = Some(0);
    let numbers = too_few(world.refused(&shift(vec![asked], change())));
    assert_eq!(numbers.needed, Needed::Instances(1));
}

#[test]
fn force_overrules_the_guard_and_says_so() {
    let mut world = World::with(&[("v1", 5), ("v2", 1)]);
    let command = shift(vec![to("s", switch("v2"))], forced());
    let routed = world.routed(&command).unwrap();
    assert_eq!(world.weights("s"), "v2=10000");
    assert!(
        routed.warnings[0].contains("needs capacity 500"),
        "{:?}",
        routed.warnings
    );
}

#[test]
fn a_share_that_stays_on_nothing_ready_is_a_warning() {
    let mut world = World::with(&[("v1", 4), ("v2", 4), ("v3", 4)]);
    world
        .shift(weights(&[("v1", 5_000), ("v2", 5_000)]))
        .unwrap();
    let dead = (0..4)
        .map(|i| world.lease("s", &format!("v1-{i}")))
        .collect();
    world.ask(&suspect(dead)).unwrap();
    let routed = world
        .shift(weights(&[("v1", 5_000), ("v2", 4_000), ("v3", 1_000)]))
        .unwrap();
    assert_eq!(routed.warnings.len(), 1);
    assert!(routed.warnings[0].starts_with("group v1 of service s is not ready for 50%"));
}

#[test]
fn unknown_services_and_groups_are_named() {
    let mut world = World::with(&[("v1", 1), ("v2", 1)]);
    let rejection = world.refused(&shift(vec![to("other", switch("v1"))], change()));
    assert_eq!(rejection.to_string(), "service other is not registered");
    for target in [
        switch("v9"),
        canary("v9", 1),
        weights(&[("v1", 1), ("v9", 9_999)]),
    ] {
        let rejection = world.refused(&shift(vec![to("s", target)], forced()));
        assert_eq!(
            rejection.to_string(),
            "service s has no group v9; it has v1, v2"
        );
        assert!(matches!(
            rejection,
            Rejection::NotFound(Missing::Group { .. })
        ));
    }
}

#[test]
fn a_group_being_torn_down_gets_no_weight() {
    let mut world = World::with(&[("v1", 1), ("v2", 1)]);
    world.ask(&teardown("s", "v2", change())).unwrap();
    let rejection = world.refused(&shift(vec![to("s", switch("v2"))], forced()));
    assert!(matches!(rejection, Rejection::GroupRetiring { .. }));
}

#[test]
fn compare_and_set_is_against_the_route() {
    let mut world = World::with(&[("v1", 1), ("v2", 1)]);
    let expecting = |revision| {
        let mut asked = to("s", switch("v2"));
        asked.expected = Some(Revision(revision));
        shift(vec![asked], change())
    };
    let rejection = world.refused(&expecting(2));
    let (expected, current) = (Revision(2), Revision(1));
    let service = service("s");
    let mismatch = Rejection::RevisionMismatch {
        service,
        expected,
        current,
    };
    assert_eq!(rejection, mismatch);
    world.ask(&expecting(1)).unwrap();
}

#[test]
fn several_services_shift_at_one_revision_or_not_at_all() {
    let mut world = World::default();
    for name in ["catalog", "cart"] {
        world.grow(name, "v1", 2);
        world.grow(name, "v2", 2);
    }
    let both = |cart: &str| {
        let shifts = vec![to("catalog", switch("v2")), to("cart", switch(cart))];
        shift(shifts, change())
    };
    let rejection = world.refused(&both("v9"));
    assert!(rejection.to_string().contains("cart"), "{rejection}");
    assert_eq!(world.weights("catalog"), "v1=10000");

    let routed = world.routed(&both("v2")).unwrap();
    assert_eq!(routed.changes.len(), 2);
    assert_eq!(world.route_revision("catalog"), routed.revision);
    assert_eq!(world.route_revision("cart"), routed.revision);
}

#[test]
fn a_change_names_each_service_once() {
    let mut world = World::with(&[("v1", 1)]);
    let twice = vec![to("s", switch("v1")), to("s", switch("v1"))];
    let rejection = world.refused(&shift(twice, change()));
    assert!(matches!(rejection, Rejection::Invalid(_)), "{rejection}");
    let none = world.refused(&shift(vec![], change()));
    assert!(none.to_string().contains("1 to 64 services"), "{none}");
    let many = (0..65)
        .map(|i| to(&format!("s{i}"), switch("v1")))
        .collect();
    world.refused(&shift(many, change()));
}

#[test]
fn a_repeated_request_answers_as_the_first_did() {
    let mut world = World::with(&[("v1", 1), ("v2", 1)]);
    let command = shift(vec![to("s", switch("v2"))], named("deploy-1"));
    let first = world.routed(&command).unwrap();
    world.shift(switch("v1")).unwrap();
    let again = world.routed(&command).unwrap();
    assert_eq!(again.effect, Effect::Replayed);
    assert_eq!(
        (again.revision, &again.changes),
        (first.revision, &first.changes)
    );
    assert_eq!(world.weights("s"), "v1=10000", "nothing happens twice");
    assert!(world.events.is_empty());

    let other = rollback_all(&["s"], None, named("deploy-1"));
    let rejection = world.refused(&other);
    assert!(
        matches!(rejection, Rejection::RequestIdReused { .. }),
        "{rejection}"
    );
}

#[test]
fn a_dry_run_changes_nothing_and_shows_everything() {
    let world = World::with(&[("v1", 1), ("v2", 1)]);
    let command = shift(vec![to("s", switch("v2"))], change());
    let Ok(Outcome::Shifted(planned)) = world.registry.plan(&command) else {
        panic!("must be planned");
    };
    assert_eq!(planned.revision, Revision(1), "that of the route of today");
    assert_eq!(planned.changes[0].revision, Revision(0));
    assert_eq!(show(&planned.changes[0].after.weights), "v2=10000");
    assert_eq!(planned.effect, Effect::Changed);
    assert_eq!(world.weights("s"), "v1=10000");
}

#[test]
fn history_is_bounded() {
    let mut world = World::with(&[("v1", 1), ("v2", 1)]);
    for i in 0..150 {
        let name = if i % 2 == 0 { "v2" } else { "v1" };
        let change = Change {
            at_ms: i,
            ..change()
        };
        world
            .ask(&shift(vec![to("s", switch(name))], change))
            .unwrap();
    }
    let found = world.registry.service(&service("s")).unwrap();
    let times: Vec<u64> = found.history().map(|change| change.at_ms).collect();
    assert_eq!((times.len(), times[0], times[99]), (100, 149, 50));
}
