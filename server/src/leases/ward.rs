//! The leases of one service, counted by where they are, and those of them that are due for removal.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use trimtab_registry::instance::LeaseKey;
use trimtab_registry::name::{ServiceName, Zone};

use super::LeaseSettings;
use super::brake::{Brake, Scope, Tally};
use super::clock::LeaseTime;

/// What of a lease decides where it is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Where it belongs; `None` if its removal is nobody's loss: it is
    /// expected to go, or was let go already.
    pub(crate) pen: Option<Pen>,
    /// It stopped renewing.
    pub(crate) unwell: bool,
}

/// Leases that are alike in everything that a loss may have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pen {
    pub(crate) zone: Zone,
    pub(crate) heard: Heard,
}

/// The way a lease was heard of last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Heard {
    /// It was granted while this leader was in office, and not renewed yet.
    Granted,
    /// Not since this leader took office.
    Unheard,
    /// Through this replica.
    Through(u64),
}

impl Pen {
    fn scopes(&self) -> impl Iterator<Item = Scope> {
        let by_replica = match self.heard {
            Heard::Granted => None,
            Heard::Unheard => Some(Scope::Unheard),
            Heard::Through(replica) => Some(Scope::Replica(replica)),
        };
        let named = !self.zone.as_str().is_empty();
        let zone = named.then(|| Scope::Zone(self.zone.clone()));
        [Some(Scope::Service), zone, by_replica]
            .into_iter()
            .flatten()
    }
}

/// Removals wait in one scope, or did until their time was up.
#[derive(Clone, Copy, Debug)]
struct Alarm {
    since: LeaseTime,
    /// Since when no more than the ordinary are unwell.
    calm: Option<LeaseTime>,
}

/// The leases of one service, counted.
///
/// All instances that are lost together are known to be unwell before the
/// first of them is due for removal: SUSPECT comes at two thirds of the TTL,
/// and their last renewals lie at most one third apart. So what counts is how
/// many are unwell, not how many happen to be due already.
#[derive(Debug, Default)]
pub(crate) struct Ward {
    leases: u32,
    tallies: BTreeMap<Scope, Tally>,
    /// Those due for removal, by the time they became it.
    due: BTreeMap<Option<Pen>, BTreeSet<(LeaseTime, LeaseKey)>>,
    alarms: BTreeMap<Scope, Alarm>,
    /// The longest TTL of those that are due: as long a living instance may
    /// take to be heard of when the network is whole again.
    patience: Duration,
}

impl Ward {
    pub(crate) fn admit(&mut self, counted: &Counted) {
        self.leases += 1;
        self.count(counted);
    }

    pub(crate) fn release(&mut self, counted: &Counted) {
        self.leases -= 1;
        self.discount(counted);
    }

    /// A lease is counted elsewhere from now on. It must not be due.
    pub(crate) fn recount(&mut self, before: &Counted, after: &Counted) {
        self.discount(before);
        self.count(after);
    }

    fn count(&mut self, counted: &Counted) {
        for scope in counted.pen.iter().flat_map(Pen::scopes) {
            let tally = self.tallies.entry(scope).or_default();
            tally.leases += 1;
            tally.unwell += u32::from(counted.unwell);
        }
    }

    fn discount(&mut self, counted: &Counted) {
        for scope in counted.pen.iter().flat_map(Pen::scopes) {
            let Some(tally) = self.tallies.get_mut(&scope) else {
                continue;
            };
            tally.leases -= 1;
            tally.unwell -= u32::from(counted.unwell);
            if tally.leases == 0 {
                self.tallies.remove(&scope);
            }
        }
    }

    fn tally(&self, scope: &Scope) -> Tally {
        self.tallies.get(scope).copied().unwrap_or_default()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.leases == 0
    }

    pub(crate) fn add_due(
        &mut self,
        pen: Option<Pen>,
        since: LeaseTime,
        ttl: Duration,
        key: LeaseKey,
    ) {
        self.patience = self.patience.max(ttl);
        self.due.entry(pen).or_default().insert((since, key));
    }

