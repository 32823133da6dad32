//! Changes of members: what may be asked, how it stands in the log, why it is refused.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use raft::eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2};

use super::entry::{EntryError, decode, encode};
use super::membership::{MEMBERS_MAX, Member, VOTERS_MAX, member_flaw};

const WHAT: &str = "a change of members";

/// Entries a learner may lack and still be given a vote: what it gets within
/// moments, so that the new quorum does not wait for it.
pub const PROMOTE_LAG_MAX: u64 = 1_000;

/// Steps in one change, at most: every member removed and another in its place.
const STEPS_MAX: usize = 2 * MEMBERS_MAX;

/// What may be asked of the leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Takes a replica in without a vote: a learner.
    Add {
        /// Its id.
        id: u64,
        /// Where it is, and its data directory.
        member: Member,
    },
    /// Gives a learner a vote.
    Promote {
        /// The learner.
        id: u64,
        /// The voter that is removed by the same change.
        replacing: Option<u64>,
    },
    /// Removes a member for good.
    Remove {
        /// The member.
        id: u64,
        /// Even if too few of the others can be reached to go on.
        force: bool,
    },
}

/// What became of a change that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proposed {
    /// It stands in the log, and is told of when it is applied.
    Taken,
    /// Nothing is to be changed: so it is already.
    AlreadySo,
}

/// Why a change was not taken. Nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// This replica does not lead, or has only just begun to.
    #[error("this replica does not lead the cluster")]
    NotLeader,
    /// Too many bytes are accepted and not yet committed.
    #[error("too many changes are waiting for a quorum; try again shortly")]
    Full,
    /// One at a time.
    #[error("another change of members is in progress; wait until it is made, and ask again")]
    InProgress,
    /// The id belongs to someone else.
    #[error(
        "replica {id} is a member already, with another data directory; if that one is lost, remove it first with `trimtab cluster remove {id}`, else start the new replica under an id of its own"
    )]
    OtherDisk {
        /// The id.
        id: u64,
    },
    /// The data directory belongs to someone else.
    #[error(
        "the data directory of replica {id} is that of replica {other}; start it with an empty one of its own"
    )]
    DiskTaken {
        /// Who would join.
        id: u64,
        /// Whose directory it is.
        other: u64,
    },
    /// The data directory was removed before.
    #[error(
        "replica {id} was removed from this cluster with the data directory it has; start it with an empty one"
    )]
    DiskRemoved {
        /// Who would join.
        id: u64,
    },
    /// Two members at one address.
    #[error("replica {other} is at {address} already; start replica {id} at an address of its own")]
    AddressTaken {
        /// Who would join.
        id: u64,
        /// Where.
        address: String,
        /// Who is there.
        other: u64,
    },
    /// It breaks a rule on its own.
    #[error("{0}")]
    Invalid(String),
    /// As many as there may be.
    #[error("the cluster has {max} {what} already, the most there may be; remove one first")]
    TooMany {
        /// Members, or voters.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// No such member.
    #[error("replica {id} is not a member of this cluster; `trimtab cluster status` names them")]
    NotAMember {
        /// The id.
        id: u64,
    },
    /// A learner was asked for.
    #[error("replica {id} votes already; to remove another one, use `trimtab cluster remove`")]
    VotesAlready {
        /// The id.
        id: u64,
    },
    /// A voter was asked for.
    #[error("replica {id} does not vote, so no one can take its place")]
    NotAVoter {
        /// The id.
        id: u64,
    },
    /// It would hold up the quorum.
    #[error(
        "replica {id} is {behind} entries behind, at most {PROMOTE_LAG_MAX} are allowed; wait until it has caught up"
    )]
    Behind {
        /// The learner.
        id: u64,
        /// Entries it lacks.
        behind: u64,
    },
    /// It would hold up the quorum.
    #[error("replica {id} is not heard of; see that it runs and can be reached, then ask again")]
    NotHeard {
        /// The learner.
        id: u64,
    },
    /// Someone must vote.
    #[error("replica {id} is the last voter; a cluster without one cannot go on")]
    LastVoter {
        /// The voter.
        id: u64,
    },
    /// It must hand over first.
    #[error("replica {id} leads; hand leadership over first with `trimtab cluster transfer`")]
    Leads {
        /// The leader.
        id: u64,
    },
    /// Nothing could be written afterwards.
    #[error(
        "of the {voters} voters there would be, only {reachable} can be reached, {needed} are needed; bring {} back, remove {} first, or insist with --force if the cluster is to be left without a quorum",
        list(unreachable),
        list(unreachable)
    )]
    LosesQuorum {
        /// Voters after the change.
        voters: usize,
        /// Of them, those the leader hears.
        reachable: usize,
        /// A majority of them.
        needed: usize,
        /// The others.
        unreachable: Vec<u64>,
    },
}

