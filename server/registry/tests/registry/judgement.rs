//! The leader's word on leases takes effect only on what it judged.

use trimtab_registry::command::{Adjustment, Expiry, JudgeLeases};
use trimtab_registry::event::Event;
use trimtab_registry::instance::{LeaseKey, Status};
use trimtab_registry::outcome::{Judged, Outcome};
use trimtab_registry::revision::Revision;

use crate::world::*;

fn expire(key: &LeaseKey, suspect_since: Revision) -> JudgeLeases {
    JudgeLeases {
        expire: vec![Expiry {
            key: key.clone(),
            suspect_since,
        }],
        ..JudgeLeases::default()
    }
}

fn revive(key: &LeaseKey) -> JudgeLeases {
    JudgeLeases {
        revive: vec![key.clone()],
        ..JudgeLeases::default()
    }
}

fn judged(world: &mut World, judgement: JudgeLeases) -> Judged {
    match world.ask(&judge(judgement)) {
        Ok(Outcome::Judged(judged)) => judged,
        other => panic!("{other:?}"),
    }
}

/// A world whose only instance is suspect, its lease, and since when.
fn suspected() -> (World, LeaseKey, Revision) {
    let mut world = World::with(&[("v1", 1)]);
    let key = world.lease("s", "v1-0");
    world.ask(&suspect(vec![key.clone()])).unwrap();
    let since = world.registry.applied().revision();
    (world, key, since)
}

#[test]
fn suspect_revive_expire() {
    let (mut world, key, since) = suspected();
    assert_eq!(world.status("s", "v1-0"), Some(Status::Suspect));
    let changed = Event::ServiceChanged(service("s"));
    let told = Event::LeaseSuspected {
        key: key.clone(),
        since,
    };
    assert_eq!(world.events, vec![told, changed.clone()]);

    assert_eq!(judged(&mut world, revive(&key)).revived, 1);
    assert_eq!(world.status("s", "v1-0"), Some(Status::Ready));
    let told = Event::LeaseRevived { key: key.clone() };
    assert_eq!(world.events, vec![told, changed.clone()]);

    world.ask(&suspect(vec![key.clone()])).unwrap();
    let since = world.registry.applied().revision();
    assert_eq!(judged(&mut world, expire(&key, since)).expired, 1);
    assert_eq!(world.status("s", "v1-0"), None);
    let told = Event::LeaseEnded { key: key.clone() };
    assert_eq!(world.events, vec![told, changed]);
    assert_eq!(judged(&mut world, expire(&key, since)).stale, 1);
}

#[test]
fn who_was_not_suspected_does_not_expire() {
    let mut world = World::with(&[("v1", 1)]);
    let key = world.lease("s", "v1-0");
    assert_eq!(judged(&mut world, expire(&key, Revision(0))).stale, 1);
    assert_eq!(judged(&mut world, expire(&key, key.lease)).stale, 1);
    assert_eq!(judged(&mut world, revive(&key)).stale, 1);
    assert_eq!(world.status("s", "v1-0"), Some(Status::Ready));
}

#[test]
fn who_revived_and_was_suspected_anew_does_not_expire_for_the_first_time() {
    let (mut world, key, first) = suspected();
    judged(&mut world, revive(&key));
    world.ask(&suspect(vec![key.clone()])).unwrap();
    assert_eq!(judged(&mut world, expire(&key, first)).stale, 1);
    assert_eq!(world.status("s", "v1-0"), Some(Status::Suspect));
}

#[test]
fn a_new_registration_is_not_touched_by_a_judgement_of_the_old_one() {
    let (mut world, key, since) = suspected();
    world.register("s", "v1", "v1-0");
    assert_eq!(judged(&mut world, expire(&key, since)).stale, 1);
    let on_the_old = JudgeLeases {
        suspect: vec![key],
        ..JudgeLeases::default()
    };
    assert_eq!(judged(&mut world, on_the_old).stale, 1);
    assert_eq!(world.status("s", "v1-0"), Some(Status::Ready));
}

#[test]
fn another_term_judges_nobody() {
    let (mut world, key, since) = suspected();
    let command = trimtab_registry::command::Command::JudgeLeases(JudgeLeases {
        term: TERM - 1,
        ..expire(&key, since)
    });
    let stale = Judged {
        stale: 1,
        ..Judged::default()
    };
    assert_eq!(world.ask(&command), Ok(Outcome::Judged(stale)));
    assert!(world.events.is_empty());
    assert_eq!(world.status("s", "v1-0"), Some(Status::Suspect));
}

#[test]
fn a_lease_named_twice_is_judged_once() {
    let (mut world, key, since) = suspected();
    let mut twice = expire(&key, since);
    twice.expire.extend(twice.expire.clone());
    let expected = Judged {
        expired: 1,
        stale: 1,
        ..Judged::default()
    };
    assert_eq!(judged(&mut world, twice), expected);
}

#[test]
fn many_leases_of_a_service_are_one_change_of_it() {
    let mut world = World::with(&[("v1", 50)]);
    let keys = (0..50)
        .map(|i| world.lease("s", &format!("v1-{i}")))
        .collect();
    world.ask(&suspect(keys)).unwrap();
    let announced = |event: &&Event| matches!(event, Event::ServiceChanged(_));
    assert_eq!(world.events.iter().filter(announced).count(), 1);
    assert_eq!(world.events.len(), 51);
    let view = world.registry.view(&service("s")).unwrap();
    assert_eq!(view.revision, world.registry.applied().revision());
    assert_eq!(view.route_revision, Revision(1), "the route is the same");
}

#[test]
fn a_judgement_is_bounded() {
    let mut world = World::with(&[("v1", 1)]);
    let key = world.lease("s", "v1-0");
    let too_many = suspect(vec![key; 4_097]);
    let rejection = world.refused(&too_many);
    assert!(
        rejection.to_string().contains("at most 4096"),
        "{rejection}"
    );
}

#[test]
fn what_operators_set_ends_with_the_lease() {
    let (mut world, key, since) = suspected();
    world
        .ask(&adjust("s", "v1-0", Adjustment::Drain(true)))
        .unwrap();
    judged(&mut world, expire(&key, since));
    world.register("s", "v1", "v1-0");
    assert_eq!(world.status("s", "v1-0"), Some(Status::Ready));
}

#[test]
fn the_view_of_before_is_not_changed_by_a_judgement() {
    let mut world = World::with(&[("v1", 1)]);
    let before = world.registry.view(&service("s")).unwrap();
    let key = world.lease("s", "v1-0");
    world.ask(&suspect(vec![key])).unwrap();
    assert_eq!(before.instances[0].status(), Status::Ready);
}
