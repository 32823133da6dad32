//! Who renews stays; who does not is suspected, then removed; who is to leave is told.

use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};
use trimtab_client::operator::change::{ChangeOptions, Teardown};
use trimtab_client::operator::service_status::{InstanceStatus, ServiceStatus};
use trimtab_proto::v1::{
    DeregisterRequest, Instance, InstanceStatus as WireStatus, LeaseRef, RegisterRequest,
    RenewRequest, RenewResponse, SetStatusRequest,
};
use trimtab_tests::cluster::Cluster;
use trimtab_tests::eventually::eventually;

/// A renewal stream driven by hand.
struct Renewals {
    requests: mpsc::Sender<RenewRequest>,
    responses: Streaming<RenewResponse>,
}

impl Renewals {
    async fn open(cluster: &Cluster, replica: u64) -> Renewals {
        let (requests, receiver) = mpsc::channel(4);
        let responses = cluster
            .registration(replica)
            .renew(ReceiverStream::new(receiver))
            .await
            .expect("renewing")
            .into_inner();
        Renewals {
            requests,
            responses,
        }
    }

    async fn renew(&mut self, leases: &[LeaseRef]) -> RenewResponse {
        let request = RenewRequest {
            leases: leases.to_vec(),
        };
        self.requests.send(request).await.expect("open");
        self.next().await
    }

    async fn next(&mut self) -> RenewResponse {
        self.responses
            .next()
            .await
            .expect("open")
            .expect("no error")
    }
}

fn lease_of(instance: &str, lease: u64) -> LeaseRef {
    LeaseRef {
        service: "catalog".to_owned(),
        instance_id: instance.to_owned(),
        lease,
    }
}

async fn register(cluster: &Cluster, instance: &str) -> LeaseRef {
    let answer = cluster.register(1, "catalog", "v1", instance).await;
    lease_of(instance, answer.lease)
}

async fn register_for(cluster: &Cluster, instance: &str, seconds: i64) -> LeaseRef {
    let request = RegisterRequest {
        service: "catalog".to_owned(),
        instance: Some(Instance {
            id: instance.to_owned(),
            group: "v1".to_owned(),
            address: "127.0.0.1:1".to_owned(),
            ..Instance::default()
        }),
        ttl: Some(prost_types::Duration { seconds, nanos: 0 }),
    };
    let answer = cluster.registration(1).register(request).await;
    lease_of(instance, answer.expect("registered").into_inner().lease)
}

fn status_of(status: &ServiceStatus, instance: &str) -> Option<InstanceStatus> {
    let mut instances = status.instances.iter();
    let detail = instances.find(|detail| detail.instance.id == instance);
    detail.map(|detail| detail.instance.status)
}

