//! What a replica must not forget: who it is, its vote, its log, its snapshot.
//!
//! All of it lives in one file, `replica.redb` in the data directory, so that
//! what belongs together is written in one transaction: entries with the hard
//! state they were accepted under, a snapshot with the log it replaces. The
//! types on disk are those of `trimtab.internal.v1`; nothing here knows Raft.

mod disk;
pub mod error;
pub mod file;
pub mod gauge;
mod identity;
mod load;
mod newest;
pub mod offline;
mod open;
mod record;
pub(crate) mod room;
mod trial;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
