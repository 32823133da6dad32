//! What the outside speaks with: one file per gRPC service, and the edge where wire and domain meet.

mod bodies;
mod brakes;
pub mod cluster;
pub mod context;
mod describe;
pub mod discovery;
mod members;
pub mod peer;
mod receipts;
pub mod registration;
mod roll;
pub mod routing;
mod session;
mod snapshot;
pub mod standing;
pub mod status;
mod watch_session;
pub mod watching;
