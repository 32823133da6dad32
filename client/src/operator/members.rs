//! Changing the replicas of the registry itself.

use std::time::Duration;

use serde::Serialize;
use trimtab_proto::v1 as wire;

use crate::cluster::Repeat;
use crate::error::Error;
use crate::operator::Operator;
use crate::operator::stubs::cluster;

/// How long a change of the replicas may take, at least: it looks for the
/// leader, asks the newcomer, and is written to the disks of a quorum.
const MEMBERS_DEADLINE: Duration = Duration::from_secs(16);

/// The replicas after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MembersChange {
    /// The replica it was about.
    pub id: u64,
    /// False when it was so already.
    pub changed: bool,
    /// The replicas that vote, by id.
    pub voters: Vec<u64>,
    /// Those without a vote.
    pub learners: Vec<u64>,
}

/// A replica that was taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AddedReplica {
    /// The address it is known by.
    pub address: String,
    /// Its id, and the replicas now.
    #[serde(flatten)]
    pub change: MembersChange,
}

/// Who leads after a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Leadership {
    /// The leader.
    pub leader_id: u64,
}

impl Operator {
    /// Takes the replica at `address` in without a vote. It must run with
    /// `--join` and an empty data directory.
    pub async fn add_replica(&self, address: &str) -> Result<AddedReplica, Error> {
        let request = wire::AddReplicaRequest {
            address: address.to_owned(),
        };
        let deadline = self.deadline.max(MEMBERS_DEADLINE);
        let answer = self
            .cluster
            .call("AddReplica", Repeat::Safe, deadline, |channel| {
                let request = request.clone();
                async move { cluster(channel).add_replica(request).await }
            })
            .await?;
        Ok(AddedReplica {
            address: answer.address,
            change: members_change(answer.id, answer.changed, answer.members),
        })
    }

    /// Gives a replica that has caught up a vote, in place of the voter
    /// `replacing` if there is one: that one is removed by the same step.
    pub async fn promote_replica(
        &self,
        id: u64,
        replacing: Option<u64>,
    ) -> Result<MembersChange, Error> {
        let replacing = replacing.unwrap_or(0);
        let request = wire::PromoteReplicaRequest { id, replacing };
        let deadline = self.deadline.max(MEMBERS_DEADLINE);
        let answer = self
            .cluster
            .call(
                "PromoteReplica",
                Repeat::Safe,
                deadline,
                |channel| async move { cluster(channel).promote_replica(request).await },
            )
            .await?;
        Ok(members_change(id, answer.changed, answer.members))
    }

    /// Removes a replica for good; with `force` even if too few of the others
    /// can be reached to go on.
    pub async fn remove_replica(&self, id: u64, force: bool) -> Result<MembersChange, Error> {
        let request = wire::RemoveReplicaRequest { id, force };
        let deadline = self.deadline.max(MEMBERS_DEADLINE);
        let answer = self
            .cluster
            .call(
                "RemoveReplica",
                Repeat::Safe,
                deadline,
                |channel| async move { cluster(channel).remove_replica(request).await },
            )
            .await?;
        Ok(members_change(id, answer.changed, answer.members))
    }

    /// Has another replica lead: `to`, or whoever has most of the log.
    pub async fn transfer_leadership(&self, to: Option<u64>) -> Result<Leadership, Error> {
        let to = to.unwrap_or(0);
        let request = wire::TransferLeadershipRequest { to };
        let deadline = self.deadline.max(MEMBERS_DEADLINE);
        // Without a name, asked twice it would be done twice.
        let repeat = match to {
            0 => Repeat::IfUnsent,
            _ => Repeat::Safe,
        };
        let answer = self
            .cluster
            .call(
                "TransferLeadership",
                repeat,
                deadline,
                |channel| async move { cluster(channel).transfer_leadership(request).await },
            )
            .await?;
        let leader_id = answer.leader_id;
        Ok(Leadership { leader_id })
    }
}

fn members_change(id: u64, changed: bool, members: Option<wire::Members>) -> MembersChange {
    let members = members.unwrap_or_default();
    MembersChange {
        id,
        changed,
        voters: members.voters,
        learners: members.learners,
    }
}
