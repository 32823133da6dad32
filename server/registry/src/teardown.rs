//! A group is let go: its instances are to leave, and it is forgotten with the last one.

use crate::command::Teardown;
use crate::event::Event;
use crate::instance::LeaseKey;
use crate::outcome::Outcome;
use crate::rejection::{Missing, Rejection};
use crate::revision::Position;
use crate::routing::expect;
use crate::service::Service;
use crate::shift::unknown_group;
use crate::state::{Done, Registry};

impl Registry {
    pub(crate) fn teardown(&mut self, at: Position, asked: &Teardown) -> Result<Done, Rejection> {
        let service = self
            .service(&asked.service)
            .ok_or_else(|| Missing::Service(asked.service.clone()))?;
        let group = service
            .group(&asked.group)
            .ok_or_else(|| unknown_group(service, &asked.group))?;
        let instances = group.instances;
        let torn_down = |revision| Outcome::TornDown {
            revision,
            instances,
            warnings: Vec::new(),
        };
        if group.retiring {
            return Ok(Done::quietly(torn_down(service.revision())));
        }
        expect(service, asked.expected)?;
        check_weight(service, asked)?;
        Ok(Done {
            outcome: torn_down(at.revision()),
            events: self.retire(at, asked),
        })
    }

    fn retire(&mut self, at: Position, asked: &Teardown) -> Vec<Event> {
        let Some(service) = self.service_mut(&asked.service) else {
            return Vec::new();
        };
        let mut events = Vec::with_capacity(2);
        let ends = service.weight(&asked.group) > 0;
        let staying: Vec<LeaseKey> = service
            .instances()
            .filter(|it| *it.group() == asked.group && !service.is_leaving(it))
            .map(|it| it.lease_key(&service.name))
            .collect();
        if let Some(group) = service.groups.get_mut(&asked.group) {
            group.retiring = true;
            let leaving = true;
            let told = staying.into_iter();
            events.extend(told.map(|key| Event::LeaseLeaving { key, leaving }));
            if group.instances > 0 {
                events.push(Event::GroupRetiring {
                    service: service.name.clone(),
                    group: group.name.clone(),
                });
            }
        }
        service.sweep(&asked.group);
        if ends {
            service.end(at.revision());
            let name = service.name.clone();
            events.push(Event::ServiceEnded(name, at.revision()));
        } else {
            service.revision = at.revision();
            events.extend(service.changed());
        }
        self.forget_if_over(&asked.service);
        events
    }
}

/// A group with weight stays, unless it is the last one of a service that is
/// to end.
fn check_weight(service: &Service, asked: &Teardown) -> Result<(), Rejection> {
    let weight = service.weight(&asked.group);
    let mut others = service.groups().filter(|group| group.name != asked.group);
    let only = others.all(|group| group.retiring);
    if weight == 0 || (only && asked.change.force) {
        return Ok(());
    }
    Err(Rejection::GroupHasWeight {
        service: asked.service.clone(),
        group: asked.group.clone(),
        weight,
        only,
    })
}
