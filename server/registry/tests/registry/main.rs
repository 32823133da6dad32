//! What the registry promises, asked through its public face alone.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test sets up must succeed; clippy knows test functions only"
)]

mod adjustment;
mod encoding;
mod judgement;
mod names;
mod policy;
mod properties;
mod registration;
mod restamp;
mod rollback;
mod shift;
mod snapshot;
mod teardown;
mod world;
