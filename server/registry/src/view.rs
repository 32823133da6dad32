//! What a caller needs to know of one service, at one revision.

use std::sync::Arc;

use crate::group::GroupState;
use crate::instances::Instances;
use crate::name::{GroupName, ServiceName};
use crate::revision::Revision;
use crate::route::Route;

/// Route, groups and instances of one service as of one revision. Holds
/// shared parts, so that taking one copies pointers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceView {
    /// The name callers use.
    pub service: ServiceName,
    /// The last change of the service.
    pub revision: Revision,
    /// Who gets which share.
    pub route: Arc<Route>,
    /// The last change of the route; what writers compare with.
    pub route_revision: Revision,
    /// Every group, sorted by name.
    pub groups: Vec<(GroupName, GroupState)>,
    /// Every instance, sorted by id.
    pub instances: Instances,
}
