//! When the disk fails: out of consensus at once, still showing what was applied, and back by itself.

use std::mem;

use raft::eraftpb::{HardState, Message, MessageType};
use trimtab_registry::state::Registry;

use super::super::change::HandOverError;
use super::super::error::{FatalError, ProposeError};
use super::super::founding::Restored;
use super::super::input::Input;
use super::super::message;
use super::super::observer::Observer;
use super::super::outside::{Carrier, Store};
use super::super::replica::Replica;
use super::super::start::restore;
use super::Engine;
use super::snapshots::Taking;
use crate::storage::error::StorageError;

/// Ticks between two attempts to open the store again, at first and at most:
/// half a second and five, with the usual ticks. Opening reads the whole file.
const REOPEN_FIRST_TICKS: u32 = 10;
const REOPEN_MAX_TICKS: u32 = 100;

/// What is known while the disk is not to be had.
#[derive(Debug)]
pub(super) struct Halt {
    /// For people: what failed and what it means.
    pub(super) reason: String,
    /// Who sends messages as a leader; 0: none known.
    pub(super) leader_id: u64,
    term: u64,
    ticks_since_heard: usize,
    ticks_to_wait: u32,
    next_wait: u32,
}

/// Why the store was not opened again.
enum NotYet {
    /// The disk fails still.
    Later(StorageError),
    /// It will not do.
    Never(FatalError),
}

impl From<StorageError> for NotYet {
    fn from(error: StorageError) -> Self {
        match error.may_pass() {
            true => Self::Later(error),
            false => Self::Never(FatalError::Storage(error.to_string())),
        }
    }
}

impl Halt {
    /// Notes who leads: nothing else of a message can be of use.
    fn hear(&mut self, message: &Message) {
        let is_leaders = matches!(
            message.get_msg_type(),
            MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot
        );
        if is_leaders && message.term >= self.term {
            self.term = message.term;
            self.leader_id = message.from;
            self.ticks_since_heard = 0;
        }
    }
}

impl<S: Store, O: Observer, C: Carrier> Engine<S, O, C> {
    /// The store failed. If its disk is to blame, this replica takes no part
    /// until it works again.
    pub(super) fn store_failed(&mut self, error: &StorageError) -> Result<(), FatalError> {
        if !error.may_pass() {
            return Err(FatalError::Storage(error.to_string()));
        }
        // Another can lead at once: no one need wait for our silence.
        if let Some(resignation) = self.replica.resignation() {
            self.parts.carrier.send(message::to_wire(resignation));
        }
        let reason = self.words(error);
        tracing::error!(reason, "this replica takes no part in consensus");
        self.pending.give_up(&reason);
        self.taking = Taking::Nothing;
        self.halted = Some(Halt {
            reason,
            leader_id: 0,
            term: self.replica.term(),
            ticks_since_heard: 0,
            ticks_to_wait: REOPEN_FIRST_TICKS,
            next_wait: REOPEN_FIRST_TICKS * 2,
        });
        self.report_role();
        Ok(())
    }

    fn words(&self, error: &StorageError) -> String {
        format!(
            "{error}. Until the disk works again this replica takes no part in consensus: changes and \
             exact reads are for the other replicas, what it had at entry {} is still served, \
             marked as possibly old; it comes back by itself",
            self.registry().applied().index
        )
    }

