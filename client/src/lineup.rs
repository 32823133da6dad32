//! From a view to a picker: one connection for each instance, and who of them may take calls.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::Rng;
use tokio::time::Instant;

use crate::coverage::{Candidate, CandidateGroup, Coverage, Level, LinkState};
use crate::endpoint::{Connection, Endpoint};
use crate::load::Loads;
use crate::picker::Picker;
use crate::schedules::Schedules;
use crate::shrink::{Alarm, Decision, HELD_FOR, Held, decide};
use crate::view::{Instance, InstanceStatus, View};

/// The connections to one service's instances, by the newest view.
#[derive(Debug)]
pub(crate) struct Lineup<L> {
    service: Arc<str>,
    /// What the registry said last.
    said: Arc<View>,
    /// What is made of it: with what is held of the views before.
    view: Arc<View>,
    held: Held,
    endpoints: BTreeMap<Arc<str>, Arc<Endpoint<L>>>,
    schedules: Schedules,
    coverage: Option<Coverage>,
    /// What latencies are dated by.
    origin: Instant,
}

impl<L: Connection> Lineup<L> {
    /// Nobody yet.
    pub(crate) fn new(service: Arc<str>, origin: Instant) -> Self {
        Self {
            service,
            said: Arc::default(),
            view: Arc::default(),
            held: Held::default(),
            endpoints: BTreeMap::new(),
            schedules: Schedules::default(),
            coverage: None,
            origin,
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
    /// have. What a view takes away implausibly is held for a while.
    pub(crate) fn follow(
        &mut self,
        view: Arc<View>,
        loads: &Loads,
        now: Instant,
        open: impl FnMut(&Arc<str>) -> Arc<L>,
    ) {
        let decision = self.decide(&view, now);
        self.said = view;
        self.held = decision.held;
        self.adopt(decision.view, loads, now, open);
    }

    /// Lets go of what need not be held any longer: time has passed, or a
    /// connection broke. Whether there was anything.
    pub(crate) fn let_go(
        &mut self,
        loads: &Loads,
        now: Instant,
        open: impl FnMut(&Arc<str>) -> Arc<L>,
    ) -> bool {
        if self.held.is_empty() {
            return false;
        }
        let decision = self.decide(&self.said, now);
        let changed = decision.held != self.held;
        if changed {
            self.held = decision.held;
            self.adopt(decision.view, loads, now, open);
        }
        changed
    }

    /// When to ask [`Lineup::let_go`], if nothing happens before.
    pub(crate) fn held_until(&self) -> Option<Instant> {
        self.held.until()
    }

    fn decide(&self, next: &Arc<View>, now: Instant) -> Decision {
        let reaches = |instance: &Instance| {
            let endpoint = self.endpoints.get(&instance.id);
            endpoint.is_some_and(|it| it.link.state() == LinkState::Up)
        };
        let decision = decide(&self.said, next, &self.held, reaches, now);
        if let Some(Alarm { lost, of }) = decision.alarm {
            tracing::warn!(
                service = &*self.service, revision = next.revision, lost, of,
                held_for = ?HELD_FOR,
                "the view takes away most of what is connected; it is kept as a last resort"
            );
        }
        decision
    }

    fn adopt(
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
        let origin = self.origin;
        let picker = Picker::build(groups, fall_back_to_dark, &mut self.schedules, origin, rng);
        let picker = picker.of_view(self.view.revision, self.view.salt);
        self.report(picker.coverage().clone());
        picker
    }

    fn candidate(&self, instance: &Instance) -> Option<Candidate<Arc<Endpoint<L>>>> {
        let endpoint = self.endpoints.get(&instance.id)?;
        Some(Candidate {
            target: Arc::clone(endpoint),
            vitals: Arc::clone(endpoint.link.vitals()),
            ejected: endpoint.link.is_ejected(),
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
