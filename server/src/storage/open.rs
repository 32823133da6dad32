//! Opening the file, at start and again after its disk has failed.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{Database, DatabaseError, StorageBackend};

use super::disk::{Disk, Notes, is_of_content};
use super::error::StorageError;
use super::file::{FILE_NAME, Identity, Staged, Storage};
use super::identity::identity_in;
use super::offline::refuse_unfinished;

/// What the database may keep of its pages in memory. Small, because the log
/// is read once, at start; afterwards the file is only written, and of what is
/// read for that, the way to the end of the log, little is enough.
const CACHE_BYTES: usize = 1 << 20;

/// Opens the database. The second time it must be there.
type Open = Box<dyn FnMut(&Arc<Notes>) -> Result<Database, DatabaseError> + Send>;

/// Where the database is, and the way to it.
pub(super) struct Opener {
    path: PathBuf,
    open: Open,
    was_open: bool,
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Opener").field(&self.path).finish()
    }
}

impl Opener {
    /// A file, which is made at the first time if it is not there.
    pub(super) fn of_file(path: PathBuf) -> Self {
        let at = path.clone();
        let mut may_make = true;
        let open = move |notes: &Arc<Notes>| {
            // Afterwards, to make one would be to forget everything.
            let file = match std::mem::take(&mut may_make) {
                true => open_or_make(&at),
                false => existing(&at),
            };
            create(FileBackend::new(file?)?, notes)
        };
        Self {
            path,
            open: Box::new(open),
            was_open: false,
        }
    }

    /// A file that is there. An empty one becomes a database.
    pub(super) fn of_existing(path: PathBuf) -> Self {
        let at = path.clone();
        Self {
            path,
            open: Box::new(move |notes| create(FileBackend::new(existing(&at)?)?, notes)),
            was_open: false,
        }
    }

    /// Disks of the caller's making, one each time; `name` stands for the
    /// file in messages.
    pub(super) fn of_disks<B: StorageBackend>(
        name: &Path,
        mut next: impl FnMut() -> io::Result<B> + Send + 'static,
    ) -> Self {
        Self {
            path: name.to_owned(),
            open: Box::new(move |notes| create(next()?, notes)),
            was_open: false,
        }
    }

    /// The database, every page of it checked.
    pub(super) fn open(&mut self) -> Result<(Database, Arc<Notes>), StorageError> {
        let notes = Notes::new(!std::mem::replace(&mut self.was_open, true));
        let Self { path, open, .. } = self;
        contain(path, || {
            let database = open(&notes).map_err(|error| open_error(path, &error, &notes))?;
            Ok((database, notes))
        })
    }
}

impl Storage {
    /// Opens the file in `directory`, making both if need be. A file that is
    /// there keeps its own number and its cluster, which [`Storage::identity`]
    /// tells.
    ///
    /// # Errors
    ///
    /// When it cannot be opened, is damaged, in use, or belongs to someone else.
    pub fn open(directory: &Path, identity: Identity) -> Result<Self, StorageError> {
        refuse_unfinished(directory)?;
        let opener = Opener::of_file(directory.join(FILE_NAME));
        Self::with_opener(opener, |_, _| Ok(identity))
    }

    /// Opens storage on disks of the caller's making: one now, and another
    /// each time it is opened anew. `name` stands for the file in messages.
    /// For tests and simulation.
    ///
    /// # Errors
    ///
    /// As [`Storage::open`].
    pub fn open_on_disks<B: StorageBackend>(
        name: &Path,
        next: impl FnMut() -> io::Result<B> + Send + 'static,
        identity: Identity,
    ) -> Result<Self, StorageError> {
        Self::with_opener(Opener::of_disks(name, next), |_, _| Ok(identity))
    }

