//! The file itself: opened under one identity, written in transactions.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message as _;
use redb::{Database, TableDefinition, WriteTransaction};
use trimtab_proto::internal::v1::{Entry, HardState, Snapshot, SnapshotMetadata};

use super::disk::Notes;
use super::error::StorageError;
pub use super::identity::Identity;
use super::open::Opener;
use super::record::seal;

/// The file's name in the data directory.
pub const FILE_NAME: &str = "replica.redb";

/// The number of the layout below. Another number is refused.
pub(super) const FORMAT: u32 = 3;

/// A snapshot is stored in pieces of this size, because one huge value would
/// be copied whole by the database; and written so between rounds, which wait
/// for one piece at most.
pub(crate) const PIECE_BYTES: usize = 1 << 20;

pub(super) const META: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("meta");
pub(super) const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// By the snapshot's last entry and the piece's number: besides the pieces of
/// the snapshot that counts there may be some of one that is being written.
pub(super) const SNAPSHOT: TableDefinition<'_, (u64, u64), &[u8]> =
    TableDefinition::new("snapshot");

/// Keys of the `meta` table. The format number is read before anything else
/// is believed, so it stands alone.
pub(super) const KEY_FORMAT: u64 = 0;
pub(super) const KEY_IDENTITY: u64 = 1;
pub(super) const KEY_HARD_STATE: u64 = 2;
pub(super) const KEY_LOG_BASE: u64 = 3;
pub(super) const KEY_SNAPSHOT: u64 = 4;

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBase {
    /// The last index that was cut off.
    pub index: u64,
    /// The term of the entry that stood there.
    pub term: u64,
}

/// Everything a replica needs to start again.
#[derive(Debug, Clone, PartialEq)]
pub struct Saved {
    /// Term, vote and a commit index; the true commit index may be higher.
    pub hard_state: HardState,
    /// The latest snapshot.
    pub snapshot: Snapshot,
    /// Where the log begins: its first entry is the one after it. At most
    /// the snapshot's index.
    pub base: LogBase,
    /// The entries after `base`, without a gap.
    pub entries: Vec<Entry>,
}

/// What one Raft round must make durable.
#[derive(Debug, Clone, Copy)]
pub struct Round<'a> {
    /// A snapshot received from the leader. It replaces snapshot and log.
    pub installed: Option<&'a Snapshot>,
    /// Entries to append. Whatever stands at or after the first is replaced.
    pub entries: &'a [Entry],
    /// The hard state that goes with them.
    pub hard_state: &'a HardState,
}

/// A replica's durable state.
///
/// Writes return when the data is on disk. One process may have it open.
#[derive(Debug)]
pub struct Storage {
    /// None between two openings.
    pub(super) database: Option<Database>,
    pub(super) notes: Arc<Notes>,
    pub(super) opener: Opener,
    pub(super) path: PathBuf,
    pub(super) identity: Identity,
    /// The last index in the log, so that plain appends need not look.
    pub(super) last_index: u64,
    pub(super) staged: Staged,
}

/// A snapshot of which pieces are written, though it does not count yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Staged {
    /// Its last entry; 0: there is none.
    index: u64,
    pieces: usize,
}

impl Storage {
    /// Whose data it is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Begins the life of a replica as a member of this cluster, with its
    /// first snapshot and hard state: all of it, or nothing.
    ///
    /// # Errors
    ///
    /// When the write fails.
    pub fn found(
        &mut self,
        cluster_id: u64,
        snapshot: &Snapshot,
        hard_state: &HardState,
    ) -> Result<(), StorageError> {
        let identity = Identity {
            cluster_id,
            ..self.identity
        };
        let round = Round {
            installed: Some(snapshot),
            entries: &[],
            hard_state,
        };
        self.write(round, Some(identity))?;
        self.identity = identity;
        Ok(())
    }

    /// Makes one round durable: all of it or, on error, perhaps nothing.
    ///
    /// # Errors
    ///
    /// When the write or the sync fails, or the entries leave a gap.
    pub fn save(&mut self, round: Round<'_>) -> Result<(), StorageError> {
        self.write(round, None)
    }