/// Why leadership was not handed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandOverError {
    /// This replica has none to hand over.
    #[error("this replica does not lead the cluster")]
    NotLeader,
    /// It cannot lead.
    #[error(
        "replica {id} is not a voter of this cluster, so it cannot lead; `trimtab cluster status` names them"
    )]
    NotAVoter {
        /// The id.
        id: u64,
    },
    /// There is no one.
    #[error("no other replica has a vote, so none can lead; add one and promote it first")]
    NoSuccessor,
    /// It did not take it in time.
    #[error("{} did not take the leadership within {} ms: see with `trimtab cluster status` whether it can be reached and has caught up", .to.map_or("no other replica".to_owned(), |id| format!("replica {id}")), .after.as_millis())]
    NotTaken {
        /// Whom it was meant for; `None`: whoever is next.
        to: Option<u64>,
        /// How long was waited.
        after: Duration,
    },
}

fn list(ids: &[u64]) -> String {
    let ids: Vec<String> = ids.iter().map(u64::to_string).collect();
    match ids.len() {
        1 => format!("replica {}", ids.concat()),
        _ => format!("replicas {}", ids.join(", ")),
    }
}

/// A change as a log entry holds it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Logged {
    /// Raft's part.
    pub(super) conf: ConfChangeV2,
    /// Who comes in, and where they are.
    pub(super) added: BTreeMap<u64, Member>,
}

impl Logged {
    /// The steps of one change. More than one take a while in which both the
    /// old and the new voters must agree, and which Raft ends by itself.
    pub(super) fn new(
        steps: &[(ConfChangeType, u64)],
        added: BTreeMap<u64, Member>,
    ) -> Result<Self, EntryError> {
        let context = match added.is_empty() {
            true => Bytes::new(),
            false => encode(WHAT, &added)?,
        };
        let changes = steps.iter().map(|(kind, id)| ConfChangeSingle {
            change_type: (*kind).into(),
            node_id: *id,
        });
        let conf = ConfChangeV2 {
            transition: ConfChangeTransition::Auto.into(),
            changes: changes.collect(),
            context,
        };
        Ok(Self { conf, added })
    }

    /// The entry's data.
    pub(super) fn to_bytes(&self) -> Bytes {
        self.conf.encode_to_vec().into()
    }

