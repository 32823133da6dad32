//! The log since the latest snapshot, in memory, as the Raft library reads it.
//!
//! It holds what is on disk (or about to be, within one round) and nothing
//! else; the library keeps what is not yet there by itself. Of the snapshot it
//! holds all but the data: a registry's worth of memory that is needed only
//! when a follower is sent it, and read from the disk then.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, StorageError};

use super::membership::names;

/// What an entry costs beyond its data, roughly, when messages are sized.
const ENTRY_OVERHEAD_BYTES: u64 = 32;

/// A place in the log: an index and the term of the entry there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The index.
    pub index: u64,
    /// The term.
    pub term: u64,
}

/// Snapshot, entries after it, and some before it for followers that are
/// only a little behind.
#[derive(Debug)]
pub struct Log {
    hard_state: HardState,
    /// Without its data.
    snapshot: Snapshot,
    snapshot_bytes: u64,
    /// The last place that was cut off; entries begin after it.
    base: Place,
    entries: VecDeque<Entry>,
    /// The entry that took each member in: a snapshot from before would not be
    /// for it.
    joined: BTreeMap<u64, u64>,
    /// A member asked for a snapshot, and this one is not for it. Noted while
    /// the library only reads.
    is_newer_wanted: Cell<bool>,
}

impl Log {
    /// A log as it was found on disk, where it was checked to fit together.
    pub fn new(
        hard_state: HardState,
        snapshot: Snapshot,
        base: Place,
        entries: Vec<Entry>,
    ) -> Self {
        let (snapshot, snapshot_bytes) = without_data(snapshot);
        Self {
            hard_state,
            snapshot,
            snapshot_bytes,
            base,
            entries: entries.into(),
            joined: BTreeMap::new(),
            is_newer_wanted: Cell::new(false),
        }
    }

    /// The first index still held.
    pub fn first(&self) -> u64 {
        self.base.index + 1
    }

    /// The last index held.
    pub fn last(&self) -> u64 {
        self.base.index + self.entries.len() as u64
    }

    /// The latest snapshot, without its data.
    pub fn latest_snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The size of its data.
    pub fn snapshot_bytes(&self) -> u64 {
        self.snapshot_bytes
    }

    /// The members are these now, each with the entry that took it in.
    pub fn set_joined(&mut self, joined: impl Iterator<Item = (u64, u64)>) {
        self.joined = joined.collect();
    }

    /// Whether a member waits for a newer snapshot than the latest one.
    pub fn is_newer_wanted(&self) -> bool {
        self.is_newer_wanted.get()
    }

    /// Takes entries that were made durable. Whatever stood at or after the
    /// first of them is replaced.
    pub fn append(&mut self, entries: Vec<Entry>) {
        let Some(first) = entries.first() else {
            return;
        };
        let keep = first.index.saturating_sub(self.first());
        self.entries
            .truncate(usize::try_from(keep).unwrap_or(usize::MAX));
        self.entries.extend(entries);
    }

    /// Begins anew after a snapshot received from the leader.
    pub fn install(&mut self, snapshot: Snapshot) {
        self.base = Place {
            index: snapshot.get_metadata().index,
            term: snapshot.get_metadata().term,
        };
        self.entries.clear();
        (self.snapshot, self.snapshot_bytes) = without_data(snapshot);
    }

    /// Takes a newer snapshot of our own making and forgets up to `base`.
    pub fn compact(&mut self, snapshot: Snapshot, base: Place) {
        let cut = base.index.saturating_sub(self.base.index);
        let cut = usize::try_from(cut)
            .unwrap_or(usize::MAX)
            .min(self.entries.len());
        self.entries.drain(..cut);
        self.base = base;
        (self.snapshot, self.snapshot_bytes) = without_data(snapshot);
        self.is_newer_wanted.set(false);
    }

    /// The term of the entry at `index`, if it is known.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        if index == self.snapshot.get_metadata().index {
            return Some(self.snapshot.get_metadata().term);
        }
        self.entry(index).map(|entry| entry.term)
    }

    /// Where to cut when a snapshot of `applied` is taken: at most `entries`
    /// and `bytes` are kept before it.
    pub fn cut_before(&self, applied: u64, entries: u64, bytes: u64) -> Option<Place> {
        let mut index = applied;
        let mut kept_bytes = 0;
        while index > self.base.index && applied - index < entries {
            kept_bytes += size_of(self.entry(index)?);
            if kept_bytes > bytes {
                break;
            }
            index -= 1;
        }
        let term = self.term_at(index)?;
        Some(Place { index, term })
    }

    /// The entries after `index`, in bytes.
    pub fn bytes_after(&self, index: u64) -> u64 {
        let after = self.entries.iter().rev();
        let after = after.take_while(|entry| entry.index > index);
        after.map(size_of).sum()
    }

    fn entry(&self, index: u64) -> Option<&Entry> {
        let offset = index.checked_sub(self.first())?;
        self.entries.get(usize::try_from(offset).ok()?)
    }
}

impl raft::Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let members: ConfState = self.snapshot.get_metadata().get_conf_state().clone();
        Ok(RaftState::new(self.hard_state.clone(), members))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.first() {
            return Err(StorageError::Compacted.into());
        }
        if high > self.last() + 1 {
            return Err(StorageError::Unavailable.into());
        }
        let max_size = max_size.into().unwrap_or(raft::NO_LIMIT);
        let mut size: u64 = 0;
        let mut taken = Vec::new();
        for index in low..high {
            let entry = self.entry(index).ok_or(StorageError::Unavailable)?;
            size = size.saturating_add(size_of(entry));
            // One entry is always given, or the log could never move on.
            if size > max_size && !taken.is_empty() {
                break;
            }
            taken.push(entry.clone());
        }
        Ok(taken)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if let Some(term) = self.term_at(index) {
            return Ok(term);
        }
        if index < self.first() {
            return Err(StorageError::Compacted.into());
        }
        Err(StorageError::Unavailable.into())
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// Whoever sends the message that it goes into puts its data there.
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let metadata = self.snapshot.get_metadata();
        // A snapshot that does not name its receiver would be ignored there;
        // one that names another who had its id before must not be taken.
        let joined = self.joined.get(&to).copied().unwrap_or(u64::MAX);
        let is_for = metadata.index >= joined && names(metadata.get_conf_state(), to);
        if metadata.index < request_index || !is_for {
            self.is_newer_wanted.set(true);
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        Ok(self.snapshot.clone())
    }
}

