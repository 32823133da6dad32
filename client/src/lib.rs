//! What a process links to call services through Trimtab, or to be called.

pub mod cluster;
pub mod error;
pub mod operator;

mod backoff;
mod convert;
mod picker;
mod shares;
mod view;
