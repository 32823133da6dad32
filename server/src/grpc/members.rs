//! Changes of the replicas: asked of any, made by the leader, answered when they are applied.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use trimtab_proto::v1::cluster_client::ClusterClient;
use trimtab_proto::v1::{
    AddReplicaRequest, AddReplicaResponse, Members, PromoteReplicaRequest, PromoteReplicaResponse,
    RemoveReplicaRequest, RemoveReplicaResponse, TransferLeadershipRequest,
    TransferLeadershipResponse,
};

use super::context::Context;
use super::status::{of_hand_over_error, of_propose_error};
use crate::consensus::change::{Change, ChangeError};
use crate::consensus::error::ProposeError;
use crate::consensus::membership::Member;
use crate::peers::introduce_at;

/// How long a request looks for a leader that takes it: an election or two.
const LEADER_TIMEOUT: Duration = Duration::from_secs(4);

/// How long a leader may take for one change, over a slow disk.
const LEADER_ANSWERS_WITHIN: Duration = Duration::from_secs(7);

/// A leader that has just begun has not heard of every replica yet, which is
/// not to be taken for their death.
const HEARS_OF_ALL_WITHIN: Duration = Duration::from_millis(1_500);

const PAUSE: Duration = Duration::from_millis(50);

/// Marks a request that another replica sent on, so that two that take each
/// other for the leader do not send it to and fro.
const SENT_ON: &str = "trimtab-sent-on";

/// Something asked about the replicas, that its leader answers.
#[tonic::async_trait]
pub(super) trait Asked: Clone + Send + Sync + 'static {
    type Answer: Send;

    /// Does it here, if this replica leads.
    async fn here(&self, context: &Context) -> Result<Self::Answer, Status>;

    /// Has the leader do it.
    async fn there(
        leader: ClusterClient<Channel>,
        request: Request<Self>,
    ) -> Result<Response<Self::Answer>, Status>;
}

/// Finds the leader and has it do what is asked.
pub(super) async fn at_leader<A: Asked>(
    context: &Context,
    request: Request<A>,
) -> Result<Response<A::Answer>, Status> {
    let was_sent_on = request.metadata().contains_key(SENT_ON);
    let asked = request.into_inner();
    let deadline = Instant::now() + LEADER_TIMEOUT;
    loop {
        let leader = context.handle.status().borrow().leader();
        let refused = match leader {
            Some(id) if id == context.id => match asked.here(context).await {
                Ok(answer) => return Ok(Response::new(answer)),
                Err(status) => status,
            },
            Some(_) if was_sent_on => not_leading(context),
            Some(id) => match send_on(context, id, asked.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            },
            None => not_leading(context),
        };
        // Nothing was done: another leader may do it, or this one soon.
        if refused.code() != Code::Unavailable || was_sent_on || Instant::now() >= deadline {
            return Err(refused);
        }
        sleep(PAUSE).await;
    }
}

fn not_leading(context: &Context) -> Status {
    Status::unavailable(format!(
        "replica {} knows of no leader that could change the replicas; `trimtab cluster status` says which ones can be reached",
        context.id
    ))
}

async fn send_on<A: Asked>(
    context: &Context,
    leader: u64,
    asked: A,
) -> Result<Response<A::Answer>, Status> {
    let channel = context.peers.channel(leader);
    let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
    let mut request = Request::new(asked);
    let mark = MetadataValue::from_static("1");
    request.metadata_mut().insert(SENT_ON, mark);
    let answer = A::there(ClusterClient::new(channel), request);
    match tokio::time::timeout(LEADER_ANSWERS_WITHIN, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        // A status from the leader has no source; one made here names what
        // broke, and the leader may have made the change before it did.
        Ok(Err(status)) if std::error::Error::source(&status).is_none() => Err(status),
        Ok(Err(status)) => Err(Status::unknown(format!(
            "replica {leader}, which leads, did not answer: {}; ask again",
            status.message()
        ))),
        Err(_) => Err(Status::unknown(format!(
            "replica {leader}, which leads, did not answer within {} s; ask again",
            LEADER_ANSWERS_WITHIN.as_secs()
        ))),
    }
}

/// Changes the members here; false when they were so already.
async fn change(context: &Context, change: Change) -> Result<bool, Status> {
    let started = Instant::now();
    loop {
        let error = match context.handle.change_members(change.clone()).await {
            Ok(changed) => return Ok(changed),
            Err(error) => error,
        };
        let may_pass = matches!(
            error,
            ProposeError::Members(ChangeError::LosesQuorum { .. } | ChangeError::NotHeard { .. })
        );
        if !may_pass || started.elapsed() >= HEARS_OF_ALL_WITHIN {
            return Err(of_propose_error(error));
        }
        sleep(PAUSE).await;
    }
}

fn members(context: &Context) -> Option<Members> {
    let status = context.handle.status();
    let roles = &status.borrow().members.roles;
    Some(Members {
        voters: roles.voters.clone(),
        learners: roles.learners.clone(),
    })
}

