//! The truth of a run: what was applied at each index first, and what follows from it.
//!
//! The first replica that applies an index writes it down; all others must
//! agree. A registry of the ledger's own applies every entry once, by itself,
//! and is asked at each step whether the promises hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use raft::eraftpb::{Entry, EntryType};
use trimtab_proto::v1::View;
use trimtab_registry::command::Command;
use trimtab_registry::event::Event;
use trimtab_registry::history::ChangeKind;
use trimtab_registry::instance::{LeaseKey, Ttl};
use trimtab_registry::name::ServiceName;
use trimtab_registry::outcome::{Applied, Effect, Outcome};
use trimtab_registry::revision::Position;
use trimtab_registry::route::{Route, WHOLE};
use trimtab_registry::service::Service;
use trimtab_registry::state::Registry;
use trimtab_registry::view::ServiceView;
use trimtab_server::consensus::entry::{decode_command, encode_result};
use trimtab_server::consensus::membership::Members;
use trimtab_server::convert::encode_view;

use crate::host::AppliedRound;

/// What stands at one index.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    term: u64,
    changes_members: bool,
    data: Bytes,
    context: Bytes,
}

/// Who renewed when, as those who judge must have known.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// When renewals reached the socket of the leader in office.
    renewals: BTreeMap<LeaseKey, Reached>,
    /// Ends that were proposed though they should not have been, by command.
    unjust: BTreeMap<Bytes, Vec<(LeaseKey, String)>>,
}

/// Renewals of one lease.
#[derive(Clone, Copy, Debug)]
struct Reached {
    /// The last one that came while the lease went on.
    in_time: u64,
    /// The first one that came when it was over.
    late: Option<u64>,
}

/// A renewal that comes when the lease is over comes too late, if it lies
/// unread meanwhile: longer than this no leader that works leaves it there.
const UNREAD_MAX_MS: u64 = 1_000;

/// How long a lease lasts on the fastest clock.
fn lasts(ttl: Ttl) -> u64 {
    ttl.as_millis() * 1_000 / (1_000 + crate::world::DRIFT_MAX)
}

impl Heard {
    /// A renewal reaches the socket of the leader in office.
    pub(crate) fn renewed(&mut self, now: u64, key: &LeaseKey, ledger: &Ledger) {
        let service = ledger.registry.service(&key.service);
        let ttl = service
            .and_then(|service| service.instance(&key.instance))
            .map(|instance| lasts(instance.ttl));
        let first = Reached {
            in_time: now,
            late: None,
        };
        let granted = ledger.times.get(&key.lease.0).copied();
        let since_granted = Reached {
            in_time: granted.unwrap_or(now),
            late: None,
        };
        let reached = self.renewals.entry(key.clone()).or_insert(since_granted);
        let is_over = ttl.is_some_and(|ttl| reached.in_time + ttl < now);
        let late = *reached.late.get_or_insert(now);
        if !is_over || late + UNREAD_MAX_MS < now {
            *reached = first;
        }
    }

    /// A leader proposes to end these leases now. Unjust if the leader in
    /// office heard of one within its TTL, as the fastest clock counts it,
    /// less one step of the lease clock.
    pub(crate) fn judged(&mut self, now: u64, keys: &[LeaseKey], command: Bytes, ledger: &Ledger) {
        let mut unjust = Vec::new();
        for key in keys {
            let service = ledger.registry.service(&key.service);
            let instance = service.and_then(|service| service.instance(&key.instance));
            let (Some(reached), Some(instance)) = (self.renewals.get(key), instance) else {
                continue;
            };
            let lasts = lasts(instance.ttl).saturating_sub(2 * 200);
            if now < reached.in_time + lasts {
                let reason = format!("{key:?}: {reached:?}, judged at {now}");
                unjust.push((key.clone(), reason));
            }
        }
        if !unjust.is_empty() {
            self.unjust.insert(command, unjust);
        }
    }
}

