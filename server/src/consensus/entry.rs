//! The versioned encodings of what consensus stores and forwards: commands, results, snapshots.
//!
//! Each begins with one byte, the registry's format version; behind it stands
//! postcard. Replicas of different versions may read each other's bytes, so an
//! unknown version is refused, never guessed at.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use trimtab_registry::FORMAT_VERSION;
use trimtab_registry::command::Command;
use trimtab_registry::outcome::Outcome;
use trimtab_registry::rejection::Rejection;
use trimtab_registry::snapshot::Snapshot;
use trimtab_registry::state::Registry;

use super::membership::Membership;
use crate::storage::room::room_for;

/// A command's size in the log, at most: one entry fits in one message, and
/// one message in the transport's bound.
pub const COMMAND_BYTES_MAX: usize = 1 << 20;

/// What an instance takes in a snapshot, about.
const INSTANCE_BYTES: u64 = 256;

/// Why bytes could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// There is not even a version.
    #[error("{what} is empty")]
    Empty {
        /// What was to be read.
        what: &'static str,
    },
    /// Written by a version that this one does not know.
    #[error(
        "{what} has format version {found}, this version reads {FORMAT_VERSION}; run the version of trimtab that wrote it"
    )]
    UnknownVersion {
        /// What was to be read.
        what: &'static str,
        /// The version it carries.
        found: u8,
    },
    /// The bytes do not hold what they should.
    #[error("{what} cannot be read: {reason}")]
    Malformed {
        /// What was to be read.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The value cannot be encoded.
    #[error("{what} cannot be encoded: {reason}")]
    Unencodable {
        /// What was to be written.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
}

/// A proposal's mark in its log entry, by which its proposer knows it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProposalId {
    /// Which run of which replica: a random number, drawn at each start.
    pub incarnation: u64,
    /// Counts that run's proposals.
    pub sequence: u64,
}

impl ProposalId {
    /// As it stands in an entry's context.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.incarnation.to_le_bytes());
        bytes[8..].copy_from_slice(&self.sequence.to_le_bytes());
        bytes
    }

    /// From an entry's context; `None` when it holds no such id.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (incarnation, sequence) = bytes.split_first_chunk::<8>()?;
        Some(Self {
            incarnation: u64::from_le_bytes(*incarnation),
            sequence: u64::from_le_bytes(sequence.try_into().ok()?),
        })
    }
}

/// What a snapshot holds besides its place in the log.
#[derive(Debug, Default)]
pub struct State {
    /// The members.
    pub membership: Membership,
    /// The registry.
    pub registry: Registry,
}

/// A command as a log entry holds it.
///
/// # Errors
///
/// When it cannot be encoded.
pub fn encode_command(command: &Command) -> Result<Bytes, EntryError> {
    encode("a command", command)
}

/// A command from a log entry or a forwarded proposal.
///
/// # Errors
///
/// When the version is unknown or the bytes are not a command.
pub fn decode_command(bytes: &[u8]) -> Result<Command, EntryError> {
    decode("a command", bytes)
}

/// What came of a command, for the replica that forwarded it.
///
/// # Errors
///
/// When it cannot be encoded.
pub fn encode_result(result: &Result<Outcome, Rejection>) -> Result<Bytes, EntryError> {
    encode("a result", result)
}

/// What came of a forwarded command.
///
/// # Errors
///
/// When the version is unknown or the bytes are not a result.
pub fn decode_result(bytes: &[u8]) -> Result<Result<Outcome, Rejection>, EntryError> {
    decode("a result", bytes)
}

/// The data of a snapshot.
///
/// # Errors
///
/// When it cannot be encoded.
pub fn encode_state(membership: &Membership, registry: &Registry) -> Result<Bytes, EntryError> {
    let instances: usize = registry.services().map(|it| it.instances().len()).sum();
    let room = Vec::with_capacity(room_for(instances as u64 * INSTANCE_BYTES));
    encode_into("a snapshot", &(membership, registry.snapshot()), room)
}

