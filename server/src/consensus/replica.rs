//! Raft and the registry without I/O, clock or threads: what goes in, what must be done, what came of it.
//!
//! Whoever drives it repeats: feed inputs; while [`Replica::next_batch`] gives
//! a batch, send its first messages, make its save durable, send the rest,
//! and call [`Replica::saved`]. Between a batch and `saved` nothing may be fed.

use std::sync::Arc;

use bytes::Bytes;
use raft::eraftpb::{ConfState, Entry, EntryType, HardState, Message, MessageType, Snapshot};
use raft::{RawNode, Ready, SnapshotStatus, StateRole};
use trimtab_registry::revision::Position;
use trimtab_registry::state::Registry;

use super::batch::{Batch, Compaction, Decided, Effects, NotProposed, Save, StepError};
use super::config::{ReplicaConfig, raft_config};
use super::entry::{EntryError, ProposalId, State, decode_command, decode_state};
use super::error::FatalError;
use super::founding::Restored;
use super::hearing::Hearing;
use super::log::{Log, size_of};
use super::logger;
use super::membership::{Member, Members, Membership, conf_state_flaw};
use super::message::MessageError;
use super::snapshot::SnapshotJob;
use super::status::Role;

/// Entries since the last snapshot, in bytes, after which another one is due
/// whatever their number: bounds memory, file and restart.
const LOG_BYTES_MAX: u64 = 64 << 20;

/// Entries kept before a snapshot, in bytes, whatever their number.
const TRAILING_BYTES_MAX: u64 = 16 << 20;

mod changes;
mod orphaned;
mod rounds;
mod snapshots;

use changes::Unsettled;
use orphaned::Orphaned;
use snapshots::read_snapshot;

/// One replica: Raft, its log, and what the log makes: registry and members.
pub struct Replica {
    node: RawNode<Log>,
    disk_id: u64,
    incarnation: u64,
    registry: Registry,
    members: Arc<Members>,
    /// Whom it has heard of late.
    hearing: Hearing,
    snapshot_every: u64,
    trailing_entries: u64,
    /// The newest hard state. On disk its commit index may lag: it is written
    /// along with what must be written anyway. It goes with every entry, and
    /// must: whoever starts with a change of members in its log has to know
    /// that the change before was committed, or it would count votes by
    /// members of long ago.
    hard_state: HardState,
    /// The commit index that is on disk.
    saved_commit: u64,
    /// A change of members was committed and is not on disk as such, and these
    /// messages, which may tell of it, wait until it is.
    held: Vec<Message>,
    owes_commit: bool,
    /// A change of members that this leader has applied and the others may not
    /// know of.
    unsettled: Option<Unsettled>,
    /// The leader it followed has gone, and no other was found yet.
    orphaned: Option<Orphaned>,
    round: Option<Round>,
    /// As last reported.
    standing: Standing,
    log_bytes_since_snapshot: u64,
}

/// What `next_batch` gave out and `saved` completes.
struct Round {
    ready: Ready,
    snapshot: Option<Snapshot>,
    entries: Vec<Entry>,
}

impl Replica {
    /// A replica as of what was restored. Committed entries after the snapshot
    /// are applied in its first rounds.
    ///
    /// # Errors
    ///
    /// When the snapshot cannot be read or the Raft library refuses the state.
    pub fn new(config: &ReplicaConfig, restored: Restored) -> Result<Self, FatalError> {
        let index = restored.snapshot.get_metadata().index;
        let unusable = |error: EntryError| FatalError::Snapshot {
            index,
            reason: error.to_string(),
        };
        let state = read_snapshot(&restored.snapshot).map_err(unusable)?;
        let hard_state = restored.hard_state.clone();
        let log = Log::new(
            restored.hard_state,
            restored.snapshot,
            restored.base,
            restored.entries,
        );
        let log_bytes_since_snapshot = log.bytes_after(index);
        let node = RawNode::new(
            &raft_config(config, index),
            log,
            &logger::forward_to_tracing(),
        )
        .map_err(|error| FatalError::Raft(error.to_string()))?;
        let standing = standing(&node);
        let mut replica = Self {
            node,
            disk_id: config.disk_id,
            incarnation: config.incarnation,
            registry: state.registry,
            members: Arc::default(),
            hearing: Hearing::new(config.election_ticks),
            snapshot_every: config.snapshot_every.max(1),
            trailing_entries: config.trailing_entries,
            saved_commit: hard_state.commit,
            hard_state,
            held: Vec::new(),
            owes_commit: false,
            unsettled: None,
            orphaned: None,
            round: None,
            standing,
            log_bytes_since_snapshot,
        };
        replica.set_membership(state.membership);
        replica.must_be_member()?;
        Ok(replica)
    }

