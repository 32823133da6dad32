//! A replica's store: the real one, with a copy of the log to check by, and what planted bugs do to it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use raft::eraftpb::Entry;
use trimtab_proto::internal::v1 as wire;
use trimtab_registry::revision::Position;
use trimtab_registry::state::Registry;
use trimtab_server::consensus::entry::decode_command;
use trimtab_server::consensus::message;
use trimtab_server::consensus::outside::Store;
use trimtab_server::storage::error::StorageError;
use trimtab_server::storage::file::{LogBase, Round, Saved, Storage};
use trimtab_server::views::Views;

use super::observer::publish;
use crate::disk::Disk;
use crate::planted::Planted;

/// A round that a planted bug writes later.
#[derive(Debug)]
struct Late {
    entries: Vec<wire::Entry>,
    hard_state: wire::HardState,
}

/// The store of one process.
#[derive(Debug)]
pub(crate) struct Vault {
    storage: Storage,
    disk: Disk,
    planted: Option<Planted>,
    /// Entries in the log that were not seen to be applied yet.
    log: BTreeMap<u64, Entry>,
    /// The snapshot that was installed since it was asked last.
    installed: Option<u64>,
    last_index: u64,
    /// Term and index of the last entry that was kept, or of the snapshot.
    pub(super) last: (u64, u64),
    unwritten: Option<Late>,
    views: Arc<Views>,
    /// The registry after the last round, and what was shown beyond it.
    early: (Registry, BTreeSet<u64>),
}

impl Vault {
    pub(crate) fn new(
        storage: Storage,
        disk: Disk,
        planted: Option<Planted>,
        views: Arc<Views>,
    ) -> Self {
        Self {
            storage,
            disk,
            planted,
            log: BTreeMap::new(),
            installed: None,
            last_index: 0,
            last: (0, 0),
            unwritten: None,
            views,
            early: (Registry::new(), BTreeSet::new()),
        }
    }

    /// What was applied since it was asked last: the snapshot, if one was
    /// installed, and the entries up to `applied`.
    pub(crate) fn applied(&mut self, applied: &Registry) -> (Option<u64>, Vec<Entry>) {
        let rest = self.log.split_off(&(applied.applied().index + 1));
        let entries = std::mem::replace(&mut self.log, rest);
        if self.planted == Some(Planted::PublishBeforeCommit) {
            self.early.0 = applied.clone();
        }
        (self.installed.take(), entries.into_values().collect())
    }

    /// Whether something was restored that it was not asked about yet.
    pub(crate) fn was_restored(&self) -> bool {
        self.installed.is_some()
    }

    /// A process that is killed in a write does not live to see it fail.
    fn survived<T>(&self, result: Result<T, StorageError>) -> Result<T, StorageError> {
        if result.is_err() && self.disk.is_doomed() {
            return Err(StorageError::Inconsistent {
                path: PathBuf::new(),
                what: "anything",
                reason: "the process was killed".to_owned(),
            });
        }
        result
    }

    fn write(
        &mut self,
        installed: Option<&wire::Snapshot>,
        entries: &[wire::Entry],
        hard_state: &wire::HardState,
    ) -> Result<(), StorageError> {
        let mut entries = std::borrow::Cow::Borrowed(entries);
        if self.planted == Some(Planted::LostTruncation) {
            let last = self.last_index;
            entries.to_mut().retain(|entry| entry.index > last);
        }
        if let Some(last) = entries.last() {
            self.last_index = last.index;
        }
        let saved = self.storage.save(Round {
            installed,
            entries: &entries,
            hard_state,
        });
        self.survived(saved)
    }

    fn note_last(&mut self, entries: &[wire::Entry]) {
        if let Some(entry) = entries.last() {
            self.last = (entry.term, entry.index);
        }
    }

    fn note(&mut self, entry: &wire::Entry) {
        if let Ok(entry) = message::entry_from_wire(entry.clone()) {
            self.log.insert(entry.index, entry);
        }
    }

