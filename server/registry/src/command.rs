//! What may be asked of the registry. Commands are log entries: their encoding is pinned by a test.

use serde::{Deserialize, Serialize};

use crate::instance::{Capacity, DeclaredStatus, InstanceSpec, LeaseKey, Ttl};
use crate::name::{GroupName, InstanceId, ServiceName};
use crate::policy::RoutePolicy;
use crate::revision::Revision;
use crate::route::{BasisPoints, Weights};
use crate::text::{Actor, Reason, RequestId};

/// How many services one shift or rollback may change.
pub const SERVICES_PER_CHANGE_MAX: usize = 64;
/// How many leases one judgement may name, so that its entry stays well below
/// a message's size.
pub const LEASES_PER_JUDGEMENT_MAX: usize = 4_096;

/// One request to change the registry. Absolute, so that a repetition does
/// no harm, and valid by itself: what depends on the state is judged when it
/// is applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Be found.
    Register(Register),
    /// Say of oneself whether one can serve.
    SetStatus(SetStatus),
    /// Leave.
    Deregister(Deregister),
    /// Who stopped renewing, who renews again, whose lease is over.
    JudgeLeases(JudgeLeases),
    /// Change routes.
    Shift(Shift),
    /// Restore routes.
    Rollback(Rollback),
    /// Let a group go.
    Teardown(Teardown),
    /// Set on an instance what it does not say of itself.
    AdjustInstance(AdjustInstance),
}

/// Take or replace the registration of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// The service.
    pub service: ServiceName,
    /// What the instance says of itself: not DRAINING.
    pub instance: InstanceSpec,
    /// How long the lease lasts without renewal.
    pub ttl: Ttl,
    /// When it was asked, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// An instance's word on itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetStatus {
    /// The lease it holds.
    pub lease: LeaseKey,
    /// Whether it can serve.
    pub status: DeclaredStatus,
}

/// An instance leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deregister {
    /// The lease it held.
    pub lease: LeaseKey,
}

/// What the leader's clock says of leases. Applies only in the leader's term,
/// and to each lease only while it is as it was judged; what is not is passed
/// over in silence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgeLeases {
    /// The term in which the leader judged.
    pub term: u64,
    /// Stopped renewing.
    pub suspect: Vec<LeaseKey>,
    /// Suspect, and renew again.
    pub revive: Vec<LeaseKey>,
    /// Did not renew for their TTL.
    pub expire: Vec<Expiry>,
}

impl JudgeLeases {
    /// How many leases it names.
    pub fn len(&self) -> usize {
        self.suspect.len() + self.revive.len() + self.expire.len()
    }

    /// It names none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A lease that is over, as the leader judged it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expiry {
    /// The lease.
    pub key: LeaseKey,
    /// Since when it is suspect: an instance that revived meanwhile stays.
    pub suspect_since: Revision,
}

/// What every operator's change carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Who asks.
    pub actor: Actor,
    /// Why.
    pub reason: Reason,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Names the request.
    pub request_id: RequestId,
    /// Overrule the guards that allow it.
    pub force: bool,
}

/// Change the routes of one or several services, all or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shift {
    /// 1 to [`SERVICES_PER_CHANGE_MAX`], each service once.
    pub shifts: Vec<ServiceShift>,
    /// Who, when, why.
    pub change: Change,
}

/// The change of one service's route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceShift {
    /// The service.
    pub service: ServiceName,
    /// Where to.
    pub target: Target,
    /// Refused unless the route is still the one of this revision.
    pub expected: Option<Revision>,
    /// How many ready instances each group that gains weight must have. None:
    /// as much ready capacity, in proportion, as carries the traffic now.
    pub min_ready: Option<u32>,
    /// None keeps the policy.
    pub policy: Option<RoutePolicy>,
}

/// Where a shift goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// These weights.
    Weights(Weights),
    /// All to one group.
    SwitchTo(GroupName),
    /// A share for one group; the others share the rest in the proportion
    /// they have now.
    Canary {
        /// The group.
        group: GroupName,
        /// Its share.
        share: Share,
    },
    /// Nowhere: the weights stay, the policy changes.
    Keep,
}

/// The share of a canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Share {
    /// As much per unit of ready capacity as the others have.
    Even,
    /// So much.
    BasisPoints(BasisPoints),
}

/// Restore earlier routes of one or several services, all or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollback {
    /// 1 to [`SERVICES_PER_CHANGE_MAX`], each service once.
    pub targets: Vec<RollbackTarget>,
    /// Who, when, why.
    pub change: Change,
}

/// The route to restore in one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollbackTarget {
    /// The service.
    pub service: ServiceName,
    /// The revision whose route to restore. None: the one before the last
    /// change; asked again, the one before that.
    pub to: Option<Revision>,
    /// Refused unless the route is still the one of this revision.
    pub expected: Option<Revision>,
}

/// Tell the instances of a group to leave, and forget it when they are gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Teardown {
    /// The service.
    pub service: ServiceName,
    /// The group.
    pub group: GroupName,
    /// Refused unless the route is still the one of this revision.
    pub expected: Option<Revision>,
    /// Who, when, why. `force` lets the only group of a service go though it
    /// has weight: the service ends.
    pub change: Change,
}

/// Set on one instance what it does not say of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdjustInstance {
    /// The service.
    pub service: ServiceName,
    /// The instance.
    pub instance: InstanceId,
    /// What to set.
    pub adjustment: Adjustment,
    /// Refused unless the route is still the one of this revision.
    pub expected: Option<Revision>,
    /// Who, when, why.
    pub change: Change,
}

/// What an operator sets on an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Adjustment {
    /// true: DRAINING whatever it says; false: as it says.
    Drain(bool),
    /// Another capacity; None restores its own.
    Capacity(Option<Capacity>),
}
