//! Positions in the replicated log, which date everything in the registry.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where an entry stands in the replicated log.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Position {
    /// The entry's index.
    pub index: u64,
    /// The term of the leader that appended it.
    pub term: u64,
}

impl Position {
    /// The revision of a change made by the entry at this position.
    pub fn revision(self) -> Revision {
        Revision(self.index)
    }
}

/// The log index at which a change took effect: one global number that only
/// grows. 0 is before every change.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
