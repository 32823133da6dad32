//! `trimtab.internal.v1.Peer`: what the other replicas ask of this one.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use trimtab_proto::internal::v1::install_snapshot_request::Part;
use trimtab_proto::internal::v1::peer_server::Peer;
use trimtab_proto::internal::v1::{
    InstallSnapshotRequest, InstallSnapshotResponse, IntroduceRequest, IntroduceResponse,
    ObserveRequest, ObserveResponse, ProposeManyRequest, ProposeManyResponse, ProposeRequest,
    ProposeResponse, RaftRequest, RaftResponse, RenewLeasesRequest, RenewLeasesResponse,
    ReplicaStatusRequest, ReplicaStatusResponse, Voter, WatcherState,
};
use trimtab_registry::command::SERVICES_PER_CHANGE_MAX;
use trimtab_registry::instance::LeaseKey;
use trimtab_registry::name::ServiceName;
use trimtab_registry::rejection::Invalid;

use super::brakes;
use super::cluster::own_status;
use super::context::Context;
use super::status::{of_deliver_error, of_invalid, of_transfer_error};
use crate::consensus::forward;
use crate::consensus::handle::Receiver;
use crate::consensus::transfer::Arriving;
use crate::convert;
use crate::peers::protocol;

/// The service.
#[derive(Debug)]
pub struct PeerService {
    context: Context,
    closing: CancellationToken,
}

impl PeerService {
    /// Works on the rooms of one replica, until `closing`: later than for
    /// clients, since handing over leadership needs the other replicas.
    pub fn new(context: Context, closing: CancellationToken) -> PeerService {
        PeerService { context, closing }
    }

