//! What changed from one view of a service to a later one, without what it changed to (pure).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use trimtab_registry::instance::Instance;
use trimtab_registry::name::{GroupName, InstanceId};
use trimtab_registry::view::ServiceView;

/// Names what is new between two revisions; a view of the later one says what
/// it is now. Steps that follow each other add up to one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The revision it begins at.
    pub from: u64,
    /// The revision it leads to.
    pub to: u64,
    /// The weights.
    pub weights: bool,
    /// The policy.
    pub policy: bool,
    /// The salt.
    pub salt: bool,
    /// The revision of the route.
    pub route_revision: bool,
    /// Groups that came, went or changed what they are for.
    pub groups: BTreeSet<GroupName>,
    /// Instances that came, went or changed.
    pub instances: BTreeMap<InstanceId, Extent>,
}

/// How much of an instance is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Extent {
    /// Its status alone.
    Status,
    /// Anything else, or all: it may have come or gone.
    Whole,
}

impl Step {
    /// What is new in `new`, a later view of the service of `old`. Instances
    /// that both share are passed over by their addresses in memory.
    pub fn between(old: &ServiceView, new: &ServiceView) -> Step {
        let (before, after) = (&old.route, &new.route);
        let same_route = Arc::ptr_eq(before, after);
        Step {
            from: old.revision.0,
            to: new.revision.0,
            weights: !same_route && before.weights != after.weights,
            policy: !same_route && before.policy != after.policy,
            salt: before.salt != after.salt,
            route_revision: old.route_revision != new.route_revision,
            groups: changed_groups(old, new),
            instances: changed_instances(&old.instances, &new.instances),
        }
    }

    /// Adds the step that follows this one.
    pub fn extend(&mut self, next: &Step) {
        self.to = next.to;
        self.weights |= next.weights;
        self.policy |= next.policy;
        self.salt |= next.salt;
        self.route_revision |= next.route_revision;
        self.groups.extend(next.groups.iter().cloned());
        for (id, extent) in &next.instances {
            let known = self.instances.entry(id.clone()).or_insert(*extent);
            *known = (*known).max(*extent);
        }
    }
}

fn changed_groups(old: &ServiceView, new: &ServiceView) -> BTreeSet<GroupName> {
    if old.groups == new.groups {
        return BTreeSet::new();
    }
    let (before, after): (BTreeSet<_>, BTreeSet<_>) =
        (old.groups.iter().collect(), new.groups.iter().collect());
    let changed = before.symmetric_difference(&after);
    changed.map(|(name, _)| name.clone()).collect()
}

/// Both are sorted by id.
fn changed_instances(old: &[Arc<Instance>], new: &[Arc<Instance>]) -> BTreeMap<InstanceId, Extent> {
    let mut changed = BTreeMap::new();
    let (mut olds, mut news) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let (extent, instance) = match (olds.peek(), news.peek()) {
            (None, None) => return changed,
            (Some(before), Some(after)) if Arc::ptr_eq(before, after) => {
                olds.next();
                news.next();
                continue;
            }
            (Some(before), Some(after)) if before.id() == after.id() => {
                let extent = extent(before, after);
                olds.next();
                (extent, news.next())
            }
            (Some(before), after) if after.is_none_or(|after| before.id() < after.id()) => {
                (Some(Extent::Whole), olds.next())
            }
            _ => (Some(Extent::Whole), news.next()),
        };
        changed.extend(
            extent
                .zip(instance.map(|it| it.id().clone()))
                .map(|(e, id)| (id, e)),
        );
    }
}

/// How much of what callers see is another; `None`: nothing.
fn extent(before: &Instance, after: &Instance) -> Option<Extent> {
    let (old, new) = (&before.spec, &after.spec);
    let same = old.group == new.group
        && old.address == new.address
        && old.zone == new.zone
        && before.capacity() == after.capacity()
        && old.metadata == new.metadata;
    match same {
        false => Some(Extent::Whole),
        true => (before.status() != after.status()).then_some(Extent::Status),
    }
}
