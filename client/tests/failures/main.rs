//! Callers over a real registry and real instances that die, hang, reset, slow down and answer with errors.

#![allow(missing_docs, unreachable_pub)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

mod canary;
mod connections;
mod deadlines;
mod instance;
mod outliers;
mod survival;
mod telemetry;
mod traffic;
mod wire;