async fn until(
    cluster: &Cluster,
    instance: &str,
    expected: Option<InstanceStatus>,
) -> ServiceStatus {
    eventually(
        &format!("{instance} to be {expected:?}"),
        async || {
            let status = cluster.operator().describe("catalog").await;
            status.expect("described")
        },
        |status| status_of(status, instance) == expected,
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_stream_makes_suspect_unless_the_instance_renews_elsewhere() {
    let cluster = Cluster::start(3).await;
    let moved = register(&cluster, "moved").await;
    let dead = register(&cluster, "dead").await;

    // Through every replica in turn, so that one is a follower at least.
    for (from, to) in [(1, 2), (2, 3), (3, 1)] {
        let mut old = Renewals::open(&cluster, from).await;
        old.renew(&[moved.clone(), dead.clone()]).await;
        let mut new = Renewals::open(&cluster, to).await;
        new.renew(std::slice::from_ref(&moved)).await;
        drop(old);
        // Both were on the stream that broke: when one is suspect, the other
        // has been judged too. The leases themselves would last ten minutes.
        let status = until(&cluster, "dead", Some(InstanceStatus::Suspect)).await;
        assert_eq!(status_of(&status, "moved"), Some(InstanceStatus::Ready));
        assert_eq!(
            status.group("v1").map(|group| (group.ready, group.suspect)),
            Some((1, 1))
        );

        // A suspect that renews is as good as new.
        let mut back = Renewals::open(&cluster, to).await;
        back.renew(std::slice::from_ref(&dead)).await;
        until(&cluster, "dead", Some(InstanceStatus::Ready)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stops_renewing_is_suspected_then_removed_and_told_when_it_comes_back() {
    let cluster = Cluster::start(1).await;
    let alive = register(&cluster, "alive").await;
    let short = register_for(&cluster, "short", 3).await;
    let mut stream = Renewals::open(&cluster, 1).await;
    let answer = stream.renew(&[alive.clone(), short.clone()]).await;
    assert_eq!(answer, RenewResponse::default());

    until(&cluster, "short", Some(InstanceStatus::Suspect)).await;
    let status = until(&cluster, "short", None).await;
    assert_eq!(status_of(&status, "alive"), Some(InstanceStatus::Ready));

    let answer = stream.renew(&[alive, short.clone()]).await;
    assert_eq!(answer.lost, vec![short.clone()]);
    let late = SetStatusRequest {
        lease: Some(short.clone()),
        status: WireStatus::Ready.into(),
    };
    let refused = cluster
        .registration(1)
        .set_status(late)
        .await
        .expect_err("gone");
    assert_eq!(refused.code(), Code::NotFound);
    let leave = DeregisterRequest { lease: Some(short) };
    cluster
        .registration(1)
        .deregister(leave)
        .await
        .expect("already gone is fine");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_removed_by_an_election() {
    let mut cluster = Cluster::start(3).await;
    let leases = [
        register_for(&cluster, "a", 5).await,
        register_for(&cluster, "b", 5).await,
    ];
    let leader = cluster.leader().await;
    let other = cluster
        .running()
        .into_iter()
        .find(|id| *id != leader)
        .expect("three");
    let mut stream = Renewals::open(&cluster, other).await;
    stream.renew(&leases).await;
    cluster.stop(leader).await;
    // Renew as the contract asks while the others elect; whatever they do in
    // the meantime, no lease may be lost.
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(500));
    for _ in 0..12 {
        ticks.tick().await;
        let answer = stream.renew(&leases).await;
        assert_eq!(answer, RenewResponse::default());
    }
    let status = cluster
        .operator()
        .describe("catalog")
        .await
        .expect("described");
    assert_eq!(status.instances.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_instances_of_a_group_torn_down_are_told_to_retire_wherever_they_renew() {
    let cluster = Cluster::start(3).await;
    register(&cluster, "stays").await;
    let mut leaving = Vec::new();
    for replica in cluster.running() {
        let instance = format!("old-{replica}");
        let answer = cluster.register(1, "catalog", "v0", &instance).await;
        let lease = lease_of(&instance, answer.lease);
        let mut stream = Renewals::open(&cluster, replica).await;
        stream.renew(std::slice::from_ref(&lease)).await;
        leaving.push((lease, stream));
    }
    let teardown = Teardown {
        service: "catalog".to_owned(),
        group: "v0".to_owned(),
        quiet: None,
        expected_route_revision: None,
    };
    let operator = cluster.operator();
    operator
        .teardown(&teardown, &ChangeOptions::default())
        .await
        .expect("torn down");
    for (lease, stream) in &mut leaving {
        assert_eq!(stream.next().await.retire, vec![lease.clone()]);
        let leave = DeregisterRequest {
            lease: Some(lease.clone()),
        };
        cluster
            .registration(1)
            .deregister(leave)
            .await
            .expect("left");
    }
    let status = until(&cluster, "old-1", None).await;
    assert!(
        status.group("v0").is_none(),
        "forgotten with its last instance"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_replica_says_goodbye_and_accuses_nobody() {
    let mut cluster = Cluster::start(3).await;
    let lease = register(&cluster, "a").await;
    let leader = cluster.leader().await;
    let mut stream = Renewals::open(&cluster, leader).await;
    stream.renew(std::slice::from_ref(&lease)).await;
    cluster.stop(leader).await;
    assert!(stream.next().await.going_away);
    drop(stream);
    // A second instance whose stream does break shows that judging goes on.
    let other = cluster.running()[0];
    let broken = cluster.register(other, "catalog", "v1", "broken").await;
    let mut short = Renewals::open(&cluster, other).await;
    short.renew(&[lease_of("broken", broken.lease)]).await;
    drop(short);
    let status = until(&cluster, "broken", Some(InstanceStatus::Suspect)).await;
    assert_eq!(status_of(&status, "a"), Some(InstanceStatus::Ready));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_reaches_no_leader_is_not_said_to_have_succeeded() {
    let mut cluster = Cluster::start(3).await;
    let lease = register(&cluster, "a").await;
    let mut stream = Renewals::open(&cluster, 3).await;
    stream.renew(std::slice::from_ref(&lease)).await;
    for id in 1..=2 {
        cluster.stop(id).await;
    }
    let request = RenewRequest {
        leases: vec![lease.clone()],
    };
    // Until it has noticed, the last replica may still take itself for the
    // leader, and answer as one.
    let refused = loop {
        stream.requests.send(request.clone()).await.expect("open");
        match stream.responses.next().await.expect("an answer") {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("another"), "{refused:?}");
    // Nobody is accused for it when the others are back.
    for id in 1..=2 {
        cluster.start_again(id).await;
    }
    cluster.all_ready().await;
    let mut other = Renewals::open(&cluster, 1).await;
    other.renew(std::slice::from_ref(&lease)).await;
    let status = until(&cluster, "a", Some(InstanceStatus::Ready)).await;
    assert_eq!(status.instances.len(), 1);
}
