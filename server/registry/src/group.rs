//! All instances of one release of a service, and what the release is for.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::instance::{Instance, Status};
use crate::name::GroupName;
use crate::revision::Revision;

/// What a group is for, as its weight and its past say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum GroupState {
    /// Never carried traffic.
    Dark,
    /// Has weight.
    Active,
    /// Carried traffic before: what a rollback goes back to.
    Standby,
    /// Being torn down.
    Retiring,
}

impl fmt::Display for GroupState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            GroupState::Dark => "DARK",
            GroupState::Active => "ACTIVE",
            GroupState::Standby => "STANDBY",
            GroupState::Retiring => "RETIRING",
        })
    }
}

/// What is kept of a group beside its instances and its weight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its name, unique within the service.
    pub name: GroupName,
    /// When its first instance registered. A group that comes back after it
    /// was forgotten is another group of the same name.
    pub created: Revision,
    /// It has or had weight.
    pub carried: bool,
    /// It is being torn down.
    pub retiring: bool,
    /// How many instances it has.
    pub instances: u32,
}

/// How many instances of a group can do what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All of them.
    pub instances: u32,
    /// Of these, STARTING.
    pub starting: u32,
    /// Of these, READY.
    pub ready: u32,
    /// Of these, SUSPECT.
    pub suspect: u32,
    /// Of these, DRAINING.
    pub draining: u32,
    /// The capacity of those that are READY.
    pub ready_capacity: u64,
}

impl Tally {
    /// Counts one more.
    pub(crate) fn count(&mut self, instance: &Instance) {
        self.instances += 1;
        match instance.status() {
            Status::Starting => self.starting += 1,
            Status::Suspect => self.suspect += 1,
            Status::Draining => self.draining += 1,
            Status::Ready => {
                self.ready += 1;
                self.ready_capacity += u64::from(instance.capacity());
            }
        }
    }
}
