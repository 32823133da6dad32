//! `trimtab.v1.Cluster`: the registry's own state, for its operators.

use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};
use trimtab_proto::v1::cluster_server::Cluster;
use trimtab_proto::v1::{
    AddReplicaRequest, AddReplicaResponse, PromoteReplicaRequest, PromoteReplicaResponse,
    RemoveReplicaRequest, RemoveReplicaResponse, ReplicaRole, ReplicaStatus, SaveSnapshotRequest,
    StatusRequest, StatusResponse, TransferLeadershipRequest, TransferLeadershipResponse,
};

use super::brakes;
use super::context::Context;
use super::members;
use super::snapshot::{self, SAVES_MAX, SnapshotStream};
use crate::consensus::status::{ConsensusStatus, Role};
use crate::convert;

/// How far a replica may be behind before it is worth a word: more than a
/// busy moment, less than what a snapshot must make up for.
const LAG_ALARM_ENTRIES: u64 = 1_000;

/// What a disk must have left, and room for two snapshots if they are larger:
/// the log since the last snapshot takes at most as much.
const DISK_ALARM_BYTES: u64 = 64 << 20;

/// The service.
#[derive(Debug)]
pub struct ClusterService {
    context: Context,
    saves: Arc<Semaphore>,
}

impl ClusterService {
    /// Works on the rooms of one replica.
    pub fn new(context: Context) -> ClusterService {
        ClusterService {
            context,
            saves: Arc::new(Semaphore::new(SAVES_MAX)),
        }
    }
}

/// This replica as it sees itself.
pub(super) async fn own_status(context: &Context) -> ReplicaStatus {
    let status = context.handle.status().borrow().clone();
    let address = context.peers.own().contact.address.clone();
    let counts = context.handle.query(|registry| {
        let instances = registry.services().map(|service| service.instances().len());
        (registry.services().len(), instances.sum::<usize>())
    });
    // A replica that stopped still says so.
    let (services, instances) = counts.await.unwrap_or_default();
    let (leases, suspect) = context.keeper.counts();
    let space = context.gauge.measure().await;
    ReplicaStatus {
        id: status.id,
        address,
        reachable: true,
        role: role(&status).into(),
        term: status.term,
        commit_index: status.commit,
        applied_index: status.applied,
        snapshot_index: status.snapshot_index,
        caught_up: status.caught_up,
        services: services as u32,
        instances: instances as u32,
        watchers: context.watchers.count() as u32,
        renewal_streams: context.renewals.stream_count() as u32,
        uptime: Some(convert::duration(context.started.elapsed())),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        error: status.fatal.unwrap_or_default(),
        halted: status.halted.unwrap_or_default(),
        leases: leases as u64,
        suspect: suspect as u64,
        brakes: brakes::own(context),
        snapshot_time: status.snapshot_time.map(Into::into),
        snapshot_bytes: status.snapshot_bytes,
        data_bytes: space.data_bytes,
        disk_free_bytes: space.free_bytes,
        is_learner: status.members.is_learner(status.id),
    }
}

