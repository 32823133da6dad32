//! Snapshot files: what they hold, how they are made from a replica or its data directory, and the way back.
//!
//! `trimtab snapshot` and the RPC behind it are thin covers over this room. A
//! file is made whole or not at all ([`target`]), says what it is and proves
//! that it is undamaged ([`mod@format`]), and becomes the data directory of a new
//! cluster, not of the one it was saved from ([`restore`]).

pub mod directory;
pub mod error;
pub mod file;
pub mod format;
pub mod header;
pub mod restore;
pub mod survey;
pub mod target;

#[cfg(test)]
mod tests;
