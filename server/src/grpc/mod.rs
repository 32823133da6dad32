//! What the outside speaks with: one file per gRPC service, and the edge where wire and domain meet.

pub mod cluster;
pub mod context;
pub mod convert;
pub mod discovery;
pub mod peer;
pub mod registration;
pub mod routing;
mod describe;
mod receipts;
pub mod status;
