//! A snapshot of our own, from the moment it is due to the moment it is encoded.

use std::sync::Arc;

use raft::eraftpb::Snapshot;
use trimtab_registry::state::Registry;

use super::entry::encode_state;
use super::error::FatalError;
use super::founding::snapshot_of;
use super::membership::Members;

/// What a snapshot is to hold. Cheap to make, since the registry shares its
/// services until they change; encoding it takes time, and can be done
/// wherever there is some.
#[derive(Debug)]
pub struct SnapshotJob {
    pub(super) members: Arc<Members>,
    pub(super) registry: Registry,
}

impl SnapshotJob {
    /// The last entry it will contain.
    pub fn index(&self) -> u64 {
        self.registry.applied().index
    }

    /// Encodes it.
    ///
    /// # Errors
    ///
    /// When the registry cannot be encoded.
    pub fn run(self) -> Result<Snapshot, FatalError> {
        let at = self.registry.applied();
        let Members { membership, roles } = self.members.as_ref();
        let data =
            encode_state(membership, &self.registry).map_err(|error| FatalError::Snapshot {
                index: at.index,
                reason: error.to_string(),
            })?;
        Ok(snapshot_of(at, roles.clone(), data))
    }
}
