//! Where calls go that failed once or twice, and that they take no turn.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tokio::time::Instant;

use super::*;
use crate::connection::Link;
use crate::coverage::LinkState;
use crate::fakes::rng;
use crate::lineup::Lineup;
use crate::load::Loads;
use crate::view::{Group, GroupState, Instance, InstanceStatus, View};
use crate::watcher::Standpoint;

type Pickable = Picker<Arc<Endpoint<Link>>>;

const NAMES: [&str; 4] = ["v1", "v2", "v3", "v4"];

/// Groups with these weights and so many instances, all connected.
fn picker(groups: &[(u32, usize)]) -> Pickable {
    let now = Instant::now();
    let instance = |group: &str, number: usize| Instance {
        id: format!("{group}-{number}").into(),
        address: format!("127.0.0.1:{number}").into(),
        zone: "".into(),
        capacity: 100,
        metadata: Arc::default(),
        status: InstanceStatus::Ready,
    };
    let groups = groups.iter().zip(NAMES);
    let groups = groups.map(|((weight, instances), name)| Group {
        name: name.into(),
        state: GroupState::Standby,
        weight: *weight,
        instances: (0..*instances).map(|it| instance(name, it)).collect(),
    });
    let view = View {
        revision: 1,
        groups: groups.collect(),
        policy: Default::default(),
        salt: 7,
    };
    let standpoint = Standpoint {
        caller: "test".into(),
        zone: "".into(),
        origin: now,
        instance_metrics: false,
    };
    let mut lineup = Lineup::new("catalog".into(), standpoint);
    let loads = Loads::of(&"catalog".into());
    lineup.follow(Arc::new(view), &loads, now, |address| {
        let link = Link::unopened(address);
        link.vitals().went(LinkState::Up);
        Arc::new(link)
    });
    lineup.picker(now, &mut rng())
}

/// The groups of a call's attempts, all of which fail at instances.
fn groups_of_attempts(picker: &Pickable, attempts: usize) -> Vec<Arc<str>> {
    let (mut ticket, mut tried) = (None, Vec::new());
    let mut rng = rng();
    let attempts = (1..=attempts).map(|number| {
        let picked = pick(picker, &mut ticket, &tried, &Affinity::default(), &mut rng);
        let endpoint = Arc::clone(picked.unwrap().0);
        ticket = Some(Ticket::again(&endpoint, number >= 2));
        let group = Arc::clone(&endpoint.group);
        tried.push(endpoint);
        group
    });
    attempts.collect()
}

/// Of so many calls that all fail: where their attempts went.
fn ways(picker: &Pickable, calls: usize) -> BTreeMap<String, usize> {
    let mut ways = BTreeMap::new();
    for _ in 0..calls {
        let way = groups_of_attempts(picker, 3).join(" ");
        *ways.entry(way).or_default() += 1;
    }
    ways
}

fn expected<const N: usize>(ways: [(&str, usize); N]) -> BTreeMap<String, usize> {
    ways.map(|(way, calls)| (way.to_owned(), calls)).into()
}

#[test]
fn a_group_of_one_instance_is_left_at_once() {
    let canary = picker(&[(9_000, 5), (1_000, 1)]);
    assert_eq!(
        ways(&canary, 1_000),
        expected([("v1 v1 v1", 900), ("v2 v1 v1", 100)])
    );
}

#[test]
fn a_small_group_is_left_after_two_failures_and_a_large_one_never() {
    let canary = picker(&[(9_000, 5), (1_000, 5)]);
    assert_eq!(
        ways(&canary, 1_000),
        expected([("v1 v1 v1", 900), ("v2 v2 v1", 100)])
    );
}

#[test]
fn no_repeat_goes_to_a_group_without_weight() {
    let switched = picker(&[(0, 5), (10_000, 1)]);
    assert_eq!(ways(&switched, 100), expected([("v2 v2 v2", 100)]));
}

#[test]
fn one_that_was_tried_is_better_than_none() {
    let two = picker(&[(9_000, 1), (1_000, 1)]);
    let ways = ways(&two, 1_000);
    assert_eq!(ways.keys().collect::<Vec<_>>(), ["v1 v2 v2", "v2 v1 v1"]);
}

proptest! {
    /// However many calls are repeated, first attempts keep to their shares
    /// within one call.
    #[test]
    fn repeats_take_no_turn(weight in 1_u32..10_000, small in 1_usize..4, often in 1_usize..5) {
        let picker = picker(&[(10_000 - weight, 5), (weight, small)]);
        let mut of_second = 0_u32;
        for call in 1_u32..=500 {
            let attempts = if (call as usize).is_multiple_of(often) { 3 } else { 1 };
            let groups = groups_of_attempts(&picker, attempts);
            of_second += u32::from(*groups[0] == *"v2");
            let due = f64::from(call * weight) / 10_000.0;
            prop_assert!((f64::from(of_second) - due).abs() <= 1.0);
        }
    }
}
