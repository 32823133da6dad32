//! What a replica's engine is asked to do, and how it answers.

use bytes::Bytes;
use raft::eraftpb::{Message, Snapshot};
use tokio::sync::oneshot;
use trimtab_registry::outcome::Outcome;
use trimtab_registry::rejection::Rejection;
use trimtab_registry::state::Registry;

use super::change::{Change, HandOverError};
use super::error::{FatalError, ProposeError};
use crate::peers::Report;

/// Where an answer goes. Dropped without one, the request was never taken.
pub type Reply<T> = oneshot::Sender<Result<T, ProposeError>>;

/// What came of an accepted proposal.
#[derive(Debug)]
pub struct Answer {
    /// Where it was applied.
    pub index: u64,
    /// What it did, or why it changed nothing.
    pub result: Result<Outcome, Rejection>,
}

/// An answer and who waits for it.
#[derive(Debug)]
pub struct Told {
    pub(super) reply: Reply<Answer>,
    pub(super) answer: Answer,
}

impl Told {
    /// Tells it.
    pub fn tell(self) {
        // Whoever asked may have given up.
        let _ = self.reply.send(Ok(self.answer));
    }
}

/// What an engine is asked to do.
pub enum Input {
    /// A peer's messages, checked and converted by
    /// [`super::message::from_wire`].
    Step {
        /// The peer's data directory.
        from_disk: u64,
        /// What it says, in order.
        messages: Vec<Message>,
    },
    /// A command, encoded.
    Propose(Bytes, Reply<Answer>),
    /// A judgement of leases, encoded: taken before the callers' proposals,
    /// and however many of these wait.
    Judgement(Bytes, Reply<Answer>),
    /// Commands to be taken together or not at all, and answered one by one.
    ProposeMany(Vec<(Bytes, Reply<Answer>)>),
    /// A linearizable read: answered with an applied index.
    Read(Reply<u64>),
    /// Tell when this index is applied. Dropped when that cannot be told.
    AwaitApplied(u64, oneshot::Sender<()>),
    /// Change the members: answered when it is applied, with where; `None`
    /// when it was so already.
    Change(Change, Reply<Option<u64>>),
    /// Hand leadership over, to this replica or to whoever is next. Answered
    /// when it is begun.
    HandOver(Option<u64>, oneshot::Sender<Result<(), HandOverError>>),
    /// Look at the applied state.
    Query(Box<dyn FnOnce(&Registry) + Send>),
    /// What became of messages to a peer.
    Report(Report),
    /// What came of a snapshot that was due.
    Encoded(Result<Snapshot, FatalError>),
    /// This replica was removed, and nobody needs it any more: end.
    Removed,
    /// Hand over leadership and end.
    Stop,
}

impl Input {
    /// What it counts against the callers' share of the queue.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::ProposeMany(proposals) => proposals.len(),
            Self::Propose(..)
            | Self::Read(_)
            | Self::AwaitApplied(..)
            | Self::Query(_)
            | Self::Change(..)
            | Self::HandOver(..) => 1,
            Self::Judgement(..)
            | Self::Step { .. }
            | Self::Report(_)
            | Self::Encoded(_)
            | Self::Removed
            | Self::Stop => 0,
        }
    }
}
