//! One service: its groups, instances, route and the history of its route.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::group::{Group, GroupState};
use crate::history::RouteChange;
use crate::instance::Instance;
use crate::name::{GroupName, InstanceId, ServiceName};
use crate::revision::Revision;
use crate::route::Route;

/// Everything the registry knows of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub(crate) name: ServiceName,
    pub(crate) revision: Revision,
    /// None once the service has ended and its last instances leave.
    pub(crate) route: Option<Arc<Route>>,
    pub(crate) route_revision: Revision,
    /// The capacity that carried the traffic when it last left a single group.
    pub(crate) baseline: Option<u64>,
    pub(crate) groups: BTreeMap<GroupName, Group>,
    pub(crate) instances: BTreeMap<InstanceId, Arc<Instance>>,
    /// Oldest first.
    pub(crate) history: VecDeque<Arc<RouteChange>>,
}

impl Service {
    /// The name callers use.
    pub fn name(&self) -> &ServiceName {
        &self.name
    }

    /// The last change of the service.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Who gets which share; None when the service has ended and only waits
    /// for its last instances to leave.
    pub fn route(&self) -> Option<&Arc<Route>> {
        self.route.as_ref()
    }

    /// The last change of the route.
    pub fn route_revision(&self) -> Revision {
        self.route_revision
    }

    /// All groups, by name.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = &Group> {
        self.groups.values()
    }

    /// One group.
    pub fn group(&self, name: &GroupName) -> Option<&Group> {
        self.groups.get(name)
    }

    /// What a group is for, if it exists.
    pub fn group_state(&self, name: &GroupName) -> Option<GroupState> {
        let group = self.groups.get(name)?;
        Some(if group.retiring {
            GroupState::Retiring
        } else if self.weight(name) > 0 {
            GroupState::Active
        } else if group.carried {
            GroupState::Standby
        } else {
            GroupState::Dark
        })
    }

    /// A group's share in parts per 10,000.
    pub fn weight(&self, group: &GroupName) -> u32 {
        self.route
            .as_ref()
            .map_or(0, |route| route.weights.get(group))
    }

    /// All instances, by id.
    pub fn instances(&self) -> impl ExactSizeIterator<Item = &Arc<Instance>> {
        self.instances.values()
    }

    /// One instance.
    pub fn instance(&self, id: &InstanceId) -> Option<&Arc<Instance>> {
        self.instances.get(id)
    }

    /// The changes of the route that are kept, newest first.
    pub fn history(&self) -> impl ExactSizeIterator<Item = &Arc<RouteChange>> {
        self.history.iter().rev()
    }
}
