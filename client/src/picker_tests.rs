//! What the picker promises, without a network.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::coverage::LinkState;
use crate::fakes::{Fake, build, build_with, counts, group, rng};
use crate::view::GroupState;

use GroupState::{Active, Dark, Retiring, Standby};
use LinkState::{Down, Untried, Up};

#[test]
fn shares_depend_on_weights_not_on_how_many_instances_there_are() {
    let picker = build(vec![
        group("v1", Active, 9_900, &[Up; 100]),
        group("v2", Active, 100, &[Up]),
        group("v3", Dark, 0, &[Up; 100]),
    ]);
    assert_eq!(
        counts(&picker, 10_000),
        BTreeMap::from([("v1", 9_900), ("v2", 100)])
    );
}

#[test]
fn all_means_all() {
    let picker = build(vec![
        group("v1", Standby, 0, &[Up; 3]),
        group("v2", Active, 10_000, &[Up; 2]),
    ]);
    assert_eq!(counts(&picker, 5_000), BTreeMap::from([("v2", 5_000)]));
    assert_eq!(picker.coverage().level, Level::Weighted);
    assert!(picker.coverage().uncovered.is_empty());
}

#[test]
fn the_share_of_a_group_that_cannot_be_reached_goes_to_the_other_weighted_ones() {
    let picker = build(vec![
        group("v1", Active, 6_000, &[Up]),
        group("v2", Active, 3_000, &[Up]),
        group("v3", Active, 1_000, &[Down]),
    ]);
    assert_eq!(
        counts(&picker, 900),
        BTreeMap::from([("v1", 600), ("v2", 300)])
    );
    assert_eq!(picker.coverage().uncovered, vec![Arc::from("v3")]);
}

#[test]
fn standby_groups_take_over_only_when_no_weighted_group_can() {
    let groups = |link| {
        vec![
            group("v1", Standby, 0, &[Up]),
            group("v2", Active, 10_000, &[link]),
            group("v3", Dark, 0, &[Up]),
        ]
    };
    assert_eq!(counts(&build(groups(Up)), 10), BTreeMap::from([("v2", 10)]));
    let without = build(groups(Down));
    assert_eq!(counts(&without, 10), BTreeMap::from([("v1", 10)]));
    assert_eq!(without.coverage().level, Level::Standby);
}

#[test]
fn dark_groups_take_calls_only_where_the_policy_says_so() {
    let groups = || {
        vec![
            group("v2", Active, 10_000, &[Down]),
            group("v3", Dark, 0, &[Up]),
        ]
    };
    assert_eq!(build(groups()).draw(), None);
    let allowed = build_with(groups(), true, &mut Continuity::default(), &mut rng());
    assert_eq!(counts(&allowed, 10), BTreeMap::from([("v3", 10)]));
    assert_eq!(allowed.coverage().level, Level::Dark);
}

#[test]
fn retiring_groups_are_the_last_resort() {
    let groups = |link| {
        vec![
            group("v1", Retiring, 0, &[Up]),
            group("v2", Active, 10_000, &[Down]),
            group("v3", Standby, 0, &[link]),
        ]
    };
    assert_eq!(counts(&build(groups(Up)), 10), BTreeMap::from([("v3", 10)]));
    assert_eq!(
        counts(&build(groups(Down)), 10),
        BTreeMap::from([("v1", 10)])
    );
}

#[test]
fn a_group_that_is_still_being_connected_keeps_its_share_and_is_waited_for() {
    let picker = build(vec![
        group("v1", Active, 9_000, &[Untried; 3]),
        group("v2", Active, 1_000, &[Up]),
    ]);
    let mut waited = 0;
    for _ in 0..1_000 {
        let group = picker.draw().unwrap();
        waited += usize::from(picker.choose(group, None, |_| true, &mut rng()).is_none());
    }
    assert_eq!(waited, 900);
    assert!(picker.coverage().uncovered.is_empty());
}

#[test]
fn suspects_are_called_only_while_no_ready_instance_of_the_group_is_connected() {
    let mixed = |ready_link| {
        let mut group = group("v1", Active, 10_000, &[ready_link, Up]);
        group.candidates[1].ready = false;
        build(vec![group])
    };
    let number = |picker: &Picker<Fake>| {
        let group = picker.draw().unwrap();
        picker
            .choose(group, None, |_| true, &mut rng())
            .unwrap()
            .number
    };
    let ready_up = mixed(Up);
    assert!((0..100).all(|_| number(&ready_up) == 0));
    let ready_down = mixed(Down);
    assert!((0..100).all(|_| number(&ready_down) == 1));
}

#[test]
fn a_connection_lost_since_the_picker_was_built_is_passed_over() {
    let group = group("v1", Active, 10_000, &[Up; 5]);
    let vitals: Vec<_> = group
        .candidates
        .iter()
        .map(|c| Arc::clone(&c.vitals))
        .collect();
    let picker = build(vec![group]);
    for vitals in vitals.iter().take(4) {
        vitals.went(Down);
    }
    assert_eq!(counts(&picker, 100), BTreeMap::from([("v1", 100)]));
    vitals[4].went(Down);
    assert!(picker.choose(0, None, |_| true, &mut rng()).is_none());
}

#[test]
fn only_who_suits_is_chosen() {
    let two = build(vec![group("v1", Active, 10_000, &[Up, Up])]);
    let mut rng = rng();
    for _ in 0..100 {
        let second = two.choose(0, None, |t| t.number != 0, &mut rng);
        assert_eq!(second.unwrap().number, 1);
    }
    let one = build(vec![group("v1", Active, 10_000, &[Up])]);
    assert!(one.choose(0, None, |t| t.number != 0, &mut rng).is_none());
}

