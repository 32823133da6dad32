//! Loopback clusters of real replicas for tests, and patience with a deadline.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, and so does what sets it up"
)]

pub mod cluster;
pub mod eventually;
pub mod instance;
