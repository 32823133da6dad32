//! From a view to a picker: one connection for each instance, and who of them may take calls.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::Rng;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use crate::continuity::Continuity;
use crate::coverage::{Candidate, CandidateGroup, Coverage, Level, LinkState};
use crate::endpoint::{Connection, Endpoint};
use crate::load::Loads;
use crate::meter::LineupMeter;
use crate::outlier::{Outliers, PROBATION_DIVISOR};
use crate::picker::{Basis, Picker, Rules};
use crate::record::Standing;
use crate::shrink::{Alarm, Decision, HELD_FOR, Held, decide};
use crate::subset::Ranking;
use crate::view::{Group, Instance, InstanceStatus, View};
use crate::warm_up::WarmUp;
use crate::watcher::Standpoint;

mod ejections;

/// The connections to one service's instances, by the newest view.
#[derive(Debug)]
pub(crate) struct Lineup<L> {
    service: Arc<str>,
    /// What the registry said last.
    said: Arc<View>,
    /// What is made of it: with what is held of the views before.
    view: Arc<View>,
    held: Held,
    endpoints: Endpoints<L>,
    ranking: Ranking,
    outliers: Outliers,
    meter: LineupMeter,
    continuity: Continuity,
    coverage: Option<Coverage>,
    warm_up: WarmUp,
    /// What the newest picker gives each group, in basis points.
    weights: Vec<(Arc<str>, u32)>,
    standpoint: Standpoint,
}

/// By instance id.
type Endpoints<L> = BTreeMap<Arc<str>, Arc<Endpoint<L>>>;

