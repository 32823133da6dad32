//! Why a write or a read through consensus did not succeed.

use trimtab_registry::rejection::Rejection;

use super::change::ChangeError;
use super::entry::EntryError;
use super::message::MessageError;

/// Why a command has no outcome, or not the one asked for.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProposeError {
    /// It was judged and refused; nothing changed.
    #[error(transparent)]
    Rejected(Rejection),
    /// This replica does not lead; nothing was done. Only whoever insists on
    /// being served here ([`super::handle::Handle::propose_here`]) sees it.
    #[error("this replica does not lead the cluster{}", match .leader {
        Some(id) => format!("; replica {id} does"),
        None => ", and no leader is known".to_owned(),
    })]
    NotLeader {
        /// Who does, as far as this replica knows.
        leader: Option<u64>,
    },
    /// No leader could be reached in time; nothing was done.
    #[error("the registry has no quorum that this replica can reach: {reason}")]
    Unavailable {
        /// Who is known, who answered what.
        reason: String,
    },
    /// This replica takes no part until its disk works again; nothing was done.
    #[error("another replica has to answer this: {reason}")]
    Halted {
        /// What failed, and what is served meanwhile.
        reason: String,
    },
    /// It was accepted, but whether it took effect is not known: leadership
    /// or the connection was lost, or it took too long.
    #[error(
        "it is not known whether the change took effect: {reason}; read the state, or repeat the request under the same request id"
    )]
    Unknown {
        /// What got in the way.
        reason: String,
    },
    /// Too much is under way; nothing was done.
    #[error("{reason}; try again shortly")]
    Overloaded {
        /// Which bound was reached.
        reason: String,
    },
    /// The members cannot be changed so; nothing was done.
    #[error(transparent)]
    Members(ChangeError),
    /// The command does not fit in a log entry; nothing was done.
    #[error("the request takes {bytes} bytes in the log, at most {max} are allowed; split it")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// So many commands are not taken together; nothing was done.
    #[error("{count} changes were given together, at most {max} are taken; split them")]
    TooMany {
        /// How many there were.
        count: usize,
        /// The bound.
        max: usize,
    },
    /// The bytes of a forwarded command or result cannot be read.
    #[error(transparent)]
    Unreadable(#[from] EntryError),
    /// This replica has stopped; nothing was done.
    #[error("this replica has stopped: {reason}")]
    Stopped {
        /// Why: a shutdown, or the error that stopped it.
        reason: String,
    },
}

/// Why messages from a peer were not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeliverError {
    /// One of them is not for us or cannot be right.
    #[error(transparent)]
    Refused(#[from] MessageError),
    /// The queue stayed full.
    #[error("this replica has too many messages waiting; send it again")]
    Full,
    /// This replica has stopped.
    #[error("this replica has stopped: {reason}")]
    Stopped {
        /// Why: a shutdown, or the error that stopped it.
        reason: String,
    },
}

/// What stopped a replica for good. It says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FatalError {
    /// A committed entry cannot be read.
    #[error(
        "committed entry {index} cannot be applied: {source}; a newer version may have written it: run that version"
    )]
    UnreadableEntry {
        /// Which entry.
        index: u64,
        /// What is wrong with it.
        source: EntryError,
    },
    /// A committed change of members does not fit the members.
    #[error(
        "committed entry {index} changes the members in a way that cannot be: {reason}; please report this with the log"
    )]
    MembershipChange {
        /// Which entry.
        index: u64,
        /// What does not fit.
        reason: String,
    },
    /// This replica is not a member any more.
    #[error(
        "replica {id} was removed from the cluster, so it has stopped; to bring it back, start it with an empty data directory and --join, then ask a member with `trimtab cluster add`"
    )]
    Removed {
        /// This replica.
        id: u64,
    },
    /// A snapshot cannot be read.
    #[error("the snapshot of entry {index} cannot be used: {reason}")]
    Snapshot {
        /// The last entry it contains.
        index: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The leader knows that we acknowledged entries that we do not have.
    #[error(
        "this replica has lost entries it acknowledged: its log ends at {last}, the leader has its word for {acknowledged}; its data directory was emptied or replaced, so it must not go on under this id: give it the right directory, or remove it from the members"
    )]
    LostEntries {
        /// The last index we have.
        last: u64,
        /// What the leader believes we have.
        acknowledged: u64,
    },
    /// The disk failed, works again, and does not hold what it did.
    #[error(
        "the data directory does not hold what this replica had written before its disk failed (term {term}, entries up to {applied} at least): it was emptied or replaced, so this replica must not go on under this id: give it the right directory, or remove it from the members"
    )]
    Forgotten {
        /// The term it had written.
        term: u64,
        /// The last entry it had applied.
        applied: u64,
    },
    /// What is on the disk is damaged, or is not this replica's.
    #[error("{0}")]
    Storage(String),
    /// The consensus library refused its configuration or state.
    #[error("consensus cannot go on: {0}")]
    Raft(String),
    /// The thread panicked: a broken invariant.
    #[error("consensus stopped on a broken invariant: {0}; please report this with the log")]
    Panicked(String),
}
