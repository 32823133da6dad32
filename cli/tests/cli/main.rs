//! The command line as people and scripts meet it: processes, exit codes and
//! golden output.
//!
//! Golden files are written anew with `TRIMTAB_BLESS=1 cargo test -p trimtab`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what a test sets up must succeed; clippy knows test functions only"
)]

mod changes;
mod demo;
mod errors;
mod golden;
mod help;
mod members;
mod paused;
mod process;
mod questions;
mod serve;
mod snapshot;
