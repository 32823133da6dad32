//! From a snapshot file to the data directory of a new cluster of one.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use trimtab_registry::revision::{Position, Revision};

use super::error::BackupError;
use super::file::SnapshotFile;
use crate::consensus::founding::founded_with;
use crate::consensus::membership::{Member, cluster_id};
use crate::consensus::message;
use crate::storage::error::StorageError;
use crate::storage::file::{Identity, Storage};
use crate::storage::offline::UNFINISHED_NAME;

/// How far revisions jump, unless told otherwise: further than any cluster
/// can have gone on since the snapshot was saved. At ten thousand changes a
/// second that is a day.
pub const JUMP: u64 = 1_000_000_000;

/// How long the new cluster keeps its views to itself, unless told otherwise.
/// Instances find it within a second or two, six where two of three addresses
/// are dead; then they renew, or learn that their lease is lost and register
/// anew.
pub const SETTLE: Duration = Duration::from_secs(10);

/// Positions beyond this are refused, so that none ever runs over.
const INDEX_MAX: u64 = 1 << 62;

/// What is to become of a snapshot.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The id of the new cluster's first replica.
    pub replica_id: u64,
    /// Where that replica is reached.
    pub advertise: String,
    /// How far revisions jump: see [`JUMP`].
    pub jump: u64,
    /// How long, at its first start, the new cluster keeps its views to
    /// itself: see [`SETTLE`]. They are as old as the snapshot, and lack every
    /// instance that came later; callers do better with the last view they
    /// have until those instances have registered anew.
    pub settle: Duration,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founded {
    /// Whose data it is now.
    pub identity: Identity,
    /// The revision that the new cluster begins with: every view has it.
    pub revision: Revision,
}

/// Makes `directory` the data of a new cluster of one that begins with a
/// snapshot's state. It has a cluster id of its own: replicas of the cluster
/// that the snapshot was saved from refuse it, and it refuses them.
///
/// # Errors
/// When the directory is not empty or cannot be written. It holds no replica
/// then.
pub fn restore(
    snapshot: SnapshotFile,
    directory: &Path,
    plan: &Plan,
) -> Result<Founded, BackupError> {
    check_empty(directory)?;
    let mut registry = snapshot.registry;
    let applied = registry.applied();
    let too_far = || BackupError::TooFar {
        index: applied.index,
        jump: plan.jump,
    };
    let index = applied.index.checked_add(plan.jump);
    let at = Position {
        index: index
            .filter(|index| *index < INDEX_MAX)
            .ok_or_else(too_far)?,
        term: applied.term.saturating_add(1),
    };
    registry.restamp(at).map_err(|_| too_far())?;
    let fresh = Identity::of_new(plan.replica_id, rand::random());
    let founder = Member {
        address: plan.advertise.clone(),
        disk_id: fresh.disk_id,
    };
    let founders = BTreeMap::from([(plan.replica_id, founder)]);
    let identity = Identity {
        cluster_id: cluster_id(&founders),
        ..fresh
    };
    let founded = founded_with(&founders, &registry)?;
    Storage::make(
        directory,
        identity,
        &message::snapshot_to_wire(founded.snapshot),
        &message::hard_state_to_wire(&founded.hard_state),
        plan.settle,
    )?;
    Ok(Founded {
        identity,
        revision: at.revision(),
    })
}

fn check_empty(directory: &Path) -> Result<(), BackupError> {
    let failed = |source| BackupError::File {
        action: "look into",
        path: directory.to_owned(),
        source,
    };
    let mut entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let Some(entry) = entries.next() else {
        return Ok(());
    };
    let found = entry.map_err(failed)?.file_name();
    if found == UNFINISHED_NAME {
        let path = directory.join(found);
        return Err(StorageError::Unfinished { path }.into());
    }
    Err(BackupError::NotEmpty {
        directory: directory.to_owned(),
        found: found.to_string_lossy().into_owned(),
    })
}