fn role(status: &ConsensusStatus) -> ReplicaRole {
    match status.role {
        Role::Follower => ReplicaRole::Follower,
        Role::Candidate => ReplicaRole::Candidate,
        Role::Leader => ReplicaRole::Leader,
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn status(
        &self,
        _request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let context = &self.context;
        let consensus = context.handle.status().borrow().clone();
        let others = context.peers.ids();
        let asked = others.iter().map(|id| async move {
            match context.peers.replica_status(*id).await {
                Ok(answer) => answer.status.unwrap_or_default(),
                Err(error) => ReplicaStatus {
                    id: *id,
                    error: error.to_string(),
                    ..ReplicaStatus::default()
                },
            }
        });
        let mut replicas = join_all(asked).await;
        for replica in &mut replicas {
            if let Some(address) = context.peers.address(replica.id) {
                replica.address = address;
            }
        }
        replicas.push(own_status(context).await);
        for replica in &mut replicas {
            replica.is_learner = consensus.members.is_learner(replica.id);
        }
        replicas.sort_by_key(|replica| replica.id);
        Ok(Response::new(StatusResponse {
            leader_id: consensus.leader().unwrap_or_default(),
            has_quorum: consensus.has_leader(),
            alarms: alarms(&consensus, &replicas),
            replicas,
            answered_by: context.id,
        }))
    }

    async fn add_replica(
        &self,
        request: Request<AddReplicaRequest>,
    ) -> Result<Response<AddReplicaResponse>, Status> {
        members::at_leader(&self.context, request).await
    }

    async fn promote_replica(
        &self,
        request: Request<PromoteReplicaRequest>,
    ) -> Result<Response<PromoteReplicaResponse>, Status> {
        members::at_leader(&self.context, request).await
    }

    async fn remove_replica(
        &self,
        request: Request<RemoveReplicaRequest>,
    ) -> Result<Response<RemoveReplicaResponse>, Status> {
        members::at_leader(&self.context, request).await
    }

    async fn transfer_leadership(
        &self,
        request: Request<TransferLeadershipRequest>,
    ) -> Result<Response<TransferLeadershipResponse>, Status> {
        members::at_leader(&self.context, request).await
    }

    type SaveSnapshotStream = SnapshotStream;

    async fn save_snapshot(
        &self,
        request: Request<SaveSnapshotRequest>,
    ) -> Result<Response<SnapshotStream>, Status> {
        let saved = snapshot::save(&self.context, &self.saves, request.into_inner()).await?;
        Ok(Response::new(saved))
    }
}

/// What is wrong, worst first.
fn alarms(consensus: &ConsensusStatus, replicas: &[ReplicaStatus]) -> Vec<String> {
    let mut alarms = Vec::new();
    if consensus.leader().is_none() {
        alarms.push(format!(
            "replica {} hears of no leader: nothing can be changed until most of the {} replicas that vote reach each other",
            consensus.id,
            replicas.iter().filter(|replica| !replica.is_learner).count()
        ));
    }
    let newest = replicas.iter().map(|replica| replica.commit_index).max();
    let newest = newest.unwrap_or_default();
    for replica in replicas {
        let id = replica.id;
        if !replica.reachable {
            // The error names the replica and what was tried.
            alarms.push(replica.error.clone());
        } else if !replica.error.is_empty() {
            alarms.push(format!("replica {id} has stopped: {}", replica.error));
        } else if !replica.halted.is_empty() {
            alarms.push(format!("replica {id} is halted: {}", replica.halted));
        } else if !replica.caught_up {
            alarms.push(format!("replica {id} has not caught up since it started"));
        } else if newest.saturating_sub(replica.applied_index) > LAG_ALARM_ENTRIES {
            let behind = newest - replica.applied_index;
            alarms.push(format!("replica {id} is {behind} entries behind"));
        }
        let needed = DISK_ALARM_BYTES.max(2 * replica.snapshot_bytes);
        if let Some(free) = replica.disk_free_bytes.filter(|free| *free < needed) {
            alarms.push(format!(
                "replica {id} has {} MiB left on the disk with its data: make room; when it is full the replica takes no part",
                free >> 20
            ));
        }
    }
    alarms.extend(brakes::in_words(replicas));
    alarms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy(id: u64) -> ReplicaStatus {
        ReplicaStatus {
            id,
            reachable: true,
            caught_up: true,
            disk_free_bytes: Some(10 << 30),
            ..ReplicaStatus::default()
        }
    }

    fn told(leader_id: u64, replicas: &[ReplicaStatus]) -> Vec<String> {
        let consensus = ConsensusStatus {
            id: 1,
            role: Role::Follower,
            term: 2,
            leader_id,
            leads_up_to_date: false,
            commit: 9,
            applied: 9,
            snapshot_index: 1,
            snapshot_bytes: 0,
            snapshot_time: None,
            caught_up: true,
            members: Default::default(),
            dropped_messages: 0,
            halted: None,
            removed: false,
            fatal: None,
        };
        alarms(&consensus, replicas)
    }

    #[test]
    fn a_disk_that_fails_or_fills_up_is_said_in_words() {
        assert_eq!(told(2, &[healthy(1), healthy(2)]), [""; 0]);
        let halted = ReplicaStatus {
            halted: "cannot write a round".to_owned(),
            ..healthy(2)
        };
        let words = told(3, &[healthy(1), halted]);
        assert_eq!(words, ["replica 2 is halted: cannot write a round"]);
        let short = |free, snapshot_bytes| ReplicaStatus {
            disk_free_bytes: free,
            snapshot_bytes,
            ..healthy(2)
        };
        for (free, snapshot) in [(Some(63 << 20), 0), (Some(199 << 20), 100 << 20)] {
            let words = told(2, &[short(free, snapshot)]);
            let left = format!("{} MiB left", free.unwrap_or_default() >> 20);
            assert!(words.len() == 1 && words[0].contains(&left), "{words:?}");
        }
        let enough = [short(None, 0), short(Some(64 << 20), 0)];
        assert_eq!(told(2, &enough), [""; 0]);
    }
}