impl<L: Connection> Lineup<L> {
    /// Nobody yet.
    pub(crate) fn new(service: Arc<str>, standpoint: Standpoint) -> Self {
        let meter = LineupMeter::of(&service);
        Self {
            service,
            said: Arc::default(),
            view: Arc::default(),
            held: Held::default(),
            endpoints: BTreeMap::new(),
            ranking: Ranking::of(&standpoint.caller),
            outliers: Outliers::new(standpoint.origin),
            meter,
            continuity: Continuity::default(),
            coverage: None,
            warm_up: WarmUp::default(),
            weights: Vec::new(),
            standpoint,
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

    /// Everybody it has a connection for.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint<L>>> {
        self.endpoints.values()
    }

    /// The one with that id.
    pub(crate) fn endpoint(&self, id: &str) -> Option<&Arc<Endpoint<L>>> {
        self.endpoints.get(id)
    }

    /// What the newest picker gives each group, in basis points.
    pub(crate) fn weights(&self) -> &[(Arc<str>, u32)] {
        &self.weights
    }

    /// Follows a new view: one endpoint, and so one connection, for each
    /// instance that is not on its way out, or of this caller's subset of
    /// them; those that are keep what they have. What a view takes away
    /// implausibly is held for a while.
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

    /// Lets go of instances that a view took away, connects to others in place
    /// of those that are down, and leaves out, or takes back, those that calls
    /// fail at. Whether a picker would differ, beyond what connections it is
    /// made of.
    pub(crate) fn look_after(
        &mut self,
        loads: &Loads,
        now: Instant,
        mut open: impl FnMut(&Arc<str>) -> Arc<L>,
        rng: &mut impl Rng,
    ) -> bool {
        let let_go = self.let_go(loads, now, &mut open);
        self.fill_up(loads, now, open);
        let judged = self.judge(now, rng);
        let_go || judged || self.has_stepped(now)
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

    /// Follows what became of connections: where this caller keeps to a subset
    /// of the instances, another takes the place of one that is down.
    pub(crate) fn fill_up(
        &mut self,
        loads: &Loads,
        now: Instant,
        open: impl FnMut(&Arc<str>) -> Arc<L>,
    ) {
        if self.view.policy.subset_size.is_some() {
            self.adopt(Arc::clone(&self.view), loads, now, open);
        }
    }

    /// When to ask [`Lineup::let_go`], if nothing happens before.
    pub(crate) fn held_until(&self) -> Option<Instant> {
        self.held.until()
    }

    /// Whether a picker would give groups other shares than the newest does.
    pub(crate) fn has_stepped(&self, now: Instant) -> bool {
        self.warm_up.weights(&self.view, now) != self.weights
    }

    /// When to ask [`Lineup::let_go`] or [`Lineup::judge`], or for another
    /// picker, if nothing happens before.
    pub(crate) fn due(&self, now: Instant) -> Instant {
        let judgement = self.outliers.next_judgement();
        let held = self.held_until().into_iter();
        let step = self.warm_up.next_step(now);
        held.chain(step).fold(judgement, Instant::min)
    }

    /// Whom of a group to be connected to, by the connections there are.
    fn wanted(&self, group: &Group, known: &Endpoints<L>) -> Vec<bool> {
        let Some(size) = self.view.policy.subset_size else {
            return vec![true; group.instances.len()];
        };
        let lives = |instance: &Instance| {
            let link = known.get(&instance.id).map(|known| known.link.state());
            instance.status == InstanceStatus::Ready && link != Some(LinkState::Down)
        };
        let instances: Vec<(&Arc<str>, bool)> = group
            .instances
            .iter()
            .map(|instance| (&instance.id, lives(instance)))
            .collect();
        let size = usize::try_from(size.get()).unwrap_or(usize::MAX);
        self.ranking.choose(size, &instances)
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
        self.warm_up.follow(&self.view, &view, now);
        self.view = view;
        let mut before = std::mem::take(&mut self.endpoints);
        for group in &self.view.groups {
            let load = loads.group(&group.name, now);
            let wanted = self.wanted(group, &before);
            for (instance, wanted) in group.instances.iter().zip(wanted) {
                let known = before.remove(&instance.id);
                let is_draining = instance.status == InstanceStatus::Draining;
                let known = known.filter(|known| {
                    let moved = *known.link.address() != instance.address;
                    let stays = !moved && (wanted || is_draining);
                    if !stays {
                        known.link.close();
                    }
                    stays
                });
                let status = known.as_ref().map(|known| known.status);
                let same_group = known.as_ref().filter(|known| known.group == group.name);
                let meter = same_group.and_then(|known| known.meter.clone());
                let link = match known {
                    Some(known) => Arc::clone(&known.link),
                    None if is_draining || !wanted => continue,
                    None => open(&instance.address),
                };
                if instance.status == InstanceStatus::Ready && status != Some(instance.status) {
                    link.retry_now();
                }
                let meter =
                    meter.or_else(|| self.standpoint.meter_of(&self.service, group, instance));
                let endpoint = Endpoint {
                    id: Arc::clone(&instance.id),
                    rank: xxh3_64(instance.id.as_bytes()),
                    status: instance.status,
                    group: Arc::clone(&group.name),
                    zone: Arc::clone(&instance.zone),
                    metadata: Arc::clone(&instance.metadata),
                    link,
                    load: Arc::clone(&load),
                    meter,
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
    pub(crate) fn picker(&mut self, now: Instant, rng: &mut impl Rng) -> Picker<Arc<Endpoint<L>>> {
        self.weights = self.warm_up.weights(&self.view, now);
        let groups = self.view.groups.iter().zip(&self.weights);
        let groups = groups.map(|(group, (name, weight))| {
            let has_probation = self.has_probation(group);
            let instances = group.instances.iter();
            let candidates = instances
                .filter(|instance| instance.status.takes_calls())
                .filter_map(|instance| self.candidate(instance, has_probation));
            CandidateGroup {
                name: Arc::clone(name),
                state: group.state,
                weight: *weight,
                candidates: candidates.collect(),
            }
        });
        let groups = groups.collect();
        let policy = &self.view.policy;
        let Standpoint { zone, origin, .. } = &self.standpoint;
        let rules = Rules {
            fall_back_to_dark: policy.fall_back_to_dark,
            balancing: policy.balancing,
            zone: (policy.prefer_zone && !zone.is_empty()).then_some(zone),
        };
        let picker = Picker::build(groups, &rules, &mut self.continuity, *origin, rng);
        let picker = picker.based_on(Basis {
            view: Arc::clone(&self.view),
            roster: self.endpoints.values().map(Arc::clone).collect(),
            warming: self.warm_up.warming(now),
        });
        self.measure(picker.coverage());
        self.report(picker.coverage().clone());
        picker
    }

    fn candidate(
        &self,
        instance: &Instance,
        has_probation: bool,
    ) -> Option<Candidate<Arc<Endpoint<L>>>> {
        let endpoint = self.endpoints.get(&instance.id)?;
        let capacity = match endpoint.link.record().standing() {
            Standing::Probation => instance.capacity,
            _ if has_probation => instance.capacity.saturating_mul(PROBATION_DIVISOR),
            _ => instance.capacity,
        };
        Some(Candidate {
            target: Arc::clone(endpoint),
            vitals: Arc::clone(endpoint.link.vitals()),
            rank: endpoint.rank,
            zone: Arc::clone(&endpoint.zone),
            ejected: endpoint.link.is_ejected(),
            capacity,
            ready: instance.status == InstanceStatus::Ready,
            link: endpoint.link.state(),
        })
    }

    /// For a planted bug of the simulation.
    pub(crate) fn forget_order(&mut self) {
        self.continuity = Continuity::default();
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
