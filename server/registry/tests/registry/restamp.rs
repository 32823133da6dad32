//! A restored registry at a later position: newer for every watcher, and otherwise the same.

use proptest::collection::vec;
use proptest::prelude::*;
use trimtab_registry::command::RollbackTarget;
use trimtab_registry::outcome::{Effect, Outcome};
use trimtab_registry::rejection::Rejection;
use trimtab_registry::restamp::NotLater;
use trimtab_registry::revision::{Position, Revision};
use trimtab_registry::service::Service;
use trimtab_registry::state::Registry;

use crate::properties::{populated, reborn, steps, undated, views};
use crate::world::*;

const JUMP: u64 = 1_000_000_000;

fn later(registry: &Registry) -> Position {
    Position {
        index: registry.applied().index + JUMP,
        term: TERM,
    }
}

fn restamped(registry: &Registry) -> Registry {
    let mut moved = registry.clone();
    moved.restamp(later(registry)).unwrap();
    moved
}

/// Everything but the date of the view.
fn assert_same_but_for_the_view(old: &Service, new: &Service) {
    assert_eq!(old.name(), new.name());
    assert_eq!(old.route(), new.route());
    assert_eq!(old.route_revision(), new.route_revision());
    assert!(old.groups().eq(new.groups()));
    assert!(old.instances().eq(new.instances()));
    assert!(old.history().eq(new.history()));
}

#[test]
fn every_view_is_newer_than_any_that_was_seen_and_says_the_same() {
    let mut world = World::with(&[("v1", 2), ("v2", 2)]);
    world.shift(switch("v2")).unwrap();
    world.ask(&register("other", "v1", "i")).unwrap();
    let old = views(&world.registry);
    let moved = restamped(&world.registry);
    let new = views(&moved);
    assert_eq!(moved.applied(), later(&world.registry));
    assert_eq!(old.len(), new.len());
    for (name, mut view) in new {
        assert_eq!(view.revision, moved.applied().revision());
        view.revision = old[&name].revision;
        assert_eq!(view, old[&name]);
    }
}

#[test]
fn a_position_that_is_not_later_is_refused_and_changes_nothing() {
    let world = World::with(&[("v1", 1)]);
    let applied = world.registry.applied();
    for index in [0, applied.index - 1, applied.index] {
        let mut moved = world.registry.clone();
        let asked = Position { index, term: 9 };
        assert_eq!(moved.restamp(asked), Err(NotLater { asked, applied }));
        assert_eq!(moved, world.registry);
    }
}

#[test]
fn a_writer_is_right_about_the_restored_route_and_refused_about_a_lost_one() {
    let mut world = World::with(&[("v1", 2), ("v2", 2)]);
    world.shift(canary("v2", 100)).unwrap();
    let read = world.route_revision("s");
    let saved = world.registry.clone();
    world.shift(switch("v2")).unwrap();
    let lost = world.route_revision("s");

    world.registry = restamped(&saved);
    let expecting = |revision| {
        let mut asked = to("s", switch("v2"));
        asked.expected = Some(revision);
        shift(vec![asked], change())
    };
    let refused = world.ask(&expecting(lost)).unwrap_err();
    assert!(matches!(refused, Rejection::RevisionMismatch { current, .. } if current == read));
    let routed = world.routed(&expecting(read)).unwrap();
    assert_eq!(routed.effect, Effect::Changed);
    assert!(routed.revision > lost);
}

#[test]
fn a_rollback_restores_the_route_of_before_byte_for_byte() {
    let mut world = World::with(&[("v1", 2), ("v2", 2)]);
    let first = world.registry.view(&service("s")).unwrap();
    world.shift(switch("v2")).unwrap();
    world.registry = restamped(&world.registry);
    let asked = rollback("s", Some(first.route_revision));
    let planned = world.registry.plan(&asked).unwrap();
    world.rollback().unwrap();
    let now = world.registry.view(&service("s")).unwrap();
    let bytes = |route| postcard::to_allocvec(route).unwrap();
    assert_eq!(bytes(&*now.route), bytes(&*first.route));
    assert!(matches!(planned, Outcome::RolledBack(routed) if routed.changes.len() == 1));
    assert_eq!(now.route_revision, now.revision);
}

#[test]
fn a_group_that_comes_back_later_is_not_the_one_a_rollback_meant() {
    let mut world = World::with(&[("v1", 1), ("v2", 1)]);
    world.shift(switch("v2")).unwrap();
    world.registry = restamped(&world.registry);
    world.ask(&teardown("s", "v1", change())).unwrap();
    let lease = world.lease("s", "v1-0");
    world.ask(&deregister(lease)).unwrap();
    world.register("s", "v1", "v1-0");
    let refused = world.rollback().unwrap_err();
    assert!(matches!(refused, Rejection::GroupGone { .. }), "{refused}");
}

