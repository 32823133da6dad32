//! Loopback clusters of real replicas for tests, and patience with a deadline.

pub mod cluster;
pub mod eventually;