    /// From an entry's data, with everything checked that Raft takes on trust.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, EntryError> {
        let malformed = |reason: String| EntryError::Malformed { what: WHAT, reason };
        let conf = ConfChangeV2::decode(bytes).map_err(|error| malformed(error.to_string()))?;
        if ConfChangeTransition::try_from(conf.transition).is_err() {
            return Err(malformed(format!("its way is {}", conf.transition)));
        }
        if conf.changes.len() > STEPS_MAX {
            return Err(malformed(format!("it has {} steps", conf.changes.len())));
        }
        for step in &conf.changes {
            if ConfChangeType::try_from(step.change_type).is_err() || step.node_id == 0 {
                let (kind, id) = (step.change_type, step.node_id);
                return Err(malformed(format!("it does {kind} to replica {id}")));
            }
        }
        let added: BTreeMap<u64, Member> = match conf.context.is_empty() {
            true => BTreeMap::new(),
            false => decode(WHAT, &conf.context)?,
        };
        if let Some(flaw) = added.iter().find_map(|(id, it)| member_flaw(*id, it)) {
            return Err(malformed(flaw));
        }
        let takes_in = |id: u64| {
            let mut steps = conf.changes.iter();
            steps.any(|s| s.node_id == id && s.change_type() != ConfChangeType::RemoveNode)
        };
        if let Some(id) = added.keys().find(|id| !takes_in(**id)) {
            return Err(malformed(format!("it does not take replica {id} in")));
        }
        Ok(Self { conf, added })
    }
}

impl Change {
    /// What can be said against it without knowing the members.
    pub(super) fn check(&self) -> Result<(), ChangeError> {
        match self {
            Self::Add { id, member } => match member_flaw(*id, member) {
                Some(flaw) => Err(ChangeError::Invalid(flaw)),
                None => Ok(()),
            },
            Self::Promote { id, replacing } if *replacing == Some(*id) => Err(
                ChangeError::Invalid(format!("replica {id} cannot take its own place")),
            ),
            Self::Promote { .. } | Self::Remove { .. } => Ok(()),
        }
    }
}

/// Refuses one voter more than there may be.
pub(super) fn check_voters(voters: usize) -> Result<(), ChangeError> {
    match voters > VOTERS_MAX {
        true => Err(ChangeError::TooMany {
            what: "voters",
            max: VOTERS_MAX,
        }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(id: u64, address: &str, disk_id: u64) -> BTreeMap<u64, Member> {
        let address = address.to_owned();
        BTreeMap::from([(id, Member { address, disk_id })])
    }

    #[test]
    fn a_change_comes_back_as_it_was() {
        let steps = [(ConfChangeType::AddLearnerNode, 4)];
        let change = Logged::new(&steps, added(4, "replica-4:1", 9)).expect("encodes");
        assert_eq!(Logged::from_bytes(&change.to_bytes()), Ok(change));
        // Raft's own way out of a change says nothing.
        let leave = Logged::from_bytes(&[]).expect("decodes");
        assert!(leave.conf.leave_joint());
    }

    #[test]
    fn what_raft_would_take_on_trust_is_refused() {
        let learner = [(ConfChangeType::AddLearnerNode, 4)];
        let with = |break_it: fn(&mut ConfChangeV2)| {
            let mut change = Logged::new(&learner, BTreeMap::new()).expect("encodes");
            break_it(&mut change.conf);
            Logged::from_bytes(&change.to_bytes())
        };
        assert!(with(|_| {}).is_ok());
        assert!(with(|conf| conf.transition = 9).is_err());
        assert!(with(|conf| conf.changes[0].change_type = 9).is_err());
        assert!(with(|conf| conf.changes[0].node_id = 0).is_err());
        assert!(with(|conf| conf.context = Bytes::from_static(b"\xff?")).is_err());
        assert!(with(|conf| conf.changes = vec![conf.changes[0].clone(); 100]).is_err());
        for wrong in [added(5, "a:1", 9), added(4, "", 9), added(4, "a:1", 0)] {
            let change = Logged::new(&learner, wrong).expect("encodes");
            assert!(Logged::from_bytes(&change.to_bytes()).is_err());
        }
        assert!(Logged::from_bytes(b"\xff\xff").is_err());
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let refused = ChangeError::LosesQuorum {
            voters: 3,
            reachable: 1,
            needed: 2,
            unreachable: vec![2, 3],
        };
        let text = refused.to_string();
        assert!(text.contains("bring replicas 2, 3 back"), "{text}");
        assert!(text.contains("--force"), "{text}");
    }
}
