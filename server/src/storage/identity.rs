//! Whose data it is: checked before anything else in the file is believed.

use std::fmt;
use std::path::Path;

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableError};

use super::error::StorageError;
use super::file::{FORMAT, KEY_FORMAT, KEY_IDENTITY, LOG, META, SNAPSHOT, Storage};
use super::record::{seal, unseal};

/// Whose data it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The replica's id. Fixed when the file is made.
    pub replica_id: u64,
    /// The file's own number, drawn at random when it is made; never 0. By it
    /// the other replicas tell this file from one that is lost.
    pub disk_id: u64,
    /// The cluster, a hash of its founders; 0 as long as it is of none.
    pub cluster_id: u64,
}

impl Identity {
    /// That of a new file, if none is there: of no cluster yet. `random` is
    /// drawn for it.
    pub fn of_new(replica_id: u64, random: u64) -> Self {
        Self {
            replica_id,
            disk_id: random.max(1),
            cluster_id: 0,
        }
    }

    pub(super) fn to_record(self) -> Vec<u8> {
        let numbers = [self.replica_id, self.disk_id, self.cluster_id];
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        seal(KEY_IDENTITY, &bytes)
    }

    pub(super) fn from_payload(payload: &[u8]) -> Option<Self> {
        let (numbers, rest) = payload.as_chunks::<8>();
        let &[replica_id, disk_id, cluster_id] = numbers else {
            return None;
        };
        rest.is_empty().then(|| Self {
            replica_id: u64::from_le_bytes(replica_id),
            disk_id: u64::from_le_bytes(disk_id),
            cluster_id: u64::from_le_bytes(cluster_id),
        })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "replica {}", self.replica_id)?;
        match self.cluster_id {
            0 => f.write_str(" of no cluster yet"),
            id => write!(f, " of cluster {id:016x}"),
        }
    }
}

impl Storage {
    pub(super) fn check_or_write_identity(&mut self) -> Result<(), StorageError> {
        let write = |error: &dyn fmt::Display| self.write_error("the identity", error);
        let transaction = self.begin().map_err(|e| write(&e))?;
        {
            let mut meta = transaction.open_table(META).map_err(|e| write(&e))?;
            let format = meta
                .get(KEY_FORMAT)
                .map_err(|e| write(&e))?
                .map(|record| record.value().to_vec());
            if let Some(record) = format {
                self.check_format(&record)?;
                let identity = meta
                    .get(KEY_IDENTITY)
                    .map_err(|e| write(&e))?
                    .map(|record| record.value().to_vec());
                return self.check_identity(identity);
            }
            let format = seal(KEY_FORMAT, &FORMAT.to_le_bytes());
            meta.insert(KEY_FORMAT, format.as_slice())
                .map_err(|e| write(&e))?;
            meta.insert(KEY_IDENTITY, self.identity.to_record().as_slice())
                .map_err(|e| write(&e))?;
            transaction.open_table(LOG).map_err(|e| write(&e))?;
            transaction.open_table(SNAPSHOT).map_err(|e| write(&e))?;
        }
        transaction.commit().map_err(|e| write(&e))
    }

    fn check_format(&self, record: &[u8]) -> Result<(), StorageError> {
        let payload = unseal(KEY_FORMAT, record)
            .map_err(|reason| self.damaged("the format number", &reason))?;
        let found = <[u8; 4]>::try_from(payload)
            .map(u32::from_le_bytes)
            .map_err(|_| self.damaged("the format number", "it is not four bytes"))?;
        if found == FORMAT {
            return Ok(());
        }
        Err(StorageError::Format {
            path: self.path.clone(),
            found,
            expected: FORMAT,
        })
    }

    fn check_identity(&mut self, record: Option<Vec<u8>>) -> Result<(), StorageError> {
        const WHAT: &str = "the identity";
        let record = record.ok_or_else(|| self.damaged(WHAT, "it is missing"))?;
        let payload =
            unseal(KEY_IDENTITY, &record).map_err(|reason| self.damaged(WHAT, &reason))?;
        let found = Identity::from_payload(payload)
            .ok_or_else(|| self.damaged(WHAT, "it is not 24 bytes"))?;
        if found.replica_id == self.identity.replica_id {
            // The file's own numbers count, not those for a new one.
            self.identity = found;
            return Ok(());
        }
        Err(StorageError::OtherIdentity {
            path: self.path.clone(),
            found,
            expected: self.identity,
        })
    }
}

/// Whose data a database holds. One that holds nothing is damaged.
pub(super) fn identity_in(database: &Database, path: &Path) -> Result<Identity, StorageError> {
    let read = |error: &dyn fmt::Display| StorageError::Read {
        path: path.to_owned(),
        what: "the identity",
        reason: error.to_string(),
    };
    let damaged = |reason: &str| StorageError::Damaged {
        path: path.to_owned(),
        what: "the identity".to_owned(),
        reason: reason.to_owned(),
    };
    let transaction = database.begin_read().map_err(|e| read(&e))?;
    let meta = transaction.open_table(META).map_err(|error| match &error {
        TableError::TableDoesNotExist(_) => damaged("it is missing"),
        error => read(error),
    })?;
    let record = meta
        .get(KEY_IDENTITY)
        .map_err(|e| read(&e))?
        .ok_or_else(|| damaged("it is missing"))?;
    let payload = unseal(KEY_IDENTITY, record.value()).map_err(|reason| damaged(&reason))?;
    Identity::from_payload(payload).ok_or_else(|| damaged("it has another length"))
}
