//! Replicas come and go while the registry is used: nothing is lost and no watch goes back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tonic::transport::Endpoint;
use trimtab_client::error::Error;
use trimtab_client::operator::Operator;
use trimtab_client::operator::watch::WatchEvent;
use trimtab_proto::v1::registration_client::RegistrationClient;
use trimtab_proto::v1::{Instance, RegisterRequest};
use trimtab_server::node::Node;
use trimtab_tests::cluster::Cluster;
use trimtab_tests::eventually::eventually;

/// Longer than an election; an attempt that takes longer is made elsewhere.
const ATTEMPT: Duration = Duration::from_secs(3);

/// Registers one instance after another until it is stopped. Each is tried
/// again, at the next replica, until it is acknowledged: registering twice is
/// as registering once.
struct Writer {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    task: JoinHandle<Vec<String>>,
}

impl Writer {
    fn start(endpoints: String) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let task = tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            let mut endpoints = endpoints.split(',').cycle();
            let mut at = endpoints.next().expect("one").to_owned();
            while !stopped.load(Ordering::Relaxed) {
                let id = format!("i{}", acknowledged.len());
                while register(&at, &id).await.is_none() {
                    at = endpoints.next().expect("endless").to_owned();
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                acknowledged.push(id);
                counted.store(acknowledged.len(), Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            acknowledged
        });
        Self { stop, count, task }
    }

    /// Waits until some more were acknowledged.
    async fn goes_on(&self) {
        let before = self.count.load(Ordering::Relaxed);
        let now = async || self.count.load(Ordering::Relaxed);
        eventually("writes go on", now, |now| *now > before + 10).await;
    }

    async fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("no panic")
    }
}

async fn register(at: &str, id: &str) -> Option<()> {
    let attempt = async {
        let channel = Endpoint::from_shared(format!("http://{at}")).ok()?;
        let mut client = RegistrationClient::new(channel.connect().await.ok()?);
        let request = RegisterRequest {
            service: "catalog".to_owned(),
            instance: Some(Instance {
                id: id.to_owned(),
                group: "v1".to_owned(),
                address: "127.0.0.1:1".to_owned(),
                ..Instance::default()
            }),
            ttl: Some(prost_types::Duration {
                seconds: 600,
                nanos: 0,
            }),
        };
        client.register(request).await.ok().map(|_| ())
    };
    tokio::time::timeout(ATTEMPT, attempt).await.ok().flatten()
}

/// Follows a service and checks that it never goes back.
struct Follower {
    stop: Arc<AtomicBool>,
    task: JoinHandle<(usize, u64)>,
}

impl Follower {
    fn start(operator: &Operator, name: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let mut watch = operator.watch("catalog", name);
        let task = tokio::spawn(async move {
            let (mut instances, mut last) = (0, 0);
            while !stopped.load(Ordering::Relaxed) {
                let next = tokio::time::timeout(Duration::from_millis(200), watch.next());
                match next.await {
                    Ok(Ok(WatchEvent::View(view))) => {
                        assert!(view.revision >= last, "{} after {last}", view.revision);
                        assert!(view.instances.len() >= instances, "an instance is gone");
                        (instances, last) = (view.instances.len(), view.revision);
                    }
                    Ok(Ok(WatchEvent::Absent { .. })) => assert_eq!(last, 0, "it is gone"),
                    // Nobody could be asked for a while.
                    Ok(Err(error)) => assert!(error.is_transient(), "{error}"),
                    Err(_) => {}
                }
            }
            (instances, last)
        });
        Self { stop, task }
    }

    async fn stop(self) -> (usize, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("no step back")
    }
}

/// The instances a replica serves.
async fn served(cluster: &Cluster, id: u64) -> BTreeSet<String> {
    let view = cluster.operator_of(id).resolve("catalog", false).await;
    let instances = view.map(|view| view.instances).unwrap_or_default();
    instances.into_iter().map(|instance| instance.id).collect()
}