    fn check_cluster(&self, found: u64) -> Result<(), Status> {
        let expected = self.context.handle.cluster_id();
        if found == expected {
            return Ok(());
        }
        Err(Status::failed_precondition(format!(
            "replica {} belongs to cluster {expected:016x}, the sender to {found:016x}; \
             check which addresses the replicas were started with",
            self.context.id
        )))
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn raft(
        &self,
        request: Request<Streaming<RaftRequest>>,
    ) -> Result<Response<RaftResponse>, Status> {
        let mut batches = request.into_inner();
        loop {
            let batch = tokio::select! {
                () = self.closing.cancelled() => return Err(Status::unavailable("the replica is stopping")),
                batch = batches.message() => batch?,
            };
            let Some(batch) = batch else {
                return Ok(Response::new(RaftResponse {}));
            };
            self.context.handle.step(batch).map_err(of_deliver_error)?;
        }
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<InstallSnapshotRequest>>,
    ) -> Result<Response<InstallSnapshotResponse>, Status> {
        let mut parts = request.into_inner();
        let head = match parts.message().await?.and_then(|first| first.part) {
            Some(Part::Head(head)) => head,
            _ => {
                return Err(Status::invalid_argument(
                    "a snapshot must begin with its head",
                ));
            }
        };
        let handle = &self.context.handle;
        let from_disk = head.from_disk;
        let admitted = handle.admit(&Receiver {
            protocol: head.protocol,
            replica: head.to_replica,
            disk_id: head.to_disk,
            cluster_id: head.cluster_id,
        });
        admitted.map_err(|error| of_deliver_error(error.into()))?;
        let mut arriving = Arriving::begin(head).map_err(of_transfer_error)?;
        while let Some(next) = parts.message().await? {
            match next.part {
                Some(Part::Chunk(chunk)) => arriving.push(&chunk).map_err(of_transfer_error)?,
                _ => return Err(Status::invalid_argument("a snapshot has one head")),
            }
        }
        let message = arriving.finish().map_err(of_transfer_error)?;
        let installed = handle.install(from_disk, message).await;
        installed.map_err(of_deliver_error)?;
        Ok(Response::new(InstallSnapshotResponse {}))
    }

    async fn propose(
        &self,
        request: Request<ProposeRequest>,
    ) -> Result<Response<ProposeResponse>, Status> {
        let request = request.into_inner();
        self.check_cluster(request.cluster_id)?;
        let handle = &self.context.handle;
        let proposed = handle.propose_here(request.command, request.dry_run).await;
        let (applied_index, result) = proposed.map_err(|error| forward::to_status(&error))?;
        Ok(Response::new(ProposeResponse {
            applied_index,
            result,
        }))
    }

    async fn propose_many(
        &self,
        request: Request<ProposeManyRequest>,
    ) -> Result<Response<ProposeManyResponse>, Status> {
        let request = request.into_inner();
        self.check_cluster(request.cluster_id)?;
        let proposed = self.context.handle.propose_many_here(request.commands);
        let results = proposed.await.map_err(|error| forward::to_status(&error))?;
        Ok(Response::new(ProposeManyResponse { results }))
    }

    async fn renew_leases(
        &self,
        request: Request<RenewLeasesRequest>,
    ) -> Result<Response<RenewLeasesResponse>, Status> {
        let request = request.into_inner();
        self.check_cluster(request.cluster_id)?;
        let renewed = lease_keys(&request.renewed)?;
        let broken = lease_keys(&request.broken)?;
        let keeper = &self.context.keeper;
        let via = request.from_replica;
        let handle = &self.context.handle;
        let Some(lost) = keeper.renew(handle, via, &renewed).await else {
            return Err(Status::unavailable(format!(
                "replica {} does not lead the cluster, or cannot show that it does",
                self.context.id
            )));
        };
        keeper.broken(via, &broken);
        Ok(Response::new(RenewLeasesResponse {
            lost: lost.iter().map(convert::lease_ref).collect(),
        }))
    }

    async fn observe(
        &self,
        request: Request<ObserveRequest>,
    ) -> Result<Response<ObserveResponse>, Status> {
        let request = request.into_inner();
        self.check_cluster(request.cluster_id)?;
        if request.services.len() > SERVICES_PER_CHANGE_MAX {
            return Err(of_invalid(Invalid::new(
                "services",
                request.services.len(),
                "must be at most 64",
            )));
        }
        let services = request.services.iter().map(|name| ServiceName::parse(name));
        let services: Vec<ServiceName> = services.collect::<Result<_, _>>().map_err(of_invalid)?;
        let observer = &self.context.observer;
        observer.confirmed(&services, request.when_confirmed).await;
        let observation = observer.local(&services);
        let mut response = ObserveResponse {
            window: Some(convert::duration(observer.window())),
            back_for: observation
                .back
                .values()
                .copied()
                .map(convert::duration)
                .next(),
            brakes: brakes::own_of(&self.context, &services),
            members: observer.members(),
            ..ObserveResponse::default()
        };
        for (service, watchers) in &observation.watchers {
            let states = watchers.values().map(|heard| WatcherState {
                watcher_id: heard.watcher_id.clone(),
                name: heard.name.clone(),
                service: service.to_string(),
                revision: heard.revision,
            });
            response.watchers.extend(states);
        }
        for (service, groups) in &observation.loads {
            let loads = groups.iter();
            let messages = loads.map(|(group, load)| convert::load_message(service, group, *load));
            response.loads.extend(messages);
        }
        Ok(Response::new(response))
    }

    async fn introduce(
        &self,
        request: Request<IntroduceRequest>,
    ) -> Result<Response<IntroduceResponse>, Status> {
        let asker = request.into_inner();
        protocol::check(asker.protocol)
            .map_err(|error| Status::failed_precondition(error.to_string()))?;
        let handle = &self.context.handle;
        let own = self.context.peers.own();
        let (members, applied_index) = {
            let status = handle.status();
            let status = status.borrow();
            (Arc::clone(&status.members), status.applied)
        };
        let membership = &members.membership;
        // What the log says, which is what the founders agreed on.
        let address = membership.get(own.id).map(|it| it.address.clone());
        let known = membership.get(asker.replica_id);
        let voters = members.roles.voters.iter().filter_map(|id| {
            let address = membership.get(*id)?.address.clone();
            let replica_id = *id;
            Some(Voter {
                replica_id,
                address,
            })
        });
        Ok(Response::new(IntroduceResponse {
            protocol: protocol::PROTOCOL,
            replica_id: own.id,
            disk_id: own.contact.disk_id,
            address: address.unwrap_or_else(|| own.contact.address.clone()),
            cluster_id: own.cluster_id,
            founders: Vec::new(),
            known_disk: known.map_or(0, |member| member.disk_id),
            removed: membership.was_removed(asker.disk_id),
            voters: voters.collect(),
            applied_index,
        }))
    }

    async fn replica_status(
        &self,
        request: Request<ReplicaStatusRequest>,
    ) -> Result<Response<ReplicaStatusResponse>, Status> {
        self.check_cluster(request.into_inner().cluster_id)?;
        Ok(Response::new(ReplicaStatusResponse {
            status: Some(own_status(&self.context).await),
        }))
    }
}

fn lease_keys(leases: &[trimtab_proto::v1::LeaseRef]) -> Result<Vec<LeaseKey>, Status> {
    let keys = leases.iter().map(convert::lease_key);
    keys.collect::<Result<_, _>>().map_err(of_invalid)
}
