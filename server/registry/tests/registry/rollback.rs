//! Rollback: exact, further back each time, and refused only for what is gone.

use trimtab_registry::history::ChangeKind;
use trimtab_registry::outcome::Effect;
use trimtab_registry::rejection::{Gone, Rejection};
use trimtab_registry::revision::Revision;

use crate::world::*;

#[test]
fn each_rollback_goes_further_back() {
    let mut world = World::with(&[("v1", 2), ("v2", 2), ("v3", 2)]);
    world.shift(canary("v2", 1_000)).unwrap();
    world.shift(switch("v2")).unwrap();
    world.shift(switch("v3")).unwrap();
    for expected in ["v2=10000", "v1=9000 v2=1000", "v1=10000"] {
        let routed = world.rollback().unwrap();
        assert_eq!(world.weights("s"), expected);
        assert_eq!(routed.changes[0].kind, ChangeKind::Rollback);
    }
    let rejection = world.refused(&rollback("s", None));
    assert!(
        matches!(rejection, Rejection::NoEarlierRoute { .. }),
        "{rejection}"
    );
}

#[test]
fn a_shift_after_a_rollback_goes_back_to_what_was_restored() {
    let mut world = World::with(&[("v1", 2), ("v2", 2), ("v3", 2)]);
    world.shift(switch("v2")).unwrap();
    world.rollback().unwrap();
    world.shift(switch("v3")).unwrap();
    world.rollback().unwrap();
    assert_eq!(world.weights("s"), "v1=10000");
    let rejection = world.refused(&rollback("s", None));
    assert!(
        matches!(rejection, Rejection::NoEarlierRoute { .. }),
        "{rejection}"
    );
}

#[test]
fn the_revision_that_is_restored_is_the_one_that_made_the_route() {
    let mut world = World::with(&[("v1", 1), ("v2", 1)]);
    let first = world.shift(switch("v2")).unwrap();
    let routed = world.rollback().unwrap();
    assert_eq!(routed.changes[0].restored, Some(Revision(1)));
    let forward = world.routed(&rollback("s", Some(first.revision))).unwrap();
    assert_eq!(forward.changes[0].restored, Some(first.revision));
    assert_eq!(world.weights("s"), "v2=10000");

    // To the revision of a rollback is to what that one restored.
    let again = world.routed(&rollback("s", Some(routed.revision))).unwrap();
    assert_eq!(again.changes[0].restored, Some(Revision(1)));
}

#[test]
fn to_the_route_of_today_changes_nothing() {
    let mut world = World::with(&[("v1", 1)]);
    let routed = world.routed(&rollback("s", Some(Revision(1)))).unwrap();
    assert_eq!(routed.effect, Effect::Unchanged);
}

#[test]
fn readiness_is_a_warning() {
    let mut world = World::with(&[("v1", 2), ("v2", 2)]);
    world.shift(switch("v2")).unwrap();
    for id in ["v1-0", "v1-1"] {
        let lease = world.lease("s", id);
        world.ask(&deregister(lease)).unwrap();
    }
    let routed = world.rollback().unwrap();
    assert_eq!(world.weights("s"), "v1=10000");
    assert!(
        routed.warnings[0].contains("0 of its 0 instances"),
        "{:?}",
        routed.warnings
    );
}

#[test]
fn an_unknown_revision_is_refused() {
    let mut world = World::with(&[("v1", 1), ("v2", 1)]);
    world.shift(switch("v2")).unwrap();
    let rejection = world.refused(&rollback("s", Some(Revision(2))));
    assert_eq!(
        rejection.to_string(),
        "revision 2 is not in the history of service s, which holds changes from 1 to 3: \
         look at the history for the revision to go back to"
    );
}

#[test]
fn a_group_that_was_torn_down_is_named() {
    let mut world = World::with(&[("v1", 1), ("v2", 1)]);
    world.shift(switch("v2")).unwrap();
    world.ask(&teardown("s", "v1", change())).unwrap();
    let how = |rejection| match rejection {
        Rejection::GroupGone { how, .. } => how,
        other => panic!("{other}"),
    };
    assert_eq!(how(world.refused(&rollback("s", None))), Gone::Retiring);

    let lease = world.lease("s", "v1-0");
    world.ask(&deregister(lease)).unwrap();
    assert_eq!(how(world.refused(&rollback("s", None))), Gone::Forgotten);

    // One that comes back under the name is another one.
    world.register("s", "v1", "v1-0");
    let back = world.registry.applied().revision();
    assert_eq!(
        how(world.refused(&rollback("s", None))),
        Gone::Replaced(back)
    );
}

#[test]
fn several_services_roll_back_together_or_not_at_all() {
    let mut world = World::default();
    for name in ["catalog", "cart"] {
        world.grow(name, "v1", 1);
        world.grow(name, "v2", 1);
    }
    world
        .ask(&shift(vec![to("catalog", switch("v2"))], change()))
        .unwrap();
    let both = rollback_all(&["catalog", "cart"], None, named("back"));
    let rejection = world.refused(&both);
    assert!(
        rejection.to_string().contains("service cart"),
        "{rejection}"
    );
    assert_eq!(world.weights("catalog"), "v2=10000");

    world
        .ask(&shift(vec![to("cart", switch("v2"))], change()))
        .unwrap();
    let routed = world.routed(&both).unwrap();
    assert_eq!(routed.changes.len(), 2);
    assert_eq!(world.weights("catalog"), "v1=10000");
    assert_eq!(world.weights("cart"), "v1=10000");

    let replayed = world.routed(&both).unwrap();
    assert_eq!(replayed.effect, Effect::Replayed);
    assert_eq!(replayed.changes, routed.changes);
}
