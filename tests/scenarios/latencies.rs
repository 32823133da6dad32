//! Latencies: what callers report of them, and what an operator is told.

use std::time::Duration;

use tonic::Code;
use trimtab_client::client::Client;
use trimtab_proto::latency::{BUCKETS, Latencies};
use trimtab_proto::v1::watch_request::Kind as Ask;
use trimtab_proto::v1::{GroupLoad, LoadReports};
use trimtab_tests::cluster::Cluster;
use trimtab_tests::eventually::eventually;
use trimtab_tests::instance::Instance;

use crate::by_hand::Watch;

fn report(latency_buckets: Vec<u32>, errors: u64) -> Ask {
    Ask::LoadReports(LoadReports {
        loads: vec![GroupLoad {
            service: "catalog".to_owned(),
            group: "v1".to_owned(),
            calls: latency_buckets.iter().map(|count| u64::from(*count)).sum(),
            errors,
            latency_buckets,
            ..GroupLoad::default()
        }],
    })
}

fn calls(count: usize, took: Duration) -> Vec<u32> {
    let mut latencies = Latencies::default();
    (0..count).for_each(|_| latencies.count(took));
    latencies.to_counts()
}

/// A caller on one replica is fast, one on another is slow: whichever replica
/// is asked tells of both.
#[tokio::test(flavor = "multi_thread")]
async fn latencies_are_merged_over_callers_and_replicas() {
    let cluster = Cluster::start(3).await;
    cluster.register(1, "catalog", "v1", "a").await;
    let (fast, slow) = (Duration::from_millis(2), Duration::from_millis(300));
    let loads = [(2, 97, fast, 0), (3, 3, slow, 3)];
    let mut watches = Vec::new();
    for (replica, count, took, errors) in loads {
        let mut watch = Watch::open(&cluster, replica, &format!("w{replica}")).await;
        watch.follow("catalog", 1).await;
        watch.ask(report(calls(count, took), errors)).await;
        watches.push(watch);
    }
    let operator = cluster.operator();
    let status = eventually(
        "both reports",
        async || operator.describe("catalog").await.expect("described"),
        |status| status.group("v1").is_some_and(|group| group.calls == 100),
    )
    .await;
    let group = status.group("v1").expect("a group");
    assert_eq!(group.errors, 3);
    let near = |told: Option<Duration>, true_one: Duration| {
        let ratio = told.expect("told").as_secs_f64() / true_one.as_secs_f64();
        assert!((0.5..1.5).contains(&ratio), "{told:?} for {true_one:?}");
    };
    near(group.latency_p50, fast);
    near(group.latency_p99, slow);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_counts_than_there_are_buckets_are_refused() {
    let cluster = Cluster::start(1).await;
    cluster.register(1, "catalog", "v1", "a").await;
    let mut watch = Watch::open(&cluster, 1, "w").await;
    watch.subscribe("catalog", None).await;
    watch.next_view().await;
    watch.ask(report(vec![1; BUCKETS + 1], 0)).await;
    let refused = watch.next_result().await.expect_err("too many");
    assert_eq!(refused.code(), Code::InvalidArgument);
    let words = "load_reports.loads.latency_buckets must have at most 32, but is \"33 counts\"";
    assert!(refused.message().contains(words), "{refused:?}");
}

/// What a caller of ours measures is what the operator is told.
#[tokio::test(flavor = "multi_thread")]
async fn callers_of_ours_tell_their_latencies_and_failures() {
    const CALLS: u64 = 20;
    const FAILED: u64 = 2;
    let took = Duration::from_millis(60);
    let cluster = Cluster::start(1).await;
    let instance = Instance::start("v1", "a");
    cluster
        .register_at(1, "catalog", "v1", "a", &instance.address())
        .await;
    let client = Client::connect(&cluster.endpoints()).expect("valid");
    let balancer = client.service("catalog").await.expect("known");
    let calls = (0..CALLS).map(|number| {
        let balancer = balancer.clone();
        tokio::spawn(async move {
            let picked = balancer.pick().await.expect("an instance");
            tokio::time::sleep(took).await;
            match number < FAILED {
                true => picked.failure(),
                false => picked.success(),
            }
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.expect("ended");
    }
    let operator = cluster.operator();
    let status = eventually(
        "the calls",
        async || operator.describe("catalog").await.expect("described"),
        |status| status.group("v1").is_some_and(|it| it.calls == CALLS),
    )
    .await;
    let group = status.group("v1").expect("a group");
    assert_eq!(group.errors, FAILED);
    // Calls are counted in buckets that are half as wide as where they begin.
    let (p50, p99) = (group.latency_p50, group.latency_p99);
    assert!(p50 >= Some(took * 2 / 3), "{p50:?}");
    assert!(p99 >= p50, "{p99:?}");
}
