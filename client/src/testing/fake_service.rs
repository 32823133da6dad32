//! A service as a test describes it: weights, instances and policy.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use trimtab_proto::v1 as wire;

use crate::convert::policy_to_wire;
use crate::error::Error;
use crate::operator::service_status::InstanceStatus;
use crate::policy::Policy;

/// What weights sum to.
const WHOLE: u32 = 10_000;

/// A service: the groups' weights, the instances, the policy.
#[derive(Debug, Clone)]
pub struct FakeService {
    name: String,
    weights: BTreeMap<String, u32>,
    instances: BTreeMap<String, FakeInstance>,
    policy: Policy,
    /// Groups that have or had weight.
    carried: BTreeSet<String>,
    retiring: BTreeSet<String>,
    /// Of the last change, and of the last change of the route.
    revision: u64,
    route_revision: u64,
    salt: u64,
}

/// An instance of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeInstance {
    pub(super) id: String,
    pub(super) group: String,
    pub(super) address: String,
    pub(super) zone: String,
    pub(super) capacity: u32,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) status: InstanceStatus,
}

// === impl FakeService ===

impl FakeService {
    /// Without groups and instances yet.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            weights: BTreeMap::new(),
            instances: BTreeMap::new(),
            policy: Policy::default(),
            carried: BTreeSet::new(),
            retiring: BTreeSet::new(),
            revision: 0,
            route_revision: 0,
            salt: 0,
        }
    }

    /// Gives a group a share, in parts per 10,000. All shares together must be
    /// 10,000, or there must be none.
    #[must_use]
    pub fn weight(mut self, group: impl Into<String>, basis_points: u32) -> Self {
        self.weights.insert(group.into(), basis_points);
        self
    }

    /// Adds an instance, or replaces the one of its id.
    #[must_use]
    pub fn instance(mut self, instance: FakeInstance) -> Self {
        self.put(instance);
        self
    }

    /// What callers do beyond the weights.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Says whether a group is being torn down.
    #[must_use]
    pub fn retiring(mut self, group: impl Into<String>) -> Self {
        self.retiring.insert(group.into());
        self
    }

    /// Gives the groups these shares, and others none.
    pub fn set_weights(&mut self, weights: &[(&str, u32)]) {
        let weights = weights.iter();
        self.weights = weights
            .map(|(group, it)| ((*group).to_owned(), *it))
            .collect();
    }

    /// Sets the policy.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Adds an instance, or replaces the one of its id.
    pub fn put(&mut self, instance: FakeInstance) {
        self.instances.insert(instance.id.clone(), instance);
    }

    /// Says what may be sent to an instance; false when there is no such one.
    pub fn set_status(&mut self, id: &str, status: InstanceStatus) -> bool {
        let instance = self.instances.get_mut(id);
        instance.map(|it| it.status = status).is_some()
    }

    /// Takes an instance away; false when there is no such one.
    pub fn take_away(&mut self, id: &str) -> bool {
        self.instances.remove(id).is_some()
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn instances(&self) -> impl Iterator<Item = &FakeInstance> {
        self.instances.values()
    }

    /// As in a registry: the first group gets everything, later ones nothing.
    pub(super) fn welcome(&mut self, group: &str) {
        if self.carried.is_empty() && self.weights.is_empty() {
            self.weights.insert(group.to_owned(), WHOLE);
        }
    }

    /// What this becomes when it takes effect at `revision` in place of
    /// `before`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the weights do not sum up.
    pub(super) fn at(mut self, revision: u64, before: Option<&Self>) -> Result<Self, Error> {
        self.weights.retain(|_, weight| *weight > 0);
        let sum: u64 = self.weights.values().map(|it| u64::from(*it)).sum();
        if !self.weights.is_empty() && sum != u64::from(WHOLE) {
            return Err(Error::Invalid(format!(
                "the weights of {} sum to {sum}; they must sum to {WHOLE}, or there must be none",
                self.name
            )));
        }
        let is_same_route = before
            .is_some_and(|before| before.weights == self.weights && before.policy == self.policy);
        self.route_revision = match before {
            Some(before) if is_same_route => before.route_revision,
            _ => revision,
        };
        let salt_before = before.map_or(0, |before| before.salt);
        self.salt = match self.weights.len() {
            0 | 1 => 0,
            _ if salt_before > 0 => salt_before,
            _ => revision,
        };
        if let Some(before) = before {
            self.carried.extend(before.carried.iter().cloned());
        }
        self.carried.extend(self.weights.keys().cloned());
        self.revision = revision;
        Ok(self)
    }

    /// As it travels.
    pub(super) fn update(&self) -> wire::ViewUpdate {
        let groups: BTreeSet<&String> = self
            .weights
            .keys()
            .chain(self.instances.values().map(|it| &it.group))
            .collect();
        let groups = groups.into_iter().map(|name| wire::Group {
            name: name.clone(),
            state: self.state(name).into(),
        });
        let weights = self
            .weights
            .iter()
            .map(|(group, weight)| wire::GroupWeight {
                group: group.clone(),
                basis_points: *weight,
            });
        let view = wire::View {
            service: self.name.clone(),
            revision: self.revision,
            route: Some(wire::Route {
                weights: weights.collect(),
                policy: Some(policy_to_wire(&self.policy)),
                salt: self.salt,
            }),
            route_revision: self.route_revision,
            groups: groups.collect(),
            instances: self
                .instances
                .values()
                .map(FakeInstance::described)
                .collect(),
        };
        let bytes = view.encode_to_vec();
        wire::ViewUpdate {
            service: self.name.clone(),
            revision: self.revision,
            checksum: trimtab_proto::checksum(&bytes),
            view: bytes.into(),
        }
    }

    fn state(&self, group: &str) -> wire::GroupState {
        if self.retiring.contains(group) {
            return wire::GroupState::Retiring;
        }
        match (
            self.weights.contains_key(group),
            self.carried.contains(group),
        ) {
            (true, _) => wire::GroupState::Active,
            (false, true) => wire::GroupState::Standby,
            (false, false) => wire::GroupState::Dark,
        }
    }
}

