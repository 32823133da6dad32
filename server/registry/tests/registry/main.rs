//! What the registry promises, asked through its public face alone.

mod adjustment;
mod encoding;
mod judgement;
mod names;
mod properties;
mod registration;
mod rollback;
mod shift;
mod snapshot;
mod teardown;
mod world;
