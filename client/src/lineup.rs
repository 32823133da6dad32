//! From a view to a picker: one connection for each instance, and who of them may take calls.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::Rng;
use tokio::time::Instant;

use crate::endpoint::{Connection, Endpoint};
use crate::load::Loads;
use crate::picker::{Candidate, CandidateGroup, Coverage, Level, Picker, Schedules};
use crate::view::{Instance, InstanceStatus, View};

/// The connections to one service's instances, by the newest view.
#[derive(Debug)]
pub(crate) struct Lineup<L> {
    service: Arc<str>,
    view: Arc<View>,
    endpoints: BTreeMap<Arc<str>, Arc<Endpoint<L>>>,
    schedules: Schedules,
    coverage: Option<Coverage>,
}

impl<L: Connection> Lineup<L> {
    /// Nobody yet.
    pub(crate) fn new(service: Arc<str>) -> Self {
        Self {
            service,
            view: Arc::default(),
            endpoints: BTreeMap::new(),
            schedules: Schedules::default(),
            coverage: None,
        }
    }

    /// The revision of the view it follows.
    pub(crate) fn revision(&self) -> u64 {
        self.view.revision
    }

    /// The connection to each instance.
    pub(crate) fn connections(&self) -> impl Iterator<Item = &Arc<L>> {
        self.endpoints.values().map(|endpoint| &endpoint.link)
    }

    /// Follows a new view: one endpoint, and so one connection, for each
    /// instance that is not on its way out; those that are keep what they
    /// have.
    pub(crate) fn follow(
        &mut self,
        view: Arc<View>,
        loads: &Loads,
        now: Instant,
        mut open: impl FnMut(&Arc<str>) -> Arc<L>,
    ) {
        self.view = view;
        let mut before = std::mem::take(&mut self.endpoints);
        for group in &self.view.groups {
            let load = loads.group(&group.name, now);
            for instance in &group.instances {
                let known = before.remove(&instance.id);
                let known = known.filter(|known| {
                    let moved = *known.link.address() != instance.address;
                    if moved {
                        known.link.close();
                    }
                    !moved
                });
                let status = known.as_ref().map(|known| known.status);
                let link = match known {
                    Some(known) => Arc::clone(&known.link),
                    None if instance.status == InstanceStatus::Draining => continue,
                    None => open(&instance.address),
                };
                if instance.status == InstanceStatus::Ready && status != Some(instance.status) {
                    link.retry_now();
                }
                let endpoint = Endpoint {
                    id: Arc::clone(&instance.id),
                    status: instance.status,
                    group: Arc::clone(&group.name),
                    zone: Arc::clone(&instance.zone),
                    metadata: Arc::clone(&instance.metadata),
                    link,
                    load: Arc::clone(&load),
                };
                self.endpoints
                    .insert(Arc::clone(&instance.id), Arc::new(endpoint));
            }
        }
        for gone in before.into_values() {
            gone.link.close();
        }
    }

    /// The picker as of the view and what is connected now.
    pub(crate) fn picker(&mut self, rng: &mut impl Rng) -> Picker<Arc<Endpoint<L>>> {
        let groups = self.view.groups.iter().map(|group| CandidateGroup {
            name: Arc::clone(&group.name),
            state: group.state,
            weight: group.weight,
            candidates: group
                .instances
                .iter()
                .filter(|instance| instance.status.takes_calls())
                .filter_map(|instance| self.candidate(instance))
                .collect(),
        });
        let groups = groups.collect();
        let fall_back_to_dark = self.view.policy.fall_back_to_dark;
        let picker = Picker::build(groups, fall_back_to_dark, &mut self.schedules, rng);
        let picker = picker.at_revision(self.view.revision);
        self.report(picker.coverage().clone());
        picker
    }

    fn candidate(&self, instance: &Instance) -> Option<Candidate<Arc<Endpoint<L>>>> {
        let endpoint = self.endpoints.get(&instance.id)?;
        Some(Candidate {
            target: Arc::clone(endpoint),
            capacity: instance.capacity,
            ready: instance.status == InstanceStatus::Ready,
            link: endpoint.link.state(),
        })
    }

    /// For a planted bug of the simulation.
    pub(crate) fn forget_order(&mut self) {
        self.schedules = Schedules::default();
    }

    /// Once for each change of who carries the calls.
    fn report(&mut self, coverage: Coverage) {
        let before = self.coverage.replace(coverage.clone());
        if before.as_ref() == Some(&coverage) {
            return;
        }
        let service = &*self.service;
        let revision = self.view.revision;
        let uncovered = &coverage.uncovered;
        match coverage.level {
            Level::Weighted if uncovered.is_empty() => {
                if before.is_some_and(|before| before.is_degraded()) {
                    tracing::info!(
                        service,
                        revision,
                        "every weighted group takes its share again"
                    );
                }
            }
            Level::Weighted => tracing::warn!(
                service,
                revision,
                ?uncovered,
                "groups cannot be reached, their share goes to the other weighted groups"
            ),
            Level::Nothing => tracing::warn!(
                service,
                revision,
                known = self.endpoints.len(),
                "no instance can take calls, they wait"
            ),
            level => tracing::warn!(
                service,
                revision,
                ?uncovered,
                ?level,
                "no weighted group can be reached, calls go to groups without weight"
            ),
        }
    }
}

impl Coverage {
    fn is_degraded(&self) -> bool {
        self.level != Level::Weighted || !self.uncovered.is_empty()
    }
}
