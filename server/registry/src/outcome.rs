//! What a command did.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::history::RouteChange;
use crate::instance::Instance;
use crate::rejection::Rejection;
use crate::revision::Revision;

/// What came of one applied command.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Applied {
    /// What it did, or why it changed nothing.
    pub outcome: Result<Outcome, Rejection>,
    /// What others must act on; empty after a rejection.
    pub events: Vec<Event>,
}

/// What a command did. `revision` is the log position of the change; when
/// nothing changed, and in the answer to a dry run, that of the newest
/// change of what it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// To `Register`.
    Registered {
        /// The service's revision.
        revision: Revision,
        /// Names the new lease; 0 in the answer to a dry run.
        lease: Revision,
    },
    /// To `SetStatus`.
    StatusSet {
        /// The service's revision.
        revision: Revision,
    },
    /// To `Deregister`.
    Deregistered {
        /// The service's revision; of one that is unknown, the registry's.
        revision: Revision,
        /// False when the lease was already gone.
        existed: bool,
    },
    /// To `JudgeLeases`.
    Judged(Judged),
    /// To `Shift`.
    Shifted(Routed),
    /// To `Rollback`.
    RolledBack(Routed),
    /// To `Teardown`.
    TornDown {
        /// The service's revision.
        revision: Revision,
        /// Instances that are to leave.
        instances: u32,
        /// What the operator should know.
        warnings: Vec<String>,
    },
    /// To `AdjustInstance`.
    Adjusted {
        /// The service's revision.
        revision: Revision,
        /// The instance as it is now.
        instance: Arc<Instance>,
        /// What the operator should know.
        warnings: Vec<String>,
    },
}

/// How many leases a judgement changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// Turned suspect.
    pub suspected: u32,
    /// Were suspect and are no more.
    pub revived: u32,
    /// Removed.
    pub expired: u32,
    /// Not as they were judged, and left alone.
    pub stale: u32,
}

/// What became of the routes of one or several services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routed {
    /// The revision of the change. When nothing changed, and in a dry run,
    /// that of the newest route among the services.
    pub revision: Revision,
    /// One for each service whose route changed, in the order asked.
    pub changes: Vec<Arc<RouteChange>>,
    /// What the operator should know though it was not refused.
    pub warnings: Vec<String>,
    /// Whether this command did it.
    pub effect: Effect,
}

/// Whether a command changed a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// It did.
    Changed,
    /// The routes were already as asked.
    Unchanged,
    /// An earlier command with the same request id did.
    Replayed,
}