    fn save_as_planted(&mut self, round: Round<'_>) -> Result<(), StorageError> {
        if let Some(snapshot) = round.installed {
            self.last_index = index_of(snapshot);
        }
        self.write_late()?;
        match self.planted {
            Some(Planted::AcknowledgeBeforeSync) if round.installed.is_none() => {
                self.unwritten = Some(Late {
                    entries: round.entries.to_vec(),
                    hard_state: *round.hard_state,
                });
                Ok(())
            }
            Some(Planted::ForgottenVote) if round.entries.is_empty() => {
                let forgetful = wire::HardState {
                    vote: 0,
                    ..*round.hard_state
                };
                self.write(round.installed, round.entries, &forgetful)
            }
            _ => self.write(round.installed, round.entries, round.hard_state),
        }
    }

    fn write_late(&mut self) -> Result<(), StorageError> {
        match self.unwritten.take() {
            Some(late) => self.write(None, &late.entries, &late.hard_state),
            None => Ok(()),
        }
    }

    /// The planted bug: shows callers what may never be committed.
    fn publish_early(&mut self) {
        let (registry, shown) = &mut self.early;
        let after = registry.applied().index;
        for entry in self.log.range(after + 1..).map(|(_, entry)| entry) {
            let at = Position {
                index: entry.index,
                term: entry.term,
            };
            let Ok(command) = decode_command(&entry.data) else {
                registry.skip(at);
                continue;
            };
            let applied = registry.apply(at, &command);
            if shown.insert(entry.index) {
                publish(&self.views, registry, &applied.events);
            }
        }
    }
}

impl Store for Vault {
    fn reopen(&mut self) -> Result<(), StorageError> {
        self.unwritten = None;
        let reopened = self.storage.reopen();
        self.survived(reopened)
    }

    fn load(&mut self) -> Result<Option<Saved>, StorageError> {
        let loaded = self.storage.load();
        let saved = self.survived(loaded)?;
        if let Some(saved) = &saved {
            let at = index_of(&saved.snapshot);
            // A newcomer begins with nothing.
            self.installed = Some(at).filter(|at| *at > 0);
            self.last = place_of(&saved.snapshot);
            self.last_index = saved.entries.last().map_or(at, |entry| entry.index);
            self.log.clear();
            for entry in saved.entries.iter().filter(|entry| entry.index > at) {
                self.note(entry);
            }
            self.note_last(&saved.entries);
        }
        Ok(saved)
    }

    fn snapshot(&self, index: u64) -> Result<Bytes, StorageError> {
        let read = self.storage.snapshot(index);
        self.survived(read)
    }

    fn save(&mut self, round: Round<'_>) -> Result<(), StorageError> {
        self.save_as_planted(round)?;
        if let Some(snapshot) = round.installed {
            self.log.clear();
            self.installed = Some(index_of(snapshot));
            self.last = place_of(snapshot);
        }
        if let Some(first) = round.entries.first() {
            self.log.split_off(&first.index);
        }
        for entry in round.entries {
            self.note(entry);
        }
        self.note_last(round.entries);
        if self.planted == Some(Planted::PublishBeforeCommit) {
            self.publish_early();
        }
        Ok(())
    }

    fn stage(&mut self, snapshot: &wire::Snapshot, piece: usize) -> Result<(), StorageError> {
        self.write_late()?;
        let staged = self.storage.stage(snapshot, piece);
        self.survived(staged)
    }

    fn compact(
        &mut self,
        snapshot: &wire::Snapshot,
        base: LogBase,
        hard_state: &wire::HardState,
    ) -> Result<(), StorageError> {
        self.write_late()?;
        let compacted = self.storage.compact(snapshot, base, hard_state);
        self.survived(compacted)
    }
}

fn index_of(snapshot: &wire::Snapshot) -> u64 {
    place_of(snapshot).1
}

fn place_of(snapshot: &wire::Snapshot) -> (u64, u64) {
    let metadata = snapshot.metadata.as_ref();
    metadata.map_or((0, 0), |metadata| (metadata.term, metadata.index))
}
