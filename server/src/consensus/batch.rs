//! What a replica asks its driver to do, and what came of it.

use raft::eraftpb::{Entry, HardState, Message, Snapshot};
use trimtab_registry::event::Event;
use trimtab_registry::outcome::Outcome;
use trimtab_registry::rejection::Rejection;

use super::entry::ProposalId;
use super::error::FatalError;
use super::log::Place;
use super::message::MessageError;

/// What must be durable before the batch counts as saved.
#[derive(Debug)]
pub struct Save {
    /// A snapshot from the leader; it replaces snapshot and log.
    pub snapshot: Option<Snapshot>,
    /// Entries to append; whatever stands at or after the first is replaced.
    pub entries: Vec<Entry>,
    /// Goes with them, in the same transaction.
    pub hard_state: HardState,
}

/// One round's work.
#[derive(Debug, Default)]
pub struct Batch {
    /// Send these at once.
    pub messages: Vec<Message>,
    /// Make this durable; `None` when nothing need be.
    pub save: Option<Save>,
    /// Send these when it is, and not before.
    pub messages_after_save: Vec<Message>,
}

/// A proposal's end.
#[derive(Debug)]
pub struct Decided {
    /// Which proposal.
    pub id: ProposalId,
    /// Where it was applied.
    pub index: u64,
    /// What it did, or why it changed nothing.
    pub result: Result<Outcome, Rejection>,
}

/// What a saved batch led to.
#[derive(Debug, Default)]
pub struct Effects {
    /// Send these.
    pub messages: Vec<Message>,
    /// The registry was replaced by a snapshot, before anything in `events`.
    pub restored: bool,
    /// What changed, in order.
    pub events: Vec<Event>,
    /// Proposals that came to their end.
    pub decided: Vec<Decided>,
    /// Reads by their id, and the index that must be applied to answer them.
    pub reads: Vec<(u64, u64)>,
    /// Role, term or leader are not what they were.
    pub role_changed: bool,
    /// The members are not who they were.
    pub members_changed: bool,
    /// Changes of members that are over, and where they were applied.
    pub changed: Vec<(ProposalId, u64)>,
}

/// A snapshot of our own to be made durable, and where the log is cut.
#[derive(Debug, Clone)]
pub struct Compaction {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// The last place to forget.
    pub base: Place,
    /// Goes with them, in the same transaction.
    pub hard_state: HardState,
}

/// Why a message was not taken.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// It is not for us, or not from a member, or malformed. Nothing changed.
    #[error(transparent)]
    Refused(#[from] MessageError),
    /// It proves that this replica must not go on.
    #[error(transparent)]
    Fatal(#[from] FatalError),
}

/// Why a proposal was not taken. Nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotProposed {
    /// This replica does not lead, or is handing leadership over.
    NotLeader,
    /// Too many bytes are accepted and not yet committed.
    Full,
}
