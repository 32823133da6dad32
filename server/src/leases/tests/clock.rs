//! Real time against lease time: stalls, late steps, one grace for each term, and many leases at once.

use super::super::LeaseClock;
use super::*;

const STEP: Duration = Duration::from_millis(100);

/// One step of a judge, with its judgement applied.
fn step(judge: &mut Judge, registry: &mut Registry) {
    if let Some(command) = judge.judge(STEP) {
        let at = Position {
            index: registry.applied().index + 1,
            term: TERM,
        };
        judge.applied(&registry.apply(at, &command).events);
    }
}

/// A judge in office over what `leader` registered.
fn in_office(leader: &Leader, settings: LeaseSettings) -> (Judge, Registry) {
    let mut judge = Judge::new(settings, LeaseClock::default());
    judge.restored(&leader.registry);
    judge.leads_in(Some(TERM));
    (judge, leader.registry.clone())
}

#[test]
fn a_term_has_one_grace_however_often_it_is_told() {
    let mut leader = Leader::new();
    leader.register_many("catalog", 2);
    let (mut judge, mut registry) = in_office(&leader, LeaseSettings::default());
    for _ in 0..152 {
        judge.leads_in(Some(TERM));
        step(&mut judge, &mut registry);
    }
    assert_eq!(judge.counts(), (0, 0));
}

#[test]
fn ten_thousand_that_lapse_at_once_are_gone_half_a_second_later() {
    let mut leader = Leader::new();
    leader.register_many("catalog", 10_000);
    let settings = LeaseSettings {
        brake_hold: Duration::ZERO,
        ..LeaseSettings::default()
    };
    let (mut judge, mut registry) = in_office(&leader, settings);
    for _ in 0..149 {
        step(&mut judge, &mut registry);
    }
    assert_eq!(judge.counts(), (10_000, 10_000));
    for _ in 0..6 {
        step(&mut judge, &mut registry);
    }
    assert_eq!(judge.counts(), (0, 0));
}

#[test]
fn a_step_that_comes_late_judges_nothing() {
    let mut leader = Leader::new();
    let keys = leader.register_many("catalog", 2);
    let mut judge = Judge::default();
    judge.restored(&leader.registry);
    judge.leads_in(Some(TERM));
    for _ in 0..99 {
        assert!(judge.judge(STEP).is_none());
    }
    // They would be suspect now; but both renewed while the process stalled.
    assert!(judge.judge(Duration::from_millis(250)).is_none());
    assert_eq!(judge.renew(HERE, &keys), Some(Vec::new()));
    assert!(judge.judge(STEP).is_none());

    // A machine that is always late is no stall.
    let mut judged = None;
    for _ in 0..200 {
        judged = judged.or(judge.judge(Duration::from_millis(160)));
    }
    assert!(judged.is_some());
}

#[test]
fn a_stopped_process_does_not_see_all_leases_overdue() {
    let mut clock = LeaseClock::default();
    let before = clock.now();
    let after = clock.advance(Duration::from_secs(3_600));
    assert_eq!(after, before.after(LeaseClock::STEP_MAX));
    assert_eq!(clock.advance(STEP), after.after(STEP));
}
