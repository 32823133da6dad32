//! Ten ways in which weighted routing was reported to fail elsewhere, and what happens here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::time::Instant;

use crate::connection::Link;
use crate::continuity::Continuity;
use crate::coverage::LinkState::{Down, Up};
use crate::endpoint::{Connection, Endpoint};
use crate::fakes::{build, build_by, build_with, counts, group, moment, rng, rules};
use crate::lineup::Lineup;
use crate::load::Loads;
use crate::picker::Picker;
use crate::policy::{Balancing, Policy};
use crate::sticky::StickyKey;
use crate::view::GroupState::{Active, Dark, Standby};
use crate::view::{Group, Instance, InstanceStatus, View};
use crate::watcher::Standpoint;

#[test]
fn weight_0_that_still_gets_traffic() {
    for instances in [1, 3, 100] {
        let picker = build(vec![
            group("v1", Active, 10_000, &[Up]),
            group("v2", Standby, 0, &vec![Up; instances]),
        ]);
        assert_eq!(counts(&picker, 20_000), BTreeMap::from([("v1", 20_000)]));
        let sticky = (0..20_000_u32).map(|user| {
            let bucket = StickyKey::new(user.to_le_bytes()).bucket(7);
            picker.group_of(bucket).unwrap()
        });
        assert!(sticky.into_iter().all(|group| group == 0));
    }
}

#[test]
fn all_of_the_weight_that_does_not_get_all_traffic() {
    let picker = build(vec![
        group("v1", Standby, 0, &[Up; 100]),
        group("v2", Active, 10_000, &[Up]),
    ]);
    assert_eq!(counts(&picker, 20_000), BTreeMap::from([("v2", 20_000)]));
}

#[test]
fn eighty_to_twenty_over_nine_instances_and_two() {
    let picker = build(vec![
        group("v1", Active, 8_000, &[Up; 9]),
        group("v2", Active, 2_000, &[Up; 2]),
    ]);
    for calls in [5, 10, 11, 1_000] {
        let due = calls as f64 * 0.2;
        let got = counts(&picker, calls).get("v2").copied().unwrap_or(0);
        assert!((got as f64 - due).abs() <= 1.0, "{got} of {calls}");
    }
}

#[test]
fn one_percent_under_endpoint_churn() {
    let (mut continuity, mut rng) = (Continuity::default(), rng());
    let mut canary = 0_u32;
    for round in 1..=5_000_usize {
        // Instances of both groups come, go, and lose connections.
        let mut stable = vec![Up; 5 + round % 11];
        stable[round % 5] = Down;
        let groups = vec![
            group("v1", Active, 9_900, &stable),
            group("v2", Active, 100, &vec![Up; 1 + round % 3]),
        ];
        let picker = build_with(groups, false, &mut continuity, &mut rng);
        for _ in 0..3 {
            let drawn = picker.draw().unwrap();
            let target = picker.choose(drawn, None, |_| true, &mut rng).unwrap();
            canary += u32::from(target.group == "v2");
        }
        let due = (round * 3) as f64 * 0.01;
        assert!(
            (f64::from(canary) - due).abs() <= 1.0,
            "{canary}, not {due}"
        );
    }
}

#[test]
fn first_picks_that_ignore_weights() {
    let mut canary = 0;
    for process in 0..10_000 {
        let groups = vec![
            group("v1", Active, 9_500, &[Up]),
            group("v2", Active, 500, &[Up]),
        ];
        let rng = &mut SmallRng::seed_from_u64(process);
        let picker = build_with(groups, false, &mut Continuity::default(), rng);
        canary += picker.draw().unwrap();
    }
    assert!(
        (420..580).contains(&canary),
        "{canary} of 10000, 500 are due"
    );
}

#[test]
fn a_canary_of_a_tenth_that_drifts_with_cookies() {
    // Stickiness that remembers who was sent where only ever adds to the
    // canary. A bucket is where the weights are, whatever they were before.
    let on_canary = |weight: u32| -> BTreeSet<u32> {
        let picker = build(vec![
            group("v1", Active, 10_000 - weight, &[Up]),
            group("v2", Active, weight, &[Up]),
        ]);
        let is_on = |user: &u32| {
            let bucket = StickyKey::new(user.to_le_bytes()).bucket(7);
            picker.group_of(bucket) == Some(1)
        };
        (0..100_000).filter(is_on).collect()
    };
    let first = on_canary(1_000);
    assert!((9_600..10_400).contains(&first.len()), "{}", first.len());
    assert!(on_canary(5_000).is_superset(&first));
    assert_eq!(on_canary(1_000), first);
}

