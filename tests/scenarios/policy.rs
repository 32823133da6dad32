//! The policy of a route and the salt of a rollout, from the operator to every caller.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use trimtab_client::balancer::Balancer;
use trimtab_client::client::Client;
use trimtab_client::error::Error;
use trimtab_client::operator::change::{
    CanaryShare, ChangeKind, ChangeOptions, RollbackTarget, Route, ServiceShift, ShiftOutcome,
    ShiftTarget,
};
use trimtab_client::policy::{Balancing, OutlierPolicy, Policy};
use trimtab_client::sticky::StickyKey;
use trimtab_proto::v1::watch_response::Kind as Answer;
use trimtab_proto::v1::{self, View};
use trimtab_tests::cluster::Cluster;
use trimtab_tests::eventually::eventually;
use trimtab_tests::instance::Instance;

use crate::by_hand::Watch;

/// No field as it is by default.
fn every_policy() -> Policy {
    Policy {
        fall_back_to_dark: true,
        balancing: Balancing::ConsistentHash,
        prefer_zone: true,
        subset_size: NonZeroU32::new(50),
        warm_up: Duration::from_secs(30),
        outliers: OutlierPolicy {
            enabled: false,
            consecutive_failures: 3,
            max_ejected_percent: 20,
            base_ejection: Duration::from_secs(10),
        },
    }
}

async fn shift(
    cluster: &Cluster,
    target: ShiftTarget,
    policy: Option<Policy>,
) -> Result<ShiftOutcome, Error> {
    let shift = ServiceShift {
        policy,
        ..ServiceShift::new("catalog", target)
    };
    let operator = cluster.operator();
    operator.shift(&[shift], &ChangeOptions::default()).await
}

fn canary(basis_points: u32) -> ShiftTarget {
    ShiftTarget::Canary {
        group: "v2".to_owned(),
        share: CanaryShare::BasisPoints(basis_points),
    }
}

async fn current(cluster: &Cluster) -> Route {
    let operator = cluster.operator();
    operator.route("catalog").await.expect("a route").route
}

async fn catalog() -> Cluster {
    let cluster = Cluster::start(3).await;
    cluster.register(1, "catalog", "v1", "a").await;
    cluster.register(1, "catalog", "v2", "b").await;
    cluster
}

