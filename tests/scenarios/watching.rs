//! Watches, resumption and receipts, as any gRPC client sees them.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use trimtab_client::operator::change::{ChangeOptions, ServiceShift, ShiftTarget, Teardown};
use trimtab_proto::v1::watch_request::Kind as Ask;
use trimtab_proto::v1::watch_response::Kind as Answer;
use trimtab_proto::v1::{
    GroupLoad, LoadReports, ReceiptsRequest, Subscribe, ViewUpdate, WatchRequest,
};
use trimtab_server::watchers::BACK_WITHIN;
use trimtab_tests::cluster::Cluster;
use trimtab_tests::eventually::eventually;

use crate::by_hand::Watch;

async fn switch(cluster: &Cluster, service: &str, group: &str) -> u64 {
    let shift = ServiceShift::new(service, ShiftTarget::SwitchTo(group.to_owned()));
    let outcome = cluster
        .operator()
        .shift(&[shift], &ChangeOptions::default())
        .await;
    outcome.expect("switched").revision
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shift_reaches_the_watchers_of_every_replica_whole() {
    let cluster = Cluster::start(3).await;
    cluster.register(1, "catalog", "v1", "a").await;
    cluster.register(1, "catalog", "v2", "b").await;
    let mut watches = Vec::new();
    for id in cluster.running() {
        let mut watch = Watch::open(&cluster, id, &format!("w{id}")).await;
        watch.follow("catalog", 2).await;
        watches.push(watch);
    }
    let revision = switch(&cluster, "catalog", "v2").await;
    for watch in &mut watches {
        let (_, view) = watch.next_view().await;
        assert_eq!((view.revision, view.route_revision), (revision, revision));
        let route = view.route.expect("a route");
        assert_eq!(route.weights.len(), 1);
        assert_eq!(route.weights[0].group, "v2");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_resumes_from_what_the_caller_holds() {
    let cluster = Cluster::start(3).await;
    cluster.register(1, "catalog", "v1", "a").await;
    let mut first = Watch::open(&cluster, 1, "w").await;
    let held = first.follow("catalog", 1).await;
    drop(first);

    let mut second = Watch::open(&cluster, 2, "w").await;
    second.subscribe("catalog", Some(&held)).await;
    match second.next().await {
        Answer::Unchanged(unchanged) => assert_eq!(unchanged.revision, held.revision),
        other => panic!("expected unchanged, got {other:?}"),
    }
    cluster.register(1, "catalog", "v1", "b").await;
    let (newer, view) = second.next_view().await;
    assert!(newer.revision > held.revision);
    assert_eq!(view.instances.len(), 2);

    // Who holds the right revision with the wrong bytes is given the right ones.
    let diverged = ViewUpdate {
        checksum: newer.checksum ^ 1,
        ..newer.clone()
    };
    let mut third = Watch::open(&cluster, 3, "w").await;
    third.subscribe("catalog", Some(&diverged)).await;
    assert_eq!(third.next_view().await.0, newer);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_service_is_said_to_be_absent_until_it_is_there() {
    let cluster = Cluster::start(1).await;
    let mut watch = Watch::open(&cluster, 1, "w").await;
    watch.subscribe("catalog", None).await;
    match watch.next().await {
        Answer::Absent(absent) => assert_eq!(absent.service, "catalog"),
        other => panic!("expected absent, got {other:?}"),
    }
    cluster.register(1, "catalog", "v1", "a").await;
    assert_eq!(watch.next_view().await.1.instances.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_are_counted_over_all_replicas_and_the_laggard_is_named() {
    let cluster = Cluster::start(3).await;
    cluster.register(1, "catalog", "v1", "a").await;
    cluster.register(1, "catalog", "v2", "b").await;
    let prompt = Watch::open(&cluster, 1, "prompt").await;
    let slow = Watch::open(&cluster, 2, "slow").await;
    for watch in [&prompt, &slow] {
        watch.subscribe("catalog", None).await;
    }
    let revision = switch(&cluster, "catalog", "v2").await;
    prompt.confirm("catalog", revision).await;
    slow.confirm("catalog", revision - 1).await;

    // Asked at the replica that holds neither stream.
    let request = ReceiptsRequest {
        services: vec!["catalog".to_owned()],
        revision,
    };
    let answer = cluster
        .routing(3)
        .receipts(request)
        .await
        .expect("receipts");
    let mut answers = answer.into_inner();
    let waiting = loop {
        let answer = answers.next().await.expect("open").expect("no error");
        assert!(!answer.complete);
        let at_rest = |laggard: &trimtab_proto::v1::Laggard| laggard.revision == revision - 1;
        if answer.confirmed == 1 && answer.laggards.iter().all(at_rest) {
            break answer;
        }
    };
    assert_eq!(waiting.watchers, 2);
    let laggard = &waiting.laggards[0];
    assert_eq!(
        (
            laggard.watcher_id.as_str(),
            laggard.name.as_str(),
            laggard.replica_id
        ),
        ("slow", "slow-name", 2)
    );

    // A group that a laggard may still call is not torn down.
    let teardown = Teardown {
        service: "catalog".to_owned(),
        group: "v1".to_owned(),
        quiet: Some(Duration::ZERO),
        expected_route_revision: None,
    };
    let operator = cluster.operator();
    let refused = operator
        .teardown(&teardown, &ChangeOptions::default())
        .await;
    let words = refused.expect_err("a laggard").to_string();
    assert!(words.contains("slow"), "{words}");

    slow.confirm("catalog", revision).await;
    let complete = loop {
        let answer = answers.next().await.expect("open").expect("no error");
        if answer.complete {
            break answer;
        }
    };
    assert_eq!((complete.watchers, complete.confirmed), (2, 2));
    assert!(answers.next().await.is_none());

    // Nor is one that was called a moment ago.
    prompt.ask(load("v1", 7, Duration::ZERO)).await;
    eventually(
        "the reported calls",
        async || operator.describe("catalog").await.expect("described"),
        |status| status.group("v1").is_some_and(|group| group.calls == 7),
    )
    .await;
    let loud = Teardown {
        quiet: Some(Duration::from_secs(600)),
        ..teardown.clone()
    };
    let refused = operator.teardown(&loud, &ChangeOptions::default()).await;
    let words = refused.expect_err("it was called").to_string();
    assert!(words.contains("must be quiet for 600.0 s"), "{words}");
    operator
        .teardown(&teardown, &ChangeOptions::default())
        .await
        .expect("torn down");
}

fn load(group: &str, calls: u64, age: Duration) -> Ask {
    Ask::LoadReports(LoadReports {
        loads: vec![GroupLoad {
            service: "catalog".to_owned(),
            group: group.to_owned(),
            calls,
            errors: 1,
            latency_total: None,
            last_call_age: prost_types::Duration::try_from(age).ok(),
            latency_buckets: Vec::new(),
        }],
    })
}

/// It may be on its way to another replica, and calls as before until then.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_ends_its_stream_in_order_counts_for_a_while() {
    let cluster = Cluster::start(1).await;
    cluster.register(1, "catalog", "v1", "a").await;
    cluster.register(1, "catalog", "v2", "b").await;
    let mut leaving = Watch::open(&cluster, 1, "leaving").await;
    leaving.subscribe("catalog", None).await;
    leaving.next_view().await;
    let revision = switch(&cluster, "catalog", "v2").await;
    let left = Instant::now();
    leaving.end().await;
    let operator = cluster.operator();
    let mut receipts = operator.receipts(&["catalog".to_owned()], revision);
    loop {
        let told = receipts.next().await.expect("no error").expect("open");
        if told.complete {
            break;
        }
    }
    assert!(left.elapsed() >= BACK_WITHIN, "{:?}", left.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_the_contract_is_told_so() {
    let cluster = Cluster::start(1).await;
    let (requests, receiver) = mpsc::channel(1);
    let mut answers = cluster
        .discovery(1)
        .watch(ReceiverStream::new(receiver))
        .await
        .expect("watching")
        .into_inner();
    let early = Ask::Subscribe(Subscribe {
        service: "catalog".to_owned(),
        ..Subscribe::default()
    });
    let request = WatchRequest { kind: Some(early) };
    requests.send(request).await.expect("open");
    let refused = answers
        .next()
        .await
        .expect("an answer")
        .expect_err("no hello");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("hello"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_replica_says_goodbye_to_its_watchers() {
    let mut cluster = Cluster::start(3).await;
    cluster.register(1, "catalog", "v1", "a").await;
    let mut watch = Watch::open(&cluster, 2, "w").await;
    cluster.stop(2).await;
    assert!(matches!(watch.next().await, Answer::GoingAway(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_watch_is_told_when_its_replica_is_cut_off_and_when_no_more() {
    let mut cluster = Cluster::start(3).await;
    cluster.register(1, "catalog", "v1", "a").await;
    let mut watch = Watch::open(&cluster, 3, "w").await;
    watch.follow("catalog", 1).await;
    for id in 1..=2 {
        cluster.stop(id).await;
    }
    watch.until_cut_off(true).await;
    cluster.start_again(1).await;
    watch.until_cut_off(false).await;
}
