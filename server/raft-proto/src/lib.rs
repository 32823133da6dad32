//! The messages the `raft` crate works on, as prost messages.
//!
//! `raft` 0.7 takes its messages from a crate of this name, whose own code
//! comes either from rust-protobuf 2.28 (RUSTSEC-2024-0437, and no build on
//! Apple silicon without protoc 3) or from prost 0.11 and protoc. The
//! workspace puts this crate in its place (`[patch.crates-io]` in the root's
//! `Cargo.toml`): plain structs with prost's derive, no code generator, no
//! build script, nothing to install on any platform.
//!
//! Names, field numbers and accessors are those raft 0.7.0 uses; see
//! [`eraftpb`] for how they are encoded. Deliberately absent are the accessors
//! neither it nor we use, the deprecated field `Entry.sync_log`, the inverse of
//! [`parse_conf_change`] (which itself is here for raft's own tests), and a
//! choice of codecs: the features of that name choose nothing.

mod accessors;
mod conf_change;
mod conf_state;
pub mod eraftpb;

pub use crate::conf_change::{ConfChangeI, new_conf_change_single, parse_conf_change};
pub use crate::conf_state::conf_state_eq;

/// All messages and their enumerations, for `raft::prelude`.
pub mod prelude {
    pub use crate::eraftpb::{
        ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2,
        ConfState, Entry, EntryType, HardState, Message, MessageType, Snapshot, SnapshotMetadata,
    };
}

#[cfg(test)]
mod tests;
