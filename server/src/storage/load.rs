//! Reading everything back at start: checked record by record, nothing skipped.

use std::fmt;

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use redb::{ReadOnlyTable, ReadTransaction, ReadableDatabase as _, ReadableTable as _};
use trimtab_proto::internal::v1::{Entry, HardState, Snapshot};

use super::error::StorageError;
use super::file::{
    KEY_HARD_STATE, KEY_LOG_BASE, KEY_SNAPSHOT, LOG, LogBase, META, SNAPSHOT, Saved,
    SnapshotHeadRecord, Storage, index_of,
};
use super::open::contain;
use super::record::unseal;
use super::room::room_for;

impl Storage {
    /// Everything on disk, checked; `None` when nothing was founded yet.
    ///
    /// # Errors
    ///
    /// When anything is damaged or does not fit together. Nothing is skipped.
    pub fn load(&mut self) -> Result<Option<Saved>, StorageError> {
        let path = self.path.clone();
        contain(&path, || self.load_all())
    }

    /// The data of the latest snapshot, checked; it is the one of entry `index`.
    ///
    /// # Errors
    ///
    /// When it cannot be read, is damaged, or is another.
    pub fn snapshot(&self, index: u64) -> Result<Bytes, StorageError> {
        const WHAT: &str = "the snapshot";
        contain(&self.path, || {
            let read = |error: &dyn fmt::Display| self.read_error(WHAT, error);
            let database = self.database().map_err(|error| read(&error))?;
            let transaction = database.begin_read().map_err(|error| read(&error))?;
            let meta = transaction.open_table(META).map_err(|error| read(&error))?;
            let snapshot = self.load_snapshot(&transaction, &meta)?;
            match index_of(&snapshot) {
                found if found == index => Ok(snapshot.data),
                found => Err(self.damaged(WHAT, &format!("it is of entry {found}, not {index}"))),
            }
        })
    }

    fn load_all(&mut self) -> Result<Option<Saved>, StorageError> {
        let reading = "the saved state";
        let transaction = self
            .database()
            .map_err(|error| self.read_error(reading, &error))?
            .begin_read()
            .map_err(|error| self.read_error(reading, &error))?;
        let meta = transaction
            .open_table(META)
            .map_err(|error| self.read_error(reading, &error))?;
        let Some(hard_state) = self.meta::<HardState>(&meta, KEY_HARD_STATE, "the hard state")?
        else {
            return Ok(None);
        };
        let snapshot = self.load_snapshot(&transaction, &meta)?;
        let base = self
            .meta::<Entry>(&meta, KEY_LOG_BASE, "the log's base")?
            .map(|entry| LogBase {
                index: entry.index,
                term: entry.term,
            })
            .ok_or_else(|| self.damaged("the log's base", "it is missing"))?;
        let log = transaction
            .open_table(LOG)
            .map_err(|error| self.read_error("the log", &error))?;
        let entries = self.load_entries(&log, base)?;
        let saved = Saved {
            hard_state,
            snapshot,
            base,
            entries,
        };
        self.check_fit(&saved)?;
        self.last_index = last_index(&saved);
        Ok(Some(saved))
    }

    fn meta<M: prost::Message + Default>(
        &self,
        meta: &ReadOnlyTable<u64, &'static [u8]>,
        key: u64,
        what: &'static str,
    ) -> Result<Option<M>, StorageError> {
        let Some(record) = meta.get(key).map_err(|e| self.read_error(what, &e))? else {
            return Ok(None);
        };
        let payload = unseal(key, record.value()).map_err(|reason| self.damaged(what, &reason))?;
        M::decode(payload)
            .map(Some)
            .map_err(|error| self.damaged(what, &error.to_string()))
    }

