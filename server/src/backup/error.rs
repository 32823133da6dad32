//! Why a snapshot could not be saved, read or restored, and what to do about it.

use std::io;
use std::path::PathBuf;

use super::format::FormatError;
use crate::consensus::entry::EntryError;
use crate::consensus::error::FatalError;
use crate::consensus::start::StartError;
use crate::storage::error::StorageError;

/// Why a snapshot could not be saved, read or restored. No file or directory
/// was left behind under the name that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The system refused.
    #[error("cannot {action} {path}: {source}", path = .path.display())]
    File {
        /// What was to be done.
        action: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is something under the name that the snapshot was to have.
    #[error("{path} exists, and was left as it is; choose another name, or overwrite it with --force", path = .path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// It is not a snapshot file, or not an undamaged one.
    #[error("{path} cannot be used: {source}; nothing was restored from it: use another copy", path = .path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: FormatError,
    },
    /// Another version of Trimtab wrote the file.
    #[error("{path} cannot be read: {source}; use the version of trimtab that wrote it, or a newer one", path = .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version it has.
        source: FormatError,
    },
    /// It is larger than any snapshot.
    #[error("{path} has {found} bytes, a snapshot at most {most}", path = .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        found: u64,
        /// The bound.
        most: u64,
    },
    /// The state in it cannot be read.
    #[error("the state in {path} cannot be used: {reason}", path = .path.display())]
    State {
        /// The file or data directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The data directory holds no replica.
    #[error("{directory} holds no state yet: its replica has not been part of a cluster", directory = .directory.display())]
    NothingFounded {
        /// The directory.
        directory: PathBuf,
    },
    /// The directory to restore into holds something.
    #[error("{directory} is not empty: it holds {found:?}; a snapshot is restored into a new or empty directory only, so that nothing is lost: name another one", directory = .directory.display())]
    NotEmpty {
        /// The directory.
        directory: PathBuf,
        /// One of the things in it.
        found: String,
    },
    /// The positions of the log end there.
    #[error(
        "the state of entry {index} cannot go on {jump} entries later: choose a smaller --jump"
    )]
    TooFar {
        /// The last entry in the state.
        index: u64,
        /// How far it was to go.
        jump: u64,
    },
    /// The data directory cannot be read or made.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What is in the data directory cannot be used.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The state cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EntryError),
    /// The state cannot found a cluster.
    #[error(transparent)]
    Found(#[from] FatalError),
}
