//! Three replicas that reach each other over loopback.

use std::collections::BTreeMap;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};
use trimtab_proto::internal::v1::install_snapshot_request::Part;
use trimtab_proto::internal::v1::peer_server::{Peer, PeerServer};
use trimtab_proto::internal::v1::{
    InstallSnapshotRequest, InstallSnapshotResponse, IntroduceRequest, IntroduceResponse,
    ObserveRequest, ObserveResponse, ProposeManyRequest, ProposeManyResponse, ProposeRequest,
    ProposeResponse, RaftRequest, RaftResponse, RenewLeasesRequest, RenewLeasesResponse,
    ReplicaStatusRequest, ReplicaStatusResponse,
};
use trimtab_registry::outcome::Outcome;

use super::super::error::ProposeError;
use super::super::forward;
use super::super::handle::{Handle, Receiver};
use super::super::membership::Member;
use super::super::start::{Settings, found, start};
use super::super::testing::register;
use super::super::transfer::Arriving;
use super::recorder::{PATIENCE, Recorder, Told, instances, until};
use crate::peers::protocol::PROTOCOL;
use crate::peers::{Contact, MESSAGE_BYTES_MAX, Own, Peers};
use crate::storage::file::{Identity, Storage};

/// Only consensus behind the door.
struct Door(Handle);

fn refused(error: impl std::fmt::Display) -> Status {
    Status::failed_precondition(error.to_string())
}

#[tonic::async_trait]
impl Peer for Door {
    async fn raft(
        &self,
        request: Request<Streaming<RaftRequest>>,
    ) -> Result<Response<RaftResponse>, Status> {
        let mut requests = request.into_inner();
        while let Some(request) = requests.message().await? {
            self.0.step(request).map_err(refused)?;
        }
        Ok(Response::new(RaftResponse {}))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<InstallSnapshotRequest>>,
    ) -> Result<Response<InstallSnapshotResponse>, Status> {
        let mut parts = request.into_inner();
        let mut arriving = None;
        let mut from_disk = 0;
        while let Some(request) = parts.message().await? {
            match (request.part, &mut arriving) {
                (Some(Part::Head(head)), None) => {
                    self.0
                        .admit(&Receiver {
                            protocol: head.protocol,
                            replica: head.to_replica,
                            disk_id: head.to_disk,
                            cluster_id: head.cluster_id,
                        })
                        .map_err(refused)?;
                    from_disk = head.from_disk;
                    arriving = Some(Arriving::begin(head).map_err(refused)?);
                }
                (Some(Part::Chunk(chunk)), Some(arriving)) => {
                    arriving.push(&chunk).map_err(refused)?;
                }
                _ => return Err(refused("a head, then chunks")),
            }
        }
        let arriving = arriving.ok_or_else(|| refused("nothing came"))?;
        let message = arriving.finish().map_err(refused)?;
        self.0.install(from_disk, message).await.map_err(refused)?;
        Ok(Response::new(InstallSnapshotResponse {}))
    }

    async fn propose(
        &self,
        request: Request<ProposeRequest>,
    ) -> Result<Response<ProposeResponse>, Status> {
        let request = request.into_inner();
        let proposed = self.0.propose_here(request.command, request.dry_run);
        let (applied_index, result) = proposed.await.map_err(|error| forward::to_status(&error))?;
        Ok(Response::new(ProposeResponse {
            applied_index,
            result,
        }))
    }

    /// As a replica of a version that does not know it.
    async fn propose_many(
        &self,
        _: Request<ProposeManyRequest>,
    ) -> Result<Response<ProposeManyResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn renew_leases(
        &self,
        _: Request<RenewLeasesRequest>,
    ) -> Result<Response<RenewLeasesResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn observe(
        &self,
        _: Request<ObserveRequest>,
    ) -> Result<Response<ObserveResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn introduce(
        &self,
        _: Request<IntroduceRequest>,
    ) -> Result<Response<IntroduceResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn replica_status(
        &self,
        _: Request<ReplicaStatusRequest>,
    ) -> Result<Response<ReplicaStatusResponse>, Status> {
        Ok(Response::new(ReplicaStatusResponse::default()))
    }
}