    fn load_snapshot(
        &self,
        transaction: &ReadTransaction,
        meta: &ReadOnlyTable<u64, &'static [u8]>,
    ) -> Result<Snapshot, StorageError> {
        const WHAT: &str = "the snapshot";
        let head = self
            .meta::<SnapshotHeadRecord>(meta, KEY_SNAPSHOT, WHAT)?
            .ok_or_else(|| self.damaged(WHAT, "it is missing"))?;
        let table = transaction
            .open_table(SNAPSHOT)
            .map_err(|e| self.read_error(WHAT, &e))?;
        let mut data = BytesMut::with_capacity(room_for(head.data_length));
        let index = head.metadata.as_ref().map_or(0, |it| it.index);
        let pieces = table.range((index, 0)..=(index, u64::MAX));
        for (expected, piece) in pieces.map_err(|e| self.read_error(WHAT, &e))?.enumerate() {
            let (key, piece) = piece.map_err(|e| self.read_error(WHAT, &e))?;
            if key.value().1 != expected as u64 {
                return Err(self.damaged(WHAT, &format!("piece {expected} is missing")));
            }
            data.extend_from_slice(piece.value());
        }
        if data.len() as u64 != head.data_length {
            return Err(self.damaged(
                WHAT,
                &format!("{} bytes of {}", data.len(), head.data_length),
            ));
        }
        if trimtab_proto::checksum(&data) != head.data_checksum {
            return Err(self.damaged(WHAT, "the checksum does not match"));
        }
        Ok(Snapshot {
            data: data.freeze(),
            metadata: head.metadata,
        })
    }

    fn load_entries(
        &self,
        log: &ReadOnlyTable<u64, &'static [u8]>,
        base: LogBase,
    ) -> Result<Vec<Entry>, StorageError> {
        let mut entries = Vec::new();
        for record in log.iter().map_err(|e| self.read_error("the log", &e))? {
            let (key, record) = record.map_err(|e| self.read_error("the log", &e))?;
            let index = key.value();
            let damaged = |reason: &str| self.damaged(&format!("log entry {index}"), reason);
            let expected = base.index + entries.len() as u64 + 1;
            if index != expected {
                return Err(damaged(&format!("entry {expected} should stand here")));
            }
            let payload = unseal(index, record.value()).map_err(|reason| damaged(&reason))?;
            // Decoded from shared bytes, so that an entry's data is one
            // allocation and not two.
            let entry = Entry::decode(Bytes::copy_from_slice(payload))
                .map_err(|error| damaged(&error.to_string()))?;
            if entry.index != index {
                return Err(damaged(&format!("it says it is entry {}", entry.index)));
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// What a healthy file always holds; Raft would panic on anything else.
    fn check_fit(&self, saved: &Saved) -> Result<(), StorageError> {
        let metadata = saved.snapshot.metadata.clone().unwrap_or_default();
        let commit = saved.hard_state.commit;
        let last = last_index(saved);
        let term_there = saved
            .entries
            .iter()
            .find(|entry| entry.index == metadata.index)
            .map_or(saved.base.term, |entry| entry.term);
        let misfit = if metadata.index < saved.base.index {
            Some(format!("the log begins after entry {}", saved.base.index))
        } else if metadata.index > last {
            Some(format!("the log ends at {last}"))
        } else if term_there != metadata.term {
            Some(format!("the log has term {term_there} there"))
        } else if commit < metadata.index {
            Some(format!("only {commit} was committed"))
        } else {
            None
        };
        if let Some(reason) = misfit {
            let what = format!("the snapshot of entry {}", metadata.index);
            return Err(self.damaged(&what, &reason));
        }
        if commit > last {
            let reason = format!("entry {commit} was committed, the log ends at {last}");
            return Err(self.damaged("the log", &reason));
        }
        Ok(())
    }

    pub(super) fn read_error(&self, what: &'static str, error: &dyn fmt::Display) -> StorageError {
        match self.failure(error) {
            Some(reason) => StorageError::Read {
                path: self.path.clone(),
                what,
                reason,
            },
            None => self.damaged(what, &error.to_string()),
        }
    }
}

fn last_index(saved: &Saved) -> u64 {
    saved
        .entries
        .last()
        .map_or(saved.base.index, |entry| entry.index)
}
