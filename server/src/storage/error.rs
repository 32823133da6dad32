//! Why a replica cannot use its data directory, and what to do about it.

use std::path::PathBuf;

use super::file::Identity;

/// What an operator does with a replica whose own copy is lost.
const RECOVER_FROM_A_PEER: &str = "stop this replica, keep the file for inspection, and let the \
     replica join again with an empty data directory under a new id; the other replicas hold the \
     data (with one replica alone, restore the file from a backup)";

/// Why the data directory could not be opened, read or written.
///
/// Every message names the file, what was found and what to do. After an
/// error from a write nothing may be assumed to be on disk: the replica must
/// stop acknowledging.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The directory or file cannot be created or opened.
    #[error("cannot open {path}: {reason}; check that the data directory exists on a local disk and may be written by this user", path = .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the operating system or the database said.
        reason: String,
    },
    /// Another process has the file open.
    #[error("{path} is in use by another process; stop the other replica, or give this one its own data directory", path = .path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// There is no file to look at.
    #[error("there is no {path}: name the data directory of a replica", path = .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A snapshot was to be restored there, and that was broken off.
    #[error("{path} was left by a restore that was broken off, and no replica starts on it; remove it, and run `trimtab snapshot restore` again", path = .path.display())]
    Unfinished {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by another version of the format.
    #[error("{path} has format {found}, this version reads and writes format {expected}; run the version that wrote it", path = .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The format number in the file.
        found: u32,
        /// The format number this version knows.
        expected: u32,
    },
    /// The file belongs to another replica.
    #[error("{path} belongs to {found}, not to replica {}; point the replica at its own data directory, or start it with its own id", .expected.replica_id, path = .path.display())]
    OtherIdentity {
        /// The file.
        path: PathBuf,
        /// Who wrote the file.
        found: Identity,
        /// Who wants to use it.
        expected: Identity,
    },
    /// Opened again, the file is another than before.
    #[error("{path} was replaced while the replica ran: it was that of {expected}, on disk {:016x}, and is that of {found}, on disk {:016x}; put the former back and start the replica again", .expected.disk_id, .found.disk_id, path = .path.display())]
    Replaced {
        /// The file.
        path: PathBuf,
        /// Who wrote the file that is there.
        found: Identity,
        /// Who wrote the one that was.
        expected: Identity,
    },
    /// A record fails its checksum or does not fit its neighbours.
    #[error("{path}: {what} is damaged ({reason}); nothing was dropped or repaired: {RECOVER_FROM_A_PEER}", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which record, for example `log entry 812`.
        what: String,
        /// What was wrong with it.
        reason: String,
    },
    /// A read failed.
    #[error("cannot read {what} from {path}: {reason}; check the disk", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What was being read.
        what: &'static str,
        /// What the operating system or the database said.
        reason: String,
    },
    /// A write or its sync failed.
    #[error("cannot write {what} to {path}: {reason}; check the disk for space and errors", path = .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What was being written.
        what: &'static str,
        /// What the operating system or the database said.
        reason: String,
    },
    /// The caller asked for something that would break the log.
    #[error("refused to write {what} to {path}: {reason}", path = .path.display())]
    Inconsistent {
        /// The file.
        path: PathBuf,
        /// What was being written.
        what: &'static str,
        /// The rule it breaks.
        reason: String,
    },
}

impl StorageError {
    /// Whether the disk is to blame and not what it holds: when it has room
    /// again, or answers again, the file may be opened anew.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Open { .. } | Self::InUse { .. } | Self::Read { .. } | Self::Write { .. }
        )
    }
}
