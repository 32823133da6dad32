//! The whole registry as a value that can be stored and sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::FORMAT_VERSION;
use crate::bounds::{GROUPS_MAX, HISTORY_MAX, INSTANCES_MAX, SERVICES_MAX};
use crate::instance::Instance;
use crate::interner::Interner;
use crate::name::ServiceName;
use crate::record::ServiceRecord;
use crate::revision::{Position, Revision};
use crate::route::Route;
use crate::service::Service;

/// A registry at one position. Taking one copies pointers; it stays as it is
/// while the registry goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    format: u8,
    applied: Position,
    services: Vec<Arc<Service>>,
}

/// Why a snapshot cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the snapshot at index {} cannot be used: {problem}", .applied.index)]
pub struct SnapshotError {
    /// The position the snapshot claims.
    pub applied: Position,
    /// What contradicts what.
    pub problem: String,
}

impl Snapshot {
    pub(crate) fn new(applied: Position, services: Vec<Arc<Service>>) -> Self {
        Self {
            format: FORMAT_VERSION,
            applied,
            services,
        }
    }

    /// The last entry it contains.
    pub fn applied(&self) -> Position {
        self.applied
    }

    /// Its contents, if they make sense. Each service has been checked by
    /// itself when it was decoded; this checks them together.
    pub(crate) fn check(
        self,
    ) -> Result<(Position, BTreeMap<ServiceName, Arc<Service>>), SnapshotError> {
        let applied = self.applied;
        let fail = |problem| Err(SnapshotError { applied, problem });
        if self.format != FORMAT_VERSION {
            return fail(format!(
                "it has format {}, and this version reads {FORMAT_VERSION}",
                self.format
            ));
        }
        if self.services.len() > SERVICES_MAX {
            return fail(format!("it has {} services", self.services.len()));
        }
        let mut services = BTreeMap::new();
        for service in self.services {
            if let Err(problem) = check_dates(&service, applied.revision()) {
                return fail(problem);
            }
            let name = service.name.clone();
            if services.insert(name.clone(), service).is_some() {
                return fail(format!("service {name} is in it twice"));
            }
        }
        Ok((applied, services))
    }
}

impl From<Service> for ServiceRecord {
    fn from(service: Service) -> Self {
        Self {
            name: service.name,
            revision: service.revision,
            route: service.route,
            route_revision: service.route_revision,
            baseline: service.baseline,
            groups: service.groups.into_values().collect(),
            instances: service.instances.to_vec(),
            history: service.history.into(),
        }
    }
}

impl TryFrom<ServiceRecord> for Service {
    type Error = String;

    fn try_from(record: ServiceRecord) -> Result<Self, String> {
        let name = record.name.clone();
        restore(record).map_err(|problem| format!("service {name}: {problem}"))
    }
}

fn restore(record: ServiceRecord) -> Result<Service, String> {
    let mut service = Service::new(record.name);
    service.revision = record.revision;
    service.baseline = record.baseline;
    for group in record.groups {
        let name = group.name.clone();
        if service.groups.insert(name.clone(), group).is_some() {
            return Err(format!("group {name} is in it twice"));
        }
    }
    let mut interner = Interner::default();
    for instance in record.instances {
        restore_instance(&mut service, instance, &mut interner)?;
    }
    service.route = record.route;
    service.route_revision = record.route_revision;
    service.history = record.history.into();
    check_groups(&service)?;
    check_bounds(&service)?;
    Ok(service)
}

fn restore_instance(
    service: &mut Service,
    mut instance: Arc<Instance>,
    interner: &mut Interner,
) -> Result<(), String> {
    let id = instance.id().clone();
    let Some(group) = service.groups.get(instance.group()) else {
        return Err(format!("instance {id} has no group {}", instance.group()));
    };
    // All instances of a group share the text of its name, as before.
    let spec = &mut Arc::make_mut(&mut instance).spec;
    spec.group = group.name.clone();
    interner.share(spec);
    match service.instances.insert(instance) {
        None => Ok(()),
        Some(_) => Err(format!("instance {id} is in it twice")),
    }
}

fn check_groups(service: &Service) -> Result<(), String> {
    let tallies = service.tally();
    for group in service.groups.values() {
        let found = tallies.get(&group.name).map_or(0, |tally| tally.instances);
        if found != group.instances {
            let (name, claimed) = (&group.name, group.instances);
            return Err(format!("group {name} has {found} instances, not {claimed}"));
        }
    }
    if let Some(route) = routes(service).find(|route| !route.is_salted_right()) {
        let (salt, groups) = (route.salt, route.weights.iter().len());
        return Err(format!("a route over {groups} groups has the salt {salt}"));
    }
    let weights = service.route.iter().flat_map(|route| route.weights.iter());
    for (name, _) in weights {
        match service.groups.get(name) {
            Some(group) if group.carried && !group.retiring => {}
            Some(_) => return Err(format!("group {name} has weight and cannot carry it")),
            None => return Err(format!("there is no group {name} for its weight")),
        }
    }
    Ok(())
}

fn check_bounds(service: &Service) -> Result<(), String> {
    let bounds = [
        ("groups", service.groups.len(), GROUPS_MAX),
        ("instances", service.instances.len(), INSTANCES_MAX),
        ("changes", service.history.len(), HISTORY_MAX),
    ];
    for (what, count, max) in bounds {
        if count > max {
            return Err(format!("it has {count} {what}, more than {max}"));
        }
    }
    if service.route.is_some() && service.history.is_empty() {
        return Err("its route has no history".to_owned());
    }
    Ok(())
}

/// The route, and those that a rollback may restore.
fn routes(service: &Service) -> impl Iterator<Item = &Arc<Route>> {
    let changes = service.history.iter();
    (service.route.iter())
        .chain(changes.flat_map(|change| change.before.iter().chain([&change.after])))
}

/// Nothing can be dated later than the snapshot.
fn check_dates(service: &Service, applied: Revision) -> Result<(), String> {
    let instances = service.instances.iter();
    let newest = (instances.map(|it| it.lease.max(it.suspect_since.unwrap_or_default())))
        .chain(service.groups.values().map(|group| group.created))
        .chain(service.history.iter().map(|change| change.revision))
        .chain(routes(service).map(|route| route.salt))
        .chain([service.revision, service.route_revision])
        .max()
        .unwrap_or_default();
    if newest > applied {
        let name = &service.name;
        return Err(format!("service {name} has something of revision {newest}"));
    }
    Ok(())
}