/// What a snapshot's data holds.
///
/// # Errors
///
/// When the version is unknown, or the bytes are not a registry.
pub fn decode_state(bytes: &[u8]) -> Result<State, EntryError> {
    const WHAT: &str = "a snapshot";
    let (membership, snapshot): (Membership, Snapshot) = decode(WHAT, bytes)?;
    let registry = Registry::restore(snapshot).map_err(|error| EntryError::Malformed {
        what: WHAT,
        reason: error.to_string(),
    })?;
    Ok(State {
        membership,
        registry,
    })
}

pub(super) fn encode<T: Serialize>(what: &'static str, value: &T) -> Result<Bytes, EntryError> {
    encode_into(what, value, Vec::new())
}

fn encode_into<T: Serialize>(
    what: &'static str,
    value: &T,
    mut room: Vec<u8>,
) -> Result<Bytes, EntryError> {
    room.push(FORMAT_VERSION);
    postcard::to_extend(value, room)
        .map(Bytes::from)
        .map_err(|error| EntryError::Unencodable {
            what,
            reason: error.to_string(),
        })
}

pub(super) fn decode<T: DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
) -> Result<T, EntryError> {
    let (version, payload) = bytes.split_first().ok_or(EntryError::Empty { what })?;
    if *version != FORMAT_VERSION {
        return Err(EntryError::UnknownVersion {
            what,
            found: *version,
        });
    }
    let malformed = |reason: String| EntryError::Malformed { what, reason };
    let (value, rest) =
        postcard::take_from_bytes(payload).map_err(|error| malformed(error.to_string()))?;
    if !rest.is_empty() {
        return Err(malformed(format!("{} bytes are left over", rest.len())));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use trimtab_registry::instance::Metadata;
    use trimtab_registry::revision::Position;

    use super::super::testing;
    use super::*;

    fn register() -> Command {
        let mut command = testing::register("catalog", "i1");
        if let Command::Register(register) = &mut command {
            let pairs = [("rack".to_owned(), "r7".to_owned())];
            register.instance.metadata = Metadata::new(pairs.into()).expect("small");
        }
        command
    }

    #[test]
    fn a_command_comes_back_as_it_was() {
        let command = register();
        let bytes = encode_command(&command).expect("encodes");
        assert_eq!(bytes.first(), Some(&FORMAT_VERSION));
        assert_eq!(decode_command(&bytes), Ok(command));
    }

    #[test]
    fn a_result_comes_back_as_it_was() {
        let mut registry = Registry::new();
        let at = Position { index: 2, term: 1 };
        let applied = registry.apply(at, &register());
        let bytes = encode_result(&applied.outcome).expect("encodes");
        assert_eq!(decode_result(&bytes), Ok(applied.outcome));
    }

    #[test]
    fn a_snapshot_comes_back_as_it_was() {
        let membership = testing::founded(1);
        let mut registry = Registry::new();
        let at = Position { index: 2, term: 1 };
        assert!(registry.apply(at, &register()).outcome.is_ok());
        let bytes = encode_state(&membership, &registry).expect("encodes");
        let state = decode_state(&bytes).expect("decodes");
        assert_eq!(state.membership, membership);
        assert_eq!(state.registry, registry);
    }

    #[test]
    fn unknown_versions_cut_bytes_and_bytes_left_over_are_refused() {
        let bytes = encode_command(&register()).expect("encodes");
        for length in 0..bytes.len() {
            assert!(decode_command(&bytes[..length]).is_err(), "{length} bytes");
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert!(matches!(
            decode_command(&longer),
            Err(EntryError::Malformed { .. })
        ));
        let mut newer = bytes.to_vec();
        newer[0] += 1;
        let found = newer[0];
        assert!(matches!(
            decode_command(&newer),
            Err(EntryError::UnknownVersion { found: version, .. }) if version == found
        ));
    }

    #[test]
    fn a_proposal_id_comes_back_and_other_contexts_are_none() {
        let id = ProposalId {
            incarnation: 0xfeed,
            sequence: 7,
        };
        assert_eq!(ProposalId::from_bytes(&id.to_bytes()), Some(id));
        assert_eq!(ProposalId::from_bytes(&[]), None);
        assert_eq!(ProposalId::from_bytes(&[0; 15]), None);
        assert_eq!(ProposalId::from_bytes(&[0; 17]), None);
    }
}