    fn write(&mut self, round: Round<'_>, identity: Option<Identity>) -> Result<(), StorageError> {
        const WHAT: &str = "a round of the log";
        let mut last_index = self.last_index;
        let write = |error: &dyn fmt::Display| self.write_error(WHAT, error);
        let transaction = self.begin().map_err(|e| write(&e))?;
        if let Some(identity) = identity {
            let mut meta = transaction.open_table(META).map_err(|e| write(&e))?;
            meta.insert(KEY_IDENTITY, identity.to_record().as_slice())
                .map_err(|e| write(&e))?;
        }
        if let Some(snapshot) = round.installed {
            last_index = self.write_snapshot(&transaction, snapshot, 0)?;
            let metadata = snapshot.metadata.clone().unwrap_or_default();
            self.write_base(
                &transaction,
                LogBase {
                    index: metadata.index,
                    term: metadata.term,
                },
            )?;
            let mut log = transaction.open_table(LOG).map_err(|e| write(&e))?;
            log.retain(|_, _| false).map_err(|e| write(&e))?;
        }
        if let (Some(first), Some(last)) = (round.entries.first(), round.entries.last()) {
            if first.index > last_index.saturating_add(1) {
                return Err(StorageError::Inconsistent {
                    path: self.path.clone(),
                    what: WHAT,
                    reason: format!(
                        "the log ends at {last_index}, the entries begin at {}",
                        first.index
                    ),
                });
            }
            let mut log = transaction.open_table(LOG).map_err(|e| write(&e))?;
            if first.index <= last_index {
                log.retain_in(first.index.., |_, _| false)
                    .map_err(|e| write(&e))?;
            }
            for entry in round.entries {
                let record = seal(entry.index, &entry.encode_to_vec());
                log.insert(entry.index, record.as_slice())
                    .map_err(|e| write(&e))?;
            }
            last_index = last.index;
        }
        self.write_meta(&transaction, KEY_HARD_STATE, round.hard_state)?;
        transaction.commit().map_err(|e| write(&e))?;
        self.last_index = last_index;
        Ok(())
    }

    /// Makes one piece of a snapshot durable, the pieces being numbered from 0
    /// and given in order. It counts when [`Storage::compact`] is given it.
    ///
    /// # Errors
    ///
    /// When the write or the sync fails, or it is not the next piece.
    pub fn stage(&mut self, snapshot: &Snapshot, piece: usize) -> Result<(), StorageError> {
        const WHAT: &str = "a piece of a snapshot";
        let index = index_of(snapshot);
        let expected = self.staged_of(index);
        let start = piece * PIECE_BYTES;
        let bytes = snapshot.data.get(start..).filter(|it| !it.is_empty());
        let Some(bytes) = bytes.filter(|_| piece == 0 || piece == expected) else {
            return Err(StorageError::Inconsistent {
                path: self.path.clone(),
                what: WHAT,
                reason: format!("piece {piece} was given instead of {expected}"),
            });
        };
        let write = |error: &dyn fmt::Display| self.write_error(WHAT, error);
        let bytes = bytes.get(..PIECE_BYTES).unwrap_or(bytes);
        let transaction = self.begin().map_err(|e| write(&e))?;
        {
            let mut table = transaction.open_table(SNAPSHOT).map_err(|e| write(&e))?;
            table
                .insert((index, piece as u64), bytes)
                .map_err(|e| write(&e))?;
        }
        transaction.commit().map_err(|e| write(&e))?;
        let pieces = piece + 1;
        self.staged = Staged { index, pieces };
        Ok(())
    }

    /// How many pieces of this snapshot are written.
    fn staged_of(&self, index: u64) -> usize {
        match self.staged {
            Staged { index: it, pieces } if it == index => pieces,
            _ => 0,
        }
    }

    /// Replaces the snapshot with a newer one of our own making, writing those
    /// pieces that were not staged, and cuts the log up to `base`, in one
    /// transaction.
    ///
    /// # Errors
    ///
    /// When the write or the sync fails.
    pub fn compact(
        &mut self,
        snapshot: &Snapshot,
        base: LogBase,
        hard_state: &HardState,
    ) -> Result<(), StorageError> {
        let write = |error: &dyn fmt::Display| self.write_error("a snapshot", error);
        let staged = self.staged_of(index_of(snapshot));
        let transaction = self.begin().map_err(|e| write(&e))?;
        self.write_snapshot(&transaction, snapshot, staged)?;
        self.write_base(&transaction, base)?;
        {
            let mut log = transaction.open_table(LOG).map_err(|e| write(&e))?;
            log.retain_in(..=base.index, |_, _| false)
                .map_err(|e| write(&e))?;
        }
        self.write_meta(&transaction, KEY_HARD_STATE, hard_state)?;
        transaction.commit().map_err(|e| write(&e))?;
        self.staged = Staged::default();
        Ok(())
    }