/// What was applied, and what it made.
#[derive(Debug)]
pub(crate) struct Ledger {
    lines: BTreeMap<u64, Line>,
    registry: Registry,
    results: BTreeMap<u64, Bytes>,
    /// What the registry was after each index. They share what they have in
    /// common.
    states: BTreeMap<u64, Registry>,
    /// The members after each index at which anyone ended a round.
    members: BTreeMap<u64, Arc<Members>>,
    /// All views there ever were, by the revision since when; `None`: the
    /// service had ended.
    views: BTreeMap<(ServiceName, u64), Option<Shown>>,
    /// Who led in each term.
    leaders: BTreeMap<u64, u64>,
    /// What time it is, and when each entry was first applied.
    pub(crate) now: u64,
    times: BTreeMap<u64, u64>,
    /// The last entry whose outcome anyone was told.
    pub(crate) newest_told: u64,
    pub(crate) expired: u64,
}

/// A view as callers may be shown it.
#[derive(Debug)]
struct Shown {
    view: ServiceView,
    checksum: u64,
    /// As whoever reads the whole view reckons it.
    digest: u64,
}

impl Shown {
    fn new(view: ServiceView) -> Self {
        let encoded = encode_view(&view);
        let read = View::decode(encoded.bytes).expect("a view");
        Self {
            view,
            checksum: encoded.checksum,
            digest: trimtab_proto::digest::view(&read),
        }
    }
}

