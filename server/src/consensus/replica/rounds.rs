//! One round: what must be durable, what is sent before and after, and what is applied then.

use std::mem;

use super::*;

impl Replica {
    /// The next round's work, if there is any and the last one was saved.
    pub fn next_batch(&mut self) -> Option<Batch> {
        let has_work = self.node.has_ready() || self.owes_commit;
        if self.round.is_some() || !has_work {
            return None;
        }
        let mut ready = self.node.ready();
        if let Some(hard_state) = ready.hs() {
            self.hard_state = hard_state.clone();
        }
        let entries = ready.take_entries();
        let snapshot = Some(ready.snapshot())
            .filter(|snapshot| !snapshot.is_empty())
            .cloned();
        let decides_members = self.owes_commit || self.decides_members(ready.committed_entries());
        let save = (ready.must_sync() || decides_members).then(|| Save {
            snapshot: snapshot.clone(),
            entries: entries.clone(),
            hard_state: self.hard_state.clone(),
        });
        if save.is_some() {
            self.saved_commit = self.hard_state.commit;
            self.owes_commit = false;
        }
        let mut messages = ready.take_messages();
        let mut messages_after_save = ready.take_persisted_messages();
        if decides_members {
            let first = mem::take(&mut self.held)
                .into_iter()
                .chain(messages.drain(..));
            messages_after_save.splice(0..0, first);
        }
        let batch = Batch {
            messages,
            save,
            messages_after_save,
        };
        self.round = Some(Round {
            ready,
            snapshot,
            entries,
        });
        Some(batch)
    }

    /// Whether a change of members is committed, among `committed` or further
    /// on, that is not on disk as such. Whoever it removes may be gone for
    /// good soon after it hears of it: were it forgotten here by then, it
    /// would be asked for its vote.
    fn decides_members(&self, committed: &[Entry]) -> bool {
        let not_saved = self.saved_commit + 1..=self.hard_state.commit;
        let leads = self.node.raft.state == StateRole::Leader;
        let is_change = |entry: &Entry| entry.get_entry_type() != EntryType::EntryNormal;
        leads && not_saved.contains(&self.node.raft.pending_conf_index)
            || committed
                .iter()
                .any(|it| is_change(it) && not_saved.contains(&it.index))
    }

    /// The last batch is durable: goes on from there, and applies what is
    /// committed.
    ///
    /// # Errors
    ///
    /// When a committed entry or snapshot cannot be applied. The replica must
    /// stop for good.
    pub fn saved(&mut self) -> Result<Effects, FatalError> {
        let mut effects = Effects::default();
        let Some(mut round) = self.round.take() else {
            return Ok(effects);
        };
        let mut applied = None;
        if let Some(snapshot) = round.snapshot {
            applied = Some(snapshot.get_metadata().index);
            self.install(snapshot)?;
            effects.restored = true;
            effects.members_changed = true;
        }
        self.log_bytes_since_snapshot += round.entries.iter().map(size_of).sum::<u64>();
        self.node.mut_store().append(round.entries);
        let mut committed = round.ready.take_committed_entries();
        let reads = round.ready.take_read_states();
        let mut light = self.node.advance_append(round.ready);
        if let Some(commit) = light.commit_index() {
            self.hard_state.commit = commit;
        }
        effects.messages = light.take_messages();
        committed.append(&mut light.take_committed_entries());
        if self.decides_members(&committed) {
            self.owes_commit = true;
            self.held.append(&mut effects.messages);
        }
        for entry in committed {
            applied = Some(entry.index);
            self.apply(entry, &mut effects)?;
        }
        if let Some(applied) = applied {
            self.node.advance_apply_to(applied);
        }
        if self.is_removed() {
            self.step_down(&mut effects);
        }
        self.settle(&mut effects);
        effects.reads = reads
            .into_iter()
            .filter_map(|read| {
                let id = self.own_read(&read.request_ctx)?;
                Some((id, read.index))
            })
            .collect();
        let standing = Standing {
            leads_up_to_date: self.leads_up_to_date(),
            ..standing(&self.node)
        };
        effects.role_changed = mem::replace(&mut self.standing, standing) != standing;
        Ok(effects)
    }

    fn apply(&mut self, entry: Entry, effects: &mut Effects) -> Result<(), FatalError> {
        let at = Position {
            index: entry.index,
            term: entry.term,
        };
        if entry.get_entry_type() != EntryType::EntryNormal {
            self.registry.skip(at);
            return self.apply_change(&entry, effects);
        }
        // A new leader's first entry carries nothing.
        if entry.data.is_empty() {
            self.registry.skip(at);
            return Ok(());
        }
        let command =
            decode_command(&entry.data).map_err(|source| FatalError::UnreadableEntry {
                index: entry.index,
                source,
            })?;
        let applied = self.registry.apply(at, &command);
        effects.events.extend(applied.events);
        if let Some(id) = ProposalId::from_bytes(&entry.context) {
            effects.decided.push(Decided {
                id,
                index: entry.index,
                result: applied.outcome,
            });
        }
        Ok(())
    }
}