fn without_data(mut snapshot: Snapshot) -> (Snapshot, u64) {
    let data = std::mem::take(&mut snapshot.data);
    (snapshot, data.len() as u64)
}

/// What an entry counts for when messages and logs are sized, in bytes.
pub fn size_of(entry: &Entry) -> u64 {
    ENTRY_OVERHEAD_BYTES + entry.data.len() as u64 + entry.context.len() as u64
}

#[cfg(test)]
mod tests {
    use raft::Storage as _;

    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry {
            index,
            term,
            data: vec![0; 10].into(),
            ..Entry::default()
        }
    }

    fn snapshot(index: u64, term: u64) -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.mut_metadata().index = index;
        snapshot.mut_metadata().term = term;
        snapshot.mut_metadata().mut_conf_state().voters = vec![1, 2];
        snapshot.data = vec![7].into();
        snapshot
    }

    fn log() -> Log {
        let base = Place { index: 4, term: 1 };
        let entries = (5..=9).map(|index| entry(index, 2)).collect();
        let mut log = Log::new(HardState::default(), snapshot(6, 2), base, entries);
        log.set_joined([(1, 1), (2, 1)].into_iter());
        log
    }

    fn taken(log: &Log, low: u64, high: u64, max_size: u64) -> raft::Result<Vec<u64>> {
        let entries = log.entries(low, high, max_size, GetEntriesContext::empty(false))?;
        Ok(entries.iter().map(|entry| entry.index).collect())
    }

    #[test]
    fn terms_and_entries_are_known_from_the_base_to_the_end() {
        let log = log();
        assert_eq!(log.first_index(), Ok(5));
        assert_eq!(log.last_index(), Ok(9));
        assert_eq!(log.term(3), Err(StorageError::Compacted.into()));
        assert_eq!(log.term(4), Ok(1));
        assert_eq!(log.term(9), Ok(2));
        assert_eq!(log.term(10), Err(StorageError::Unavailable.into()));
        assert_eq!(taken(&log, 4, 6, 1000), Err(StorageError::Compacted.into()));
        assert_eq!(taken(&log, 5, 8, 1000), Ok(vec![5, 6, 7]));
        assert_eq!(taken(&log, 5, 10, 0), Ok(vec![5]));
        assert_eq!(taken(&log, 5, 10, 90), Ok(vec![5, 6]));
    }

    #[test]
    fn appending_replaces_what_stands_at_or_after_the_first() {
        let mut log = log();
        log.append(vec![entry(7, 3), entry(8, 3)]);
        assert_eq!(log.last(), 8);
        assert_eq!(log.term_at(6), Some(2));
        assert_eq!(log.term_at(7), Some(3));
        assert_eq!(log.term_at(9), None);
    }

    #[test]
    fn a_cut_keeps_some_entries_for_slow_followers() {
        let mut log = log();
        assert_eq!(
            log.cut_before(9, 2, 1000),
            Some(Place { index: 7, term: 2 })
        );
        assert_eq!(
            log.cut_before(9, 9, 1000),
            Some(Place { index: 4, term: 1 })
        );
        assert_eq!(log.cut_before(9, 9, 50), Some(Place { index: 8, term: 2 }));
        log.compact(snapshot(9, 2), Place { index: 7, term: 2 });
        assert_eq!((log.first(), log.last()), (8, 9));
        assert_eq!(log.term_at(7), Some(2));
        assert_eq!(log.term_at(6), None);
    }

    #[test]
    fn a_snapshot_has_a_place_and_names_its_receiver() {
        let log = log();
        let unavailable = StorageError::SnapshotTemporarilyUnavailable;
        let taken = log.snapshot(6, 2).map(|it| it.get_metadata().index);
        assert_eq!((taken, log.snapshot_bytes()), (Ok(6), 1));
        assert_eq!(log.snapshot(0, 3), Err(unavailable.into()));
        let unavailable = StorageError::SnapshotTemporarilyUnavailable;
        assert_eq!(log.snapshot(7, 2), Err(unavailable.into()));
    }

    #[test]
    fn a_snapshot_from_before_a_member_came_is_not_for_it() {
        let mut log = log();
        // Another replica had its id before.
        log.set_joined([(1, 1), (2, 7)].into_iter());
        let unavailable = StorageError::SnapshotTemporarilyUnavailable;
        assert!(!log.is_newer_wanted());
        assert_eq!(log.snapshot(0, 2), Err(unavailable.into()));
        assert!(log.is_newer_wanted());
        log.compact(snapshot(8, 2), Place { index: 7, term: 2 });
        assert!(!log.is_newer_wanted());
        assert!(log.snapshot(0, 2).is_ok());
    }

    #[test]
    fn an_installed_snapshot_begins_the_log_anew() {
        let mut log = log();
        log.install(snapshot(20, 5));
        assert_eq!((log.first(), log.last()), (21, 20));
        assert_eq!(log.term_at(20), Some(5));
        log.append(vec![entry(21, 5)]);
        assert_eq!(log.last(), 21);
    }
}
