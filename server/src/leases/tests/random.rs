//! Any order of renewals, breaks, lost judgements and elections: the living stay, the dead go.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::slot::{Place, Slot};
use super::super::ward::Ward;
use super::*;

const INSTANCES: usize = 8;
const ZONES: [&str; 3] = ["a", "b", ""];

#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Renew(usize, u64),
    Break(usize, u64),
    /// Judges; the judgement is applied, or lost on its way.
    Judge {
        applied: bool,
    },
    Register(usize),
    Leave(usize),
    Drain(usize),
    Lead,
    Follow,
}

fn steps() -> impl Strategy<Value = Step> {
    let instance = 0..INSTANCES;
    let replica = 1..4u64;
    prop_oneof![
        6 => (1..4_000u64).prop_map(Step::Pass),
        8 => (instance.clone(), replica.clone()).prop_map(|(i, via)| Step::Renew(i, via)),
        2 => (instance.clone(), replica).prop_map(|(i, via)| Step::Break(i, via)),
        6 => prop::bool::weighted(0.8).prop_map(|applied| Step::Judge { applied }),
        1 => instance.clone().prop_map(Step::Register),
        1 => instance.clone().prop_map(Step::Leave),
        1 => instance.prop_map(Step::Drain),
        1 => Just(Step::Lead),
        1 => Just(Step::Follow),
    ]
}

/// What is known of one lease by someone who forgets nothing.
#[derive(Clone, Copy, Debug)]
struct Truth {
    renewed: LeaseTime,
    broken: Option<LeaseTime>,
}

#[derive(Default)]
struct Oracle {
    leading_since: LeaseTime,
    leases: BTreeMap<LeaseKey, Truth>,
}

impl Oracle {
    fn renew(&mut self, now: LeaseTime, key: &LeaseKey) {
        let broken = None;
        let truth = Truth {
            renewed: now,
            broken,
        };
        self.leases.insert(key.clone(), truth);
    }

    /// Every judgement must have its reason.
    fn check(&self, leader: &Leader, judged: &JudgeLeases) {
        let grace = LeaseSettings::default().break_grace;
        for key in &judged.suspect {
            let truth = self.leases[key];
            let silent = truth.renewed.max(self.leading_since).after(TTL * 2 / 3);
            let broken = truth.broken.map(|at| at.after(grace));
            assert!(silent <= leader.now || broken.is_some_and(|at| at <= leader.now));
            assert!(!leader.is_suspect(key));
        }
        for expiry in &judged.expire {
            let truth = self.leases[&expiry.key];
            let over = truth.renewed.max(self.leading_since).after(TTL);
            assert!(over <= leader.now, "{truth:?} at {:?}", leader.now);
            assert!(leader.is_suspect(&expiry.key));
        }
    }
}

fn register(leader: &mut Leader, i: usize) -> LeaseKey {
    leader.register_in(ZONES[i % ZONES.len()], "catalog", &format!("i{i}"))
}

/// What is held has its reason, and its end.
fn check_brakes(leader: &Leader) {
    for brake in leader.brakes() {
        assert!(
            brake.held > 0 && brake.held <= brake.unwell as usize,
            "{brake:?}"
        );
        assert!(brake.calm || brake.unwell * 2 > brake.leases, "{brake:?}");
        assert!(brake.unwell >= 3 || brake.calm, "{brake:?}");
        assert!(brake.age + brake.ends_in <= HOLD, "{brake:?}");
    }
}

/// Every lease is in one place, is counted in it, and knows in which.
fn check_books(leases: &Leases) {
    let is_due = |slot: &&Slot| slot.place == Place::Due;
    let due = leases
        .slots
        .iter()
        .map(|(_, slot)| slot)
        .filter(is_due)
        .count();
    assert_eq!(leases.agenda.len() + due, leases.slots.len());
    assert_eq!(
        leases.wards.values().map(Ward::due_count).sum::<usize>(),
        due
    );
    let suspects = leases.slots.iter().filter(|(_, slot)| slot.is_suspect());
    assert_eq!(leases.suspects(), suspects.count());
    for (service, ward) in &leases.wards {
        let mut anew = Ward::default();
        let of = |(key, _): &(LeaseKey, &Slot)| key.service == *service;
        for (_, slot) in leases.slots.iter().filter(of) {
            anew.admit(&slot.counted());
        }
        assert_eq!(ward.tallies(), anew.tallies());
    }
}

proptest! {
    #[test]
    fn the_living_stay_and_the_dead_go(steps in vec(steps(), 1..200)) {
        let mut leader = Leader::new();
        let mut oracle = Oracle::default();
        let mut keys: Vec<LeaseKey> = (0..INSTANCES).map(|i| register(&mut leader, i)).collect();
        keys.iter().for_each(|key| oracle.renew(leader.now, key));
        for step in steps {
            match step {
                Step::Pass(millis) => leader.pass(Duration::from_millis(millis)),
                Step::Renew(i, via) => {
                    let lost = leader.leases.renew(leader.now, via, &keys[i..=i]);
                    prop_assert_eq!(lost.is_empty(), leader.status(&keys[i]).is_some());
                    oracle.renew(leader.now, &keys[i]);
                }
                Step::Break(i, via) => {
                    leader.leases.broken(leader.now, via, &keys[i..=i]);
                    if let Some(truth) = oracle.leases.get_mut(&keys[i]) {
                        truth.broken = truth.broken.or(Some(leader.now));
                    }
                }
                Step::Judge { applied } => {
                    let judged = leader.judge();
                    check_brakes(&leader);
                    if let Some(judged) = judged {
                        oracle.check(&leader, &judged);
                        if applied {
                            leader.apply(&Command::JudgeLeases(judged));
                        }
                    }
                }
                Step::Register(i) => {
                    keys[i] = register(&mut leader, i);
                    oracle.renew(leader.now, &keys[i]);
                }
                Step::Leave(i) => {
                    let lease = keys[i].clone();
                    leader.apply(&Command::Deregister(Deregister { lease }));
                }
                Step::Drain(i) => {
                    let (lease, status) = (keys[i].clone(), DeclaredStatus::Draining);
                    if leader.status(&lease).is_some() {
                        leader.apply(&Command::SetStatus(SetStatus { lease, status }));
                    }
                }
                Step::Lead => {
                    leader.leases.lead(leader.now, TERM);
                    oracle.leading_since = leader.now;
                    let truths = oracle.leases.values_mut();
                    truths.for_each(|truth| truth.broken = None);
                }
                Step::Follow => leader.leases.follow(),
            }
            check_books(&leader.leases);
        }

        // Who renews from now on is READY for good, and who does not is gone
        // when the longest hold is over.
        leader.leases.lead(leader.now, TERM);
        let (alive, dead) = keys.split_at(INSTANCES / 2);
        let steps = (TTL + HOLD).as_secs() / 2 + 2;
        for _ in 0..steps {
            leader.pass(Duration::from_secs(2));
            leader.leases.renew(leader.now, HERE, alive);
            leader.settle();
            for key in alive {
                prop_assert!(!leader.is_suspect(key));
            }
        }
        prop_assert_eq!(leader.left(dead), 0);
        prop_assert!(leader.leases.restless.is_empty());
        check_books(&leader.leases);
    }
}
