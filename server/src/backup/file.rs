//! A snapshot file on a disk, read whole and checked before anything in it is believed.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use bytes::Bytes;
use trimtab_registry::state::Registry;

use super::error::BackupError;
use super::format::{FILE_BYTES_MAX, FormatError, decode};
use super::header::Header;
use crate::consensus::entry::decode_state;

/// A snapshot that was read and makes sense.
#[derive(Debug)]
pub struct SnapshotFile {
    /// What it says of itself.
    pub header: Header,
    /// The registry as of [`Header::applied`].
    pub registry: Registry,
    /// The size of the file.
    pub bytes: u64,
}

impl SnapshotFile {
    /// Reads a file to its end and checks it.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, or is of a version that this one
    /// does not know.
    pub fn read(path: &Path) -> Result<Self, BackupError> {
        let content = read_bounded(path)?;
        let bytes = content.len() as u64;
        let (header, state) = decode(&content).map_err(|source| {
            let path = path.to_owned();
            match source {
                FormatError::Version { .. } => BackupError::Version { path, source },
                _ => BackupError::Unusable { path, source },
            }
        })?;
        let unusable = |reason: String| BackupError::State {
            path: path.to_owned(),
            reason,
        };
        let state = decode_state(&state).map_err(|error| unusable(error.to_string()))?;
        let found = state.registry.applied();
        if found != header.applied {
            let claimed = header.applied.index;
            return Err(unusable(format!(
                "it is of entry {}, and the header says {claimed}",
                found.index
            )));
        }
        Ok(Self {
            header,
            registry: state.registry,
            bytes,
        })
    }
}

fn read_bounded(path: &Path) -> Result<Bytes, BackupError> {
    let failed = |source| BackupError::File {
        action: "read",
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let too_large = |found| BackupError::TooLarge {
        path: path.to_owned(),
        found,
        most: FILE_BYTES_MAX,
    };
    if length > FILE_BYTES_MAX {
        return Err(too_large(length));
    }
    let mut content = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    // What is not a plain file has no length that could be trusted.
    let mut bounded = file.take(FILE_BYTES_MAX + 1);
    bounded.read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(too_large(content.len() as u64));
    }
    Ok(content.into())
}