// === impl FakeInstance ===

impl FakeInstance {
    /// READY, of capacity 100. Callers connect to `address`, a `host:port`.
    pub fn new(
        id: impl Into<String>,
        group: impl Into<String>,
        address: impl Into<String>,
    ) -> Self {
        Self {
            id: id.into(),
            group: group.into(),
            address: address.into(),
            zone: String::new(),
            capacity: 100,
            metadata: BTreeMap::new(),
            status: InstanceStatus::Ready,
        }
    }

    /// The failure domain it is in.
    #[must_use]
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = zone.into();
        self
    }

    /// Its weight within its group.
    #[must_use]
    pub fn capacity(mut self, capacity: u32) -> Self {
        self.capacity = capacity;
        self
    }

    /// A pair that callers can read.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// What may be sent to it.
    #[must_use]
    pub fn status(mut self, status: InstanceStatus) -> Self {
        self.status = status;
        self
    }

    pub(super) fn described(&self) -> wire::Instance {
        wire::Instance {
            id: self.id.clone(),
            group: self.group.clone(),
            address: self.address.clone(),
            zone: self.zone.clone(),
            capacity: self.capacity,
            metadata: self.metadata.clone(),
            status: status_to_wire(self.status).into(),
        }
    }
}

fn status_to_wire(status: InstanceStatus) -> wire::InstanceStatus {
    match status {
        InstanceStatus::Starting => wire::InstanceStatus::Starting,
        InstanceStatus::Ready => wire::InstanceStatus::Ready,
        InstanceStatus::Suspect => wire::InstanceStatus::Suspect,
        InstanceStatus::Draining => wire::InstanceStatus::Draining,
        InstanceStatus::Unknown => wire::InstanceStatus::Unspecified,
    }
}