struct Running {
    handle: Handle,
    recorder: Recorder,
    /// Its own, so that all it does ends at once with it. An option because a
    /// runtime must not be dropped within another.
    runtime: Option<Runtime>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub(super) struct Cluster {
    listeners: BTreeMap<u64, TcpListener>,
    members: BTreeMap<u64, String>,
    directories: BTreeMap<u64, TempDir>,
    running: BTreeMap<u64, Running>,
    starts: u64,
}

impl Cluster {
    /// Three replicas; those in `waiting` are not started yet.
    pub(super) async fn start(waiting: &[u64]) -> Self {
        let mut listeners = BTreeMap::new();
        let mut members = BTreeMap::new();
        for id in 1..=3 {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
            let address = listener.local_addr().expect("is bound");
            members.insert(id, address.to_string());
            listeners.insert(id, listener);
        }
        let directories = members
            .keys()
            .map(|id| (*id, tempfile::tempdir().expect("tempdir")));
        let mut cluster = Self {
            directories: directories.collect(),
            listeners,
            members,
            running: BTreeMap::new(),
            starts: 0,
        };
        for id in (1..=3).filter(|id| !waiting.contains(id)) {
            cluster.run(id).await;
        }
        cluster
    }

    async fn run(&mut self, id: u64) {
        let founders = self.founders();
        self.starts += 1;
        let settings = Settings {
            tick_interval: Duration::from_millis(20),
            snapshot_every: 20,
            trailing_entries: 5,
            ..Settings::new(self.starts)
        };
        let directory = self.directories[&id].path().to_owned();
        let fresh = Identity::of_new(id, 10 + id);
        let mut storage = eventually(async || Storage::open(&directory, fresh)).await;
        if storage.identity().cluster_id == 0 {
            found(&mut storage, &founders).expect("founds");
        }
        let own = Own {
            id,
            cluster_id: storage.identity().cluster_id,
            contact: Contact {
                address: self.members[&id].clone(),
                disk_id: 10 + id,
            },
        };
        let listener = match self.listeners.remove(&id) {
            Some(listener) => listener,
            None => eventually(|| TcpListener::bind(self.members[&id].clone())).await,
        };
        let listener = listener.into_std().expect("converts");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("builds");
        let recorder = Recorder::default();
        let handle = {
            let _within = runtime.enter();
            let peers = Peers::new(own, self.members.clone()).expect("addresses");
            start(settings, storage, peers, recorder.clone()).expect("starts")
        };
        let door =
            PeerServer::new(Door(handle.clone())).max_decoding_message_size(MESSAGE_BYTES_MAX);
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("converts");
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            let served = Server::builder().add_service(door);
            served.serve_with_incoming(incoming).await.expect("serves");
        });
        let running = Running {
            handle,
            recorder,
            runtime: Some(runtime),
        };
        self.running.insert(id, running);
    }

    fn founders(&self) -> BTreeMap<u64, Member> {
        let member = |(id, address): (&u64, &String)| {
            let (address, disk_id) = (address.clone(), 10 + id);
            (*id, Member { address, disk_id })
        };
        self.members.iter().map(member).collect()
    }

    pub(super) fn at(&self, id: u64) -> Handle {
        self.running[&id].handle.clone()
    }

    pub(super) async fn leader(&self) -> u64 {
        let (_, first) = self.running.iter().next().expect("one runs");
        until(&first.handle, |status| status.has_leader())
            .await
            .leader_id
    }

    async fn follower(&self) -> u64 {
        let leader = self.leader().await;
        let mut ids = self.running.keys().copied();
        ids.find(|id| *id != leader).expect("another runs")
    }

    /// Ends a replica without a word to anyone, as a killed process does.
    pub(super) fn kill(&mut self, id: u64) {
        drop(self.running.remove(&id).expect("it runs"));
    }

    async fn stop(&mut self, id: u64) {
        let stopped = self.running.remove(&id).expect("it runs");
        stopped.handle.shutdown().await;
    }
}