    pub(crate) fn remove_due(&mut self, pen: &Option<Pen>, since: LeaseTime, key: &LeaseKey) {
        if let Some(due) = self.due.get_mut(pen) {
            due.remove(&(since, key.clone()));
            if due.is_empty() {
                self.due.remove(pen);
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn tallies(&self) -> &BTreeMap<Scope, Tally> {
        &self.tallies
    }

    #[cfg(test)]
    pub(crate) fn due_count(&self) -> usize {
        self.due.values().map(BTreeSet::len).sum()
    }

    /// Nothing is due and no alarm goes on.
    pub(crate) fn is_calm(&self) -> bool {
        self.due.is_empty() && self.alarms.is_empty()
    }

    /// Forgets what is due and any alarm.
    pub(crate) fn discharge(&mut self) -> Vec<LeaseKey> {
        self.alarms.clear();
        self.patience = Duration::ZERO;
        let due = std::mem::take(&mut self.due).into_values().flatten();
        due.map(|(_, key)| key).collect()
    }

    /// At most `count` leases to remove now: those due before now that no
    /// alarm holds, and those that were held as long as any may be.
    pub(crate) fn take_due(
        &mut self,
        now: LeaseTime,
        settings: &LeaseSettings,
        count: usize,
    ) -> Vec<LeaseKey> {
        self.look(now, settings);
        let mut taken = Vec::new();
        let mut due = std::mem::take(&mut self.due);
        for (pen, leases) in &mut due {
            let is_held = pen.iter().flat_map(Pen::scopes).any(|scope| {
                let alarm = self.alarms.get(&scope);
                alarm.is_some_and(|alarm| alarm.since.after(settings.brake_hold) > now)
            });
            while taken.len() < count
                && let Some((since, _)) = leases.first()
                && *since < now
                && (!is_held || since.after(settings.brake_hold) <= now)
            {
                taken.extend(leases.pop_first().map(|(_, key)| key));
            }
        }
        due.retain(|_, leases| !leases.is_empty());
        self.due = due;
        if self.due.is_empty() {
            self.patience = Duration::ZERO;
        }
        taken
    }

    /// Raises alarms and ends them.
    fn look(&mut self, now: LeaseTime, settings: &LeaseSettings) {
        if settings.brake_hold.is_zero() {
            return;
        }
        let waiting: BTreeSet<Scope> = (self.due.keys().flatten()).flat_map(Pen::scopes).collect();
        let alarmed = self.alarms.keys().cloned();
        let scopes: BTreeSet<Scope> = alarmed.chain(waiting.iter().cloned()).collect();
        let service = self.tally(&Scope::Service);
        for scope in scopes {
            let tally = self.tally(&scope);
            let is_loud = tally.is_mass_loss(&scope, service, settings);
            let waits = waiting.contains(&scope);
            let Some(alarm) = self.alarms.get_mut(&scope) else {
                if is_loud && waits {
                    let since = now;
                    self.alarms.insert(scope, Alarm { since, calm: None });
                }
                continue;
            };
            let is_spent = alarm.since.after(settings.brake_hold) <= now;
            if is_loud {
                alarm.calm = None;
                // A spent one is remembered, so that the rest of the same loss
                // does not raise it again.
                if !waits && !is_spent {
                    self.alarms.remove(&scope);
                }
                continue;
            }
            let calm = *alarm.calm.get_or_insert(now);
            if is_spent || !waits || calm.after(self.patience) <= now {
                self.alarms.remove(&scope);
            }
        }
    }

    /// What is held back, each lease in one of them.
    pub(crate) fn brakes(
        &self,
        service: &ServiceName,
        now: LeaseTime,
        settings: &LeaseSettings,
    ) -> Vec<Brake> {
        let mut told: BTreeSet<&Pen> = BTreeSet::new();
        let mut brakes = Vec::new();
        for (scope, alarm) in &self.alarms {
            let end = alarm.since.after(settings.brake_hold);
            let calm = alarm.calm.map(|calm| calm.after(self.patience));
            let ends_in = calm.map_or(end, |calm| calm.min(end)).since(now);
            let held: Vec<(&Pen, usize)> = (self.due.iter())
                .filter_map(|(pen, due)| Some((pen.as_ref()?, due.len())))
                .filter(|(pen, _)| pen.scopes().any(|of| of == *scope))
                .collect();
            let is_news = held.iter().any(|(pen, _)| !told.contains(pen));
            if ends_in.is_zero() || !is_news {
                continue;
            }
            told.extend(held.iter().map(|(pen, _)| pen));
            let tally = self.tally(scope);
            brakes.push(Brake {
                service: service.clone(),
                scope: scope.clone(),
                held: held.iter().map(|(_, count)| count).sum(),
                unwell: tally.unwell,
                leases: tally.leases,
                common: common(scope, held.iter().map(|(pen, _)| *pen)),
                age: now.since(alarm.since),
                ends_in,
                calm: alarm.calm.is_some(),
            });
        }
        brakes
    }
}

/// The scopes that all of the pens are in, besides one that is known.
fn common<'a>(known: &Scope, mut pens: impl Iterator<Item = &'a Pen>) -> Vec<Scope> {
    let mut shared: Vec<Scope> = pens.next().into_iter().flat_map(Pen::scopes).collect();
    shared.retain(|scope| scope != known && *scope != Scope::Service);
    for pen in pens {
        shared.retain(|scope| pen.scopes().any(|of| of == *scope));
    }
    shared
}