    /// Time has passed: one tick.
    pub fn tick(&mut self) {
        self.hearing.tick();
        self.node.tick();
        self.tick_orphaned();
    }

    /// Asks for votes now.
    pub fn campaign(&mut self) {
        // Refused for example before a change of members is applied.
        if let Err(error) = self.node.campaign() {
            tracing::debug!(%error, "campaign refused");
        }
    }

    /// Fixes the number of ticks without a leader after which this replica
    /// asks for votes, until Raft draws another: from once to below twice the
    /// configured ones. For simulations, which must repeat from a seed.
    #[doc(hidden)]
    pub fn set_election_timeout(&mut self, ticks: usize) {
        self.node.raft.set_randomized_election_timeout(ticks);
    }

    /// Takes a peer's message, converted by [`super::message::from_wire`];
    /// `disk_id` is the peer's data directory. A sender whose id is not known
    /// is listened to: it may have become a member, and leader, while this
    /// replica was away.
    ///
    /// # Errors
    ///
    /// When it is refused, or proves that this replica must not go on.
    pub fn step(&mut self, disk_id: u64, message: Message) -> Result<(), StepError> {
        let from = message.from;
        if from == 0 || from == self.id() {
            return Err(MessageError::NotAMember { from }.into());
        }
        // Here and not where it arrives: what the last one to have this id
        // said must not count for the next one, however long it waited.
        match self.membership().get(from) {
            // It may have become a member, in another's place, while this
            // replica was away.
            Some(member) if member.disk_id != disk_id && is_for_all(message.get_msg_type()) => {}
            Some(member) if member.disk_id != disk_id => {
                return Err(MessageError::Impostor { from, disk_id }.into());
            }
            Some(_) => self.hearing.hear(from),
            None => {}
        }
        match message.get_msg_type() {
            // A leader never tells us of more than we told it that we have.
            MessageType::MsgHeartbeat if message.commit > self.last_index() => {
                return Err(FatalError::LostEntries {
                    last: self.last_index(),
                    acknowledged: message.commit,
                }
                .into());
            }
            // What cannot be read must not replace what can.
            MessageType::MsgSnapshot => {
                read_snapshot(message.get_snapshot()).map_err(|error| MessageError::Malformed {
                    kind: "a snapshot",
                    from,
                    rule: error.to_string(),
                })?;
            }
            _ => {}
        }
        if let Err(error) = self.node.step(message) {
            tracing::debug!(%error, "message passed over");
        }
        Ok(())
    }

    /// Appends commands, already encoded, as one message to each follower.
    ///
    /// # Errors
    ///
    /// When this replica does not lead or too much is uncommitted; then none
    /// was taken.
    pub fn propose(&mut self, commands: Vec<(ProposalId, Bytes)>) -> Result<(), NotProposed> {
        if commands.is_empty() {
            return Ok(());
        }
        // A follower would forward them to the leader and never hear of them.
        if self.role() != Role::Leader || self.node.raft.lead_transferee.is_some() {
            return Err(NotProposed::NotLeader);
        }
        let entries: Vec<Entry> = commands
            .into_iter()
            .map(|(id, data)| Entry {
                data,
                context: Bytes::copy_from_slice(&id.to_bytes()),
                ..Entry::default()
            })
            .collect();
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.id();
        message.set_entries(entries);
        self.node.step(message).map_err(|_| NotProposed::Full)
    }

    /// Asks for the index that a linearizable read must wait for. It may be
    /// dropped in silence: ask again, under the same id.
    pub fn read_index(&mut self, read: u64) {
        // The answer to an earlier process of this replica may be on its way,
        // and knows nothing of what was committed since.
        let mark = [self.incarnation, read].map(u64::to_le_bytes);
        self.node.read_index(mark.concat());
    }

