//! Carries what was applied to those who act on it: views, watchers, leases.

use std::sync::Arc;

use trimtab_registry::event::Event;
use trimtab_registry::name::ServiceName;
use trimtab_registry::state::Registry;

use crate::consensus::observer::Observer;
use crate::consensus::status::ConsensusStatus;
use crate::lease_keeper::LeaseKeeper;
use crate::renewals::Renewals;
use crate::views::Views;
use crate::watchers::Watchers;

/// Told by consensus, in the order of the log.
#[derive(Debug)]
pub struct Publisher {
    /// Where views are published.
    pub views: Arc<Views>,
    /// Where reports of groups that are gone are forgotten.
    pub watchers: Arc<Watchers>,
    /// Where streams learn which leases ended, and who is to leave.
    pub renewals: Arc<Renewals>,
    /// Where leases begin and end.
    pub keeper: Arc<LeaseKeeper>,
}

impl Publisher {
    fn forget_gone_groups(&self, registry: &Registry, service: &ServiceName) {
        self.watchers.retain_groups(service, |group| {
            let service = registry.service(service);
            service.is_some_and(|service| service.group(group).is_some())
        });
    }
}

impl Observer for Publisher {
    fn applied(&mut self, registry: &Registry, events: &[Event]) {
        self.keeper.applied(events);
        self.renewals.applied(registry, events);
        // A service that many commands of one round changed is published once.
        let mut changed: Vec<&ServiceName> = events
            .iter()
            .filter_map(|event| match event {
                Event::ServiceChanged(service) | Event::ServiceEnded(service, _) => Some(service),
                _ => None,
            })
            .collect();
        changed.sort_unstable();
        changed.dedup();
        self.views.publish(registry, changed.iter().copied());
        for service in changed {
            self.forget_gone_groups(registry, service);
        }
    }

    fn restored(&mut self, registry: &Registry) {
        self.keeper.restored(registry);
        self.renewals.restored(registry);
        self.views.replace(registry);
    }

    fn role_changed(&mut self, status: &ConsensusStatus) {
        self.keeper.role_changed(status);
    }
}
