//! The rounds of a replica's process: what Raft asks for is carried out, as the production driver does it.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message as _;
use raft::eraftpb::{Entry, Message};
use trimtab_registry::event::Event;
use trimtab_registry::name::ServiceName;
use trimtab_registry::revision::Position;
use trimtab_registry::state::Registry;
use trimtab_server::consensus::batch::{Effects, Save};
use trimtab_server::consensus::entry::{decode_command, encode_result, encode_state};
use trimtab_server::consensus::error::FatalError;
use trimtab_server::consensus::message;
use trimtab_server::leases::LeaseTime;
use trimtab_server::storage::file::{LogBase, Round};

use super::{AppliedRound, ELECTION_TICKS, Host, OWN_READ, Question, Reading};
use crate::packet::{Node, Packet, Reply, View};
use crate::planted::Planted;

impl Host {
    /// Carries out what the replica asks for until it asks for nothing.
    pub(super) fn work(&mut self) -> Result<(), FatalError> {
        loop {
            self.fix_election_timeout();
            while let Some(batch) = self.replica.next_batch() {
                self.send(batch.messages);
                let installed = (batch.save.as_ref())
                    .and_then(|save| Some(save.snapshot.as_ref()?.get_metadata().index));
                if let Some(save) = batch.save {
                    self.save(save)?;
                }
                self.send(batch.messages_after_save);
                let effects = self.replica.saved()?;
                self.fix_election_timeout();
                self.carry_out(installed, effects)?;
            }
            if !self.ask_anew() {
                break;
            }
        }
        self.compact()?;
        self.push_views();
        Ok(())
    }

    /// One timeout per term and life, drawn from the seed.
    pub(super) fn fix_election_timeout(&mut self) {
        let mut bytes = Vec::with_capacity(24);
        for part in [self.setup.seed, self.incarnation, self.replica.term()] {
            bytes.extend_from_slice(&part.to_le_bytes());
        }
        let drawn = trimtab_proto::checksum(&bytes) % ELECTION_TICKS as u64;
        self.replica
            .set_election_timeout(ELECTION_TICKS + drawn as usize);
    }

    fn ask_anew(&mut self) -> bool {
        let can_read = self.replica.can_read();
        let became_able = can_read && !self.could_read;
        self.could_read = can_read;
        let mut asked = Vec::new();
        if can_read && !self.caught_up && !self.reads.contains_key(&OWN_READ) {
            let reading = Reading {
                reply: None,
                index: None,
                ticks: 0,
            };
            self.reads.insert(OWN_READ, reading);
            asked.push(OWN_READ);
        }
        if became_able {
            let unanswered = self.reads.iter().filter(|(_, read)| read.index.is_none());
            asked = unanswered.map(|(id, _)| *id).collect();
        }
        for read in &asked {
            self.ask(*read);
        }
        !asked.is_empty()
    }

    fn save(&mut self, save: Save) -> Result<(), FatalError> {
        if let Some(snapshot) = &save.snapshot {
            self.log.clear();
            self.last_index = snapshot.get_metadata().index;
        }
        if let Some(first) = save.entries.first() {
            self.log.split_off(&first.index);
        }
        for entry in &save.entries {
            self.log.insert(entry.index, entry.clone());
        }
        if self.setup.planted == Some(Planted::PublishBeforeCommit) {
            self.publish_early(&save.entries);
        }
        if self.setup.planted == Some(Planted::AcknowledgeBeforeSync) && save.snapshot.is_none() {
            let late = self.unwritten.replace(save);
            return late.map_or(Ok(()), |late| self.write(late));
        }
        if let Some(late) = self.unwritten.take() {
            self.write(late)?;
        }
        self.write(save)
    }

    fn write(&mut self, save: Save) -> Result<(), FatalError> {
        let snapshot = save.snapshot.map(message::snapshot_to_wire);
        let mut entries: Vec<_> = (save.entries.into_iter())
            .map(message::entry_to_wire)
            .collect();
        if self.setup.planted == Some(Planted::LostTruncation) {
            entries.retain(|entry| entry.index > self.last_index);
        }
        if let Some(last) = entries.last() {
            self.last_index = last.index;
        }
        let hard_state = message::hard_state_to_wire(&save.hard_state);
        self.storage
            .save(Round {
                installed: snapshot.as_ref(),
                entries: &entries,
                hard_state: &hard_state,
            })
            .map_err(|error| FatalError::Storage(error.to_string()))
    }

    /// The planted bug: shows watchers what may never be committed.
    fn publish_early(&mut self, entries: &[Entry]) {
        let mut registry = self.replica.registry().clone();
        for entry in self
            .log
            .values()
            .filter(|entry| !entries.is_empty() && entry.index > registry.applied().index)
            .cloned()
            .collect::<Vec<_>>()
        {
            let at = Position {
                index: entry.index,
                term: entry.term,
            };
            let Ok(command) = decode_command(&entry.data) else {
                registry.skip(at);
                continue;
            };
            let applied = registry.apply(at, &command);
            if self.published_early.insert(entry.index) {
                self.publish(&registry, &applied.events);
            }
        }
        self.push_views();
    }