    /// Which of this process's reads it is.
    fn own_read(&self, mark: &[u8]) -> Option<u64> {
        let (incarnation, read) = mark.split_first_chunk()?;
        let is_own = u64::from_le_bytes(*incarnation) == self.incarnation;
        is_own.then_some(u64::from_le_bytes(read.try_into().ok()?))
    }

    /// Whether asking for a read index has a chance of being answered now.
    pub fn can_read(&self) -> bool {
        match self.role() {
            Role::Leader => self.node.raft.commit_to_current_term(),
            Role::Follower => self.leader_id() != 0,
            Role::Candidate => false,
        }
    }

    /// A message to this peer was lost.
    pub fn report_unreachable(&mut self, peer: u64) {
        self.hearing.lose(peer);
        self.node.report_unreachable(peer);
    }

    /// The snapshot sent to this peer arrived, or did not.
    pub fn report_snapshot(&mut self, peer: u64, arrived: bool) {
        let status = if arrived {
            SnapshotStatus::Finish
        } else {
            SnapshotStatus::Failure
        };
        self.node.report_snapshot(peer, status);
    }

    /// The message by which a leader that cannot go on has its successor ask
    /// for votes at once; `None` when it does not lead, or leads no one.
    pub fn resignation(&self) -> Option<Message> {
        if self.role() != Role::Leader {
            return None;
        }
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgTimeoutNow);
        message.from = self.id();
        message.to = self.successor()?;
        message.term = self.term();
        Some(message)
    }

    /// What the log has made so far.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What is left of it when it ends.
    pub fn into_registry(self) -> Registry {
        self.registry
    }

    /// This replica.
    pub fn id(&self) -> u64 {
        self.node.raft.id
    }

    /// Its part.
    pub fn role(&self) -> Role {
        role_of(self.node.raft.state)
    }

    /// Its term.
    pub fn term(&self) -> u64 {
        self.node.raft.term
    }

    /// The leader it follows or is; 0 when none is known.
    pub fn leader_id(&self) -> u64 {
        let leader = self.node.raft.leader_id;
        // Whoever votes forgets a silent leader by asking for votes itself.
        let forgets = self.node.raft.promotable() || leader == self.id();
        match forgets || self.hearing.hears(leader) {
            true => leader,
            false => 0,
        }
    }

    /// The last index known to be committed.
    pub fn commit(&self) -> u64 {
        self.node.raft.raft_log.committed
    }

    /// The last index applied.
    pub fn applied(&self) -> u64 {
        self.registry.applied().index
    }

    /// The last index in the log.
    pub fn last_index(&self) -> u64 {
        self.node.raft.raft_log.last_index()
    }

    /// The last index in the latest snapshot.
    pub fn snapshot_index(&self) -> u64 {
        self.node.store().latest_snapshot().get_metadata().index
    }

    /// The size of the latest snapshot.
    pub fn snapshot_bytes(&self) -> u64 {
        self.node.store().snapshot_bytes()
    }

    /// Whether it leads and has applied an entry of its own term, and with it
    /// everything that was ever committed.
    pub fn leads_up_to_date(&self) -> bool {
        self.role() == Role::Leader && self.registry.applied().term == self.term()
    }
}

/// Whether such a message counts by its term and log, not by who sends it: a
/// leader's, or the request for a vote of one that would be. What others answer
/// counts by who they are.
///
/// A vote is remembered by the candidate's id, and so may be given to two
/// replicas in a term that have had the same id one after the other. But the
/// former lacks what took the latter in, which is committed when the latter
/// asks for votes, and so cannot win.
pub fn is_for_all(kind: MessageType) -> bool {
    matches!(
        kind,
        MessageType::MsgAppend
            | MessageType::MsgHeartbeat
            | MessageType::MsgSnapshot
            | MessageType::MsgRequestVote
            | MessageType::MsgRequestPreVote
    )
}

/// What of a replica's part others act on.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Standing {
    role: Role,
    term: u64,
    leader_id: u64,
    leads_up_to_date: bool,
}

fn role_of(state: StateRole) -> Role {
    match state {
        StateRole::Follower => Role::Follower,
        StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
        StateRole::Leader => Role::Leader,
    }
}

fn standing(node: &RawNode<Log>) -> Standing {
    let raft = &node.raft;
    Standing {
        role: role_of(raft.state),
        term: raft.term,
        leader_id: raft.leader_id,
        leads_up_to_date: false,
    }
}

#[cfg(test)]
mod tests;
