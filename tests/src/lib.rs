//! Loopback clusters of real replicas for tests, patience with a deadline, and a check of histories.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, and so does what sets it up"
)]

pub mod checker;
pub mod cluster;
pub mod eventually;
pub mod history;
pub mod instance;
