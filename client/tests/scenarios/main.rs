//! The client against real servers on loopback and a registry that says what a test tells it to.

#![allow(missing_docs, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod absurd;
mod calls;
mod cold_start;
mod ending;
mod floods;
mod frames;
mod hostile;
mod http2;
mod ill_peers;
mod instance;
mod layers;
mod leaving;
mod peer;
mod process;
mod registering;
mod registry;
mod shrinking;
mod sticky;
mod strange;
mod testkit;
mod watching;
