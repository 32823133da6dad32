//! What a process links to call services through Trimtab, or to be called.

pub mod balancer;
pub mod call;
pub mod client;
pub mod cluster;
pub mod error;
pub mod operator;
pub mod registration;
pub mod response_body;

mod backoff;
mod budget;
mod connection;
mod convert;
mod endpoint;
mod load;
mod outcome;
mod picker;
mod pool;
mod renewal;
mod replay;
mod resolver;
mod shares;
mod subscription;
mod view;
mod watch_stream;
