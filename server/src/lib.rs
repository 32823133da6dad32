//! One replica of a Trimtab registry: the rooms that [`node::Node`] puts together.
//!
//! ARCHITECTURE.md at the project's root says what each is for and which one
//! may use which.

pub mod backup;
pub mod config;
pub mod consensus;
pub mod convert;
pub mod enrolment;
mod gathering;
pub mod grpc;
pub mod lease_keeper;
pub mod leases;
pub mod node;
pub mod observation;
pub mod peers;
pub mod publish;
pub mod relay;
mod removal;
pub mod renewals;
pub mod storage;
pub mod views;
pub mod watchers;
