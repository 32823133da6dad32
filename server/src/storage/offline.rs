//! A data directory while no replica runs on it: read as it is, or made whole from a snapshot.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use prost::Message as _;
use redb::{ReadableDatabase as _, ReadableTable as _};
use trimtab_proto::internal::v1::{HardState, Snapshot};

use super::error::StorageError;
use super::file::{FILE_NAME, Identity, LOG, META, Storage};
use super::identity::identity_in;
use super::open::{Opener, contain, sync_names};
use super::record::{seal, unseal};

/// The name of a file that is being made. Where it is found, the making was
/// broken off.
pub const UNFINISHED_NAME: &str = "replica.redb.unfinished";

/// The key in the `meta` table of what is to be known at the first start after
/// a restore. The others are in [`super::file`].
const KEY_SETTLE: u64 = 5;

/// Whether a replica starts for the first time on what was restored, and what
/// follows from it.
#[derive(Clone, PartialEq, prost::Message)]
struct SettleRecord {
    #[prost(uint64, tag = "1")]
    settle_ms: u64,
}

impl Storage {
    /// Opens the file in `directory`, whoever it belongs to. Makes nothing.
    ///
    /// # Errors
    ///
    /// When there is none, or it cannot be opened, is damaged or in use.
    pub fn open_existing(directory: &Path) -> Result<Self, StorageError> {
        refuse_unfinished(directory)?;
        let path = directory.join(FILE_NAME);
        if !path.try_exists().map_err(failed(&path))? {
            return Err(StorageError::Missing { path });
        }
        open(path)
    }

    /// Makes the data directory of a replica that begins with `snapshot`. The
    /// file gets its name when all of it is on the disk; until then no replica
    /// starts there. For so long after its first start it is to settle: see
    /// [`Storage::settles_for`].
    ///
    /// # Errors
    ///
    /// When it cannot be written. What was written is removed, if that is
    /// possible.
    pub fn make(
        directory: &Path,
        identity: Identity,
        snapshot: &Snapshot,
        hard_state: &HardState,
        settle: Duration,
    ) -> Result<(), StorageError> {
        let unfinished = directory.join(UNFINISHED_NAME);
        let path = directory.join(FILE_NAME);
        fs::create_dir_all(directory).map_err(failed(&path))?;
        let made = contain(&unfinished, || {
            let mut storage = create(&unfinished, identity)?;
            storage.found(identity.cluster_id, snapshot, hard_state)?;
            storage.note_settle(settle)?;
            drop(storage);
            // What the disk took it must also give back.
            let mut written = open(unfinished.clone())?;
            written.load()?;
            drop(written);
            fs::rename(&unfinished, &path).map_err(failed(&path))?;
            sync_names(directory).map_err(failed(&path))
        });
        if made.is_err() {
            // Else it says itself that it is not finished.
            let _ = fs::remove_file(&unfinished);
        }
        made
    }

    /// How long the replica that starts now is to wait until it shows what it
    /// holds: at the first start on what was made by [`Storage::make`], when
    /// nothing has been added to it.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn settles_for(&self) -> Result<Option<Duration>, StorageError> {
        let what = "what was restored";
        let read = |error: &dyn std::fmt::Display| self.read_error(what, error);
        let database = self.database().map_err(|e| read(&e))?;
        let transaction = database.begin_read().map_err(|e| read(&e))?;
        let meta = transaction.open_table(META).map_err(|e| read(&e))?;
        let Some(record) = meta.get(KEY_SETTLE).map_err(|e| read(&e))? else {
            return Ok(None);
        };
        let payload = unseal(KEY_SETTLE, record.value());
        let payload = payload.map_err(|reason| self.damaged(what, &reason))?;
        let record =
            SettleRecord::decode(payload).map_err(|e| self.damaged(what, &e.to_string()))?;
        let log = transaction.open_table(LOG).map_err(|e| read(&e))?;
        let is_new = log.first().map_err(|e| read(&e))?.is_none();
        Ok(is_new.then(|| Duration::from_millis(record.settle_ms)))
    }

    fn note_settle(&self, settle: Duration) -> Result<(), StorageError> {
        let write = |error: &dyn std::fmt::Display| self.write_error("what was restored", error);
        let settle_ms = u64::try_from(settle.as_millis()).unwrap_or(u64::MAX);
        let record = seal(KEY_SETTLE, &SettleRecord { settle_ms }.encode_to_vec());
        let transaction = self.begin().map_err(|e| write(&e))?;
        {
            let mut meta = transaction.open_table(META).map_err(|e| write(&e))?;
            meta.insert(KEY_SETTLE, record.as_slice())
                .map_err(|e| write(&e))?;
        }
        transaction.commit().map_err(|e| write(&e))
    }
}

/// # Errors
///
/// When a directory was to be made from a snapshot, and that was broken off.
pub(super) fn refuse_unfinished(directory: &Path) -> Result<(), StorageError> {
    let path = directory.join(UNFINISHED_NAME);
    match path.try_exists().map_err(failed(&path))? {
        true => Err(StorageError::Unfinished { path }),
        false => Ok(()),
    }
}

fn create(path: &Path, identity: Identity) -> Result<Storage, StorageError> {
    // Refused where another process makes one: an empty file becomes a database.
    File::create_new(path).map_err(failed(path))?;
    let opener = Opener::of_existing(path.to_owned());
    Storage::with_opener(opener, |_, _| Ok(identity))
}

fn open(path: PathBuf) -> Result<Storage, StorageError> {
    Storage::with_opener(Opener::of_existing(path), identity_in)
}

fn failed(path: &Path) -> impl Fn(io::Error) -> StorageError {
    let path = path.to_owned();
    move |error| StorageError::Open {
        path: path.clone(),
        reason: error.to_string(),
    }
}
