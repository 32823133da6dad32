//! What operators and deploy scripts ask of the registry: change who gets
//! which share, and see what became of it.
//!
//! [`Operator`] makes the calls; the other modules are plain data. All of it
//! serializes with serde, and that form is what `trimtab --output json`
//! prints. Weights are in basis points, parts per 10,000, everywhere.
//!
//! A change whose answer was lost may be repeated without harm: every change
//! carries a request id, and the registry answers a repeated id as it answered
//! the first time. [`Operator`] does so by itself until its deadline.

mod calls;
mod convert;
mod progress;
mod route;
mod stubs;

pub mod brake;
pub mod change;
pub mod cluster_status;
pub mod members;
pub mod receipts;
pub mod service_status;
pub mod snapshot;
pub mod watch;

pub use calls::Operator;
