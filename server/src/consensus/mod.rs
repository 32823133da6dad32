//! One replicated log, applied to one registry on every replica.
//!
//! Commands come in through [`handle::Handle`], on any replica. The one
//! thread of `driver` hands them to the [`engine`], round by round. That feeds
//! them to `replica` (Raft and the registry, without I/O or clock), makes what
//! comes out durable, sends it to the other replicas and tells the
//! [`observer::Observer`] what was applied. A committed entry that cannot be
//! read or applied stops the replica; it is never skipped.

pub mod batch;
pub mod change;
pub mod config;
mod driver;
mod encoder;
pub mod engine;
pub mod entry;
pub mod error;
pub mod farewell;
pub mod forward;
pub mod founding;
pub mod handle;
mod hearing;
pub mod input;
pub mod log;
mod logger;
pub mod membership;
pub mod message;
pub mod observer;
pub mod outside;
mod pending;
mod reach;
pub mod replica;
pub mod snapshot;
pub mod start;
pub mod status;
#[cfg(test)]
pub(crate) mod testing;
mod ticker;
pub mod transfer;

#[cfg(test)]
mod tests;