async fn all_serve(cluster: &Cluster, acknowledged: &[String]) {
    for id in cluster.running() {
        eventually(
            "all that was acknowledged",
            async || served(cluster, id).await,
            |served| acknowledged.iter().all(|id| served.contains(id)),
        )
        .await;
    }
}

/// Promotes as soon as the learner has caught up.
async fn promote(operator: &Operator, id: u64, replacing: Option<u64>) {
    let promoted = eventually(
        "the learner gets a vote",
        async || {
            let promoted = operator.promote_replica(id, replacing).await;
            promoted.map_err(|error| error.to_string())
        },
        |promoted| promoted.as_ref().is_ok_and(|it| it.voters.contains(&id)),
    )
    .await;
    promoted.expect("it has one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_grows_is_mended_and_shrinks_while_it_is_used() {
    let mut cluster = Cluster::start_with(1, 40).await;
    for id in 2..=4 {
        cluster.reserve(id);
    }
    let operator = cluster.operator();
    let writer = Writer::start(cluster.endpoints());
    let follower = Follower::start(&operator, "follower");

    for id in [2, 3] {
        cluster.join(id).await;
        promote(&operator, id, None).await;
    }
    let again = operator.promote_replica(3, None).await.expect("is so");
    assert_eq!((again.changed, again.voters), (false, vec![1, 2, 3]));

    // One dies for good, and another takes its place in one step.
    cluster.stop(2).await;
    cluster.destroy(2);
    cluster.join(4).await;
    promote(&operator, 4, Some(2)).await;
    let status = operator.cluster_status().await.expect("answers");
    let ids: Vec<u64> = status.replicas.iter().map(|replica| replica.id).collect();
    assert_eq!(ids, [1, 3, 4]);

    // The leader is removed: it hands over, and stops when it is.
    let leader = cluster.leader().await;
    let removed = operator.remove_replica(leader, false).await.expect("done");
    assert!(!removed.voters.contains(&leader), "{removed:?}");
    let why = cluster.ended(leader).await;
    assert!(why.contains("was removed from the cluster"), "{why}");
    let again = operator.remove_replica(leader, false).await.expect("is so");
    assert!(!again.changed);
    let last = cluster.leader().await;
    let other = cluster.running().into_iter().find(|id| *id != last);
    let other = other.expect("two run");
    let removed = operator.remove_replica(other, false).await.expect("done");
    assert_eq!(removed.voters, [last]);
    let refused = operator.remove_replica(last, true).await;
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    cluster.ended(other).await;

    let acknowledged = writer.stop().await;
    assert!(acknowledged.len() > 20, "{}", acknowledged.len());
    all_serve(&cluster, &acknowledged).await;
    let (seen, _) = follower.stop().await;
    assert!(seen > 20, "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_without_a_vote_serves_reads_and_watches_and_no_write_waits_for_it() {
    let mut cluster = Cluster::start(1).await;
    cluster.reserve(2);
    cluster.join(2).await;
    let status = cluster.status(1).await;
    let learners: Vec<bool> = status.iter().map(|replica| replica.is_learner).collect();
    assert_eq!(learners, [false, true]);

    // Reads, watches and forwarded writes through it.
    let follower = Follower::start(&cluster.operator_of(2), "reader");
    cluster.register(2, "catalog", "v1", "a").await;
    assert!(served(&cluster, 2).await.contains("a"));
    let exact = cluster.operator_of(2).resolve("catalog", true).await;
    assert_eq!(exact.expect("there is a quorum").instances.len(), 1);

    // Two voters would be stuck with one; one voter and a learner are not.
    cluster.stop(2).await;
    cluster.register(1, "catalog", "v1", "b").await;
    cluster.start_again(2).await;
    all_serve(&cluster, &["a".to_owned(), "b".to_owned()]).await;
    eventually(
        "the watch is back",
        async || served(&cluster, 2).await.len(),
        |instances| *instances == 2,
    )
    .await;
    follower.stop().await;

    // Alone it elects nobody, and says that it may be behind.
    let refused = cluster.operator().transfer_leadership(Some(2)).await;
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    cluster.stop(1).await;
    let alone = eventually(
        "the learner notices that nobody leads",
        async || cluster.operator_of(2).cluster_status().await,
        |status| status.as_ref().is_ok_and(|status| !status.has_quorum),
    )
    .await;
    assert_eq!(alone.expect("answers").leader_id, None);
    assert_eq!(served(&cluster, 2).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lost_its_disk_is_refused_until_it_is_removed_and_taken_in_anew() {
    let mut cluster = Cluster::start(3).await;
    cluster.register(1, "catalog", "v1", "a").await;
    cluster.stop(2).await;
    cluster.destroy(2);
    let refused = Node::start(cluster.founding(2))
        .await
        .expect_err("is known");
    let words = refused.to_string();
    assert!(words.contains("trimtab cluster remove 2"), "{words}");

    let operator = cluster.operator();
    let lead = cluster.leader().await;
    let removed = operator.remove_replica(2, false).await.expect("removed");
    assert_eq!(removed.voters, [1, 3]);
    // The directory it would have is of no use to founders any more.
    let refused = Node::start(cluster.founding(2))
        .await
        .expect_err("is not known");
    assert!(refused.to_string().contains("--join"), "{refused}");

    cluster.join(2).await;
    promote(&operator, 2, None).await;
    assert!(served(&cluster, 2).await.contains("a"));
    assert!([1, 3].contains(&lead));

    // One more lost: with two of three it goes on.
    cluster.stop(3).await;
    cluster.register(2, "catalog", "v1", "b").await;
    let refused = operator.remove_replica(1, false).await;
    let Err(Error::Refused(words)) = refused else {
        panic!("{refused:?}");
    };
    assert!(words.contains("replica 3"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_replicas_restart_one_by_one_and_nobody_notices() {
    let mut cluster = Cluster::start_with(3, 40).await;
    let operator = cluster.operator();
    let writer = Writer::start(cluster.endpoints());
    let follower = Follower::start(&operator, "follower");
    for id in 1..=3 {
        cluster.stop(id).await;
        writer.goes_on().await;
        cluster.start_again(id).await;
        cluster.all_ready().await;
        writer.goes_on().await;
    }
    let leader = cluster.leader().await;
    let next = leader % 3 + 1;
    let led = operator.transfer_leadership(Some(next)).await;
    assert_eq!(led.expect("handed over").leader_id, next);
    let acknowledged = writer.stop().await;
    all_serve(&cluster, &acknowledged).await;
    let (seen, _) = follower.stop().await;
    assert!(
        seen > 0 && acknowledged.len() > 20,
        "{}",
        acknowledged.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_removed_while_it_was_off_finds_out_when_it_starts() {
    let mut cluster = Cluster::start(3).await;
    let operator = cluster.operator();
    cluster.stop(3).await;
    let removed = operator.remove_replica(3, false).await.expect("removed");
    assert_eq!(removed.voters, [1, 2]);
    cluster.start_again(3).await;
    let why = cluster.ended(3).await;
    assert!(why.contains("was removed from the cluster"), "{why}");
    // Nor is that directory taken in again.
    cluster.register(1, "catalog", "v1", "a").await;
    assert_eq!(cluster.status(1).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_moved_tells_the_others_where_it_is() {
    let mut cluster = Cluster::start(3).await;
    cluster.stop(2).await;
    let before = cluster.address(2);
    let now = cluster.reserve(2);
    assert_ne!(before, now);
    // The others go on as they are.
    cluster.start_again(2).await;
    cluster.all_ready().await;
    cluster.register(1, "catalog", "v1", "a").await;
    all_serve(&cluster, &["a".to_owned()]).await;
    let leader = cluster.leader().await;
    let moved = eventually(
        "the leader reaches it where it is",
        async || cluster.status(leader).await,
        |replicas| replicas.iter().all(|replica| replica.reachable),
    )
    .await;
    assert!(
        moved
            .iter()
            .any(|replica| replica.address == now.to_string())
    );
}
