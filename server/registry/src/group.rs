//! All instances of one release of a service, and what the release is for.

use std::fmt;

use serde::{Deserialize, Serialize};

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
