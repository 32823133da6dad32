//! A registry for tests of programs that use this crate: in the test's own process, on a free port, and it does what the test says.
//!
//! It speaks the protocol, so the program under test runs as it is: it watches,
//! balances, registers, renews, reports and drains. The test says which
//! services there are, looks at what the registry was told, and breaks it.
//!
//! To test a caller, start servers of your own and publish them:
//!
//! ```
//! use trimtab_client::Client;
//! use trimtab_client::testing::{FakeInstance, FakeRegistry, FakeService};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let address = server.local_addr()?.to_string();
//!
//! let mut registry = FakeRegistry::start().await?;
//! let catalog = FakeService::new("catalog")
//!     .weight("v42", 10_000)
//!     .instance(FakeInstance::new("i1", "v42", &address));
//! let revision = registry.publish(catalog)?;
//!
//! let client = Client::connect(&registry.endpoint())?;
//! let balancer = client.service("catalog").tcp().await?;
//! assert_eq!(balancer.pick().await?.instance_id(), "i1");
//!
//! // Its calls follow what was published, and it said so.
//! let told = registry.until("the receipt", |told| told.confirmed("catalog") == Some(revision));
//! assert_eq!(told.await?.watchers.len(), 1);
//!
//! // Calls go on without a registry.
//! registry.stop().await;
//! assert_eq!(balancer.pick().await?.group(), "v42");
//! # Ok(())
//! # }
//! ```
//!
//! To test an instance, let it register:
//!
//! ```
//! use std::time::Duration;
//! use trimtab_client::Client;
//! use trimtab_client::testing::FakeRegistry;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let registry = FakeRegistry::start().await?;
//! let client = Client::connect(&registry.endpoint())?;
//! let registration = client.register("catalog", "v42", "127.0.0.1:8080").id("i1");
//! let registration = registration.start().await?;
//! assert_eq!(registry.told().registrations[0].instance.group, "v42");
//!
//! registry.retire("catalog", "i1");
//! registration.retired().await;
//! let drained = registration.drain(Duration::from_secs(1)).await?;
//! assert!(drained.complete);
//! assert!(registry.told().registrations.is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! # What it is not
//!
//! A registry. It keeps what it is given in memory; nothing in it expires,
//! turns SUSPECT or is held back by itself, and of what operators ask it knows
//! receipts alone. Registration is as in a real one: the first group of a
//! service gets all of its weight, later groups none.
//!
//! It is not behind a feature: it needs nothing that this crate is not built
//! with anyway, and programs that do not use it do not carry it.

mod discovery;
mod fake_registry;
mod fake_service;
mod line;
mod registration;
mod routing;
mod state;
mod told;

pub use fake_registry::FakeRegistry;
pub use fake_service::{FakeInstance, FakeService};
pub use told::{Told, ToldLoad, ToldRegistration, ToldWatcher};

pub use crate::operator::service_status::{Instance, InstanceStatus};
