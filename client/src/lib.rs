//! What a process links to call services through Trimtab, or to be called.
//!
//! # To call a service
//!
//! Connect to the replicas, name the service, and use what you get in place of
//! a channel:
//!
//! ```no_run
//! # use trimtab_proto::demo::v1::{GetItemRequest, catalog_client::CatalogClient};
//! use trimtab_client::Client;
//!
//! # async fn caller() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("127.0.0.1:7070,127.0.0.1:7071,127.0.0.1:7072")?;
//! let mut catalog = CatalogClient::new(client.service("catalog").await?);
//! let item = catalog.get_item(GetItemRequest { item_id: 7 }).await?;
//! # Ok(())
//! # }
//! ```
//!
//! A caller never names a group. Which release answers is the route's affair,
//! and changes under a running caller without a failed call.
//!
//! A [`Balancer`] is a [`tower::Service`] and cheap to clone. For any protocol
//! but HTTP/2, ask it for an address and say how the call went:
//!
//! ```no_run
//! # use trimtab_client::Client;
//! # async fn call_by_other_means(address: &str) -> bool { true }
//! # async fn caller(client: Client) -> Result<(), trimtab_client::Error> {
//! let catalog = client.service("catalog").tcp().await?;
//! let picked = catalog.pick().await?;
//! if call_by_other_means(picked.address()).await {
//!     picked.success();
//! } else {
//!     picked.unreachable();
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # To be called
//!
//! Register when the instance listens; drain before it stops listening:
//!
//! ```no_run
//! # use trimtab_client::Client;
//! # async fn stop_signal() {}
//! # async fn instance() -> Result<(), trimtab_client::Error> {
//! let client = Client::connect("127.0.0.1:7070")?;
//! let registration = client.register("catalog", "v42", "127.0.0.1:8080").start().await?;
//! tokio::select! {
//!     () = stop_signal() => {}
//!     () = registration.retired() => {}
//! }
//! registration.drain(trimtab_client::registration::DRAIN_TIMEOUT).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//!
//! | promise | how |
//! |---|---|
//! | Shares are those of the route, whatever the number of instances: exactly none at 0, exactly all at 100 %, and within one call over the calls since the route changed. | Groups take turns in an order built for it, not by chance. |
//! | No call goes to an instance that is not connected while another is. | Connections are made ahead of need, to all groups, and kept by this crate. |
//! | The share of a group that cannot be reached goes to the other weighted groups in proportion; if there is none, to groups that carried traffic before; to groups that never did only where the route's policy says so. It is logged. | See [`Balancer`]. |
//! | A call is sent twice only where that is safe: when the first instance has certainly not seen it, or when the caller says so ([`call::Idempotent`], [`client::ServiceBuilder::idempotent`]) and nothing of an answer's body was passed on; and within a budget of a fifth of all calls. | It goes to an instance that it was not sent to yet. |
//! | A call that may be sent twice does not wait for an instance that hangs: after a third of the time it has, another instance is asked as well. | Deadlines ([`call::Deadline`], `grpc-timeout`) are carried: each instance is told how much time is left. |
//! | Calls go on without a registry. | The last view is kept; the watch is resumed by revision on any replica. |
//! | When the registry says that this caller uses a revision, it does. | The receipt is sent after the last call that was begun by an older one. |
//! | An instance that is drained gets nothing new, and what it is answering is awaited. | [`registration::Registration::drain`] |
//!
//! Nothing is left running when the last client, balancer and registration of
//! a process are dropped.
//!
//! # For operators
//!
//! [`operator`] is what deploy scripts need: shifts, rollbacks, receipts. The
//! command line is built on it.

pub mod balancer;
pub mod call;
pub mod client;
pub mod cluster;
pub mod error;
pub mod explain;
pub mod layer;
pub mod make_balancer;
pub mod operator;
pub mod policy;
pub mod registration;
pub mod response_body;
#[doc(hidden)]
pub mod simulation;
pub mod sticky;
pub mod testing;
#[doc(hidden)]
pub mod workbench;

mod attempt;
mod backoff;
mod buckets;
mod budget;
mod cache;
mod chance;
mod connection;
mod continuity;
mod conversation;
mod convert;
mod course;
mod coverage;
mod crew;
mod deadline;
mod endpoint;
#[cfg(test)]
mod fakes;
mod heard;
mod kept;
mod latency;
mod lineup;
mod load;
mod maglev;
mod meter;
mod outcome;
mod outlier;
mod picker;
mod place;
mod pool;
#[cfg(test)]
mod promises;
#[cfg(test)]
mod published_failures;
mod record;
mod renewal;
mod replay;
mod resolver;
mod sampler;
mod schedules;
mod serial;
mod shared;
mod shares;
mod shrink;
mod side;
mod subscription;
mod subset;
mod ticket;
mod turns;
mod view;
mod vitals;
mod warm_up;
mod watch_stream;
mod watcher;
mod zones;

pub use balancer::Balancer;
pub use client::Client;
pub use error::Error;