    /// What can be answered without a disk.
    pub(super) fn take_while_halted(&mut self, input: Input) -> Result<(), FatalError> {
        let Some(halt) = &mut self.halted else {
            return Ok(());
        };
        // Whoever asked may have given up.
        match input {
            Input::Step { messages, .. } => messages.iter().for_each(|message| halt.hear(message)),
            Input::Propose(_, reply) | Input::Judgement(_, reply) => {
                let leader = (halt.leader_id != 0).then_some(halt.leader_id);
                let _ = reply.send(Err(ProposeError::NotLeader { leader }));
            }
            Input::ProposeMany(proposals) => {
                let leader = (halt.leader_id != 0).then_some(halt.leader_id);
                for (_, reply) in proposals {
                    let _ = reply.send(Err(ProposeError::NotLeader { leader }));
                }
            }
            Input::Change(_, reply) => {
                let leader = (halt.leader_id != 0).then_some(halt.leader_id);
                let _ = reply.send(Err(ProposeError::NotLeader { leader }));
            }
            Input::HandOver(_, reply) => {
                let _ = reply.send(Err(HandOverError::NotLeader));
            }
            Input::Removed => {
                return Err(FatalError::Removed {
                    id: self.replica.id(),
                });
            }
            Input::Read(reply) => {
                let reason = halt.reason.clone();
                let _ = reply.send(Err(ProposeError::Halted { reason }));
            }
            Input::AwaitApplied(index, reply) => {
                if index <= self.registry().applied().index {
                    let _ = reply.send(());
                }
            }
            Input::Query(query) => query(self.registry()),
            Input::Report(_) | Input::Encoded(_) => {}
            Input::Stop => self.stopping = Some(0),
        }
        Ok(())
    }

    /// A tick without a disk: now and then looks whether it is back.
    pub(super) fn tick_while_halted(&mut self) -> Result<(), FatalError> {
        let forget_after = 2 * self.config.election_ticks;
        let Some(halt) = &mut self.halted else {
            return Ok(());
        };
        halt.ticks_since_heard += 1;
        if halt.ticks_since_heard > forget_after {
            halt.leader_id = 0;
        }
        halt.ticks_to_wait = halt.ticks_to_wait.saturating_sub(1);
        if halt.ticks_to_wait > 0 {
            return Ok(());
        }
        halt.ticks_to_wait = halt.next_wait;
        halt.next_wait = (halt.next_wait * 2).min(REOPEN_MAX_TICKS);
        match self.reopen() {
            Ok(replica) => {
                self.resume(replica);
                Ok(())
            }
            Err(NotYet::Never(error)) => Err(error),
            Err(NotYet::Later(error)) => {
                tracing::debug!(%error, "the disk does not work yet");
                let reason = self.words(&error);
                if let Some(halt) = &mut self.halted {
                    halt.reason = reason;
                }
                Ok(())
            }
        }
    }

    /// A replica on what the disk holds, which is at least what was promised.
    fn reopen(&mut self) -> Result<Replica, NotYet> {
        self.parts.store.reopen()?;
        let saved = self.parts.store.load()?;
        let found = saved.map(restore).transpose();
        let found = found.map_err(|error| NotYet::Never(FatalError::Raft(error.to_string())))?;
        let found = found.filter(|found| self.holds_what_was_promised(found));
        let found = found.ok_or(NotYet::Never(FatalError::Forgotten {
            term: self.promised.term,
            applied: self.registry().applied().index,
        }))?;
        self.promised = found.hard_state.clone();
        Replica::new(&self.config, found).map_err(NotYet::Never)
    }

    fn holds_what_was_promised(&self, found: &Restored) -> bool {
        let HardState { term, vote, .. } = self.promised;
        let hard_state = &found.hard_state;
        let has_term = hard_state.term > term
            || (hard_state.term == term && (vote == 0 || hard_state.vote == vote));
        let last = found.entries.last().map_or(found.base.index, |it| it.index);
        has_term && last >= self.registry().applied().index
    }

    fn resume(&mut self, replica: Replica) {
        let before = mem::replace(&mut self.replica, replica);
        // What was shown last goes on being shown until this is as new. If
        // the disk failed again before it was, that is still the newest.
        self.shown.get_or_insert(before.into_registry());
        self.halted = None;
        self.could_read = false;
        self.unread = None;
        self.parts.carrier.follow(self.replica.membership());
        tracing::info!("the disk works again; this replica takes part again");
        self.campaign_alone();
        self.show_what_is_newer();
        self.report_role();
    }

    /// Once all is applied that was shown before the disk failed, shows what
    /// there is now.
    pub(super) fn show_what_is_newer(&mut self) {
        let now = self.replica.registry();
        let is_as_new = |shown: &mut Registry| now.applied().index >= shown.applied().index;
        if self.shown.take_if(is_as_new).is_some() {
            self.parts.observer.restored(now);
        }
    }
}
