//! Instances come, say how they are, and go.

use std::sync::Arc;

use crate::bounds::{GROUPS_MAX, INSTANCES_MAX, SERVICES_MAX};
use crate::command::{Change, Deregister, Register, SetStatus};
use crate::event::Event;
use crate::history::ChangeKind;
use crate::instance::{DeclaredStatus, Instance, LeaseKey};
use crate::invalid::Invalid;
use crate::name::{GroupName, InstanceId, ServiceName};
use crate::outcome::Outcome;
use crate::rejection::{Missing, Rejection};
use crate::revision::{Position, Revision};
use crate::route::Route;
use crate::service::{NewRoute, Service};
use crate::state::{Done, Registry};
use crate::text::{Actor, Reason, RequestId};

impl Registry {
    pub(crate) fn register(&mut self, at: Position, asked: &Register) -> Result<Done, Rejection> {
        let forget = self.check_registration(asked)?;
        let spec = self.shared(&asked.instance);
        let service = self.service_or_new(&asked.service);
        if let Some(group) = forget {
            service.groups.remove(&group);
        }
        let mut events = Vec::with_capacity(3);
        let before = service.take(&asked.instance.id);
        if let Some(before) = &before {
            let key = before.lease_key(&service.name);
            events.push(Event::LeaseEnded { key });
        }
        let instance = Instance {
            spec,
            lease: at.revision(),
            ttl: asked.ttl,
            suspect_since: None,
            // What operators set holds for the id, whoever has it.
            held: before.as_ref().is_some_and(|before| before.held),
            capacity_override: before.as_ref().and_then(|before| before.capacity_override),
        };
        let key = instance.lease_key(&service.name);
        let zone = instance.spec.zone.clone();
        let leaving = instance.held;
        service.insert(instance);
        if let Some(before) = before {
            service.sweep(before.group());
        }
        if service.route.is_none() {
            found(service, at.revision(), asked);
        }
        service.revision = at.revision();
        events.push(Event::LeaseGranted {
            key,
            ttl: asked.ttl,
            zone,
            leaving,
        });
        events.push(Event::ServiceChanged(service.name.clone()));
        let (revision, lease) = (at.revision(), at.revision());
        let outcome = Outcome::Registered { revision, lease };
        Ok(Done { outcome, events })
    }

    pub(crate) fn set_status(
        &mut self,
        at: Position,
        asked: &SetStatus,
    ) -> Result<Done, Rejection> {
        let key = &asked.lease;
        let held = self.holder(key).ok_or_else(|| Missing::Lease {
            service: key.service.clone(),
            instance: key.instance.clone(),
            lease: key.lease,
        })?;
        let unchanged = held.spec.status == asked.status;
        let mut events = Vec::new();
        let mut revision = Revision::default();
        if let Some(service) = self.service_mut(&key.service) {
            if !unchanged {
                events.extend(service.edit(&key.instance, |instance| {
                    instance.spec.status = asked.status
                }));
                service.revision = at.revision();
                events.extend(service.changed());
            }
            revision = service.revision;
        }
        let outcome = Outcome::StatusSet { revision };
        Ok(Done { outcome, events })
    }

    pub(crate) fn deregister(&mut self, at: Position, asked: &Deregister) -> Done {
        let key = &asked.lease;
        if self.holder(key).is_none() {
            let service = self.service(&key.service);
            return Done::quietly(Outcome::Deregistered {
                revision: service.map_or(at.revision(), Service::revision),
                existed: false,
            });
        }
        Done {
            outcome: Outcome::Deregistered {
                revision: at.revision(),
                existed: true,
            },
            events: self.remove(at, &key.service, &[&key.instance]),
        }
    }

    /// The instance that holds a lease.
    pub(crate) fn holder(&self, key: &LeaseKey) -> Option<&Arc<Instance>> {
        let instance = self.service(&key.service)?.instance(&key.instance)?;
        (instance.lease == key.lease).then_some(instance)
    }

    /// Removes instances of one service, with the groups and the service if
    /// these end with them.
    pub(crate) fn remove(
        &mut self,
        at: Position,
        name: &ServiceName,
        instances: &[&InstanceId],
    ) -> Vec<Event> {
        let Some(service) = self.service_mut(name) else {
            return Vec::new();
        };
        let mut events = Vec::with_capacity(instances.len() + 1);
        for id in instances {
            if let Some(instance) = service.take(id) {
                service.sweep(instance.group());
                let key = instance.lease_key(&service.name);
                events.push(Event::LeaseEnded { key });
            }
        }
        service.revision = at.revision();
        events.extend(service.changed());
        self.forget_if_over(name);
        events
    }

    /// Checks everything that could stand in the way of a registration, and
    /// names the group to forget if it needs the room.
    fn check_registration(&self, asked: &Register) -> Result<Option<GroupName>, Rejection> {
        let spec = &asked.instance;
        if spec.status == DeclaredStatus::Draining {
            return Err(Invalid::new("status", "DRAINING", "must be READY or STARTING").into());
        }
        let Some(service) = self.service(&asked.service) else {
            return self.check_room_for_service().map(|()| None);
        };
        if service.instance(&spec.id).is_none() && service.instances.len() >= INSTANCES_MAX {
            return Err(Rejection::Full {
                what: format!("the number of instances of service {}", asked.service),
                bound: INSTANCES_MAX as u64,
                remedy: "split the service, or use fewer and larger instances".to_owned(),
            });
        }
        match service.group(&spec.group) {
            Some(group) if group.retiring => Err(Rejection::GroupRetiring {
                service: asked.service.clone(),
                group: spec.group.clone(),
            }),
            Some(_) => Ok(None),
            None => room_for_group(service),
        }
    }

    fn check_room_for_service(&self) -> Result<(), Rejection> {
        if self.services().len() < SERVICES_MAX {
            return Ok(());
        }
        Err(Rejection::Full {
            what: "the number of services".to_owned(),
            bound: SERVICES_MAX as u64,
            remedy: "tear down, with force, the last group of services that are no more".to_owned(),
        })
    }
}

/// The group to forget for another one, if there is no other way.
fn room_for_group(service: &Service) -> Result<Option<GroupName>, Rejection> {
    if service.groups.len() < GROUPS_MAX {
        return Ok(None);
    }
    let oldest = service.forgettable().cloned();
    oldest.map(Some).ok_or_else(|| Rejection::Full {
        what: format!("the number of groups of service {}", service.name()),
        bound: GROUPS_MAX as u64,
        remedy: "tear down groups that are not used any more".to_owned(),
    })
}

/// The first group of a service gets all of its traffic.
fn found(service: &mut Service, at: Revision, asked: &Register) {
    let new = NewRoute {
        route: Arc::new(Route::first(asked.instance.group.clone())),
        kind: ChangeKind::Found,
        restored: None,
    };
    let change = Change {
        actor: Actor::default(),
        reason: Reason::default(),
        at_ms: asked.at_ms,
        request_id: RequestId::default(),
        force: false,
    };
    service.set_route(at, new, &change);
}