#[test]
fn a_call_that_is_sent_again_finds_one_of_the_half_that_does_not_hang() {
    let picker = build(vec![group("v1", Active, 10_000, &[Up; 6])]);
    let mut rng = rng();
    let target = |number: usize, rng: &mut _| {
        picker
            .choose(0, None, |t| t.number == number, rng)
            .unwrap()
            .clone()
    };
    for hangs in 0..3 {
        for _ in 0..3 {
            target(hangs, &mut rng).vitals.call_begins();
        }
    }
    let again = |rng: &mut _| picker.choose_well(0, None, |t| t.number != 0, rng).unwrap();
    let misled = (0..10_000).filter(|_| again(&mut rng).number < 3).count();
    assert!(misled < 20, "{misled} of 10,000");
}

#[test]
fn elsewhere_is_by_the_shares_of_those_who_suit() {
    let picker = build(vec![
        group("v1", Active, 5_000, &[Up]),
        group("v2", Active, 3_000, &[Up; 9]),
        group("v3", Active, 1_000, &[Up]),
        group("v4", Active, 1_000, &[Up]),
        group("v5", Standby, 0, &[Up]),
    ]);
    let mut rng = rng();
    let mut counts = BTreeMap::<&str, u32>::new();
    for _ in 0..10_000 {
        let elsewhere = picker.choose_elsewhere(Some(0), None, |t| t.group != "v3", &mut rng);
        *counts.entry(elsewhere.unwrap().group).or_default() += 1;
    }
    assert_eq!(counts.len(), 2, "{counts:?}");
    assert!((7_300..7_700).contains(&counts["v2"]), "{counts:?}");
}

#[test]
fn calls_follow_capacity_and_avoid_the_busy() {
    let mut uneven = group("v1", Active, 10_000, &[Up; 3]);
    uneven.candidates[2].capacity = 200;
    let picker = build(vec![uneven]);
    let mut rng = rng();
    let mut counts = [0_u32; 3];
    for _ in 0..40_000 {
        // Each call lasts: the load it leaves is what the next pick sees.
        let target = picker.choose(0, None, |_| true, &mut rng).unwrap();
        counts[target.number] += 1;
        target.vitals.call_begins();
    }
    assert!((9_900..10_100).contains(&counts[0]), "{counts:?}");
    assert!((19_900..20_100).contains(&counts[2]), "{counts:?}");
}

#[test]
fn the_run_goes_on_when_instances_come_and_go() {
    let mut continuity = Continuity::default();
    let mut rng = rng();
    let mut counts = [0_i64; 2];
    for round in 1..=500_usize {
        let picker = build_with(
            vec![
                group("v1", Active, 6_667, &vec![Up; 1 + round % 7]),
                group("v2", Active, 3_333, &vec![Up; 1 + round % 3]),
            ],
            false,
            &mut continuity,
            &mut rng,
        );
        for _ in 0..7 {
            counts[picker.draw().unwrap()] += 1;
        }
        let due = (round * 7) as f64 * 0.6667;
        assert!(
            (counts[0] as f64 - due).abs() <= 1.0,
            "{counts:?} after {round}"
        );
    }
}

#[test]
fn a_route_that_comes_back_from_an_outage_goes_on_with_its_own_run() {
    let mut continuity = Continuity::default();
    let mut rng = rng();
    let mut build = |link| {
        let groups = vec![
            group("v1", Active, 5_000, &[Up]),
            group("v2", Active, 5_000, &[link]),
        ];
        build_with(groups, false, &mut continuity, &mut rng)
    };
    let before = build(Up);
    let during = build(Down);
    let after = build(Up);
    assert!(Arc::ptr_eq(
        before.schedule().unwrap(),
        after.schedule().unwrap()
    ));
    assert!(!Arc::ptr_eq(
        before.schedule().unwrap(),
        during.schedule().unwrap()
    ));
}

proptest! {
    /// Whatever is connected or not: a call goes to a connected instance of
    /// the best level there is, and never to a group that should get none.
    #[test]
    fn no_call_is_lost_and_none_is_misled(
        shape in proptest::collection::vec(
            (0_u32..3, 0_usize..4, proptest::collection::vec(0_usize..3, 0..4)),
            1..6,
        ),
        fall_back: bool,
    ) {
        const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
        let groups: Vec<_> = shape
            .iter()
            .enumerate()
            .map(|(position, (weight, state, links))| {
                let links: Vec<_> = links.iter().map(|l| [Up, Down, Untried][*l]).collect();
                let state = [Active, Dark, Standby, Retiring][*state];
                group(NAMES[position], state, weight * 1_000, &links)
            })
            .collect();
        let expected = Coverage::of(&groups, fall_back).level;
        let levels: BTreeMap<_, _> =
            groups.iter().map(|g| (g.name.to_string(), g.level())).collect();
        let picker = build_with(groups, fall_back, &mut Continuity::default(), &mut rng());
        for _ in 0..50 {
            let Some(group) = picker.draw() else {
                prop_assert_eq!(expected, Level::Nothing);
                break;
            };
            if let Some(target) = picker.choose(group, None, |_| true, &mut rng()) {
                prop_assert!(target.vitals.is_connected());
                prop_assert_eq!(levels[target.group], expected);
            }
        }
    }
}
