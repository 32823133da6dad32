//! What is promised of stickiness, redistribution, ejection, zones and load, for any weights and instances.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use crate::continuity::Continuity;
use crate::coverage::CandidateGroup;
use crate::coverage::LinkState::{Down, Up};
use crate::fakes::{Fake, build, build_by, group, moment, rng, rules};
use crate::latency::Moment;
use crate::picker::Picker;
use crate::policy::Balancing;
use crate::sticky::{BUCKETS, Bucket, StickyKey};
use crate::view::GroupState::Active;

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

fn buckets() -> impl Iterator<Item = Bucket> {
    (0..BUCKETS).filter_map(Bucket::new)
}

/// Weights that sum to all, of two to six groups; some are 0.
fn weights() -> impl Strategy<Value = Vec<u32>> {
    proptest::collection::vec(0_u32..100, 2..=6).prop_map(|parts| {
        let sum: u32 = parts.iter().sum::<u32>().max(1);
        let mut weights: Vec<u32> = parts.iter().map(|part| part * 10_000 / sum).collect();
        weights[0] += 10_000 - weights.iter().sum::<u32>();
        weights
    })
}

fn picker_of(weights: &[u32], reachable: impl Fn(usize) -> bool) -> Picker<Fake> {
    let groups = weights.iter().enumerate().map(|(position, weight)| {
        let link = if reachable(position) { Up } else { Down };
        group(NAMES[position], Active, *weight, &[link])
    });
    build(groups.collect())
}

