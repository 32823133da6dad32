//! The one thread that owns the replica and its storage.
//!
//! It takes everything that is queued, up to a bound, as one round: one
//! proposal to Raft, one write, one sync, however many callers wait. A
//! leader's messages leave before its own sync; everything else waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Instant;

use bytes::Bytes;
use raft::eraftpb::Message;
use tokio::sync::{oneshot, watch};
use trimtab_registry::state::Registry;

use super::batch::{Effects, NotProposed, Save, StepError};
use super::error::{FatalError, ProposeError};
use super::message;
use super::observer::Observer;
use super::pending::{Answer, Pending, Reply};
use super::replica::Replica;
use super::status::{ConsensusStatus, Role};
use super::ticker::Ticker;
use crate::peers::Report;
use crate::peers::line::Lines;
use crate::storage::file::{LogBase, Round, Storage};

/// Inputs taken in one round: what one sync is shared by, at most.
const ROUND_INPUTS_MAX: usize = 1_024;

/// Bytes proposed in one round: one message to each follower.
const ROUND_BYTES_MAX: usize = 1 << 20;

/// Ticks a stopping leader waits for a successor: as long as an election.
const HAND_OVER_TICKS: u32 = 20;

/// What the thread is asked to do.
pub(super) enum Input {
    /// Peers' messages, checked and converted.
    Step(Vec<Message>),
    /// A command, encoded.
    Propose(Bytes, Reply<Answer>),
    /// A linearizable read: answered with an applied index.
    Read(Reply<u64>),
    /// Tell when this index is applied.
    AwaitApplied(u64, oneshot::Sender<()>),
    /// Look at the applied state.
    Query(Box<dyn FnOnce(&Registry) + Send>),
    /// What became of messages to a peer.
    Report(Report),
    /// Hand over leadership and end.
    Stop,
}

impl Input {
    /// Whether it counts against the callers' share of the queue.
    fn is_callers(&self) -> bool {
        match self {
            Self::Propose(..) | Self::Read(_) | Self::AwaitApplied(..) | Self::Query(_) => true,
            Self::Step(_) | Self::Report(_) | Self::Stop => false,
        }
    }
}

/// What the thread shares with its handles.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Messages from peers that found the queue full.
    pub(super) dropped_messages: AtomicU64,
    /// Callers' requests in the queue.
    pub(super) caller_inputs: AtomicUsize,
    /// The last handle is gone.
    pub(super) is_abandoned: AtomicBool,
}

/// Everything the thread owns.
pub(super) struct Driver<O> {
    pub(super) replica: Replica,
    pub(super) storage: Storage,
    pub(super) lines: Lines,
    pub(super) inputs: Receiver<Input>,
    pub(super) pending: Pending,
    pub(super) observer: O,
    pub(super) status: watch::Sender<ConsensusStatus>,
    pub(super) shared: Arc<Shared>,
    pub(super) ticker: Ticker,
    pub(super) caught_up: bool,
    pub(super) could_read: bool,
    /// Ticks left to find a successor, once stopping.
    pub(super) stopping: Option<u32>,
}

/// What one round gathered.
#[derive(Default)]
struct Gathered {
    proposals: Vec<(Bytes, Reply<Answer>)>,
    proposed_bytes: usize,
    reads: Vec<Reply<u64>>,
}

