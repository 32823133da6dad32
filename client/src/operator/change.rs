//! Changes of routes, groups and instances: what to ask for, and what became
//! of it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::operator::service_status::Instance;
use crate::policy::Policy;
use crate::serial;

pub use crate::operator::route::{CurrentRoute, Route, WHOLE_BASIS_POINTS};

/// What every change can carry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChangeOptions {
    /// Who asks, at most 128 bytes. Kept in the history.
    pub actor: String,
    /// Why, at most 512 bytes. Kept in the history.
    pub reason: String,
    /// Check and answer as if done, but change nothing.
    pub dry_run: bool,
    /// Overrule the guards that allow it.
    pub force: bool,
    /// Names the change, at most 64 bytes: repeated with the same id it is
    /// done once. `None` means a random one for each call.
    pub request_id: Option<String>,
}

/// What the routes of a shift shall become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShiftTarget {
    /// Exactly these basis points by group; they sum to 10,000.
    Weights(BTreeMap<String, u32>),
    /// Everything to one group.
    SwitchTo(String),
    /// A share for one group; the others keep their proportions in the rest.
    Canary {
        /// The group that is tried.
        group: String,
        /// How much of the calls it gets.
        share: CanaryShare,
    },
    /// The weights stay as they are; there must be a policy.
    Keep,
}

/// How much of the calls a canary gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CanaryShare {
    /// As much as its ready capacity is of all ready capacity that carries
    /// traffic: one machine among a hundred and one gets a hundred-and-first.
    Even,
    /// So many basis points.
    BasisPoints(u32),
}

/// The shift of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceShift {
    /// The service.
    pub service: String,
    /// What its route shall become.
    pub target: ShiftTarget,
    /// Refuse unless the route is still the one of this revision.
    pub expected_route_revision: Option<u64>,
    /// How many ready instances each group that gains weight must have.
    /// `None` means as much ready capacity as carries the traffic now.
    pub min_ready: Option<u32>,
    /// The whole policy from then on; `None` keeps it.
    pub policy: Option<Policy>,
}

impl ServiceShift {
    /// A shift of `service` to `target`, with the default guard and no
    /// compare-and-set.
    pub fn new(service: impl Into<String>, target: ShiftTarget) -> Self {
        Self {
            service: service.into(),
            target,
            expected_route_revision: None,
            min_ready: None,
            policy: None,
        }
    }
}

/// The rollback of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RollbackTarget {
    /// The service.
    pub service: String,
    /// The revision whose route to restore; `None` means the one before the
    /// last change, and when asked again the one before that.
    pub to_revision: Option<u64>,
    /// Refuse unless the route is still the one of this revision.
    pub expected_route_revision: Option<u64>,
}

/// The teardown of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Teardown {
    /// The service.
    pub service: String,
    /// The group whose instances are to retire.
    pub group: String,
    /// How long no caller may have called the group; `None` means 30 seconds.
    pub quiet: Option<Duration>,
    /// Refuse unless the route is still the one of this revision.
    pub expected_route_revision: Option<u64>,
}

/// What an operator sets on one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adjustment {
    /// DRAINING whatever the instance says of itself.
    Drain,
    /// As the instance says of itself again.
    Undrain,
    /// Another capacity, 1 to 10,000; 0 restores the one it registered with.
    Capacity(u32),
}

/// The adjustment of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceAdjustment {
    /// The service.
    pub service: String,
    /// The instance.
    pub instance_id: String,
    /// What to set.
    pub adjustment: Adjustment,
    /// Refuse unless the service's route is still the one of this revision.
    pub expected_route_revision: Option<u64>,
}

/// What kind of change a route went through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// The first group of the service got all of it.
    Found,
    /// One group was given a share to try it.
    Canary,
    /// Weights were set.
    Shift,
    /// One group got everything.
    Switch,
    /// An earlier route was restored.
    Rollback,
    /// The policy was set, the weights stayed.
    Policy,
    /// A kind that this client does not know.
    Unknown,
}

/// One change of one route: who, when, why, before, after.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouteChange {
    /// The service.
    pub service: String,
    /// The position in the replicated log at which it took effect.
    pub revision: u64,
    /// When, by the clock of the replica that took the request.
    #[serde(serialize_with = "serial::timestamp")]
    pub at: Option<SystemTime>,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// What kind of change.
    pub kind: ChangeKind,
    /// `None` for the first route of a service.
    pub before: Option<Route>,
    /// The route since then.
    pub after: Route,
    /// For a rollback: the revision whose route it restored.
    pub restored_revision: Option<u64>,
    /// The id that the change was asked with.
    pub request_id: String,
}

/// What became of a shift or rollback.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShiftOutcome {
    /// The position in the log at which it took effect; for a dry run, or
    /// when there was nothing to change, that of the newest route concerned.
    pub revision: u64,
    /// Was it only asked what would happen?
    pub dry_run: bool,
    /// The changed routes, one per service; empty when everything already was
    /// as asked.
    pub changes: Vec<RouteChange>,
    /// What the operator should know though nothing was refused.
    pub warnings: Vec<String>,
}

/// What became of a teardown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TeardownOutcome {
    /// The position in the log at which it took effect.
    pub revision: u64,
    /// Was it only asked what would happen?
    pub dry_run: bool,
    /// How many instances were told to retire.
    pub instances: u32,
    /// What the operator should know though nothing was refused.
    pub warnings: Vec<String>,
}

/// What became of the adjustment of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AdjustmentOutcome {
    /// The position in the log at which it took effect.
    pub revision: u64,
    /// Was it only asked what would happen?
    pub dry_run: bool,
    /// The instance as callers see it from that revision on.
    pub instance: Instance,
    /// What the operator should know though nothing was refused.
    pub warnings: Vec<String>,
}
