//! `trimtab run` as a service manager meets it: real processes, signals and a registry.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what a test sets up must succeed; clippy knows test functions only"
)]

mod caller;
mod checks;
mod container;
mod ends;
mod flags;
mod registry_away;
mod restarts;
mod stage;
mod stand_in;
mod supervisor;
mod traffic;
