//! Who changed a route, when, why, from what, to what.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::name::ServiceName;
use crate::revision::Revision;
use crate::route::Route;
use crate::text::{Actor, Reason, RequestId};

/// What kind of change a route went through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ChangeKind {
    /// The first group of the service got all of it.
    Found,
    /// One group got a share, the others keep their proportions.
    Canary,
    /// New weights.
    Shift,
    /// One group got all.
    Switch,
    /// An earlier route was restored.
    Rollback,
    /// Another policy, the same weights.
    Policy,
}

/// One change of one route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteChange {
    /// The service.
    pub service: ServiceName,
    /// When it took effect, in the log. 0 in the answer to a dry run.
    pub revision: Revision,
    /// When it was asked for, by the clock of the replica that was asked:
    /// milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Who asked.
    pub actor: Actor,
    /// Why.
    pub reason: Reason,
    /// Names the request.
    pub request_id: RequestId,
    /// What kind of change.
    pub kind: ChangeKind,
    /// None for the first route of a service.
    pub before: Option<Arc<Route>>,
    /// The route since then.
    pub after: Arc<Route>,
    /// The change that first made `before`, through all rollbacks to it.
    pub before_origin: Option<Revision>,
    /// For a rollback: the change that first made the route it restored.
    pub restored: Option<Revision>,
}

impl RouteChange {
    /// The change that first made the route this one led to: itself, unless
    /// it restored an earlier one.
    pub fn origin(&self) -> Revision {
        self.restored.unwrap_or(self.revision)
    }
}