async fn eventually<T, E: std::fmt::Debug, F: Future<Output = Result<T, E>>>(
    mut attempt: impl FnMut() -> F,
) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_replica_takes_a_write_and_reads_it_back() {
    let cluster = Cluster::start(&[]).await;
    for id in 1..=3 {
        let handle = cluster.at(id);
        let command = register("catalog", &format!("i{id}"));
        let outcome = handle.propose(command).await;
        assert!(
            matches!(outcome, Ok(Outcome::Registered { .. })),
            "{outcome:?}"
        );
        assert_eq!(instances(&handle).await, id as usize);
        let planned = handle.plan(register("catalog", "i9")).await;
        assert!(matches!(planned, Ok(Outcome::Registered { .. })));
    }
    for id in 1..=3 {
        let handle = cluster.at(id);
        until(&handle, |status| status.caught_up).await;
        handle.read_barrier().await.expect("there is a quorum");
        assert_eq!(instances(&handle).await, 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_leader_serves_those_who_insist() {
    let cluster = Cluster::start(&[]).await;
    let follower = cluster.at(cluster.follower().await);
    let leader = until(&follower, |status| status.has_leader())
        .await
        .leader_id;
    let command = super::super::entry::encode_command(&register("catalog", "i1"));
    let refused = follower
        .propose_here(command.expect("encodes"), false)
        .await;
    let Err(ProposeError::NotLeader { leader: told }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(told, Some(leader));
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_go_on_after_the_leader_is_killed() {
    let mut cluster = Cluster::start(&[]).await;
    let leader = cluster.leader().await;
    cluster
        .at(leader)
        .propose(register("catalog", "i1"))
        .await
        .expect("is applied");
    cluster.kill(leader);
    let survivor = cluster.at(cluster.follower().await);
    // A write that was on its way to the dead leader may be unknown; the next
    // one finds the new leader.
    eventually(|| survivor.propose(register("catalog", "i2"))).await;
    assert_eq!(instances(&survivor).await, 2);
    // The dead one comes back and catches up.
    cluster.run(leader).await;
    let back = cluster.at(leader);
    until(&back, |status| status.caught_up).await;
    back.read_barrier().await.expect("there is a quorum");
    assert_eq!(instances(&back).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stops_hands_over_first() {
    let mut cluster = Cluster::start(&[]).await;
    let leader = cluster.leader().await;
    let handle = cluster.at(leader);
    handle
        .propose(register("catalog", "i1"))
        .await
        .expect("is applied");
    let term = handle.status().borrow().term;
    let survivor = cluster.at(cluster.follower().await);
    cluster.stop(leader).await;
    let status = until(&survivor, |status| {
        status.has_leader() && status.leader_id != leader
    })
    .await;
    // One election and no more: it did not wait for a timeout to notice.
    assert_eq!(status.term, term + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_writes_and_reads_say_who_was_reached() {
    let mut cluster = Cluster::start(&[]).await;
    let leader = cluster.leader().await;
    cluster
        .at(leader)
        .propose(register("catalog", "i1"))
        .await
        .expect("is applied");
    let followers: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    for id in &followers {
        cluster.kill(*id);
    }
    let alone = cluster.at(leader);
    until(&alone, |status| !status.has_leader()).await;
    for error in [
        alone.propose(register("catalog", "i2")).await.err(),
        alone.read_barrier().await.err(),
    ] {
        let Some(ProposeError::Unavailable { reason }) = error else {
            panic!("{error:?}");
        };
        assert!(reason.contains("no leader is known"), "{reason}");
        for id in &followers {
            let words = format!("replica {id} at {} cannot be reached", cluster.members[id]);
            assert!(reason.contains(&words), "{reason}");
        }
    }
    // What was applied can still be looked at.
    assert_eq!(instances(&alone).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_comes_late_gets_a_snapshot() {
    let mut cluster = Cluster::start(&[3]).await;
    let handle = cluster.at(1);
    for number in 0..60 {
        let command = register("catalog", &format!("i{number}"));
        eventually(|| handle.propose(command.clone())).await;
    }
    cluster.run(3).await;
    let late = cluster.at(3);
    until(&late, |status| status.caught_up).await;
    assert_eq!(instances(&late).await, 60);
    let restored: Vec<Told> = cluster.running[&3]
        .recorder
        .told()
        .into_iter()
        .filter(|told| matches!(told, Told::Restored { .. }))
        .collect();
    assert_eq!(restored.len(), 2, "{restored:?}");
    assert!(
        until(&late, |status| status.snapshot_index > 20)
            .await
            .caught_up
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_for_another_replica_cluster_directory_or_version_is_refused() {
    let cluster = Cluster::start(&[]).await;
    let handle = cluster.at(1);
    let request = || RaftRequest {
        to_replica: 1,
        to_disk: 11,
        cluster_id: handle.cluster_id(),
        protocol: PROTOCOL,
        from_replica: 2,
        from_disk: 12,
        from_address: cluster.members[&2].clone(),
        messages: Vec::new(),
    };
    assert_eq!(handle.step(request()), Ok(()));
    let refusals = [
        (
            RaftRequest {
                cluster_id: 9,
                ..request()
            },
            "0000000000000009",
        ),
        (
            RaftRequest {
                to_replica: 2,
                ..request()
            },
            "for replica 2",
        ),
        (
            RaftRequest {
                to_disk: 99,
                ..request()
            },
            "trimtab cluster remove 1",
        ),
        (
            RaftRequest {
                protocol: PROTOCOL + 1,
                ..request()
            },
            "version 3",
        ),
    ];
    for (wrong, word) in refusals {
        let error = handle.step(wrong).expect_err("must be refused").to_string();
        assert!(error.contains(word), "{error}");
    }
}
