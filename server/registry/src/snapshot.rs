//! The whole registry as a value that can be stored and sent.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::revision::Position;
use crate::service::Service;

/// A registry at one position. Taking one copies pointers; it stays as it is
/// while the registry goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub(crate) applied: Position,
    pub(crate) services: Vec<Arc<Service>>,
}

impl Snapshot {
    /// The last entry it contains.
    pub fn applied(&self) -> Position {
        self.applied
    }
}

impl Serialize for Snapshot {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        (self.applied).serialize(s)
    }
}
impl<'de> Deserialize<'de> for Snapshot {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Ok(Snapshot {
            applied: Position::deserialize(d)?,
            services: vec![],
        })
    }
}

/// Why a snapshot cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("snapshot at index {index}: {problem}", index = .at.index)]
pub struct SnapshotError {
    /// The position the snapshot claims.
    pub at: Position,
    /// What contradicts what.
    pub problem: String,
}
