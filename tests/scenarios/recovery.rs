//! The way back: from a survivor of a lost quorum, or from a backup, with callers and instances that never stopped.

mod actors;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpListener;
use tonic::Code;
use trimtab_client::cluster::Cluster as Replicas;
use trimtab_client::error::Error;
use trimtab_client::operator::Operator;
use trimtab_client::operator::change::{ChangeOptions, RollbackTarget, ServiceShift, ShiftTarget};
use trimtab_client::operator::service_status::{InstanceDetail, InstanceStatus, ServiceView};
use trimtab_proto::internal::v1::RaftRequest;
use trimtab_proto::internal::v1::peer_client::PeerClient;
use trimtab_server::backup::directory::Directory;
use trimtab_server::backup::file::SnapshotFile;
use trimtab_server::backup::format;
use trimtab_server::backup::header::Source;
use trimtab_server::backup::restore::{JUMP, Plan, SETTLE, restore};
use trimtab_server::config::Config;
use trimtab_server::consensus::entry::encode_state;
use trimtab_server::node::Node;
use trimtab_server::peers::protocol::PROTOCOL;
use trimtab_tests::cluster::Cluster;
use trimtab_tests::eventually::{PATIENCE, eventually};

use self::actors::{Caller, instance};

async fn switch(operator: &Operator, group: &str) -> u64 {
    let shifts = [ServiceShift::new(
        "catalog",
        ShiftTarget::SwitchTo(group.to_owned()),
    )];
    let options = ChangeOptions::default();
    let patient = operator.clone().with_deadline(PATIENCE);
    let outcome = patient.shift(&shifts, &options).await.expect("switched");
    outcome.revision
}

/// Waits until every caller says that it uses this revision.
async fn confirmed(operator: &Operator, revision: u64) {
    let mut receipts = operator.receipts(&["catalog".to_owned()], revision);
    while let Some(progress) = receipts.next().await.expect("no error") {
        if progress.complete && progress.watchers > 0 {
            return;
        }
    }
}

async fn rollback(operator: &Operator) -> u64 {
    let targets = [RollbackTarget {
        service: "catalog".to_owned(),
        to_revision: None,
        expected_route_revision: None,
    }];
    let options = ChangeOptions::default();
    let patient = operator.clone().with_deadline(PATIENCE);
    let outcome = patient.rollback(&targets, &options).await;
    outcome.expect("rolled back").revision
}

async fn view(operator: &Operator) -> ServiceView {
    let patient = operator.clone().with_deadline(PATIENCE);
    patient.resolve("catalog", true).await.expect("resolved")
}

fn status_of(view: &ServiceView, id: &str) -> Option<InstanceStatus> {
    let found = view.instances.iter().find(|instance| instance.id == id);
    found.map(|instance| instance.status)
}

async fn leases(operator: &Operator) -> Vec<(String, u64)> {
    let status = operator.describe("catalog").await.expect("described");
    let lease = |detail: InstanceDetail| (detail.instance.id, detail.lease);
    status.instances.into_iter().map(lease).collect()
}

/// Saves from running replicas into a file.
async fn save(operator: &Operator, allow_stale: bool, path: &Path) -> SnapshotFile {
    let download = operator.save_snapshot(allow_stale).await;
    let mut download = download.expect("begins");
    let mut file = Vec::new();
    while let Some(chunk) = download.next().await.expect("no error") {
        file.extend_from_slice(&chunk);
    }
    fs::write(path, file).expect("written");
    SnapshotFile::read(path).expect("whole")
}

