//! The policy of a route, and the salt of a rollout.

use trimtab_registry::history::ChangeKind;
use trimtab_registry::outcome::{Effect, Outcome, Routed};
use trimtab_registry::policy::{
    BaseEjection, ConsecutiveFailures, EjectedPercent, RoutePolicy, SubsetSize, WarmUp,
};
use trimtab_registry::revision::Revision;

use crate::world::*;

/// Of the route of today.
fn salt(world: &World, of: &str) -> Revision {
    world.registry.view(&service(of)).unwrap().route.salt
}

fn asked_policy(world: &World) -> RoutePolicy {
    world.registry.view(&service("s")).unwrap().route.policy
}

fn dry_run(world: &World, command: &trimtab_registry::command::Command) -> Routed {
    match world.registry.plan(command).unwrap() {
        Outcome::Shifted(routed) | Outcome::RolledBack(routed) => routed,
        other => panic!("not an answer to a change of routes: {other:?}"),
    }
}

#[test]
fn the_policy_changes_alone_and_comes_back_with_a_rollback() {
    let mut world = World::with(&[("v1", 1), ("v2", 1)]);
    world
        .shift(weights(&[("v1", 9_000), ("v2", 1_000)]))
        .unwrap();
    let salted = salt(&world, "s");

    let routed = world.routed(&policy("s", every_policy())).unwrap();
    assert_eq!(routed.effect, Effect::Changed);
    assert_eq!(routed.changes[0].kind, ChangeKind::Policy);
    assert_eq!(world.weights("s"), "v1=9000 v2=1000");
    assert_eq!(asked_policy(&world), every_policy());
    assert_eq!(salt(&world, "s"), salted, "the rollout goes on");

    let again = world.routed(&policy("s", every_policy())).unwrap();
    assert_eq!(again.effect, Effect::Unchanged);

    world.rollback().unwrap();
    assert_eq!(asked_policy(&world), RoutePolicy::default());
    assert_eq!(world.weights("s"), "v1=9000 v2=1000");
}

#[test]
fn a_policy_is_changed_though_nothing_is_ready() {
    let mut world = World::with(&[("v1", 1)]);
    let lease = world.lease("s", "v1-0");
    world.ask(&suspect(vec![lease])).unwrap();
    let routed = world.routed(&policy("s", every_policy())).unwrap();
    assert_eq!(routed.effect, Effect::Changed);
    assert_eq!(routed.warnings.len(), 1, "but it is told");
}

#[test]
fn a_rollout_keeps_its_salt_and_the_next_one_draws_another() {
    let mut world = World::with(&[("v1", 2), ("v2", 2), ("v3", 2)]);
    assert_eq!(salt(&world, "s"), Revision(0));
    let first = world.shift(canary("v2", 100)).unwrap().revision;
    assert_eq!(salt(&world, "s"), first);
    world.shift(canary("v2", 5_000)).unwrap();
    world
        .shift(weights(&[("v2", 5_000), ("v3", 5_000)]))
        .unwrap();
    assert_eq!(salt(&world, "s"), first);
    world.shift(switch("v2")).unwrap();
    assert_eq!(salt(&world, "s"), Revision(0));
    let second = world.shift(canary("v3", 100)).unwrap().revision;
    assert_eq!(salt(&world, "s"), second);
    assert!(second > first);
}

#[test]
fn services_that_are_shifted_together_share_a_salt() {
    let mut world = World::with(&[("v1", 1), ("v2", 1)]);
    for name in ["v1", "v2"] {
        world.grow("cart", name, 1);
    }
    let both = ["s", "cart"].map(|of| to(of, canary("v2", 100)));
    let revision = world
        .routed(&shift(both.into(), change()))
        .unwrap()
        .revision;
    assert_eq!(
        (salt(&world, "s"), salt(&world, "cart")),
        (revision, revision)
    );
}

#[test]
fn what_is_asked_for_again_is_unchanged_whatever_its_salt() {
    let mut world = World::with(&[("v1", 1), ("v2", 1)]);
    let split = || weights(&[("v1", 5_000), ("v2", 5_000)]);
    world.shift(split()).unwrap();
    let salted = salt(&world, "s");
    assert_eq!(world.shift(split()).unwrap().effect, Effect::Unchanged);
    assert_eq!(salt(&world, "s"), salted);
}

#[test]
fn a_rollback_brings_the_salt_back_too() {
    let mut world = World::with(&[("v1", 1), ("v2", 1)]);
    let split = || weights(&[("v1", 5_000), ("v2", 5_000)]);
    let first = world.shift(split()).unwrap().revision;
    world.shift(switch("v1")).unwrap();
    let second = world.shift(split()).unwrap().revision;
    // The same weights, but other keys on v2: so it is a change.
    let routed = world.routed(&rollback("s", Some(first))).unwrap();
    assert_eq!(routed.effect, Effect::Changed);
    assert_eq!(salt(&world, "s"), first);
    world.rollback().unwrap();
    world.shift(split()).unwrap();
    assert!(salt(&world, "s") > second);
}

#[test]
fn a_dry_run_shows_no_salt_that_nobody_has_drawn() {
    let mut world = World::with(&[("v1", 1), ("v2", 1)]);
    let asked = shift(vec![to("s", canary("v2", 100))], change());
    let change = dry_run(&world, &asked).changes[0].clone();
    assert_eq!(
        (change.revision, change.after.salt),
        (Revision(0), Revision(0))
    );
    let first = world.routed(&asked).unwrap().revision;
    let more = shift(vec![to("s", canary("v2", 200))], crate::world::change());
    assert_eq!(dry_run(&world, &more).changes[0].after.salt, first);
}

#[test]
fn a_restored_registry_keeps_the_salts() {
    let mut world = World::with(&[("v1", 1), ("v2", 1)]);
    let first = world.shift(canary("v2", 100)).unwrap().revision;
    let mut restored = crate::properties::reborn(&world.registry);
    let mut later = world.next();
    later.index += 1_000;
    restored.restamp(later).unwrap();
    let view = restored.view(&service("s")).unwrap();
    assert_eq!(view.route.salt, first);
}

#[test]
fn every_number_has_its_bounds() {
    assert!(SubsetSize::new("subset_size", 0).is_ok());
    assert!(SubsetSize::new("subset_size", 10_000).is_ok());
    assert!(WarmUp::from_millis("warm_up", 3_600_000).is_ok());
    assert!(EjectedPercent::new("max_ejected_percent", 0).is_err());
    assert!(ConsecutiveFailures::new("consecutive_failures", 0).is_err());
    assert!(BaseEjection::from_millis("base_ejection", 0).is_err());
    let refused = WarmUp::from_millis("policy.warm_up", u64::MAX).unwrap_err();
    assert!(
        refused
            .to_string()
            .starts_with("policy.warm_up must be 0 ms to 1 h, but is")
    );
    let refused = SubsetSize::new("policy.subset_size", 10_001).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "policy.subset_size must be 0 to 10000, but is \"10001\""
    );
    // Nor do they come in through the bytes of a log.
    let bytes = postcard::to_allocvec(&10_001u32).unwrap();
    assert!(postcard::from_bytes::<SubsetSize>(&bytes).is_err());
}
