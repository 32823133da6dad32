//! What a replica knows of its own part in consensus.

use std::sync::Arc;
use std::time::SystemTime;

use super::membership::Members;

/// A replica's part in its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It follows a leader, or waits for one.
    Follower,
    /// It asks for votes.
    Candidate,
    /// It leads.
    Leader,
}

/// A replica's state as of its last round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsensusStatus {
    /// This replica.
    pub id: u64,
    /// Its part.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// The leader it follows or is; 0: none known. A leader that lost its
    /// quorum, and a follower that lost its leader, know of none within an
    /// election timeout.
    pub leader_id: u64,
    /// It leads and has applied all that was committed before it did: what it
    /// does not know of is not there.
    pub leads_up_to_date: bool,
    /// The last index known to be committed.
    pub commit: u64,
    /// The last index applied here.
    pub applied: u64,
    /// The last index in the latest snapshot.
    pub snapshot_index: u64,
    /// Its size.
    pub snapshot_bytes: u64,
    /// When it was taken or arrived, if that was since this start.
    pub snapshot_time: Option<SystemTime>,
    /// Whether the registry has ever, since this start, been as new as a live
    /// leader said. Until then it must not be served: it may be old and short.
    pub caught_up: bool,
    /// The members, and which of them vote.
    pub members: Arc<Members>,
    /// Messages from peers that were dropped because the queue was full.
    pub dropped_messages: u64,
    /// Why it takes no part in consensus until its disk works again, when it
    /// does not: what failed, what is served meanwhile. `leader_id` is then who
    /// was heard as a leader.
    pub halted: Option<String>,
    /// It was removed, and goes on only until enough of the others know it.
    pub removed: bool,
    /// Why the replica stopped for good, when it has.
    pub fatal: Option<String>,
}

impl ConsensusStatus {
    /// Whether this replica leads.
    pub fn is_leader(&self) -> bool {
        self.role == Role::Leader && self.fatal.is_none()
    }

    /// Whether this replica follows a leader, or is one, with a quorum that
    /// was seen within an election timeout: what it has applied is then new.
    pub fn has_leader(&self) -> bool {
        self.leader().is_some() && self.halted.is_none()
    }

    /// The leader, when one is known: whom to ask.
    pub fn leader(&self) -> Option<u64> {
        let is_known = self.leader_id != 0 && self.fatal.is_none();
        is_known.then_some(self.leader_id)
    }
}