#[test]
fn an_empty_group_that_drops_its_share() {
    for links in [vec![], vec![Down]] {
        let picker = build(vec![
            group("v1", Active, 6_000, &[Up]),
            group("v2", Active, 3_000, &[Up]),
            group("v3", Active, 1_000, &links),
        ]);
        assert_eq!(
            counts(&picker, 9_000),
            BTreeMap::from([("v1", 6_000), ("v2", 3_000)])
        );
        assert_eq!(picker.coverage().uncovered, vec![Arc::from("v3")]);
    }
}

#[test]
fn a_dead_endpoint_that_is_reported_ready() {
    // READY in the view, and refused, or broken since the picker was built.
    let alive = group("v1", Active, 10_000, &[Down, Up, Up]);
    let breaks = Arc::clone(&alive.candidates[1].vitals);
    let picker = build(vec![alive]);
    breaks.went(Down);
    let mut rng = rng();
    for _ in 0..1_000 {
        let target = picker.choose(0, None, |_| true, &mut rng).unwrap();
        assert_eq!(target.number, 2);
    }
}

#[test]
fn a_balancer_that_sends_a_new_instance_everything() {
    for balancing in [Balancing::RoundRobin, Balancing::LeastLoaded] {
        let (mut continuity, mut rng) = (Continuity::default(), rng());
        let rules = rules(balancing);
        let known = Duration::from_millis(20);
        for instances in 10..60 {
            let group = group("v1", Active, 10_000, &vec![Up; instances]);
            for old in &group.candidates[..instances - 1] {
                old.vitals.answered(moment(), known);
                old.vitals.call_begins();
            }
            let picker = build_by(vec![group], &rules, &mut continuity, &mut rng);
            // It is new, idle and not known to be slow.
            let mut to_new = 0;
            let calls = instances * 10;
            for _ in 0..calls {
                let target = picker.choose(0, None, |_| true, &mut rng).unwrap();
                to_new += usize::from(target.number == instances - 1);
            }
            let most = match balancing {
                Balancing::RoundRobin => 11,
                // It wins against whom it is compared with, which is two in
                // so many times: not more than that.
                _ => 20 + 16,
            };
            assert!(
                to_new <= most,
                "{to_new} of {calls} among {instances}, {balancing}"
            );
        }
    }
}

#[test]
fn a_cold_group_hit_at_full_load() {
    let origin = Instant::now();
    let standpoint = Standpoint {
        caller: "c".into(),
        zone: "".into(),
        origin,
        instance_metrics: false,
    };
    let mut lineup: Lineup<Link> = Lineup::new("catalog".into(), standpoint);
    let loads = Loads::of(&"catalog".into());
    let open = |address: &Arc<str>| {
        let link = Link::unopened(address);
        link.vitals().went(Up);
        Arc::new(link)
    };
    lineup.follow(view(1, 10_000), &loads, origin, open);
    lineup.follow(view(2, 0), &loads, origin, open);
    let mut rng = rng();
    let mut now = origin;
    let mut shares = Vec::new();
    while now - origin <= Duration::from_secs(60) {
        let picker: Picker<Arc<Endpoint>> = lineup.picker(now, &mut rng);
        let new = (0..1_000).map(|_| picker.draw().unwrap());
        let is_new = |group: &usize| picker.group_name(*group).unwrap().as_ref() == "v2";
        let share = new.filter(is_new).count();
        if shares.last() != Some(&share) {
            shares.push(share);
        }
        lineup.judge(now, &mut rng);
        now = lineup.due(now);
    }
    assert_eq!(shares, [100, 200, 300, 400, 500, 600, 700, 800, 900, 1_000]);
}

/// Of what v1 does not have, v2 has all, which is new. Both have five instances.
fn view(revision: u64, weight: u32) -> Arc<View> {
    let group = |name: &str, weight, before| Group {
        name: name.into(),
        state: if weight > 0 { Active } else { before },
        weight,
        instances: (0..5)
            .map(|number| Instance {
                id: format!("{name}-{number}").into(),
                address: format!("127.0.0.1:{number}").into(),
                zone: "".into(),
                capacity: 100,
                metadata: Arc::default(),
                status: InstanceStatus::Ready,
            })
            .collect(),
    };
    Arc::new(View {
        revision,
        groups: vec![
            group("v1", weight, Standby),
            group("v2", 10_000 - weight, Dark),
        ],
        policy: Policy {
            warm_up: Duration::from_secs(60),
            ..Policy::default()
        },
        salt: revision,
    })
}
