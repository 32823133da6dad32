//! What the replica asks for is carried out: saved, sent, told.

use raft::eraftpb::Message;

use super::super::batch::{Effects, Save};
use super::super::error::FatalError;
use super::super::message;
use super::super::observer::Observer;
use super::super::outside::{Carrier, Store};
use super::super::status::Role;
use super::Engine;
use crate::storage::error::StorageError;
use crate::storage::file::Round;

impl<S: Store, O: Observer, C: Carrier> Engine<S, O, C> {
    /// Carries out what the replica asks for until it asks for nothing.
    pub(super) fn work(&mut self) -> Result<(), FatalError> {
        if self.halted.is_some() {
            return Ok(());
        }
        loop {
            while let Some(batch) = self.replica.next_batch() {
                self.send(batch.messages);
                if let Some(save) = batch.save
                    && let Err(error) = self.save(save)
                {
                    return self.store_failed(&error);
                }
                self.send(batch.messages_after_save);
                let effects = self.replica.saved()?;
                self.carry_out(effects);
                if let Some(error) = self.unread.take() {
                    return self.store_failed(&error);
                }
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

    fn save(&mut self, save: Save) -> Result<(), StorageError> {
        let snapshot = save.snapshot.map(message::snapshot_to_wire);
        let entries: Vec<_> = save
            .entries
            .into_iter()
            .map(message::entry_to_wire)
            .collect();
        self.parts.store.save(Round {
            installed: snapshot.as_ref(),
            entries: &entries,
            hard_state: &message::hard_state_to_wire(&save.hard_state),
        })?;
        self.promised = save.hard_state;
        Ok(())
    }

    fn carry_out(&mut self, effects: Effects) {
        self.send(effects.messages);
        if self.shown.is_some() {
            self.show_what_is_newer();
        } else {
            let observer = &mut self.parts.observer;
            if effects.restored {
                observer.restored(self.replica.registry());
            }
            if !effects.events.is_empty() {
                observer.applied(self.replica.registry(), &effects.events);
            }
        }
        if effects.members_changed {
            self.parts.carrier.follow(self.replica.membership());
            let members = self.replica.members();
            tracing::info!(
                voters = ?members.roles.voters,
                learners = ?members.roles.learners,
                "members changed"
            );
            if self.replica.is_removed() {
                tracing::warn!(
                    "this replica was removed; it stops when a majority of the others know that"
                );
            }
        }
        for (mark, index) in effects.changed {
            self.pending.changed(mark, index);
        }
        let decided = effects.decided.into_iter();
        let told = decided.filter_map(|it| self.pending.decide(it)).collect();
        self.parts.carrier.tell(told);
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

    pub(super) fn report_role(&mut self) {
        let status = self.status();
        // Whom it answered elsewhere meanwhile is answered by the log now.
        if status.role == Role::Leader {
            self.parts.carrier.follow(self.replica.membership());
        }
        // A proposal made under an earlier leadership may yet be committed by
        // the next leader, but this replica cannot wait for it to tell.
        if status.role != Role::Leader {
            self.pending
                .lose_proposals("this replica lost the leadership before the change was committed");
        }
        // Who leads is news; each round of an election is detail.
        if status.leader_id != self.leader_id {
            let (term, leader) = (status.term, status.leader_id);
            tracing::info!(term, leader, role = ?status.role, "leader changed");
        } else {
            tracing::debug!(term = status.term, role = ?status.role, "role changed");
        }
        self.leader_id = status.leader_id;
        self.parts.observer.role_changed(&status);
    }

    fn send(&mut self, messages: Vec<Message>) {
        for message in messages {
            let mut message = message::to_wire(message);
            if let Some(snapshot) = &mut message.snapshot {
                let metadata = snapshot.metadata.as_ref();
                let index = metadata.map_or(0, |metadata| metadata.index);
                match self.parts.store.snapshot(index) {
                    Ok(data) => snapshot.data = data,
                    Err(error) => {
                        self.unread = Some(error);
                        continue;
                    }
                }
            }
            self.parts.carrier.send(message);
        }
    }
}
