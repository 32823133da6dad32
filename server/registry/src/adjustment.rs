//! What operators set on an instance, whatever it says of itself.

use std::sync::Arc;

use crate::command::{AdjustInstance, Adjustment};
use crate::instance::Instance;
use crate::outcome::Outcome;
use crate::rejection::{Missing, Rejection, percent};
use crate::revision::Position;
use crate::routing::expect;
use crate::service::Service;
use crate::state::{Done, Registry};

impl Registry {
    pub(crate) fn adjust(
        &mut self,
        at: Position,
        asked: &AdjustInstance,
    ) -> Result<Done, Rejection> {
        let missing_service = || Missing::Service(asked.service.clone());
        let missing = || Missing::Instance {
            service: asked.service.clone(),
            instance: asked.instance.clone(),
        };
        let service = self.service(&asked.service).ok_or_else(missing_service)?;
        let before = service.instance(&asked.instance).ok_or_else(missing)?;
        expect(service, asked.expected)?;
        let mut after = Instance::clone(before);
        adjust(&mut after, asked.adjustment);
        let changed = after != **before;

        let service = self
            .service_mut(&asked.service)
            .ok_or_else(missing_service)?;
        let instance = Arc::new(after);
        let mut events = Vec::new();
        if changed {
            events.extend(service.edit(&asked.instance, |before| {
                before.clone_from(&instance);
            }));
            service.revision = at.revision();
            events.extend(service.changed());
        }
        let outcome = Outcome::Adjusted {
            revision: service.revision,
            warnings: warn(service, &instance),
            instance,
        };
        Ok(Done { outcome, events })
    }
}

fn adjust(instance: &mut Instance, adjustment: Adjustment) {
    match adjustment {
        Adjustment::Drain(held) => instance.held = held,
        Adjustment::Capacity(capacity) => instance.capacity_override = capacity,
    }
}

/// Says so when nothing is left to carry a share.
fn warn(service: &Service, instance: &Instance) -> Vec<String> {
    let group = instance.group();
    let weight = service.weight(group);
    let ready = (service.tally().get(group)).map_or(0, |tally| tally.ready);
    if weight == 0 || ready > 0 {
        return Vec::new();
    }
    let share = percent(weight);
    vec![format!(
        "group {group} gets {share}% of the traffic and has no ready instance left: \
         callers will use other groups for it"
    )]
}
