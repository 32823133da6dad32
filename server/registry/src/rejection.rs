//! Why a command changed nothing, in words that a person can act on.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::name::{GroupName, InstanceId, ServiceName};
use crate::revision::Revision;

pub use crate::invalid::Invalid;

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum Rejection {
    /// The command could never apply.
    #[error(transparent)]
    Invalid(#[from] Invalid),

    /// What it is about is not there.
    #[error(transparent)]
    NotFound(#[from] Missing),

    /// The route is not the one the asker expected.
    #[error(
        "the route of service {service} is at revision {current}, not {expected}: \
         someone changed it; look at the history, then ask again with the current revision"
    )]
    RevisionMismatch {
        /// The service.
        service: ServiceName,
        /// What the asker expected.
        expected: Revision,
        /// What it is.
        current: Revision,
    },

    /// A group that gains weight has too little that is ready.
    #[error("{0}; start more instances, lower min-ready, or use force")]
    TooFewReady(Box<TooFewReady>),

    /// A canary needs another group that takes the rest.
    #[error(
        "group {group} cannot share the traffic of service {service}: no other group that \
         has weight {}; switch to {group} to give it everything",
        if *.ready_matters { "has a ready instance" } else { "exists" }
    )]
    NothingToShareWith {
        /// The service.
        service: ServiceName,
        /// The canary.
        group: GroupName,
        /// There are other weighted groups, but none is ready.
        ready_matters: bool,
    },

    /// A group that is torn down takes no instances and no weight.
    #[error(
        "group {group} of service {service} is being torn down: \
         use another group, or wait until its instances are gone"
    )]
    GroupRetiring {
        /// The service.
        service: ServiceName,
        /// The group.
        group: GroupName,
    },

    /// A group with weight is not torn down.
    #[error(
        "group {group} of service {service} still gets {}% of its traffic: {}",
        percent(*.weight),
        if *.only { "shift it away first, or use force to end the service" } else { "shift it away first" }
    )]
    GroupHasWeight {
        /// The service.
        service: ServiceName,
        /// The group.
        group: GroupName,
        /// In parts per 10,000.
        weight: u32,
        /// It is the service's only group, which force would tear down.
        only: bool,
    },

    /// There is nothing to go back to.
    #[error(
        "service {service} has no earlier route to go back to in its history; \
         shift to the groups that should carry the traffic instead"
    )]
    NoEarlierRoute {
        /// The service.
        service: ServiceName,
    },

    /// The history does not hold the revision asked for.
    #[error(
        "revision {revision} is not in the history of service {service}, \
         which holds {}: look at the history for the revision to go back to",
        describe_span(*.oldest, *.newest)
    )]
    NotInHistory {
        /// The service.
        service: ServiceName,
        /// What was asked for.
        revision: Revision,
        /// The oldest change that is kept.
        oldest: Option<Revision>,
        /// The newest change.
        newest: Option<Revision>,
    },

    /// A group of the route to restore is gone.
    #[error(
        "cannot restore the route of revision {revision} of service {service}: \
         its group {group} {}; shift to groups that exist instead",
        .how
    )]
    GroupGone {
        /// The service.
        service: ServiceName,
        /// The revision whose route was to be restored.
        revision: Revision,
        /// The group.
        group: GroupName,
        /// What became of it.
        how: Gone,
    },

    /// The request id belongs to another request.
    #[error(
        "request id {request_id:?} was already used by another change of service {service}, \
         at revision {revision}: use a new one"
    )]
    RequestIdReused {
        /// The service.
        service: ServiceName,
        /// The id.
        request_id: String,
        /// The change that used it.
        revision: Revision,
    },

    /// A bound of the registry is reached.
    #[error("{what} has reached the bound of {bound}: {remedy}")]
    Full {
        /// What is full.
        what: String,
        /// How many it can have.
        bound: u64,
        /// What can be done.
        remedy: String,
    },
}

/// What is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum Missing {
    /// No such service.
    #[error("service {0} is not registered")]
    Service(ServiceName),
    /// No such group.
    #[error("service {service} has no group {group}; it has {}", list(.known))]
    Group {
        /// The service.
        service: ServiceName,
        /// The group.
        group: GroupName,
        /// Some of the groups it has.
        known: Vec<GroupName>,
    },
    /// No such instance.
    #[error("service {service} has no instance {instance}")]
    Instance {
        /// The service.
        service: ServiceName,
        /// The instance.
        instance: InstanceId,
    },
    /// The lease is over.
    #[error(
        "lease {lease} of instance {instance} of service {service} is no longer held: \
         register again"
    )]
    Lease {
        /// The service.
        service: ServiceName,
        /// The instance.
        instance: InstanceId,
        /// The lease.
        lease: Revision,
    },
}

/// The numbers of a refused shift.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TooFewReady {
    /// The service.
    pub service: ServiceName,
    /// The group that would gain weight.
    pub group: GroupName,
    /// What it would get, in parts per 10,000.
    pub weight: u32,
    /// How many instances it has.
    pub instances: u32,
    /// How many of them are ready.
    pub ready: u32,
    /// Their capacity.
    pub ready_capacity: u64,
    /// What it would need.
    pub needed: Needed,
}

/// What a group that gains weight needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Needed {
    /// So many ready instances.
    Instances(u32),
    /// So much ready capacity: its share of what carries the traffic now.
    Capacity {
        /// Of the group.
        needed: u64,
        /// Of what carries the traffic now.
        carrying: u64,
    },
}

impl fmt::Display for TooFewReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "group {} of service {} is not ready for {}% of the traffic: {} of its {} instances \
             {} ready, with capacity {}, ",
            self.group,
            self.service,
            percent(self.weight),
            self.ready,
            self.instances,
            if self.ready == 1 { "is" } else { "are" },
            self.ready_capacity,
        )?;
        match self.needed {
            Needed::Instances(needed) => write!(f, "and at least {needed} must be ready"),
            Needed::Capacity { needed, carrying } => write!(
                f,
                "and it needs capacity {needed} (capacity {carrying} carries the traffic now)"
            ),
        }
    }
}

/// What became of a group that a route names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Gone {
    /// It is being torn down.
    Retiring,
    /// It was torn down, or forgotten when there were too many groups.
    Forgotten,
    /// It was, and another of the same name exists since this revision.
    Replaced(Revision),
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gone::Retiring => f.write_str("is being torn down"),
            Gone::Forgotten => f.write_str("was torn down"),
            Gone::Replaced(revision) => write!(
                f,
                "was torn down (the one that has its name came at revision {revision})"
            ),
        }
    }
}

/// Basis points as a person reads them: "12.5", "100".
pub(crate) fn percent(basis_points: u32) -> String {
    let (whole, rest) = (basis_points / 100, basis_points % 100);
    let text = format!("{whole}.{rest:02}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn list(groups: &[GroupName]) -> String {
    if groups.is_empty() {
        return "none".to_owned();
    }
    let names: Vec<&str> = groups.iter().map(GroupName::as_str).collect();
    names.join(", ")
}

fn describe_span(oldest: Option<Revision>, newest: Option<Revision>) -> String {
    match (oldest, newest) {
        (Some(oldest), Some(newest)) => format!("changes from {oldest} to {newest}"),
        _ => "no changes".to_owned(),
    }
}