impl<O: Observer> Driver<O> {
    /// Runs until it is stopped or cannot go on.
    pub(super) fn run(&mut self) -> Result<(), FatalError> {
        self.work()?;
        loop {
            let wait = self.ticker.until_next(Instant::now());
            let first = match self.inputs.recv_timeout(wait) {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            self.take_round(first)?;
            for _ in 0..self.ticker.due(Instant::now()) {
                self.tick();
            }
            self.work()?;
            self.compact()?;
            self.publish();
            if self.is_done() {
                return Ok(());
            }
        }
    }

    fn take_round(&mut self, first: Option<Input>) -> Result<(), FatalError> {
        let Some(first) = first else {
            return Ok(());
        };
        let mut gathered = Gathered::default();
        self.take(first, &mut gathered)?;
        for _ in 1..ROUND_INPUTS_MAX {
            if gathered.proposed_bytes >= ROUND_BYTES_MAX {
                break;
            }
            let Ok(input) = self.inputs.try_recv() else {
                break;
            };
            self.take(input, &mut gathered)?;
        }
        self.propose(gathered.proposals);
        if let Some(read) = self.pending.add_read(gathered.reads) {
            self.ask(read);
        }
        Ok(())
    }

    fn take(&mut self, input: Input, gathered: &mut Gathered) -> Result<(), FatalError> {
        if input.is_callers() {
            self.shared.caller_inputs.fetch_sub(1, Ordering::Relaxed);
        }
        match input {
            Input::Step(messages) => {
                for message in messages {
                    self.step(message)?;
                }
            }
            Input::Propose(command, reply) => {
                gathered.proposed_bytes += command.len();
                gathered.proposals.push((command, reply));
            }
            Input::Read(reply) => gathered.reads.push(reply),
            Input::AwaitApplied(index, reply) => {
                self.pending.await_applied(index, reply);
                self.pending.complete(self.replica.applied());
            }
            Input::Query(query) => query(self.replica.registry()),
            Input::Report(Report::Unreachable(peer)) => self.replica.report_unreachable(peer),
            Input::Report(Report::SnapshotEnded { peer, arrived }) => {
                self.replica.report_snapshot(peer, arrived);
            }
            Input::Stop => {
                let has_successor = self.replica.hand_over();
                self.stopping = Some(if has_successor { HAND_OVER_TICKS } else { 0 });
            }
        }
        Ok(())
    }

    fn step(&mut self, message: Message) -> Result<(), FatalError> {
        match self.replica.step(message) {
            Ok(()) => Ok(()),
            Err(StepError::Refused(error)) => {
                tracing::warn!(%error, "message from a replica refused");
                Ok(())
            }
            Err(StepError::Fatal(error)) => Err(error),
        }
    }

    /// Proposes all of a round's commands as one.
    fn propose(&mut self, proposals: Vec<(Bytes, Reply<Answer>)>) {
        let mut commands = Vec::with_capacity(proposals.len());
        let mut replies = Vec::with_capacity(proposals.len());
        for (command, reply) in proposals {
            match self.pending.next_proposal(replies.len()) {
                Ok(id) => {
                    commands.push((id, command));
                    replies.push((id, reply));
                }
                Err(error) => {
                    // Whoever asked may have given up.
                    let _ = reply.send(Err(error));
                }
            }
        }
        let refused = self.replica.propose(commands).err();
        for (id, reply) in replies {
            match refused {
                None => self.pending.accepted(id, reply),
                Some(reason) => {
                    let _ = reply.send(Err(self.refusal(reason)));
                }
            }
        }
    }

    fn refusal(&self, reason: NotProposed) -> ProposeError {
        match reason {
            NotProposed::NotLeader => {
                let leader = self.replica.leader_id();
                let is_other = leader != 0 && leader != self.replica.id();
                ProposeError::NotLeader {
                    leader: is_other.then_some(leader),
                }
            }
            NotProposed::Full => ProposeError::Overloaded {
                reason: "too many changes are waiting for a quorum".to_owned(),
            },
        }
    }

    fn ask(&mut self, read: u64) {
        // Otherwise it would be dropped in silence; it is asked later.
        if self.replica.can_read() {
            self.replica.read_index(read);
        }
    }

    fn tick(&mut self) {
        self.replica.tick();
        for read in self.pending.tick_reads() {
            self.ask(read);
        }
        if let Some(ticks) = &mut self.stopping {
            *ticks = ticks.saturating_sub(1);
        }
    }

    /// Carries out what the replica asks for until it asks for nothing.
    fn work(&mut self) -> Result<(), FatalError> {
        loop {
            while let Some(batch) = self.replica.next_batch() {
                self.send(batch.messages);
                if let Some(save) = batch.save {
                    self.save(save)?;
                }
                self.send(batch.messages_after_save);
                let effects = self.replica.saved()?;
                self.carry_out(effects);
            }
            if !self.ask_anew() {
                return Ok(());
            }
        }
    }

    /// When reads become possible, asks those that wait; and as long as it is
    /// not known whether this replica has caught up, asks for itself. True
    /// when something was asked.
    fn ask_anew(&mut self) -> bool {
        let can_read = self.replica.can_read();
        let became_able = can_read && !self.could_read;
        self.could_read = can_read;
        let mut reads = Vec::new();
        if can_read && !self.caught_up {
            reads.extend(self.pending.add_own_read());
        }
        if became_able {
            reads = self.pending.unanswered_reads();
        }
        for read in &reads {
            self.ask(*read);
        }
        !reads.is_empty()
    }

    fn save(&mut self, save: Save) -> Result<(), FatalError> {
        let snapshot = save.snapshot.map(message::snapshot_to_wire);
        let entries: Vec<_> = save
            .entries
            .into_iter()
            .map(message::entry_to_wire)
            .collect();
        self.storage
            .save(Round {
                installed: snapshot.as_ref(),
                entries: &entries,
                hard_state: &message::hard_state_to_wire(&save.hard_state),
            })
            .map_err(|error| FatalError::Storage(error.to_string()))
    }

    fn carry_out(&mut self, effects: Effects) {
        self.send(effects.messages);
        if effects.restored {
            self.observer.restored(self.replica.registry());
        }
        if !effects.events.is_empty() {
            self.observer
                .applied(self.replica.registry(), &effects.events);
        }
        for decided in effects.decided {
            self.pending.decide(decided);
        }
        for (read, index) in effects.reads {
            self.pending.read_at(read, index);
        }
        let own_read_done = self.pending.complete(self.replica.applied());
        let catches_up = own_read_done || self.replica.leads_up_to_date();
        if catches_up && !self.caught_up {
            self.caught_up = true;
            tracing::info!(applied = self.replica.applied(), "caught up");
        }
        if effects.role_changed {
            self.report_role();
        }
    }

    fn report_role(&mut self) {
        // A proposal made under an earlier leadership may yet be committed by
        // the next leader, but this replica cannot wait for it to tell.
        if self.replica.role() != Role::Leader {
            self.pending
                .lose_proposals("this replica lost the leadership before the change was committed");
        }
        let status = self.current_status();
        // Who leads is news; each round of an election is detail.
        if status.leader_id != self.status.borrow().leader_id {
            let (term, leader) = (status.term, status.leader_id);
            tracing::info!(term, leader, role = ?status.role, "leader changed");
        } else {
            tracing::debug!(term = status.term, role = ?status.role, "role changed");
        }
        self.observer.role_changed(&status);
        self.status.send_replace(status);
    }

    fn compact(&mut self) -> Result<(), FatalError> {
        let Some(compaction) = self.replica.due_compaction()? else {
            return Ok(());
        };
        let started = Instant::now();
        let snapshot = message::snapshot_to_wire(compaction.snapshot.clone());
        let base = LogBase {
            index: compaction.base.index,
            term: compaction.base.term,
        };
        let hard_state = message::hard_state_to_wire(&compaction.hard_state);
        self.storage
            .compact(&snapshot, base, &hard_state)
            .map_err(|error| FatalError::Storage(error.to_string()))?;
        self.replica.compacted(compaction);
        tracing::info!(
            index = self.replica.snapshot_index(),
            bytes = snapshot.data.len(),
            elapsed_ms = started.elapsed().as_millis(),
            "snapshot taken"
        );
        Ok(())
    }

    fn send(&self, messages: Vec<Message>) {
        for message in messages {
            self.lines.send(message::to_wire(message));
        }
    }

    fn publish(&self) {
        let status = self.current_status();
        self.status.send_if_modified(|last| {
            let is_new = *last != status;
            *last = status;
            is_new
        });
    }

    fn current_status(&self) -> ConsensusStatus {
        ConsensusStatus {
            id: self.replica.id(),
            role: self.replica.role(),
            term: self.replica.term(),
            leader_id: self.replica.leader_id(),
            leads_up_to_date: self.replica.leads_up_to_date(),
            commit: self.replica.commit(),
            applied: self.replica.applied(),
            snapshot_index: self.replica.snapshot_index(),
            caught_up: self.caught_up,
            members: self.replica.members().clone(),
            dropped_messages: self.shared.dropped_messages.load(Ordering::Relaxed),
            fatal: None,
        }
    }

    fn is_done(&self) -> bool {
        let has_left = self
            .stopping
            .is_some_and(|ticks| ticks == 0 || self.replica.role() != Role::Leader);
        has_left || self.shared.is_abandoned.load(Ordering::Relaxed)
    }
}