    fn carry_out(&mut self, installed: Option<u64>, effects: Effects) -> Result<(), FatalError> {
        self.send(effects.messages);
        if effects.restored {
            self.judge.restored(self.replica.registry());
            self.views.replace(self.replica.registry());
        }
        self.judge.applied(&effects.events);
        let registry = self.replica.registry().clone();
        self.publish(&registry, &effects.events);
        let applied = self.replica.applied();
        let rest = self.log.split_off(&(applied + 1));
        let entries = std::mem::replace(&mut self.log, rest);
        if installed.is_some() || !entries.is_empty() {
            self.note_round(installed, entries.into_values().collect())
                .map_err(FatalError::Raft)?;
        }
        for decided in effects.decided {
            if decided.id.incarnation != self.incarnation {
                continue;
            }
            if let Some((id, path)) = self.waiting.remove(&decided.id.sequence) {
                let result = encode_result(&decided.result)
                    .map_err(|error| FatalError::Raft(error.to_string()))?;
                let index = decided.index;
                self.done
                    .out
                    .answer(id, path, Reply::Decided { index, result });
            }
        }
        for (read, index) in effects.reads {
            if let Some(reading) = self.reads.get_mut(&read) {
                reading.index.get_or_insert(index);
            }
        }
        self.complete_reads();
        self.caught_up |= self.replica.leads_up_to_date();
        if effects.role_changed {
            self.role_changed();
        }
        Ok(())
    }

    fn complete_reads(&mut self) {
        let applied = self.replica.applied();
        let is_ready = |read: &Reading| read.index.is_some_and(|index| index <= applied);
        let ready: Vec<u64> = (self.reads.iter())
            .filter(|(_, read)| is_ready(read))
            .map(|(id, _)| *id)
            .collect();
        for id in ready {
            match self.reads.remove(&id).and_then(|read| read.reply) {
                Some((id, path, Question::Routes(services))) => {
                    let reads = self.routes(&services);
                    self.done.out.answer(id, path, Reply::Read(reads));
                }
                Some((id, path, Question::Lost { via, key })) => {
                    let missing = self.judge.renew(via, std::slice::from_ref(&key));
                    if let Some(missing) = missing {
                        self.renewed(id, path, &key, !missing.is_empty());
                    }
                }
                None => self.caught_up = true,
            }
        }
    }

    fn role_changed(&mut self) {
        if !self.leads() {
            let reply = match self.setup.planted {
                Some(Planted::UnknownIsFailed) => Reply::NotDone,
                _ => Reply::Unknown,
            };
            for (_, (id, path)) in std::mem::take(&mut self.waiting) {
                self.done.out.answer(id, path, reply.clone());
            }
        }
        let leads = self.leads() && self.replica.leads_up_to_date();
        let term = leads.then(|| self.replica.term());
        self.judge.leads_in(term);
        if let (Some(Planted::NoGrace), Some(term)) = (self.setup.planted, term) {
            self.judge.leases_mut().lead(LeaseTime::default(), term);
        }
    }

    fn publish(&self, registry: &Registry, events: &[Event]) {
        let changed: BTreeSet<&ServiceName> = (events.iter())
            .filter_map(|event| match event {
                Event::ServiceChanged(service) | Event::ServiceEnded(service, _) => Some(service),
                _ => None,
            })
            .collect();
        self.views.publish(registry, changed);
    }

    fn push_views(&mut self) {
        if !self.caught_up {
            return;
        }
        for ((watcher, service), sent) in &mut self.watching {
            let latest = self.views.latest(service);
            if latest.revision() == *sent || (latest.present().is_none() && *sent == 0) {
                continue;
            }
            *sent = latest.revision();
            let view = View {
                service: service.clone(),
                revision: latest.revision(),
                bytes: latest.present().map(|view| view.encoded().bytes.clone()),
            };
            let path = vec![Node::Watcher(*watcher)];
            self.done.out.answer(0, path, Reply::View(view));
        }
    }

    fn compact(&mut self) -> Result<(), FatalError> {
        let Some(job) = self.replica.due_snapshot() else {
            return Ok(());
        };
        let Some(compaction) = self.replica.compaction(job.run()?)? else {
            return Ok(());
        };
        if let Some(late) = self.unwritten.take() {
            self.write(late)?;
        }
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
        Ok(())
    }

    fn send(&mut self, messages: Vec<Message>) {
        for message in messages {
            let to = Node::Replica(message.to);
            let bytes = Bytes::from(message::to_wire(message).encode_to_vec());
            self.done.out.sends.push((to, Packet::Raft(bytes)));
        }
    }

    pub(super) fn note_round(
        &mut self,
        restored_at: Option<u64>,
        entries: Vec<Entry>,
    ) -> Result<(), String> {
        let registry = self.replica.registry();
        let state = encode_state(self.replica.membership(), registry).map_err(|e| e.to_string())?;
        self.done.rounds.push(AppliedRound {
            restored_at,
            entries,
            applied: registry.applied().index,
            state_hash: trimtab_proto::checksum(&state),
        });
        Ok(())
    }
}