    /// The same on a single disk, which cannot be opened anew.
    ///
    /// # Errors
    ///
    /// As [`Storage::open`].
    pub fn open_with_backend(
        name: &Path,
        backend: impl StorageBackend,
        identity: Identity,
    ) -> Result<Self, StorageError> {
        let mut backend = Some(backend);
        let gone = || io::Error::other("this disk can be opened only once");
        let next = move || backend.take().ok_or_else(gone);
        Self::open_on_disks(name, next, identity)
    }

    /// `whose` says who is to own what was opened.
    pub(super) fn with_opener(
        mut opener: Opener,
        whose: impl FnOnce(&Database, &Path) -> Result<Identity, StorageError>,
    ) -> Result<Self, StorageError> {
        let (database, notes) = opener.open()?;
        let path = opener.path.clone();
        let name = path.clone();
        contain(&name, || {
            let mut storage = Self {
                identity: whose(&database, &path)?,
                database: Some(database),
                notes,
                opener,
                path,
                last_index: 0,
                staged: Staged::default(),
            };
            storage.check_or_write_identity()?;
            Ok(storage)
        })
    }

    /// Closes the file and opens it anew, after its disk has failed: what is
    /// read then is what the disk holds, whatever was written before. The
    /// file must be there, with the identity it had.
    ///
    /// # Errors
    ///
    /// As [`Storage::open`]. Then it stays closed, and may be opened again.
    pub fn reopen(&mut self) -> Result<(), StorageError> {
        self.database = None;
        let (database, notes) = self.opener.open()?;
        let found = contain(&self.path, || identity_in(&database, &self.path))?;
        if found != self.identity {
            return Err(StorageError::Replaced {
                path: self.path.clone(),
                found,
                expected: self.identity,
            });
        }
        self.database = Some(database);
        self.notes = notes;
        self.staged = Staged::default();
        Ok(())
    }

    pub(super) fn database(&self) -> Result<&Database, redb::StorageError> {
        let closed = || redb::StorageError::Io(io::Error::other("it is closed"));
        self.database.as_ref().ok_or_else(closed)
    }
}

fn create(backend: impl StorageBackend, notes: &Arc<Notes>) -> Result<Database, DatabaseError> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    // After a clean end it would take its pages on trust; a disk may have
    // changed them since.
    builder.set_check_integrity_on_open(true);
    builder.create_with_backend(Disk::new(backend, notes))
}

fn existing(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).write(true).open(path)?;
    forget_cached(&file);
    Ok(file)
}

/// Has the system read from the disk, and not from its memory, where it keeps
/// what it could not write, and shows it as if it had.
fn forget_cached(file: &File) {
    #[cfg(target_os = "linux")]
    // It may refuse; then what it shows has to do.
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

fn open_or_make(path: &Path) -> io::Result<File> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let is_new = !path.try_exists()?;
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    if is_new {
        sync_names(directory)?;
    }
    forget_cached(&file);
    Ok(file)
}

/// Makes the names in a directory, and its own, survive a power loss.
pub(super) fn sync_names(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()?;
    match directory.canonicalize()?.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Reads a file that may hold anything: the database panics on pages that its
/// checks let pass and that cannot be.
pub(super) fn contain<T>(
    path: &Path,
    read: impl FnOnce() -> Result<T, StorageError>,
) -> Result<T, StorageError> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
        Err(StorageError::Damaged {
            path: path.to_owned(),
            what: "the file".to_owned(),
            reason: "the database cannot make sense of it".to_owned(),
        })
    })
}

fn open_error(path: &Path, error: &DatabaseError, notes: &Notes) -> StorageError {
    let path = path.to_owned();
    let reason = match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            return StorageError::InUse { path };
        }
        DatabaseError::Storage(redb::StorageError::Io(error)) if !is_of_content(error) => {
            let reason = error.to_string();
            return StorageError::Open { path, reason };
        }
        DatabaseError::Storage(redb::StorageError::Corrupted(reason)) => reason.clone(),
        other => other.to_string(),
    };
    let Range { start, end } = notes.last_read();
    StorageError::Damaged {
        path,
        what: format!("the file between bytes {start} and {end}"),
        reason,
    }
}
