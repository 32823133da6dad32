//! The state machine of the registry: services, groups, instances, routes, and nothing else.
//!
//! [`state::Registry::apply`] is the only way in. It takes one committed
//! [`command::Command`] and the log position it was committed at, and answers
//! with an outcome or a rejection and the events that others act on. There is
//! no clock, no I/O and no chance here: replicas that apply the same commands
//! hold equal registries.

mod adjustment;
pub mod bounds;
pub mod command;
pub mod event;
pub mod group;
pub mod history;
pub mod instance;
pub mod instances;
mod interner;
mod invalid;
mod judgement;
pub mod name;
pub mod outcome;
mod plan;
pub mod policy;
mod record;
mod registration;
pub mod rejection;
pub mod restamp;
pub mod revision;
mod rollback;
pub mod route;
mod routing;
pub mod service;
mod shift;
pub mod snapshot;
pub mod state;
mod teardown;
pub mod text;
pub mod view;

/// The version of the encoding of commands, outcomes, rejections and
/// snapshots. Whoever stores or sends their bytes writes it in front of them.
pub const FORMAT_VERSION: u8 = 2;