#[test]
fn leases_are_renewed_as_before_and_new_ones_have_numbers_nobody_had() {
    let mut world = World::with(&[("v1", 1)]);
    let saved = world.registry.clone();
    let lost = world.register("s", "v1", "later");
    let replaced = world.lease("s", "v1-0");
    let again = world.register("s", "v1", "v1-0");

    world.registry = restamped(&saved);
    assert_eq!(world.lease("s", "v1-0"), replaced);
    let unknown = |result| matches!(result, Err(Rejection::NotFound(_)));
    let ready = trimtab_registry::instance::DeclaredStatus::Ready;
    assert!(unknown(world.ask(&set_status(lost.clone(), ready))));
    assert!(unknown(world.ask(&set_status(again.clone(), ready))));
    let anew = world.register("s", "v1", "later");
    assert!(anew.lease > lost.lease.max(again.lease));
}

#[test]
fn a_request_that_was_answered_before_is_known_again() {
    let mut world = World::with(&[("v1", 1), ("v2", 1)]);
    let asked = shift(vec![to("s", switch("v2"))], named("one"));
    let before = world.routed(&asked).unwrap();
    world.registry = restamped(&world.registry);
    let again = world.routed(&asked).unwrap();
    assert_eq!(again.effect, Effect::Replayed);
    assert_eq!(again.revision, before.revision);
}

proptest! {
    /// Whatever was asked before and whatever is asked afterwards: but for the
    /// dates of views, a restored registry goes on as the one it was saved
    /// from would have, had it stood still until then.
    #[test]
    fn it_goes_on_as_it_would_have(
        before in vec(steps(), 0..40),
        after in vec(steps(), 1..40),
    ) {
        let mut stayed = populated();
        for step in before {
            let command = step.command(&stayed.registry);
            let _ = stayed.ask(&command);
        }
        let saved_at = stayed.registry.applied().revision();
        let mut moved = World { registry: reborn(&stayed.registry), ..World::default() };
        let at = later(&stayed.registry);
        stayed.registry.skip(at);
        moved.registry.restamp(at).unwrap();
        prop_assert_eq!(&reborn(&moved.registry), &moved.registry);
        for step in after {
            let command = step.command(&stayed.registry);
            prop_assert_eq!(&step.command(&moved.registry), &command);
            let expected = stayed.ask(&command);
            let answer = moved.ask(&command);
            prop_assert_eq!(&moved.events, &stayed.events);
            if let Ok(Outcome::Registered { lease, .. }) = &answer {
                prop_assert!(*lease > at.revision());
            }
            if let (Ok(Outcome::Shifted(there)), Ok(Outcome::Shifted(here)))
                | (Ok(Outcome::RolledBack(there)), Ok(Outcome::RolledBack(here))) = (&expected, &answer)
            {
                prop_assert_eq!(here, there);
            }
            prop_assert_eq!(answer.map(undated), expected.map(undated));
            prop_assert_eq!(moved.registry.services().len(), stayed.registry.services().len());
            for (old, new) in stayed.registry.services().zip(moved.registry.services()) {
                assert_same_but_for_the_view(old, new);
                let touched = old.revision() > at.revision();
                prop_assert!(touched || old.revision() <= saved_at);
                let expected = if touched { old.revision() } else { at.revision() };
                prop_assert_eq!(new.revision(), expected);
            }
        }
    }

    /// Whoever names a revision that was lost, as expected or as the one to go
    /// back to, finds nothing, however long the registry has gone on.
    #[test]
    fn what_was_lost_has_no_double(
        before in vec(steps(), 0..30),
        lost in vec(steps(), 1..30),
        after in vec(steps(), 1..30),
    ) {
        let mut world = populated();
        for step in before {
            let command = step.command(&world.registry);
            let _ = world.ask(&command);
        }
        let saved = world.registry.clone();
        for step in lost {
            let command = step.command(&world.registry);
            let _ = world.ask(&command);
        }
        let (first, last) = (saved.applied().index + 1, world.registry.applied().index);
        world.registry = restamped(&saved);
        for step in after {
            let command = step.command(&world.registry);
            let _ = world.ask(&command);
        }
        let is_lost = |revision: Revision| (first..=last).contains(&revision.0);
        for found in world.registry.services() {
            prop_assert!(!is_lost(found.revision()) && !is_lost(found.route_revision()));
            prop_assert!(found.instances().all(|instance| !is_lost(instance.lease)));
            prop_assert!(found.history().all(|change| !is_lost(change.revision)));
            prop_assert!(found.groups().all(|group| !is_lost(group.created)));
            let target = RollbackTarget {
                service: found.name().clone(),
                to: Some(Revision(last)),
                expected: None,
            };
            let asked = trimtab_registry::command::Rollback { targets: vec![target], change: change() };
            let planned = world.registry.plan(&trimtab_registry::command::Command::Rollback(asked));
            prop_assert!(planned.is_err());
        }
    }
}
