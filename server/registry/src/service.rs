//! One service: its groups, instances, route and the history of its route.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::bounds::HISTORY_MAX;
use crate::command::Change;
use crate::event::Event;
use crate::group::{Group, GroupState, Tally};
use crate::history::{ChangeKind, RouteChange};
use crate::instance::{Instance, Status};
use crate::instances::Instances;
use crate::name::{GroupName, InstanceId, ServiceName};
use crate::record::ServiceRecord;
use crate::revision::Revision;
use crate::route::Route;
use crate::view::ServiceView;

/// Everything the registry knows of one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "ServiceRecord", try_from = "ServiceRecord")]
pub struct Service {
    pub(crate) name: ServiceName,
    pub(crate) revision: Revision,
    /// None once the service has ended and its last instances leave.
    pub(crate) route: Option<Arc<Route>>,
    pub(crate) route_revision: Revision,
    /// The capacity that carried the traffic when it last left a single group.
    pub(crate) baseline: Option<u64>,
    pub(crate) groups: BTreeMap<GroupName, Group>,
    pub(crate) instances: Instances,
    /// Oldest first.
    pub(crate) history: VecDeque<Arc<RouteChange>>,
}

/// A route about to take effect.
#[derive(Debug)]
pub(crate) struct NewRoute {
    pub(crate) route: Arc<Route>,
    pub(crate) kind: ChangeKind,
    /// For a rollback: the change that first made this route.
    pub(crate) restored: Option<Revision>,
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
        self.instances.iter()
    }

    /// One instance.
    pub fn instance(&self, id: &InstanceId) -> Option<&Arc<Instance>> {
        self.instances.get(id)
    }

    /// Whether it is expected of an instance that it goes: it drains, or its
    /// group is torn down.
    pub fn is_leaving(&self, instance: &Instance) -> bool {
        let group = self.groups.get(instance.group());
        instance.status() == Status::Draining || group.is_some_and(|group| group.retiring)
    }

    /// The changes of the route that are kept, newest first.
    pub fn history(&self) -> impl ExactSizeIterator<Item = &Arc<RouteChange>> {
        self.history.iter().rev()
    }

    /// How many instances of each group can do what, by group.
    pub fn tally(&self) -> BTreeMap<GroupName, Tally> {
        let mut tallies: BTreeMap<GroupName, Tally> = self
            .groups
            .keys()
            .map(|name| (name.clone(), Tally::default()))
            .collect();
        for instance in self.instances.iter() {
            if let Some(tally) = tallies.get_mut(instance.group()) {
                tally.count(instance);
            }
        }
        tallies
    }

    /// What callers need to know; None when the service has ended.
    pub fn view(&self) -> Option<ServiceView> {
        let route = Arc::clone(self.route.as_ref()?);
        let state = |name| self.group_state(name).unwrap_or(GroupState::Dark);
        Some(ServiceView {
            service: self.name.clone(),
            revision: self.revision,
            route,
            route_revision: self.route_revision,
            groups: (self.groups.keys())
                .map(|name| (name.clone(), state(name)))
                .collect(),
            instances: self.instances.clone(),
        })
    }

    /// A service without groups or route, about to get its first.
    pub(crate) fn new(name: ServiceName) -> Self {
        Self {
            name,
            revision: Revision::default(),
            route: None,
            route_revision: Revision::default(),
            baseline: None,
            groups: BTreeMap::new(),
            instances: Instances::default(),
            history: VecDeque::new(),
        }
    }

    /// The group to forget when there is no room for another one: the oldest
    /// that has neither weight nor instances.
    pub(crate) fn forgettable(&self) -> Option<&GroupName> {
        self.groups
            .values()
            .filter(|group| group.instances == 0 && self.weight(&group.name) == 0)
            .min_by_key(|group| group.created)
            .map(|group| &group.name)
    }

    /// Adds an instance, and its group if that is new. There must be room.
    pub(crate) fn insert(&mut self, mut instance: Instance) {
        let group = self
            .groups
            .entry(instance.spec.group.clone())
            .or_insert_with_key(|name| Group {
                name: name.clone(),
                created: instance.lease,
                carried: false,
                retiring: false,
                instances: 0,
            });
        group.instances += 1;
        // All instances of a group share the text of its name.
        instance.spec.group = group.name.clone();
        self.instances.insert(Arc::new(instance));
    }

    /// Takes an instance out, but leaves its group even if that is now empty.
    pub(crate) fn take(&mut self, id: &InstanceId) -> Option<Arc<Instance>> {
        let instance = self.instances.remove(id)?;
        if let Some(group) = self.groups.get_mut(instance.group()) {
            group.instances -= 1;
        }
        Some(instance)
    }

    /// Forgets a group that nothing keeps: no instance, and either no past or
    /// no future.
    pub(crate) fn sweep(&mut self, name: &GroupName) {
        let idle = |group: &Group| group.instances == 0 && (group.retiring || !group.carried);
        if self.groups.get(name).is_some_and(idle) {
            self.groups.remove(name);
        }
    }

    /// Changes one instance, which views taken earlier do not see. Tells when
    /// it is expected to go from then on, or no more.
    pub(crate) fn edit(
        &mut self,
        id: &InstanceId,
        edit: impl FnOnce(&mut Instance),
    ) -> Option<Event> {
        let was_leaving = self.is_leaving(self.instances.get(id)?);
        let instance = self.instances.get_mut(id)?;
        edit(Arc::make_mut(instance));
        let instance = self.instances.get(id)?;
        let leaving = self.is_leaving(instance);
        let key = instance.lease_key(&self.name);
        (leaving != was_leaving).then_some(Event::LeaseLeaving { key, leaving })
    }

    /// Tells callers of a new view, unless the service has ended for them.
    pub(crate) fn changed(&self) -> Option<Event> {
        let has_view = self.route.is_some();
        has_view.then(|| Event::ServiceChanged(self.name.clone()))
    }

    /// Lets a planned route take effect.
    pub(crate) fn set_route(
        &mut self,
        at: Revision,
        new: NewRoute,
        change: &Change,
    ) -> Arc<RouteChange> {
        self.baseline = match (self.carrying_alone(), new.route.weights.only()) {
            (_, Some(_)) => None,
            (Some(alone), None) => Some(self.ready_capacity(alone)),
            (None, None) => self.baseline,
        };
        for (name, _) in new.route.weights.iter() {
            if let Some(group) = self.groups.get_mut(name) {
                group.carried = true;
            }
        }
        let entry = Arc::new(RouteChange {
            service: self.name.clone(),
            revision: at,
            at_ms: change.at_ms,
            actor: change.actor.clone(),
            reason: change.reason.clone(),
            request_id: change.request_id.clone(),
            kind: new.kind,
            before: self.route.clone(),
            after: Arc::clone(&new.route),
            before_origin: self.origin(),
            restored: new.restored,
        });
        if self.history.len() >= HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back(Arc::clone(&entry));
        self.route = Some(new.route);
        self.route_revision = at;
        self.revision = at;
        entry
    }

    /// Ends the service: callers have nothing to call any more.
    pub(crate) fn end(&mut self, at: Revision) {
        self.route = None;
        self.route_revision = at;
        self.revision = at;
        self.baseline = None;
    }

    /// The change that first made the route of today.
    pub(crate) fn origin(&self) -> Option<Revision> {
        self.route.as_ref()?;
        self.history.back().map(|newest| newest.origin())
    }

    /// The group that has all of the traffic, if one has.
    fn carrying_alone(&self) -> Option<&GroupName> {
        self.route.as_ref()?.weights.only()
    }

    fn ready_capacity(&self, group: &GroupName) -> u64 {
        let mut tally = Tally::default();
        self.instances
            .iter()
            .filter(|instance| instance.group() == group)
            .for_each(|instance| tally.count(instance));
        tally.ready_capacity
    }
}