/// Which group each bucket is in: its position among all.
fn placed(weights: &[u32], reachable: impl Fn(usize) -> bool) -> Vec<usize> {
    let picker = picker_of(weights, reachable);
    let place = |bucket| {
        let group = picker.group_of(bucket)?;
        let name = picker.group_name(group)?;
        NAMES.iter().position(|it| **it == **name)
    };
    buckets().map(|bucket| place(bucket).unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn shares_are_exact_over_buckets(weights in weights()) {
        let mut counts = vec![0_u32; weights.len()];
        for group in placed(&weights, |_| true) {
            counts[group] += 1;
        }
        prop_assert_eq!(counts, weights);
    }

    /// One group's share grows at the expense of one before it in the order
    /// of names: nobody goes back.
    #[test]
    fn raising_a_later_share_moves_buckets_forward_only(
        weights in weights(), from in 0_usize..6, to in 0_usize..6, part in 0.0_f64..1.0,
    ) {
        let (from, to) = (from % weights.len(), to % weights.len());
        prop_assume!(from < to);
        let mut raised = weights.clone();
        let moved = (f64::from(weights[from]) * part) as u32;
        raised[from] -= moved;
        raised[to] += moved;
        let (before, after) = (placed(&weights, |_| true), placed(&raised, |_| true));
        let mut changed = 0;
        for (before, after) in before.into_iter().zip(after) {
            prop_assert!(before <= after);
            changed += u32::from(before != after);
        }
        // As few as it takes with groups in a row.
        prop_assert!(changed <= moved * (to - from) as u32);
    }

    #[test]
    fn an_unreachable_group_moves_its_own_buckets_only_and_by_weight(
        weights in weights(), lost in 0_usize..6,
    ) {
        let lost = lost % weights.len();
        prop_assume!(weights[lost] < 10_000);
        let (before, after) = (placed(&weights, |_| true), placed(&weights, |it| it != lost));
        let mut counts = vec![0_u32; weights.len()];
        for (before, after) in before.into_iter().zip(after) {
            prop_assert!(before == after || before == lost);
            counts[after] += 1;
        }
        let rest = f64::from(10_000 - weights[lost]);
        for (group, count) in counts.iter().enumerate().filter(|(group, _)| *group != lost) {
            let due = f64::from(weights[group]) * 10_000.0 / rest;
            prop_assert!((f64::from(*count) - due).abs() <= 1.0, "{count}, not {due}");
        }
    }

    /// Whoever is READY and not ejected takes the calls alone only while that is
    /// half of the connected capacity or more: else all take them, and nobody
    /// gets more than twice its part of them.
    #[test]
    fn those_in_doubt_take_calls_only_where_the_others_are_too_few(
        instances in proptest::collection::vec(
            (any::<bool>(), any::<bool>(), any::<bool>(), 1_u32..1_000), 1..8,
        ),
    ) {
        let mut all = group("a", Active, 10_000, &vec![Up; instances.len()]);
        for (candidate, (ready, ejected, up, capacity)) in all.candidates.iter_mut().zip(&instances)
        {
            (candidate.ready, candidate.ejected) = (*ready, *ejected);
            candidate.capacity = *capacity;
            if !up {
                candidate.vitals.went(Down);
                candidate.link = Down;
            }
        }
        let of = |suits: &dyn Fn(bool, bool) -> bool| -> BTreeMap<usize, u32> {
            let numbered = instances.iter().enumerate();
            let suitable = numbered.filter(|(_, it)| it.2 && suits(it.0, it.1));
            suitable.map(|(number, it)| (number, it.3)).collect()
        };
        let capacity = |of: &BTreeMap<usize, u32>| of.values().sum::<u32>();
        let connected = of(&|_, _| true);
        let preferred = of(&|ready, ejected| ready && !ejected);
        let any_ready = !of(&|ready, _| ready).is_empty();
        let enough = !preferred.is_empty() && capacity(&preferred) * 2 >= capacity(&connected);
        let expected = if enough { &preferred } else { &connected };
        let picker = build(vec![all]);
        prop_assert_eq!(!picker.coverage().in_panic.is_empty(), any_ready && !enough);
        let mut rng = rng();
        let mut calls = BTreeMap::<usize, u32>::new();
        for _ in 0..20_000 {
            // Load stays as if each call took long.
            if let Some(target) = picker.choose(0, None, |_| true, &mut rng) {
                *calls.entry(target.number).or_default() += 1;
                target.vitals.call_begins();
            }
        }
        prop_assert!(calls.keys().all(|number| expected.contains_key(number)));
        for (number, own) in expected {
            let fair = f64::from(*own) / f64::from(capacity(&connected).max(1));
            let got = f64::from(calls.get(number).copied().unwrap_or(0)) / 20_000.0;
            prop_assert!(got <= fair * 2.0 + 0.01, "{got} of {fair}");
        }
    }
}

#[test]
fn another_salt_is_another_order_of_keys() {
    let canary = |salt: u64| -> BTreeSet<u32> {
        let is_early =
            |user: &u32| StickyKey::new(format!("user-{user}")).bucket(salt).number() < 500;
        (0..20_000).filter(is_early).collect()
    };
    let both = canary(1).intersection(&canary(2)).count();
    assert!(both < 120, "{both} users come first twice, 50 by chance");
}

fn calls(picker: &Picker<Fake>, calls: usize) -> BTreeMap<usize, usize> {
    let mut rng = rng();
    let mut counts = BTreeMap::new();
    for _ in 0..calls {
        let target = picker.choose(0, None, |_| true, &mut rng).unwrap();
        *counts.entry(target.number).or_default() += 1;
    }
    counts
}

fn in_zones(zones: &[&str]) -> CandidateGroup<Fake> {
    let mut group = group("a", Active, 10_000, &vec![Up; zones.len()]);
    for (candidate, zone) in group.candidates.iter_mut().zip(zones) {
        candidate.zone = (*zone).into();
    }
    group
}

#[test]
fn a_zone_keeps_the_calls_it_has_capacity_for_under_every_policy() {
    let zones = ["x", "y", "y", "y", "z", "z", "z"];
    for balancing in [Balancing::LeastLoaded, Balancing::RoundRobin] {
        let mut rules = rules(balancing);
        rules.zone = Some("x");
        let group = in_zones(&zones);
        let picker = build_by(vec![group], &rules, &mut Continuity::default(), &mut rng());
        let counts = calls(&picker, 70_000);
        // A seventh of the capacity, a third of the callers: three sevenths
        // stay, and the rest is spread over the other two zones.
        assert!(counts[&0].abs_diff(30_000) < 700, "{counts:?}");
        for number in 1..7 {
            assert!(counts[&number].abs_diff(40_000 / 6) < 400, "{counts:?}");
        }
    }
}

#[test]
fn a_zone_that_melts_is_helped_whatever_was_reckoned() {
    let mut rules = rules(Balancing::LeastLoaded);
    rules.zone = Some("x");
    let group = in_zones(&["x", "x", "y", "y"]);
    for candidate in &group.candidates {
        let slow = *candidate.zone == *"x";
        let latency = Duration::from_millis(if slow { 500 } else { 10 });
        candidate.vitals.answered(moment(), latency);
    }
    let picker = build_by(vec![group], &rules, &mut Continuity::default(), &mut rng());
    let counts = calls(&picker, 1_000);
    assert!(
        !counts.contains_key(&0) && !counts.contains_key(&1),
        "{counts:?}"
    );
}

#[test]
fn suspects_and_the_ejected_keep_to_zones_like_others() {
    let mut rules = rules(Balancing::LeastLoaded);
    rules.zone = Some("x");
    for (ready, ejected) in [(false, false), (true, true)] {
        let mut group = in_zones(&["x", "y"]);
        for candidate in &mut group.candidates {
            (candidate.ready, candidate.ejected) = (ready, ejected);
        }
        let picker = build_by(vec![group], &rules, &mut Continuity::default(), &mut rng());
        assert_eq!(calls(&picker, 1_000).get(&0), Some(&1_000));
    }
}

#[test]
fn nobody_in_the_zone_is_no_reason_to_wait() {
    let mut rules = rules(Balancing::LeastLoaded);
    rules.zone = Some("elsewhere");
    let group = in_zones(&["x", "y", "y"]);
    let picker = build_by(vec![group], &rules, &mut Continuity::default(), &mut rng());
    let counts = calls(&picker, 3_000);
    assert!(counts.values().sum::<usize>() == 3_000 && counts.contains_key(&1));
}

#[test]
fn a_slow_instance_gets_less_and_is_tried_again() {
    let group = group("a", Active, 10_000, &[Up; 10]);
    let origin = Instant::now();
    let begun = Moment::new(origin, origin);
    for candidate in &group.candidates {
        let latency = Duration::from_millis(if candidate.target.number == 4 {
            400
        } else {
            10
        });
        candidate.vitals.answered(begun, latency);
    }
    let vitals: Vec<_> = group.candidates.iter().map(|c| c.vitals.clone()).collect();
    let picker = build(vec![group]);
    assert_eq!(calls(&picker, 1_000).get(&4), None);
    // The others go on answering; nobody asks the slow one.
    let later = begun.after(Duration::from_secs(60));
    for (number, vitals) in vitals.iter().enumerate().filter(|(number, _)| *number != 4) {
        vitals.answered(later, Duration::from_millis(10 + number as u64 % 2));
    }
    assert!(calls(&picker, 1_000).contains_key(&4));
}

#[test]
fn a_key_stays_with_its_instance_when_others_come_and_go() {
    let rules = rules(Balancing::ConsistentHash);
    let keys: Vec<StickyKey> = (0..2_000)
        .map(|n| StickyKey::new(format!("cart-{n}")))
        .collect();
    let mut continuity = Continuity::default();
    let mut owners = |lost: Option<usize>| -> Vec<usize> {
        let mut group = group("a", Active, 10_000, &[Up; 10]);
        if let Some(lost) = lost {
            group.candidates[lost].vitals.went(Down);
            group.candidates[lost].link = Down;
        }
        let picker = build_by(vec![group], &rules, &mut continuity, &mut rng());
        let owner = |key| {
            picker
                .choose(0, Some(key), |_| true, &mut rng())
                .unwrap()
                .number
        };
        keys.iter().map(owner).collect()
    };
    let before = owners(None);
    let during = owners(Some(3));
    // A lost connection moves that instance's keys and no others.
    for (before, during) in before.iter().zip(&during) {
        assert!(before == during || *before == 3);
        assert_ne!(*during, 3);
    }
    assert_eq!(owners(None), before);
    let mut counts = [0_usize; 10];
    before.iter().for_each(|owner| counts[*owner] += 1);
    assert!(
        counts.iter().all(|count| (130..280).contains(count)),
        "{counts:?}"
    );
}
