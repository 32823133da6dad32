//! Any replica takes any request, and what was acknowledged is there afterwards.

use tokio::net::TcpListener;
use trimtab_client::operator::change::{ChangeOptions, ServiceShift, ShiftTarget};
use trimtab_proto::v1::{ResolveRequest, View, resolve_response};
use trimtab_server::config::Config;
use trimtab_server::node::Node;
use trimtab_tests::cluster::Cluster;
use trimtab_tests::eventually::eventually;

/// The view that replica `id` gives, read through the leader first.
async fn resolve(cluster: &Cluster, id: u64, service: &str) -> View {
    let request = ResolveRequest {
        service: service.to_owned(),
        linearizable: true,
        known_revision: 0,
    };
    let answer = cluster.discovery(id).resolve(request).await;
    match answer.expect("resolved").into_inner().result {
        Some(resolve_response::Result::View(update)) => {
            assert_eq!(update.checksum, trimtab_proto::checksum(&update.view));
            prost::Message::decode(update.view).expect("a view")
        }
        other => panic!("expected a view, got {other:?}"),
    }
}

fn ids(view: &View) -> Vec<&str> {
    view.instances.iter().map(|i| i.id.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_replica_takes_writes_and_every_replica_has_them() {
    let cluster = Cluster::start(3).await;
    for id in cluster.running() {
        let answer = cluster
            .register(id, "catalog", "v1", &format!("i{id}"))
            .await;
        assert!(answer.lease > 0);
        // The replica that was asked has its own write at once.
        let own = ResolveRequest {
            service: "catalog".to_owned(),
            ..ResolveRequest::default()
        };
        let answer_now = cluster.discovery(id).resolve(own).await.expect("resolved");
        match answer_now.into_inner().result {
            Some(resolve_response::Result::View(update)) => {
                assert!(update.revision >= answer.revision);
            }
            other => panic!("expected a view, got {other:?}"),
        }
    }
    let mut views = Vec::new();
    for id in cluster.running() {
        views.push(resolve(&cluster, id, "catalog").await);
    }
    assert_eq!(ids(&views[0]), ["i1", "i2", "i3"]);
    assert!(views.iter().all(|view| *view == views[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_go_on_after_the_leader_is_gone_and_it_catches_up_later() {
    let mut cluster = Cluster::start(3).await;
    cluster.register(1, "catalog", "v1", "before").await;
    let leader = cluster.leader().await;
    cluster.stop(leader).await;

    let other = cluster.running()[0];
    cluster.register(other, "catalog", "v1", "during").await;

    cluster.start_again(leader).await;
    cluster.all_ready().await;
    let view = resolve(&cluster, leader, "catalog").await;
    assert_eq!(ids(&view), ["before", "during"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_replicas_restart_from_their_disks() {
    let mut cluster = Cluster::start(3).await;
    cluster.register(1, "catalog", "v1", "i1").await;
    cluster.register(2, "catalog", "v2", "i2").await;
    let switch = ServiceShift::new("catalog", ShiftTarget::SwitchTo("v2".to_owned()));
    let outcome = cluster
        .operator()
        .shift(&[switch], &ChangeOptions::default())
        .await
        .expect("switched");
    let before = resolve(&cluster, 1, "catalog").await;
    assert_eq!(before.route_revision, outcome.revision);

    for id in cluster.running() {
        cluster.stop(id).await;
    }
    for id in 1..=3 {
        cluster.start_again(id).await;
    }
    cluster.all_ready().await;
    for id in cluster.running() {
        assert_eq!(resolve(&cluster, id, "catalog").await, before);
    }
    let history = cluster
        .operator()
        .history("catalog", None)
        .await
        .expect("history");
    assert_eq!(history.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_away_for_long_catches_up_from_a_snapshot() {
    let mut cluster = Cluster::start_with(3, 20).await;
    let away = *cluster.running().iter().max().expect("three replicas");
    cluster.stop(away).await;
    let here = cluster.running()[0];
    for number in 0..100 {
        cluster
            .register(here, "catalog", "v1", &format!("i{number}"))
            .await;
    }
    cluster.start_again(away).await;
    cluster.all_ready().await;
    let there = resolve(&cluster, away, "catalog").await;
    assert_eq!(there.instances.len(), 100);
    assert_eq!(there, resolve(&cluster, here, "catalog").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_writes_are_refused_and_reads_go_on() {
    let mut cluster = Cluster::start(3).await;
    cluster.register(1, "catalog", "v1", "i1").await;
    let last = 3;
    for id in 1..last {
        cluster.stop(id).await;
    }
    let read = ResolveRequest {
        service: "catalog".to_owned(),
        ..ResolveRequest::default()
    };
    let answer = eventually(
        "an answer marked as possibly stale",
        async || {
            let answer = cluster.discovery(last).resolve(read.clone()).await;
            answer.expect("reads go on").into_inner()
        },
        |answer| answer.possibly_stale,
    )
    .await;
    assert!(matches!(
        answer.result,
        Some(resolve_response::Result::View(_))
    ));
    let switch = ServiceShift::new("catalog", ShiftTarget::SwitchTo("v1".to_owned()));
    let refused = cluster
        .operator_of(last)
        .shift(&[switch], &ChangeOptions::default())
        .await
        .expect_err("no quorum");
    assert!(
        refused.to_string().contains("unavailable") && refused.to_string().contains("quorum"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_may_move_to_another_address_and_its_log_says_who_its_members_are() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let start = async |members: &[u64]| {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let mut config = Config::single(address, directory.path().to_owned());
        for id in members {
            config.members.insert(*id, format!("127.0.0.1:{id}"));
        }
        Node::start_on(listener, config).await
    };
    let first = start(&[]).await.expect("starts");
    first.ready().await.expect("serves");
    first.shutdown().await;

    let moved = start(&[]).await.expect("starts elsewhere");
    moved.ready().await.expect("serves");
    moved.shutdown().await;

    // Once it is founded, the settings say where members are, not who they are.
    let alone = start(&[2, 3]).await.expect("starts");
    alone.ready().await.expect("is still a cluster of one");
    alone.shutdown().await;
}
