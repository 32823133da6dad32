//! What a replica starts from: what it had, or what all founders begin with.

use std::collections::BTreeMap;

use bytes::Bytes;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use trimtab_registry::revision::Position;
use trimtab_registry::state::Registry;

use super::entry::encode_state;
use super::error::FatalError;
use super::log::Place;
use super::membership::{Member, Membership};

/// What a replica starts from.
#[derive(Debug)]
pub struct Restored {
    /// Term, vote, commit index.
    pub hard_state: HardState,
    /// The latest snapshot.
    pub snapshot: Snapshot,
    /// Where the log was cut.
    pub base: Place,
    /// The log after it.
    pub entries: Vec<Entry>,
}

/// The first state of a founder: a snapshot at index 1, term 1, that names all
/// founders as voters and holds an empty registry. All of them make the same
/// one, so their logs agree from the start.
///
/// # Errors
///
/// When the empty registry cannot be encoded.
pub fn founding(founders: &BTreeMap<u64, Member>) -> Result<Restored, FatalError> {
    let mut registry = Registry::new();
    registry.skip(Position { index: 1, term: 1 });
    founded_with(founders, &registry)
}

/// The same with a registry that is not empty, at the position it has.
///
/// # Errors
///
/// When the registry cannot be encoded.
pub fn founded_with(
    founders: &BTreeMap<u64, Member>,
    registry: &Registry,
) -> Result<Restored, FatalError> {
    let at = registry.applied();
    let membership = Membership::founded_by(founders);
    let data = encode_state(&membership, registry).map_err(|error| FatalError::Snapshot {
        index: at.index,
        reason: error.to_string(),
    })?;
    let voters = ConfState {
        voters: founders.keys().copied().collect(),
        ..ConfState::default()
    };
    Ok(Restored {
        hard_state: HardState {
            term: at.term,
            commit: at.index,
            ..HardState::default()
        },
        snapshot: snapshot_of(at, voters, data),
        base: Place {
            index: at.index,
            term: at.term,
        },
        entries: Vec::new(),
    })
}

/// The first state of a replica that is taken into a running cluster: nothing.
/// Its leader sends it a snapshot; until then it has no one to vote with.
pub fn joining() -> Restored {
    Restored {
        hard_state: HardState::default(),
        snapshot: Snapshot::default(),
        base: Place { index: 0, term: 0 },
        entries: Vec::new(),
    }
}

/// A snapshot of the log up to `at`.
pub(super) fn snapshot_of(at: Position, members: ConfState, data: Bytes) -> Snapshot {
    let mut snapshot = Snapshot {
        data,
        ..Snapshot::default()
    };
    let metadata = snapshot.mut_metadata();
    metadata.index = at.index;
    metadata.term = at.term;
    metadata.set_conf_state(members);
    snapshot
}