/// What a watcher of one replica is told once the route is of a revision.
async fn route_of(watch: &mut Watch, revision: u64) -> v1::Route {
    loop {
        let Answer::View(update) = watch.next().await else {
            continue;
        };
        let view: View = prost::Message::decode(update.view).expect("a view");
        if view.route_revision == revision {
            return view.route.expect("a route");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_and_salt_reach_the_watchers_of_every_replica() {
    let cluster = catalog().await;
    let mut watches = Vec::new();
    for id in cluster.running() {
        let watch = Watch::open(&cluster, id, &format!("w{id}")).await;
        watch.subscribe("catalog", None).await;
        watches.push(watch);
    }
    let begun = shift(&cluster, canary(100), None).await.expect("shifted");
    let changed = shift(&cluster, ShiftTarget::Keep, Some(every_policy())).await;
    let changed = changed.expect("changed");
    assert_eq!(changed.changes[0].kind, ChangeKind::Policy);
    for watch in &mut watches {
        let route = route_of(watch, changed.revision).await;
        assert_eq!(route.salt, begun.revision);
        let weights: Vec<u32> = route.weights.iter().map(|it| it.basis_points).collect();
        assert_eq!(weights, [9_900, 100]);
        let policy = route.policy.expect("a policy");
        assert!(policy.fall_back_to_dark && policy.prefer_zone);
        assert_eq!(policy.balancing(), v1::Balancing::ConsistentHash);
        assert_eq!(policy.subset_size, 50);
        assert_eq!(policy.warm_up.map(|it| it.seconds), Some(30));
        let outliers = policy.outliers.expect("told");
        assert!(outliers.disabled);
        assert_eq!(outliers.consecutive_failures, 3);
        assert_eq!(outliers.max_ejected_percent, 20);
        assert_eq!(outliers.base_ejection.map(|it| it.seconds), Some(10));
    }
    assert_eq!(current(&cluster).await.policy, every_policy());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_goes_back_to_policy_and_salt_even_after_a_restart() {
    let mut cluster = catalog().await;
    shift(&cluster, canary(100), Some(every_policy()))
        .await
        .expect("shifted");
    let before = current(&cluster).await;
    assert!(before.salt > 0);
    let switched = ShiftTarget::SwitchTo("v2".to_owned());
    shift(&cluster, switched, Some(Policy::default()))
        .await
        .expect("switched");
    assert_eq!(current(&cluster).await.salt, 0);
    for id in 1..=3 {
        cluster.stop(id).await;
        cluster.start_again(id).await;
    }
    let target = RollbackTarget {
        service: "catalog".to_owned(),
        to_revision: None,
        expected_route_revision: None,
    };
    let operator = cluster.operator();
    let options = ChangeOptions::default();
    let back = operator.rollback(&[target], &options).await;
    assert_eq!(back.expect("rolled back").changes[0].after, before);
    assert_eq!(current(&cluster).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shift_that_asks_for_nothing_or_too_much_is_refused() {
    let cluster = catalog().await;
    let refused = shift(&cluster, ShiftTarget::Keep, None).await;
    let words = refused.expect_err("asks for nothing").to_string();
    assert!(words.contains("target must be one of"), "{words}");
    let too_much = Policy {
        subset_size: NonZeroU32::new(10_001),
        ..Policy::default()
    };
    let refused = shift(&cluster, ShiftTarget::Keep, Some(too_much)).await;
    let words = refused.expect_err("out of range").to_string();
    let said = "policy.subset_size must be 0 to 10000, but is \"10001\"";
    assert!(words.contains(said), "{words}");
}

/// How many of so many calls each instance got, with or without a key.
async fn picks(balancer: &Balancer, calls: u32, key: Option<&StickyKey>) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for _ in 0..calls {
        let picked = match key {
            Some(key) => balancer.pick_for(key).await,
            None => balancer.pick().await,
        }
        .expect("an instance");
        *counts.entry(picked.instance_id().to_owned()).or_default() += 1;
        picked.success();
    }
    counts
}

/// A caller that runs chooses in another way from the next view on.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_caller_obeys_another_policy_at_once() {
    const CALLS: u32 = 60;
    let cluster = Cluster::start(1).await;
    let ids = ["a", "b", "c"];
    let instances = ids.map(|id| Instance::start("v1", id));
    for (id, instance) in ids.iter().zip(&instances) {
        let address = instance.address();
        cluster.register_at(1, "catalog", "v1", id, &address).await;
    }
    let client = Client::connect(&cluster.endpoints()).expect("valid");
    let balancer = client.service("catalog").await.expect("known");
    eventually(
        "calls to all",
        async || picks(&balancer, CALLS, None).await,
        |counts| counts.len() == ids.len(),
    )
    .await;
    let set = async |balancing| {
        let policy = Policy {
            balancing,
            ..Policy::default()
        };
        let changed = shift(&cluster, ShiftTarget::Keep, Some(policy)).await;
        let revision = changed.expect("changed").revision;
        eventually(
            "the view",
            async || balancer.revision(),
            |used| *used >= revision,
        )
        .await;
    };

    set(Balancing::RoundRobin).await;
    let counts = picks(&balancer, CALLS, None).await;
    assert!(
        counts.values().all(|count| *count == CALLS / 3),
        "{counts:?}"
    );

    set(Balancing::ConsistentHash).await;
    for user in ["ann", "bob"] {
        let counts = picks(&balancer, CALLS, Some(&StickyKey::new(user))).await;
        assert_eq!(counts.len(), 1, "{user}: {counts:?}");
    }
    let mut met = BTreeSet::new();
    for user in 0..CALLS {
        let key = StickyKey::new(format!("user-{user}"));
        met.extend(picks(&balancer, 1, Some(&key)).await.into_keys());
    }
    assert_eq!(met.len(), ids.len(), "keys are spread over all");
}
