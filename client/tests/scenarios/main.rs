//! The client against real servers on loopback and a registry that says what a test tells it to.

#![allow(missing_docs, unreachable_pub)]

mod calls;
mod instance;
mod process;
mod registry;
mod watching;