    /// A transaction that is committed in two phases. In one, redb could not
    /// tell a newest commit that the disk damaged from one that was torn by a
    /// crash: it would go back to the one before, and what was acknowledged
    /// since would be gone without a word.
    pub(super) fn begin(&self) -> Result<WriteTransaction, redb::TransactionError> {
        let mut transaction = self.database()?.begin_write()?;
        transaction.set_two_phase_commit(true);
        Ok(transaction)
    }

    fn write_snapshot(
        &self,
        transaction: &WriteTransaction,
        snapshot: &Snapshot,
        staged: usize,
    ) -> Result<u64, StorageError> {
        let write = |error: &dyn fmt::Display| self.write_error("a snapshot", error);
        let head = SnapshotHeadRecord {
            metadata: snapshot.metadata.clone(),
            data_length: snapshot.data.len() as u64,
            data_checksum: trimtab_proto::checksum(&snapshot.data),
        };
        self.write_meta(transaction, KEY_SNAPSHOT, &head)?;
        let mut table = transaction.open_table(SNAPSHOT).map_err(|e| write(&e))?;
        let index = index_of(snapshot);
        table
            .retain(|(of, piece), _| of == index && piece < staged as u64)
            .map_err(|e| write(&e))?;
        let pieces = snapshot.data.chunks(PIECE_BYTES).enumerate();
        for (number, piece) in pieces.skip(staged) {
            table
                .insert((index, number as u64), piece)
                .map_err(|e| write(&e))?;
        }
        Ok(index)
    }

    fn write_base(
        &self,
        transaction: &WriteTransaction,
        base: LogBase,
    ) -> Result<(), StorageError> {
        // An entry without data says no more and no less than a place.
        let place = Entry {
            index: base.index,
            term: base.term,
            ..Entry::default()
        };
        self.write_meta(transaction, KEY_LOG_BASE, &place)
    }

    fn write_meta(
        &self,
        transaction: &WriteTransaction,
        key: u64,
        message: &impl prost::Message,
    ) -> Result<(), StorageError> {
        let write = |error: &dyn fmt::Display| self.write_error("the replica's state", error);
        let record = seal(key, &message.encode_to_vec());
        let mut meta = transaction.open_table(META).map_err(|e| write(&e))?;
        meta.insert(key, record.as_slice()).map_err(|e| write(&e))?;
        Ok(())
    }

    pub(super) fn damaged(&self, what: &str, reason: &str) -> StorageError {
        StorageError::Damaged {
            path: self.path.clone(),
            what: what.to_owned(),
            reason: reason.to_owned(),
        }
    }

    /// The disk failed, or, if it did not, the database cannot make sense of
    /// what it holds.
    pub(super) fn write_error(&self, what: &'static str, error: &dyn fmt::Display) -> StorageError {
        match self.failure(error) {
            Some(reason) => StorageError::Write {
                path: self.path.clone(),
                what,
                reason,
            },
            None => self.damaged("the file", &error.to_string()),
        }
    }

    /// What the disk said, if it failed.
    pub(super) fn failure(&self, error: &dyn fmt::Display) -> Option<String> {
        match &self.database {
            Some(_) => self.notes.failure(),
            None => Some(error.to_string()),
        }
    }
}

pub(super) fn index_of(snapshot: &Snapshot) -> u64 {
    let metadata = snapshot.metadata.as_ref();
    metadata.map_or(0, |metadata| metadata.index)
}

/// The snapshot's record in the `meta` table; its data stands in chunks.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SnapshotHeadRecord {
    #[prost(message, optional, tag = "1")]
    pub(super) metadata: Option<SnapshotMetadata>,
    #[prost(uint64, tag = "2")]
    pub(super) data_length: u64,
    #[prost(fixed64, tag = "3")]
    pub(super) data_checksum: u64,
}