#[tonic::async_trait]
impl Asked for AddReplicaRequest {
    type Answer = AddReplicaResponse;

    async fn here(&self, context: &Context) -> Result<AddReplicaResponse, Status> {
        let (id, member) = newcomer(context, &self.address).await?;
        let address = member.address.clone();
        let changed = change(context, Change::Add { id, member }).await?;
        Ok(AddReplicaResponse {
            id,
            address,
            changed,
            members: members(context),
        })
    }

    async fn there(
        mut leader: ClusterClient<Channel>,
        request: Request<Self>,
    ) -> Result<Response<AddReplicaResponse>, Status> {
        leader.add_replica(request).await
    }
}

/// Who is at `address`, if it may be taken in: told by itself, at the address
/// it will be known by.
async fn newcomer(context: &Context, address: &str) -> Result<(u64, Member), Status> {
    let own = context.peers.own();
    let ask = |at: String| async move {
        let asked = introduce_at(&at, 0, own.id, own.contact.disk_id).await;
        asked.map_err(|error| {
            Status::failed_precondition(format!(
                "no replica can be asked at {at}: {error}; start it there with --join and an empty data directory"
            ))
        })
    };
    let said = ask(address.to_owned()).await?;
    let id = said.replica_id;
    if said.cluster_id != 0 && said.cluster_id != own.cluster_id {
        return Err(Status::failed_precondition(format!(
            "replica {id} at {address} belongs to another cluster, {:016x}; start it with --join and an empty data directory",
            said.cluster_id
        )));
    }
    if !said.founders.is_empty() {
        return Err(Status::failed_precondition(format!(
            "replica {id} at {address} waits to found a cluster of its own with replicas {:?}; start it with --join instead of --peers",
            said.founders
        )));
    }
    if said.address != address {
        let there = ask(said.address.clone()).await;
        if !there.is_ok_and(|it| it.disk_id == said.disk_id) {
            return Err(Status::failed_precondition(format!(
                "replica {id} at {address} says that others reach it at {}, which is not so; start it with --advertise and an address that all replicas and callers can use",
                said.address
            )));
        }
    }
    let (address, disk_id) = (said.address, said.disk_id);
    Ok((id, Member { address, disk_id }))
}

#[tonic::async_trait]
impl Asked for PromoteReplicaRequest {
    type Answer = PromoteReplicaResponse;

    async fn here(&self, context: &Context) -> Result<PromoteReplicaResponse, Status> {
        // A leader's own place can be given to another only by the next one.
        if self.replacing == context.id && self.replacing != 0 {
            return Err(make_way(context).await);
        }
        let promoted = Change::Promote {
            id: self.id,
            replacing: (self.replacing != 0).then_some(self.replacing),
        };
        let changed = change(context, promoted).await?;
        Ok(PromoteReplicaResponse {
            changed,
            members: members(context),
        })
    }

    async fn there(
        mut leader: ClusterClient<Channel>,
        request: Request<Self>,
    ) -> Result<Response<PromoteReplicaResponse>, Status> {
        leader.promote_replica(request).await
    }
}

#[tonic::async_trait]
impl Asked for RemoveReplicaRequest {
    type Answer = RemoveReplicaResponse;

    async fn here(&self, context: &Context) -> Result<RemoveReplicaResponse, Status> {
        let is_last = context.handle.status().borrow().members.roles.voters == [self.id];
        if self.id == context.id && !is_last {
            return Err(make_way(context).await);
        }
        let removed = Change::Remove {
            id: self.id,
            force: self.force,
        };
        let changed = change(context, removed).await?;
        Ok(RemoveReplicaResponse {
            changed,
            members: members(context),
        })
    }

    async fn there(
        mut leader: ClusterClient<Channel>,
        request: Request<Self>,
    ) -> Result<Response<RemoveReplicaResponse>, Status> {
        leader.remove_replica(request).await
    }
}

/// Hands leadership over. The answer sends the asker to the next leader, which
/// does the rest.
async fn make_way(context: &Context) -> Status {
    match context.handle.hand_over(None).await {
        Ok(leader) => Status::unavailable(format!("replica {leader} leads now; ask again")),
        Err(error) => of_hand_over_error(&error),
    }
}

#[tonic::async_trait]
impl Asked for TransferLeadershipRequest {
    type Answer = TransferLeadershipResponse;

    async fn here(&self, context: &Context) -> Result<TransferLeadershipResponse, Status> {
        let to = (self.to != 0).then_some(self.to);
        match context.handle.hand_over(to).await {
            Ok(leader_id) => Ok(TransferLeadershipResponse { leader_id }),
            Err(error) => Err(of_hand_over_error(&error)),
        }
    }

    async fn there(
        mut leader: ClusterClient<Channel>,
        request: Request<Self>,
    ) -> Result<Response<TransferLeadershipResponse>, Status> {
        leader.transfer_leadership(request).await
    }
}