/// A new cluster of one from a snapshot, at an address that callers know.
async fn begin_anew(
    snapshot: SnapshotFile,
    directory: PathBuf,
    cluster: &Cluster,
    at: u64,
    settle: Duration,
) -> (Node, Operator) {
    let address = cluster.address(at);
    let plan = Plan {
        replica_id: 1,
        advertise: address.to_string(),
        jump: JUMP,
        settle,
    };
    let from = snapshot.header.applied.index;
    let founded = restore(snapshot, &directory, &plan).expect("restored");
    assert_eq!(founded.revision.0, from + JUMP);
    let node = Node::start(Config::single(address, directory)).await;
    let node = node.expect("starts");
    node.ready().await.expect("serves");
    let replica = Replicas::parse(&address.to_string()).expect("valid");
    (node, Operator::new(replica))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("made");
    for entry in fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

/// Whether a replica takes Raft messages of a cluster.
async fn takes_messages(address: &str, to_replica: u64, cluster_id: u64) -> Result<(), Code> {
    let mut peer = PeerClient::connect(format!("http://{address}"))
        .await
        .expect("connected");
    let request = RaftRequest {
        to_replica,
        cluster_id,
        protocol: PROTOCOL,
        ..RaftRequest::default()
    };
    let answer = peer.raft(tokio_stream::iter([request])).await;
    answer.map(|_| ()).map_err(|status| status.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_survivor_of_a_lost_quorum_becomes_a_new_cluster_that_all_follow() {
    let files = TempDir::new().expect("a temporary directory");
    let mut cluster = Cluster::start(3).await;
    let _first = instance(&cluster.endpoints(), "catalog", "v1", "a").await;
    let _second = instance(&cluster.endpoints(), "catalog", "v2", "b").await;
    let caller = Caller::start(&cluster.endpoints(), "catalog").await;
    let switched = switch(&cluster.operator(), "v2").await;
    confirmed(&cluster.operator(), switched).await;
    caller.is_answered_by("v2").await;
    let before = view(&cluster.operator()).await;
    let leases_before = leases(&cluster.operator()).await;

    // Two of three die with their disks; of one an old copy turns up later.
    let old = files.path().join("old");
    for id in [1, 2] {
        cluster.stop(id).await;
        if id == 1 {
            copy(&cluster.data_dir(1), &old);
        }
        cluster.destroy(id);
    }
    let survivor = cluster.operator_of(3);
    // Before it knows, it may take a change into its log, and say that its
    // outcome is unknown: that one may be made.
    eventually(
        "the survivor knows that the quorum is lost",
        async || survivor.cluster_status().await.expect("answers"),
        |status| !status.has_quorum,
    )
    .await;
    let shifts = [ServiceShift::new(
        "catalog",
        ShiftTarget::SwitchTo("v1".to_owned()),
    )];
    let refused = survivor.shift(&shifts, &ChangeOptions::default()).await;
    let refused = refused.expect_err("no quorum");
    assert!(matches!(refused, Error::Unavailable { .. }), "{refused}");
    let refused = survivor.save_snapshot(false).await.expect_err("no quorum");
    assert!(refused.to_string().contains("SaveSnapshot"), "{refused}");

    // What the survivor has applied, and all that it has.
    let stale = save(&survivor, true, &files.path().join("stale")).await;
    assert_eq!(stale.header.source, Source::Replica);
    cluster.stop(3).await;
    let known = Directory::read(&cluster.data_dir(3)).expect("readable");
    assert!(known.last() >= stale.header.applied);
    let state = encode_state(&known.state.membership, &known.state.registry).expect("encodes");
    let path = files.path().join("survivor");
    fs::write(&path, format::encode(&known.header(0), state).concat()).expect("written");
    let snapshot = SnapshotFile::read(&path).expect("whole");
    let old_cluster_id = snapshot.header.cluster_id;

    let (node, operator) = begin_anew(
        snapshot,
        files.path().join("new"),
        &cluster,
        3,
        Duration::ZERO,
    )
    .await;
    let after = view(&operator).await;
    assert_eq!(after.route, before.route);
    assert_eq!(after.route_revision, before.route_revision);
    assert!(after.revision > JUMP && after.revision > before.revision);
    confirmed(&operator, after.revision).await;

    // The caller, that never stopped, follows a shift and a rollback.
    let switched = switch(&operator, "v1").await;
    confirmed(&operator, switched).await;
    caller.is_answered_by("v1").await;
    let rolled_back = rollback(&operator).await;
    confirmed(&operator, rolled_back).await;
    caller.is_answered_by("v2").await;
    assert_eq!(view(&operator).await.route, before.route);

    // An old replica comes back: neither takes the other for its own.
    let listener = TcpListener::bind(cluster.address(1)).await.expect("free");
    let mut config = Config::single(cluster.address(1), old);
    config.members = (1..=3)
        .map(|id| (id, cluster.address(id).to_string()))
        .collect();
    let ghost = Node::start_on(listener, config).await.expect("starts");
    let (there, here) = (
        cluster.address(3).to_string(),
        cluster.address(1).to_string(),
    );
    let refused = takes_messages(&there, 1, old_cluster_id).await;
    assert_eq!(refused, Err(Code::InvalidArgument));
    let refused = takes_messages(&here, 1, 0xfeed).await;
    assert_eq!(refused, Err(Code::InvalidArgument));
    let rolled_back = rollback(&operator).await;
    confirmed(&operator, rolled_back).await;
    caller.is_answered_by("v1").await;
    let status = cluster.operator_of(1).cluster_status().await;
    let status = status.expect("answers");
    assert!(!status.has_quorum);
    let other = status.replicas.iter().find(|replica| replica.id == 3);
    let other = other.expect("a member once");
    assert!(!other.reachable && other.error.contains("belongs to cluster"));
    let status = operator.cluster_status().await.expect("answers");
    assert_eq!(status.replicas.len(), 1);

    // The instances went on under the leases they had.
    assert_eq!(leases(&operator).await, leases_before);
    let last = view(&operator).await;
    for id in ["a", "b"] {
        assert_eq!(status_of(&last, id), Some(InstanceStatus::Ready));
    }
    caller.end().await;
    ghost.shutdown().await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_after_the_backup_is_lost_and_instances_register_anew() {
    let files = TempDir::new().expect("a temporary directory");
    let mut cluster = Cluster::start(3).await;
    let operator = cluster.operator();
    let _first = instance(&cluster.endpoints(), "catalog", "v1", "a").await;
    let _second = instance(&cluster.endpoints(), "catalog", "v2", "b").await;
    let caller = Caller::start(&cluster.endpoints(), "catalog").await;
    let backup = save(&operator, false, &files.path().join("backup")).await;
    assert_eq!(backup.header.source, Source::Quorum);
    let saved = view(&operator).await;

    // Later: a service of its own, an instance, a switch that callers follow.
    let _late = instance(&cluster.endpoints(), "late", "v1", "l").await;
    let late_caller = Caller::start(&cluster.endpoints(), "late").await;
    late_caller.is_answered_by("v1").await;
    let _third = instance(&cluster.endpoints(), "catalog", "v2", "c").await;
    let lost = switch(&operator, "v2").await;
    confirmed(&operator, lost).await;
    caller.is_answered_by("v2").await;
    for id in 1..=3 {
        cluster.stop(id).await;
        cluster.destroy(id);
    }

    let (node, operator) = begin_anew(backup, files.path().join("new"), &cluster, 2, SETTLE).await;
    // What the backup does not know has registered anew before a caller hears
    // of anything, and no call failed meanwhile.
    let after = view(&operator).await;
    assert_eq!(after.route, saved.route);
    assert_eq!(status_of(&after, "c"), Some(InstanceStatus::Ready));
    confirmed(&operator, after.revision).await;
    caller.is_answered_by("v1").await;
    late_caller.is_answered_by("v1").await;
    late_caller.end().await;
    // Who read the route that was lost is refused, who read this one is not.
    let mut shift = ServiceShift::new("catalog", ShiftTarget::SwitchTo("v2".to_owned()));
    shift.expected_route_revision = Some(lost);
    let options = ChangeOptions::default();
    let refused = operator.shift(&[shift.clone()], &options).await;
    assert!(refused.is_err());
    shift.expected_route_revision = Some(saved.route_revision);
    let shifted = operator.shift(&[shift], &options).await.expect("shifted");
    confirmed(&operator, shifted.revision).await;
    caller.is_answered_by("v2").await;
    caller.end().await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_saved_at_any_replica_while_writes_go_on() {
    let files = TempDir::new().expect("a temporary directory");
    let cluster = Cluster::start(3).await;
    let stop = Arc::new(AtomicBool::new(false));
    let cluster = Arc::new(cluster);
    let writer = {
        let (cluster, stop) = (Arc::clone(&cluster), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut written = 0;
            while !stop.load(Ordering::Relaxed) {
                let id = format!("i{written}");
                cluster.register(1, "catalog", "v1", &id).await;
                written += 1;
            }
            written
        })
    };
    for id in 1..=3 {
        // Acknowledged through another replica than the one that is asked.
        let through = id % 3 + 1;
        let mark = format!("mark-{id}");
        let answer = cluster.register(through, "marked", "v1", &mark).await;
        let path = files.path().join(id.to_string());
        let saved = save(&cluster.operator_of(id), false, &path).await;
        assert_eq!(saved.header.saved_by, id);
        assert_eq!(saved.header.source, Source::Quorum);
        assert!(saved.header.applied.index >= answer.revision);
        assert_eq!(saved.header.members.len(), 3);
        let marked = saved
            .registry
            .services()
            .find(|it| it.name().as_str() == "marked");
        let found = marked.is_some_and(|it| it.instances().any(|i| i.id().as_str() == mark));
        assert!(found, "the file holds what was acknowledged before");
    }
    stop.store(true, Ordering::Relaxed);
    let written = tokio::time::timeout(PATIENCE, writer).await;
    assert!(written.expect("ends").expect("no write failed") > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_followed_the_new_cluster_do_not_go_back_to_the_old_one() {
    let files = TempDir::new().expect("a temporary directory");
    let mut cluster = Cluster::start(3).await;
    let _first = instance(&cluster.endpoints(), "catalog", "v1", "a").await;
    let _second = instance(&cluster.endpoints(), "catalog", "v2", "b").await;
    let backup = save(&cluster.operator(), false, &files.path().join("backup")).await;
    let caller = Caller::start(&cluster.endpoints(), "catalog").await;
    for id in 1..=3 {
        cluster.stop(id).await;
    }
    let new = files.path().join("new");
    let (node, operator) = begin_anew(backup, new, &cluster, 2, Duration::ZERO).await;
    let switched = switch(&operator, "v2").await;
    confirmed(&operator, switched).await;
    caller.is_answered_by("v2").await;
    node.shutdown().await;

    // Somebody starts the old replicas, all of them: they are a cluster, and
    // their route is another.
    for id in 1..=3 {
        cluster.start_again(id).await;
    }
    cluster.all_ready().await;
    let old = view(&cluster.operator()).await;
    assert_eq!(old.route.weights.get("v1"), Some(&10_000));
    eventually(
        "the caller watches through an old replica",
        async || cluster.operator().cluster_status().await.expect("answers"),
        |status| status.replicas.iter().any(|replica| replica.watchers > 0),
    )
    .await;
    let before = caller.calls("v1");
    for _ in 0..3 {
        caller.is_answered_by("v2").await;
    }
    assert_eq!(caller.calls("v1"), before, "no call goes back");
    caller.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_cluster_grows_to_three_and_bears_the_loss_of_its_first_replica() {
    let files = TempDir::new().expect("a temporary directory");
    let mut cluster = Cluster::start(1).await;
    cluster.register(1, "catalog", "v1", "a").await;
    cluster.register(1, "catalog", "v2", "b").await;
    switch(&cluster.operator(), "v2").await;
    let history = cluster.operator().history("catalog", None).await;
    let backup = save(&cluster.operator(), false, &files.path().join("backup")).await;
    cluster.stop(1).await;
    cluster.destroy(1);
    let plan = Plan {
        replica_id: 1,
        advertise: cluster.address(1).to_string(),
        jump: JUMP,
        settle: Duration::ZERO,
    };
    restore(backup, &cluster.data_dir(1), &plan).expect("restored");
    cluster.start_again(1).await;
    cluster.all_ready().await;

    for id in [2, 3] {
        cluster.reserve(id);
        cluster.join(id).await;
        let operator = cluster.operator();
        eventually(
            "it has caught up and gets a vote",
            async || operator.promote_replica(id, None).await.is_ok(),
            |promoted| *promoted,
        )
        .await;
    }
    cluster.stop(1).await;
    cluster.destroy(1);
    let rolled_back = rollback(&cluster.operator()).await;
    assert!(rolled_back > JUMP);
    let kept = cluster.operator().history("catalog", None).await;
    let (kept, history) = (kept.expect("history"), history.expect("history"));
    assert_eq!(kept[1..], history[..]);
    assert_eq!(kept[0].after, history[1].after);
}
