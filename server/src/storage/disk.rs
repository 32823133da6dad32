//! The disk beneath the database: what is noticed of it, and what must not be believed of it.

use std::io;
use std::ops::{Bound, Range};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use redb::{BackendError, StorageBackend};

use super::newest::doubt_the_older;

/// Where pages begin. Before it stands what is written last when a file is
/// made.
const PAGES_START: u64 = 320;

/// Larger than a file that was never used; the database makes one of about
/// 1 MiB.
const UNUSED_BYTES_MAX: u64 = 4 << 20;

/// What is noticed while the database uses a disk.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Whether what is read may be older than what is there. After a failure
    /// it may be newer instead: what could not be synced is read all the same.
    may_be_older: bool,
    /// What the disk said when it first failed. The database says afterwards
    /// only that it did, and of damage it says the same as of a failure.
    failure: OnceLock<String>,
    last_read: Mutex<Range<u64>>,
    is_looked_at: AtomicBool,
}

impl Notes {
    /// Of a disk that is opened for the first time, or anew.
    pub(super) fn new(is_first: bool) -> Arc<Self> {
        Arc::new(Self {
            may_be_older: is_first,
            ..Self::default()
        })
    }

    /// What the disk said, if it failed.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.get().cloned()
    }

    /// The bytes that were read last: where the damage is, when some was found.
    pub(super) fn last_read(&self) -> Range<u64> {
        let last = self.last_read.lock();
        last.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Whether the disk did what it was asked to, and what it holds is wrong: no
/// database at all, or cut short.
pub(super) fn is_of_content(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
    )
}

/// A disk as the database is given it.
#[derive(Debug)]
pub(super) struct Disk<B> {
    backend: B,
    notes: Arc<Notes>,
}

impl<B: StorageBackend> Disk<B> {
    pub(super) fn new(backend: B, notes: &Arc<Notes>) -> Self {
        Self {
            backend,
            notes: Arc::clone(notes),
        }
    }

    /// Whether the making of the file was broken off, by a crash or for want of
    /// room, before anything was kept in it. The database would not take it.
    fn is_unused(&self, length: u64) -> io::Result<bool> {
        if length == 0 || length > UNUSED_BYTES_MAX {
            return Ok(false);
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        self.note(self.backend.read(0, &mut bytes))?;
        let is_empty = |bytes: Option<&[u8]>| bytes.is_none_or(|it| it.iter().all(|it| *it == 0));
        let pages = bytes.get(usize::try_from(PAGES_START).unwrap_or_default()..);
        Ok(is_empty(bytes.get(..9)) && is_empty(pages))
    }

    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result
            && !is_of_content(error)
        {
            // The first one says why; those that follow are its consequence.
            let _ = self.notes.failure.set(error.to_string());
        }
        result
    }
}

impl<B: StorageBackend> StorageBackend for Disk<B> {
    fn len(&self) -> io::Result<u64> {
        let length = self.note(self.backend.len())?;
        // The database asks first when it holds the lock.
        let is_first = !self.notes.is_looked_at.swap(true, Ordering::Relaxed);
        if is_first && self.is_unused(length)? {
            self.set_len(0)?;
            return Ok(0);
        }
        Ok(length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let last = self.notes.last_read.lock();
        *last.unwrap_or_else(PoisonError::into_inner) = offset..offset + out.len() as u64;
        self.note(self.backend.read(offset, out))?;
        if offset == 0 && self.notes.may_be_older {
            doubt_the_older(out);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.note(self.backend.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.note(self.backend.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.note(self.backend.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.backend.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.backend.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.query_lock_range(start, end)
    }
}
