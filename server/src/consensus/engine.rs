//! One replica's decisions, round by round, without thread, queue or clock.
//!
//! Whoever drives it hands it rounds of inputs and ticks. It takes everything
//! of one round together: one proposal to Raft, one write, one sync, however
//! many callers wait. A leader's messages leave before its own sync;
//! everything else waits for it. Answers go through the inputs' own channels,
//! messages to the [`Carrier`], what was applied to the [`Observer`]. When
//! the disk fails it takes no part until the disk works again (`halt`).

use std::sync::Arc;

use bytes::Bytes;
use raft::eraftpb::{HardState, Message};
use trimtab_registry::state::Registry;

use super::batch::{NotProposed, StepError};
use super::change::{Change, ChangeError, Proposed};
use super::config::ReplicaConfig;
use super::error::{FatalError, ProposeError};
use super::founding::Restored;
use super::input::{Answer, Input, Reply};
use super::observer::Observer;
use super::outside::{Carrier, Store};
use super::pending::Pending;
use super::replica::Replica;
use super::status::{ConsensusStatus, Role};
use crate::peers::Report;
use crate::storage::error::StorageError;

mod halt;
mod rounds;
mod snapshots;

use halt::Halt;
use snapshots::Taking;

/// Inputs taken in one round: what one sync is shared by, at most.
const ROUND_INPUTS_MAX: usize = 1_024;

/// Bytes proposed in one round: one message to each follower.
const ROUND_BYTES_MAX: usize = 1 << 20;

/// Ticks a stopping leader waits for a successor: as long as an election.
const HAND_OVER_TICKS: u32 = 20;

/// What an engine works with.
#[derive(Debug)]
pub struct Parts<S, O, C> {
    /// Where it keeps what it must not forget.
    pub store: S,
    /// Who is told what was applied.
    pub observer: O,
    /// Who carries its messages.
    pub carrier: C,
}

/// A running replica, moved by whoever calls it.
pub struct Engine<S, O, C> {
    config: ReplicaConfig,
    /// While the disk fails it stands still as it was.
    replica: Replica,
    halted: Option<Halt>,
    /// What was shown before the disk failed, as long as the replica has not
    /// applied as much again.
    shown: Option<Registry>,
    /// The hard state that is durable.
    promised: HardState,
    parts: Parts<S, O, C>,
    pending: Pending,
    taking: Taking,
    caught_up: bool,
    could_read: bool,
    /// What kept a snapshot from being sent.
    unread: Option<StorageError>,
    /// As last reported.
    leader_id: u64,
    /// Ticks left to find a successor, once stopping.
    stopping: Option<u32>,
}

/// What one round gathered.
#[derive(Default)]
struct Gathered {
    judgements: Vec<(Bytes, Reply<Answer>)>,
    proposals: Vec<(Bytes, Reply<Answer>)>,
    proposed_bytes: usize,
    reads: Vec<Reply<u64>>,
}

impl<S: Store, O: Observer, C: Carrier> Engine<S, O, C> {
    /// A replica on what its store held. The observer is given the snapshot's
    /// state; the entries after it are applied in the first rounds. A cluster
    /// of one asks for its own vote at once.
    ///
    /// # Errors
    ///
    /// When the snapshot cannot be read or the Raft library refuses the state.
    pub fn start(
        config: &ReplicaConfig,
        restored: Restored,
        mut parts: Parts<S, O, C>,
    ) -> Result<Self, FatalError> {
        let promised = restored.hard_state.clone();
        let replica = Replica::new(config, restored)?;
        parts.observer.restored(replica.registry());
        parts.carrier.follow(replica.membership());
        let mut engine = Self {
            config: config.clone(),
            replica,
            halted: None,
            shown: None,
            promised,
            parts,
            pending: Pending::new(config.incarnation),
            taking: Taking::default(),
            caught_up: false,
            could_read: false,
            unread: None,
            leader_id: 0,
            stopping: None,
        };
        engine.campaign_alone();
        Ok(engine)
    }

    fn campaign_alone(&mut self) {
        if self.replica.is_only_voter() {
            self.replica.campaign();
        }
    }

    /// Takes what is there, up to a bound, lets `ticks` pass, and does all
    /// that follows from it. With nothing there and no tick it does what is
    /// left to do, such as applying what was committed before a start.
    ///
    /// # Errors
    ///
    /// When the replica must not go on. Then nothing may be asked of it but
    /// its status and [`Engine::ended`].
    pub fn round(
        &mut self,
        inputs: impl IntoIterator<Item = Input>,
        ticks: u32,
    ) -> Result<(), FatalError> {
        self.take_all(inputs)?;
        for _ in 0..ticks {
            self.tick()?;
        }
        self.work()?;
        self.write_piece()
    }

    /// What is known of this replica's part. Messages dropped before they
    /// came here are not counted, nor is known when things happened.
    pub fn status(&self) -> ConsensusStatus {
        let replica = &self.replica;
        let applied = self.registry().applied().index;
        let mut status = ConsensusStatus {
            id: replica.id(),
            role: replica.role(),
            term: replica.term(),
            leader_id: replica.leader_id(),
            leads_up_to_date: replica.leads_up_to_date(),
            commit: replica.commit().max(applied),
            applied,
            snapshot_index: replica.snapshot_index(),
            snapshot_bytes: replica.snapshot_bytes(),
            snapshot_time: None,
            caught_up: self.caught_up,
            members: Arc::clone(replica.members()),
            dropped_messages: 0,
            halted: None,
            removed: replica.is_removed(),
            fatal: None,
        };
        if let Some(halt) = &self.halted {
            status.role = Role::Follower;
            status.leader_id = halt.leader_id;
            status.leads_up_to_date = false;
            status.halted = Some(halt.reason.clone());
        }
        status
    }