impl Ledger {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::new();
        registry.skip(Position { index: 1, term: 1 });
        let mut ledger = Self {
            lines: BTreeMap::new(),
            registry,
            results: BTreeMap::new(),
            states: BTreeMap::new(),
            members: BTreeMap::new(),
            views: BTreeMap::new(),
            leaders: BTreeMap::new(),
            now: 0,
            times: BTreeMap::new(),
            newest_told: 0,
            expired: 0,
        };
        ledger.note_state();
        ledger
    }

    /// A replica leads in a term: nobody else ever does.
    pub(crate) fn leads(&mut self, term: u64, replica: u64) -> Result<(), String> {
        let first = *self.leaders.entry(term).or_insert(replica);
        if first != replica {
            return Err(format!("{first} and {replica} both lead in term {term}"));
        }
        Ok(())
    }

    /// The registry after the last index that anyone applied.
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// A replica applied something: it must be what all others applied there.
    pub(crate) fn applied(&mut self, round: AppliedRound, heard: &Heard) -> Result<(), String> {
        let mut at = None;
        if let Some(restored) = round.restored_at {
            if !self.states.contains_key(&restored) {
                return Err(format!("a snapshot of {restored}, which nobody applied"));
            }
            at = Some(restored);
        }
        for entry in round.entries {
            if at.is_some_and(|at| entry.index != at + 1) {
                return Err(format!("entry {} was applied after {at:?}", entry.index));
            }
            at = Some(entry.index);
            self.entry(entry, heard)?;
        }
        let applied = round.registry.applied().index;
        if at != Some(applied) {
            return Err(format!("applied {applied} without entry {at:?}"));
        }
        if self.states.get(&applied) != Some(&round.registry) {
            return Err(format!("replicas differ in their state at {applied}"));
        }
        let members = (self.members.entry(applied)).or_insert_with(|| Arc::clone(&round.members));
        if *members != round.members {
            return Err(format!("replicas differ in who is a member at {applied}"));
        }
        Ok(())
    }

    /// The members after the last index at which anyone ended a round.
    pub(crate) fn members(&self) -> Arc<Members> {
        let newest = self.members.last_key_value();
        newest.map(|(_, it)| Arc::clone(it)).unwrap_or_default()
    }

    /// Whether an entry that changed the members was applied there.
    pub(crate) fn changed_members(&self, index: u64) -> bool {
        (self.lines.get(&index)).is_some_and(|line| line.changes_members)
    }

    /// A client was told that its command was applied there, with this result.
    pub(crate) fn acknowledged(&mut self, index: u64, result: &Bytes) -> Result<(), String> {
        if self.results.get(&index) == Some(result) {
            self.newest_told = self.newest_told.max(index);
            return Ok(());
        }
        Err(format!(
            "what was acknowledged at {index} is not what was applied"
        ))
    }

    /// A caller was shown this view.
    pub(crate) fn shown(
        &self,
        service: &ServiceName,
        revision: u64,
        bytes: &Bytes,
    ) -> Result<(), String> {
        let found = self.views.get(&(service.clone(), revision));
        let checksum = found.and_then(|it| it.as_ref()).map(|it| it.checksum);
        if checksum == Some(trimtab_proto::checksum(bytes)) {
            return Ok(());
        }
        Err(format!("a view of {service} at {revision} that never was"))
    }

    /// A caller was told what changed, and the digest of what comes of it.
    pub(crate) fn led_to(
        &self,
        service: &ServiceName,
        revision: u64,
        digest: u64,
    ) -> Result<(), String> {
        let found = self.views.get(&(service.clone(), revision));
        if found.and_then(|it| it.as_ref()).map(|it| it.digest) == Some(digest) {
            return Ok(());
        }
        Err(format!(
            "a delta of {service} to {revision}, which never was so"
        ))
    }

    /// A caller was told that there was no such service at a revision.
    pub(crate) fn was_absent(&self, service: &ServiceName, revision: u64) -> Result<(), String> {
        if self.view_at(service, revision).is_none() {
            return Ok(());
        }
        Err(format!("{service} was said to be absent at {revision}"))
    }

    /// The view of a service that was true at a revision.
    pub(crate) fn view_at(&self, service: &ServiceName, revision: u64) -> Option<&ServiceView> {
        let until = (service.clone(), revision);
        let (found, view) = self.views.range(..=until).next_back()?;
        let is_here = found.0 == *service;
        is_here
            .then_some(view.as_ref())
            .flatten()
            .map(|shown| &shown.view)
    }

    /// Revision and digest of the newest view of a service.
    pub(crate) fn newest(&self, service: &ServiceName) -> Option<(u64, u64)> {
        let until = (service.clone(), u64::MAX);
        let (found, view) = self.views.range(..=until).next_back()?;
        let is_here = found.0 == *service;
        let shown = is_here.then_some(view.as_ref()).flatten()?;
        Some((found.1, shown.digest))
    }

    /// The revisions of all newest views.
    pub(crate) fn newest_revisions(&self) -> BTreeMap<ServiceName, u64> {
        let services = self.registry.services();
        services
            .filter_map(|it| Some((it.name().clone(), self.newest(it.name())?.0)))
            .collect()
    }

    fn entry(&mut self, mut entry: Entry, heard: &Heard) -> Result<(), String> {
        let index = entry.index;
        let line = Line {
            term: entry.term,
            changes_members: entry.get_entry_type() != EntryType::EntryNormal,
            data: entry.take_data(),
            context: entry.take_context(),
        };
        if let Some(known) = self.lines.get(&index) {
            if *known == line {
                return Ok(());
            }
            return Err(format!("replicas applied different entries at {index}"));
        }
        let last = self.registry.applied();
        if index != last.index + 1 || line.term < last.term {
            return Err(format!(
                "entry {index} of term {} after {last:?}",
                line.term
            ));
        }
        let at = Position {
            index,
            term: line.term,
        };
        if line.data.is_empty() || line.changes_members {
            self.registry.skip(at);
        } else {
            let command = decode_command(&line.data).map_err(|error| error.to_string())?;
            let before = self.registry.clone();
            let applied = self.registry.apply(at, &command);
            self.check(&before, at, &command, &applied)?;
            self.check_living(&line.data, &command, &applied, heard)?;
            let result = encode_result(&applied.outcome).map_err(|error| error.to_string())?;
            self.results.insert(index, result);
            self.note_views(&applied.events);
        }
        self.lines.insert(index, line);
        self.times.insert(index, self.now);
        self.note_state();
        Ok(())
    }

    fn note_state(&mut self) {
        let index = self.registry.applied().index;
        self.states.insert(index, self.registry.clone());
    }

    fn note_views(&mut self, events: &[Event]) {
        let index = self.registry.applied().index;
        for event in events {
            let (Event::ServiceChanged(service) | Event::ServiceEnded(service, _)) = event else {
                continue;
            };
            let view = self.registry.view(service).map(Shown::new);
            let revision = view.as_ref().map_or(index, |it| it.view.revision.0);
            self.views.insert((service.clone(), revision), view);
        }
    }

    /// Nobody is removed whom the leader in office heard in time.
    fn check_living(
        &mut self,
        data: &Bytes,
        command: &Command,
        applied: &Applied,
        heard: &Heard,
    ) -> Result<(), String> {
        if !matches!(command, Command::JudgeLeases(_)) {
            return Ok(());
        }
        let unjust = heard.unjust.get(data);
        for event in &applied.events {
            if let Event::LeaseEnded { key } = event {
                self.expired += 1;
                let wronged = unjust.and_then(|all| all.iter().find(|(of, _)| of == key));
                if let Some((_, reason)) = wronged {
                    return Err(format!("a living instance was removed: {reason}"));
                }
            }
        }
        Ok(())
    }

    /// What section 3 of the design promises of one step.
    fn check(
        &self,
        before: &Registry,
        at: Position,
        command: &Command,
        applied: &Applied,
    ) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("at {}: {what}: {command:?}", at.index));
        if applied.outcome.is_err() && before.services().ne(self.registry.services()) {
            return wrong("a refused command changed something");
        }
        for service in self.registry.services() {
            let Some(route) = service.route() else {
                continue;
            };
            let sum: u32 = route.weights.iter().map(|(_, weight)| weight).sum();
            if sum != WHOLE {
                return wrong("weights do not sum to the whole");
            }
            let earlier = before.service(service.name());
            if earlier.is_some_and(|earlier| has_lit_a_new_group(earlier, service)) {
                return wrong("a new group of a live service has weight");
            }
            if earlier.is_some_and(|earlier| !is_salted_right(earlier, service, at)) {
                return wrong("a route has another salt than that of its rollout");
            }
            if !rolled_back_exactly(service) {
                return wrong("a rollback restored another route");
            }
        }
        if let Ok(Outcome::Shifted(routed) | Outcome::RolledBack(routed)) = &applied.outcome {
            let here = routed.changes.iter().all(|change| {
                let service = self.registry.service(&change.service);
                service.is_some_and(|it| it.route_revision() == at.revision())
            });
            if routed.effect == Effect::Changed && !here {
                return wrong("a change is not of one revision");
            }
        }
        Ok(())
    }
}

