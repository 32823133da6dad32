//! What the registry knows of a service: groups, instances, intended and
//! observed shares.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::operator::brake::Brake;
use crate::operator::route::Route;
use crate::serial;

/// One service in a list of all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServiceSummary {
    /// Its name.
    pub service: String,
    /// The last change to it.
    pub revision: u64,
    /// How many groups it has.
    pub groups: u32,
    /// How many instances, over all groups.
    pub instances: u32,
    /// How many of these are ready.
    pub ready: u32,
}

/// All services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServiceList {
    /// Sorted by name.
    pub services: Vec<ServiceSummary>,
    /// The replica asked is cut off from a leader: this may be old.
    pub possibly_stale: bool,
}

/// Everything a caller is told about a service, at one revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServiceView {
    /// The service.
    pub service: String,
    /// The last change to it.
    pub revision: u64,
    /// The last change of its route.
    pub route_revision: u64,
    /// Who gets which share.
    pub route: Route,
    /// Sorted by name.
    pub groups: Vec<ViewGroup>,
    /// Sorted by id.
    pub instances: Vec<Instance>,
    /// The replica asked is cut off from a leader: this may be old.
    pub possibly_stale: bool,
}

/// A group as callers see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ViewGroup {
    /// The release.
    pub name: String,
    /// What it is for.
    pub state: GroupState,
}

/// What a group is for, as its weight and its past say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupState {
    /// Never carried traffic.
    Dark,
    /// Has weight.
    Active,
    /// Carried traffic before and has no weight now.
    Standby,
    /// Its instances were told to retire.
    Retiring,
    /// A state that this client does not know.
    Unknown,
}

impl fmt::Display for GroupState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Dark => "dark",
            Self::Active => "active",
            Self::Standby => "standby",
            Self::Retiring => "retiring",
            Self::Unknown => "unknown",
        })
    }
}

/// What may be done with an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceStatus {
    /// Registered, not yet able to serve.
    Starting,
    /// Serving.
    Ready,
    /// Stopped renewing; used only when nothing ready is left.
    Suspect,
    /// Finishes what it has and gets nothing new.
    Draining,
    /// A status that this client does not know.
    Unknown,
}

impl fmt::Display for InstanceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Suspect => "suspect",
            Self::Draining => "draining",
            Self::Unknown => "unknown",
        })
    }
}

/// One process of one release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Instance {
    /// Unique within the service.
    pub id: String,
    /// The release it runs.
    pub group: String,
    /// "host:port" that callers connect to.
    pub address: String,
    /// Failure domain; may be empty.
    pub zone: String,
    /// Relative weight within its group.
    pub capacity: u32,
    /// What may be done with it.
    pub status: InstanceStatus,
    /// What it says about itself beyond that.
    pub metadata: BTreeMap<String, String>,
}

/// An instance and what only the registry knows of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InstanceDetail {
    /// As callers see it.
    #[serde(flatten)]
    pub instance: Instance,
    /// Names its registration.
    pub lease: u64,
    /// How long it may go without renewing.
    #[serde(rename = "ttl_ms", serialize_with = "serial::milliseconds")]
    pub ttl: Duration,
    /// Did an operator set it to drain?
    pub held_draining: bool,
    /// The capacity an operator set, if one did.
    pub capacity_override: Option<u32>,
}

/// One group: who is there, and who carries what.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GroupStatus {
    /// The release.
    pub name: String,
    /// What it is for.
    pub state: GroupState,
    /// How many instances, in any status.
    pub instances: u32,
    /// How many are ready.
    pub ready: u32,
    /// How many stopped renewing.
    pub suspect: u32,
    /// How many are not yet able to serve.
    pub starting: u32,
    /// How many finish what they have.
    pub draining: u32,
    /// Sum of the capacities of the ready ones.
    pub ready_capacity: u64,
    /// The share it should get.
    pub intended_basis_points: u32,
    /// The share it got of the calls seen within the window; `None` when there
    /// were no calls at all.
    pub observed_basis_points: Option<u32>,
    /// Calls within the window, as the callers report.
    pub calls: u64,
    /// How many of these failed.
    pub errors: u64,
    /// Mean time to the end of a call; `None` when there were none.
    #[serde(
        rename = "latency_mean_ms",
        serialize_with = "serial::milliseconds_or_null"
    )]
    pub latency_mean: Option<Duration>,
    /// The time that half of the calls stayed within, to less than half of
    /// its value; `None` when no caller told its latencies.
    #[serde(
        rename = "latency_p50_ms",
        serialize_with = "serial::milliseconds_or_null"
    )]
    pub latency_p50: Option<Duration>,
    /// The time that 99 % of the calls stayed within, as exactly.
    #[serde(
        rename = "latency_p99_ms",
        serialize_with = "serial::milliseconds_or_null"
    )]
    pub latency_p99: Option<Duration>,
    /// How long ago it was last called; `None` when never.
    #[serde(
        rename = "last_call_age_ms",
        serialize_with = "serial::milliseconds_or_null"
    )]
    pub last_call_age: Option<Duration>,
}

impl GroupStatus {
    /// Failed calls per call within the window, 0 to 1; `None` without calls.
    pub fn error_rate(&self) -> Option<f64> {
        (self.calls > 0).then(|| self.errors as f64 / self.calls as f64)
    }
}

/// One service as an operator sees it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ServiceStatus {
    /// The service.
    pub service: String,
    /// The last change to it.
    pub revision: u64,
    /// The last change of its route.
    pub route_revision: u64,
    /// Who gets which share.
    pub route: Route,
    /// Sorted by name.
    pub groups: Vec<GroupStatus>,
    /// Sorted by id.
    pub instances: Vec<InstanceDetail>,
    /// Callers that watch it.
    pub watchers: u32,
    /// How many of these use the current route.
    pub watchers_confirmed: u32,
    /// Replicas whose watchers and reports are missing above.
    pub unreachable_replicas: Vec<u64>,
    /// The span that calls and errors are counted over.
    #[serde(rename = "window_ms", serialize_with = "serial::milliseconds")]
    pub window: Duration,
    /// What is wrong, in words, worst first.
    pub alarms: Vec<String>,
    /// Removals that are held back; the alarms have them in words.
    pub brakes: Vec<Brake>,
    /// The replica asked is cut off from a leader: this may be old.
    pub possibly_stale: bool,
}

impl ServiceStatus {
    /// The group of that name.
    pub fn group(&self, name: &str) -> Option<&GroupStatus> {
        self.groups.iter().find(|group| group.name == name)
    }
}