    /// Whether it was stopped and has nothing left to do.
    pub fn is_done(&self) -> bool {
        let leads = self.halted.is_none() && self.replica.role() == Role::Leader;
        self.stopping.is_some_and(|ticks| ticks == 0 || !leads)
    }

    /// It has ended, with this as its last word: tells the observer.
    pub fn ended(&mut self, status: &ConsensusStatus) {
        self.parts.observer.role_changed(status);
    }

    /// The replica itself, to look at.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// What it works with, for whoever made it.
    pub fn parts(&mut self) -> &mut Parts<S, O, C> {
        &mut self.parts
    }

    /// See [`Replica::set_election_timeout`].
    #[doc(hidden)]
    pub fn set_election_timeout(&mut self, ticks: usize) {
        self.replica.set_election_timeout(ticks);
    }

    /// What is shown to those who look.
    pub fn registry(&self) -> &Registry {
        self.shown.as_ref().unwrap_or(self.replica.registry())
    }

    fn take_all(&mut self, inputs: impl IntoIterator<Item = Input>) -> Result<(), FatalError> {
        let mut gathered = Gathered::default();
        for input in inputs.into_iter().take(ROUND_INPUTS_MAX) {
            self.take(input, &mut gathered)?;
            // Before the next one is taken from where it waits.
            if gathered.proposed_bytes >= ROUND_BYTES_MAX {
                break;
            }
        }
        self.propose(gathered.judgements);
        match self.pending.room_for(gathered.proposals.len()) {
            Ok(()) => self.propose(gathered.proposals),
            Err(error) => {
                for (_, reply) in gathered.proposals {
                    // Whoever asked may have given up.
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
        if let Some(read) = self.pending.add_read(gathered.reads) {
            self.ask(read);
        }
        Ok(())
    }

    fn take(&mut self, input: Input, gathered: &mut Gathered) -> Result<(), FatalError> {
        if self.halted.is_some() {
            return self.take_while_halted(input);
        }
        match input {
            Input::Step {
                from_disk,
                messages,
            } => {
                for message in messages {
                    self.step(from_disk, message)?;
                }
            }
            Input::Judgement(command, reply) => gathered.judgements.push((command, reply)),
            Input::Propose(command, reply) => {
                gathered.proposed_bytes += command.len();
                gathered.proposals.push((command, reply));
            }
            Input::ProposeMany(proposals) => {
                let bytes = proposals.iter().map(|(command, _)| command.len());
                gathered.proposed_bytes += bytes.sum::<usize>();
                gathered.proposals.extend(proposals);
            }
            Input::Read(reply) => gathered.reads.push(reply),
            Input::AwaitApplied(index, reply) => {
                self.pending.await_applied(index, reply);
                self.pending.complete(self.replica.applied());
            }
            Input::Change(change, reply) => self.change(&change, reply),
            Input::HandOver(to, reply) => {
                // Whoever asked may have given up.
                let _ = reply.send(self.replica.hand_over(to));
            }
            Input::Removed => {
                return Err(FatalError::Removed {
                    id: self.replica.id(),
                });
            }
            Input::Query(query) => query(self.registry()),
            Input::Encoded(encoded) => self.take_encoded(encoded)?,
            Input::Report(Report::Unreachable(peer)) => self.replica.report_unreachable(peer),
            Input::Report(Report::Gone(peer)) => self.replica.report_gone(peer),
            Input::Report(Report::SnapshotEnded { peer, arrived }) => {
                self.replica.report_snapshot(peer, arrived);
            }
            Input::Stop => {
                let has_successor = self.replica.hand_over(None).is_ok();
                self.stopping = Some(if has_successor { HAND_OVER_TICKS } else { 0 });
            }
        }
        Ok(())
    }

    fn step(&mut self, from_disk: u64, message: Message) -> Result<(), FatalError> {
        match self.replica.step(from_disk, message) {
            Ok(()) => Ok(()),
            Err(StepError::Refused(error)) => {
                tracing::warn!(%error, "message from a replica refused");
                Ok(())
            }
            Err(StepError::Fatal(error)) => Err(error),
        }
    }

    /// Proposes commands of a round as one.
    fn propose(&mut self, proposals: Vec<(Bytes, Reply<Answer>)>) {
        let mut commands = Vec::with_capacity(proposals.len());
        let mut replies = Vec::with_capacity(proposals.len());
        for (command, reply) in proposals {
            let id = self.pending.next_proposal();
            commands.push((id, command));
            replies.push((id, reply));
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

    fn change(&mut self, change: &Change, reply: Reply<Option<u64>>) {
        let taken = self.pending.room_for(1).and_then(|()| {
            let mark = self.pending.next_proposal();
            let proposed = self.replica.propose_change(mark, change);
            proposed.map(|it| (mark, it)).map_err(|error| match error {
                ChangeError::NotLeader => self.refusal(NotProposed::NotLeader),
                ChangeError::Full => self.refusal(NotProposed::Full),
                refused => ProposeError::Members(refused),
            })
        });
        // Whoever asked may have given up.
        let _ = match taken {
            Ok((mark, Proposed::Taken)) => {
                self.pending.change_accepted(mark, reply);
                return;
            }
            Ok((_, Proposed::AlreadySo)) => reply.send(Ok(None)),
            Err(error) => reply.send(Err(error)),
        };
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

    fn tick(&mut self) -> Result<(), FatalError> {
        if self.halted.is_some() {
            return self.tick_while_halted();
        }
        self.replica.tick();
        for read in self.pending.tick_reads() {
            self.ask(read);
        }
        if let Some(ticks) = &mut self.stopping {
            *ticks = ticks.saturating_sub(1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