fn has_lit_a_new_group(before: &Service, now: &Service) -> bool {
    before.route().is_some()
        && (now.groups())
            .filter(|group| before.group(&group.name).is_none())
            .any(|group| now.weight(&group.name) > 0)
}

/// A rollout begins when a service leaves a single group, and ends when one
/// group has all again; a rollback goes back to what was then.
fn is_salted_right(before: &Service, now: &Service, at: Position) -> bool {
    let (Some(old), Some(new)) = (before.route(), now.route()) else {
        return true;
    };
    let was_rolled_back = before.route_revision() != now.route_revision()
        && (now.history().next()).is_some_and(|change| change.kind == ChangeKind::Rollback);
    let groups = |route: &Route| route.weights.iter().len();
    let expected = match (groups(old), groups(new)) {
        _ if was_rolled_back => return true,
        (_, 1) => 0,
        (1, _) => at.index,
        _ => old.salt.0,
    };
    new.salt.0 == expected
}

fn rolled_back_exactly(service: &Service) -> bool {
    let Some(newest) = service.history().next() else {
        return true;
    };
    let origin = (service.history()).find(|change| Some(change.revision) == newest.restored);
    match (newest.kind, origin) {
        (ChangeKind::Rollback, Some(origin)) => newest.after == origin.after,
        _ => true,
    }
}
