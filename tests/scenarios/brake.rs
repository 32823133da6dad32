//! A zone that goes dark stays, SUSPECT; whoever is asked says why, and forgets it when it is back.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use trimtab_client::operator::brake::Brake;
use trimtab_client::operator::service_status::{InstanceStatus, ServiceStatus};
use trimtab_proto::v1::{Instance, LeaseRef, RegisterRequest, RenewRequest, RenewResponse};
use trimtab_tests::cluster::Cluster;
use trimtab_tests::eventually::eventually;

/// Short, so that the test is: it waits for leases to run out.
const TTL_SECONDS: i64 = 3;

async fn register(cluster: &Cluster, zone: &str, count: u64) -> Vec<LeaseRef> {
    let mut leases = Vec::new();
    for number in 0..count {
        let id = format!("{zone}{number}");
        let request = RegisterRequest {
            service: "catalog".to_owned(),
            instance: Some(Instance {
                id: id.clone(),
                group: "v1".to_owned(),
                address: "127.0.0.1:1".to_owned(),
                zone: zone.to_owned(),
                ..Instance::default()
            }),
            ttl: Some(prost_types::Duration {
                seconds: TTL_SECONDS,
                nanos: 0,
            }),
        };
        let answer = cluster.registration(1).register(request).await;
        leases.push(LeaseRef {
            service: "catalog".to_owned(),
            instance_id: id,
            lease: answer.expect("registered").into_inner().lease,
        });
    }
    leases
}

/// Renews in the background through one replica, until dropped.
struct Renewing(tokio::task::JoinHandle<()>);

impl Renewing {
    async fn start(cluster: &Cluster, replica: u64, leases: &[LeaseRef]) -> Renewing {
        let (requests, receiver) = mpsc::channel(4);
        let mut answers: Streaming<RenewResponse> = cluster
            .registration(replica)
            .renew(ReceiverStream::new(receiver))
            .await
            .expect("renewing")
            .into_inner();
        let request = RenewRequest {
            leases: leases.to_vec(),
        };
        let mut renew = async move || {
            requests.send(request.clone()).await.expect("open");
            let answer = answers.next().await.expect("open").expect("no error");
            assert_eq!(answer.lost, Vec::new());
        };
        renew().await;
        Renewing(tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(500)).await;
                renew().await;
            }
        }))
    }
}

impl Drop for Renewing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn ready(status: &ServiceStatus) -> usize {
    let instances = status.instances.iter();
    instances
        .filter(|detail| detail.instance.status == InstanceStatus::Ready)
        .count()
}

async fn status_at(cluster: &Cluster, replica: u64) -> ServiceStatus {
    let status = cluster.operator_of(replica).describe("catalog").await;
    status.expect("described")
}

fn check(brakes: &[Brake], via: u64) {
    let brake = match brakes {
        [brake] => brake,
        other => panic!("{other:?}"),
    };
    assert_eq!(brake.zone.as_deref(), Some("a"));
    assert_eq!(brake.via_replica, Some(via));
    assert_eq!((brake.held, brake.unwell, brake.leases), (4, 4, 4));
    assert!(brake.ends_in <= Duration::from_secs(60) && brake.age < Duration::from_secs(30));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_that_goes_dark_is_held_and_every_replica_says_why() {
    let cluster = Cluster::start(3).await;
    let lost = register(&cluster, "a", 4).await;
    let others = register(&cluster, "b", 8).await;
    let leader = cluster.leader().await;
    let follower = leader % 3 + 1;
    let _renewing = Renewing::start(&cluster, leader, &others).await;
    drop(Renewing::start(&cluster, follower, &lost).await);

    for replica in cluster.running() {
        let status = eventually(
            "the removal to be held back",
            async || status_at(&cluster, replica).await,
            |status| status.brakes.iter().any(|brake| brake.held == 4),
        )
        .await;
        assert_eq!((status.instances.len(), ready(&status)), (12, 8));
        check(&status.brakes, follower);
        let words = status.alarms.join("; ");
        assert!(words.contains("4 of 4 instances in zone a"), "{words}");

        let operator = cluster.operator_of(replica);
        let all = operator.cluster_status().await.expect("status");
        let words = all.alarms.join("; ");
        assert!(words.contains("service catalog: 4 of 4"), "{words}");
        for told in &all.replicas {
            assert_eq!((told.leases, told.suspect), (12, 4), "{told:?}");
            let expected = usize::from(told.id == leader);
            assert_eq!(told.brakes.len(), expected, "{told:?}");
        }
    }

    let _back = Renewing::start(&cluster, follower, &lost).await;
    let status = eventually(
        "all to be READY",
        async || status_at(&cluster, follower).await,
        |status| ready(status) == 12 && status.brakes.is_empty(),
    )
    .await;
    assert_eq!(status.instances.len(), 12);
}
