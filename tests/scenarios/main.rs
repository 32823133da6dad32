//! Behaviour of whole registries over real sockets: one module per story.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, and so does what sets it up"
)]

mod balancing;
mod brake;
mod by_hand;
mod cold_start;
mod deltas;
mod forwarding;
mod guards;
mod latencies;
mod liveness;
mod members;
mod policy;
mod recovery;
mod together;
mod watching;
