//! The main job shown end to end: a release is replaced by another, a broken
//! one is rolled back and the registry loses its leader, all under load.
//!
//! [`director`] tells the story through the same operator calls as the verbs
//! of the command line. Replicas, instances and callers are processes of their
//! own, started by [`stage`]: this program again, as `serve`,
//! `demo-instance` and `demo-caller`. [`ledger`] judges by what the callers
//! counted.

mod caller;
mod count;
mod director;
mod instance;
mod judge;
mod ledger;
mod plan;
mod process;
mod report;
mod screen;
mod stage;
mod story;

pub(crate) mod command;
pub(crate) mod role;
