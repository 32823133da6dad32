//! The leader's clock for leases: who stopped renewing, who is suspect, whose lease is over.
//!
//! A lease is SUSPECT after two thirds of its TTL without a renewal, or when
//! its renewal stream broke and no renewal followed; it is over when its TTL
//! is, and never before it was applied to be SUSPECT. Deadlines live in memory
//! and only the leader acts on them: what they come to is proposed to the log
//! as [`Command::JudgeLeases`] and takes effect when that is applied. A new
//! leader knows nothing of earlier renewals, so it grants every lease one
//! whole TTL.
//!
//! Nothing here reads a clock: every call is given the [`LeaseTime`].

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use trimtab_registry::command::{Command, Expiry, JudgeLeases, LEASES_PER_JUDGEMENT_MAX};
use trimtab_registry::event::Event;
use trimtab_registry::instance::{LeaseKey, Ttl};
use trimtab_registry::name::ServiceName;
use trimtab_registry::revision::Revision;
use trimtab_registry::state::Registry;

use self::brake::Brake;
pub use self::clock::{LeaseClock, LeaseTime};
pub use self::judge::Judge;
use self::slot::{Granted, Next, Place, Reign, Slot};
use self::table::Table;
use self::ward::Ward;

pub mod brake;
mod clock;
pub mod journal;
mod judge;
mod slot;
mod table;
#[cfg(test)]
mod tests;
mod ward;

/// How many leases one call of [`Leases::judge`] looks at. After an election
/// every deadline has moved; looking at so many takes some ten milliseconds,
/// and the rest can wait for the next tick.
const EXAMINED_MAX: usize = 16_384;

/// What an operator may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseSettings {
    /// How long after its stream broke an instance may renew through another
    /// replica before it is SUSPECT.
    pub break_grace: Duration,
    /// How long removals are held back, at most, when so many instances would
    /// go together that a fault of the network is likelier than their death.
    /// Zero holds none back.
    pub brake_hold: Duration,
    /// More than so many percent of the instances of a service, or of a zone
    /// of it, or of those that renewed through one replica, are so many.
    pub brake_share: u32,
    /// But never fewer than this: in a small service it would hold on to the
    /// ordinary death of one or two processes.
    pub brake_min: u32,
    /// After how long a judgement that nothing came of is made again.
    pub retry: Duration,
}

impl Default for LeaseSettings {
    fn default() -> Self {
        Self {
            break_grace: Duration::from_millis(500),
            brake_hold: Duration::from_secs(60),
            brake_share: 50,
            brake_min: 3,
            retry: Duration::from_secs(2),
        }
    }
}

/// The leases of all instances. Every replica keeps them, so that any may
/// lead; only the leader judges.
#[derive(Debug, Default)]
pub struct Leases {
    settings: LeaseSettings,
    /// The term this replica leads in.
    leading: Option<u64>,
    reign: Reign,
    slots: Table,
    suspects: usize,
    /// When to look at which lease again: each that is not due is here once,
    /// no later than its next deadline. Renewals leave it alone; a lease that
    /// was renewed meanwhile is filed anew when its old turn comes.
    agenda: BTreeSet<(LeaseTime, Revision)>,
    wards: HashMap<ServiceName, Ward>,
    /// The services that have leases due, or an alarm that goes on.
    restless: BTreeSet<ServiceName>,
}

impl Leases {
    /// Knows no lease and does not lead.
    pub fn new(settings: LeaseSettings) -> Self {
        Self {
            settings,
            ..Self::default()
        }
    }

    /// How many leases there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// How many of them are SUSPECT, as applied.
    pub fn suspects(&self) -> usize {
        self.suspects
    }

    /// Whether its removal was let through in this term.
    fn was_let_go(&self, key: &LeaseKey) -> bool {
        self.slots.get(key).is_some_and(Slot::was_let_go)
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Takes note of what an applied entry did. To be called for each event in
    /// order, before the entry's outcome is told to anyone: whoever is told of
    /// a lease may renew it at once.
    pub fn observe(&mut self, now: LeaseTime, event: &Event) {
        match event {
            Event::LeaseGranted {
                key,
                ttl,
                zone,
                leaving,
            } => {
                let granted = Granted {
                    ttl: lasts(*ttl),
                    zone: zone.clone(),
                    leaving: *leaving,
                    suspect_since: None,
                };
                self.grant(now, key, granted);
            }
            Event::LeaseLeaving { key, leaving } => self.update(key, |slot| slot.leaves(*leaving)),
            Event::LeaseSuspected { key, since } => {
                self.change(now, key, |slot| slot.suspected(*since));
            }
            Event::LeaseRevived { key } => self.change(now, key, Slot::revived),
            Event::LeaseEnded { key } => self.end(key),
            Event::ServiceChanged(_) | Event::ServiceEnded(..) | Event::GroupRetiring { .. } => {}
        }
    }

    /// Starts over from a whole registry: after a start, or when a snapshot
    /// was installed. Every lease counts as renewed now.
    pub fn reset(&mut self, now: LeaseTime, registry: &Registry) {
        *self = Self {
            leading: self.leading,
            reign: self.reign,
            ..Self::new(self.settings)
        };
        for service in registry.services() {
            for instance in service.instances() {
                let key = instance.lease_key(service.name());
                let granted = Granted {
                    ttl: lasts(instance.ttl),
                    zone: instance.spec.zone.clone(),
                    leaving: service.is_leaving(instance),
                    suspect_since: instance.suspect_since,
                };
                self.grant(now, &key, granted);
            }
        }
    }

    /// Becomes the judge in `term`. Every lease has one whole TTL from now.
    pub fn lead(&mut self, now: LeaseTime, term: u64) {
        self.follow();
        self.leading = Some(term);
        self.reign.since = now;
    }

    /// Judges no more.
    pub fn follow(&mut self) {
        self.leading = None;
        self.reign.number += 1;
        for service in std::mem::take(&mut self.restless) {
            let due = self.wards.get_mut(&service).map(Ward::discharge);
            for key in due.into_iter().flatten() {
                // At once, which is when its next judge looks at it first.
                self.file(&key, LeaseTime::default());
            }
        }
    }

    /// Renews leases, heard of through replica `via`, and answers with those
    /// that do not exist (any more). To be asked of the leader alone: only it
    /// has surely applied every registration that was acknowledged.
    pub fn renew(&mut self, now: LeaseTime, via: u64, keys: &[LeaseKey]) -> Vec<LeaseKey> {
        let mut lost = Vec::new();
        for key in keys {
            let Some(slot) = self.slots.get_mut(key) else {
                lost.push(key.clone());
                continue;
            };
            if slot.is_steady(self.reign, via) {
                slot.renew(now, via);
                continue;
            }
            let was_unwell = slot.unwell();
            self.update(key, |slot| slot.renew(now, via));
            if was_unwell {
                self.file(key, now);
            }
        }
        lost
    }

    /// The renewal streams of these leases, at replica `via`, broke without a
    /// goodbye. Passed over for a lease whose last renewal came through
    /// another replica: its process had left that stream by itself.
    pub fn broken(&mut self, now: LeaseTime, via: u64, keys: &[LeaseKey]) {
        for key in keys {
            let turn = now.after(self.settings.break_grace);
            let mut is_sooner = false;
            self.update(key, |slot| {
                let is_later = matches!(slot.place, Place::Agenda(later) if later > turn);
                is_sooner = slot.note_break(now, via) && is_later;
            });
            if is_sooner {
                self.file(key, turn);
            }
        }
    }

    /// What is to be proposed now. None while following, or when there is
    /// nothing; one judgement has a bounded size, so ask again soon.
    ///
    /// A lease that is in a judgement is left alone until an event tells what
    /// came of it, or for the time of `retry`.
    pub fn judge(&mut self, now: LeaseTime) -> Option<Command> {
        let mut judged = JudgeLeases {
            term: self.leading?,
            ..JudgeLeases::default()
        };
        self.judge_agenda(now, &mut judged);
        self.judge_due(now, &mut judged);
        (!judged.is_empty()).then_some(Command::JudgeLeases(judged))
    }

    /// Where removals are held back, by service.
    pub fn brakes(&self, now: LeaseTime) -> Vec<Brake> {
        let wards = self.restless.iter();
        wards
            .filter_map(|name| Some((name, self.wards.get(name)?)))
            .flat_map(|(name, ward)| ward.brakes(name, now, &self.settings))
            .collect()
    }

    fn grant(&mut self, now: LeaseTime, key: &LeaseKey, granted: Granted) {
        self.end(key);
        let slot = Slot::new(now, self.reign, granted);
        self.suspects += usize::from(slot.is_suspect());
        let ward = self.wards.entry(key.service.clone()).or_default();
        ward.admit(&slot.counted());
        let turn = match slot.next(now, &self.settings) {
            Next::Wait(turn) => turn,
            _ => now,
        };
        self.slots.insert(key, slot);
        self.file(key, turn);
    }

    fn end(&mut self, key: &LeaseKey) {
        let Some(slot) = self.slots.remove(key) else {
            return;
        };
        if let Place::Agenda(turn) = slot.place {
            self.agenda.remove(&(turn, key.lease));
        }
        self.suspects -= usize::from(slot.is_suspect());
        if let Some(ward) = self.wards.get_mut(&key.service) {
            let counted = slot.counted();
            if let (Place::Due, Some(since)) = (slot.place, slot.due) {
                ward.remove_due(&counted.pen, since, key);
            }
            ward.release(&counted);
            if ward.is_empty() {
                self.wards.remove(&key.service);
            }
        }
    }

    /// Changes a lease in a way that may bring its next deadline forward.
    fn change(&mut self, now: LeaseTime, key: &LeaseKey, change: impl FnOnce(&mut Slot)) {
        self.update(key, change);
        self.file(key, now);
    }

    /// Changes a lease, and with it where it is counted. One that was due is
    /// looked at anew.
    fn update(&mut self, key: &LeaseKey, change: impl FnOnce(&mut Slot)) {
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        let before = slot.counted();
        let due = slot.due.filter(|_| slot.place == Place::Due);
        self.suspects -= usize::from(slot.is_suspect());
        slot.enter(self.reign);
        change(slot);
        self.suspects += usize::from(slot.is_suspect());
        let after = slot.counted();
        if let Some(ward) = self.wards.get_mut(&key.service) {
            if let Some(since) = due {
                ward.remove_due(&before.pen, since, key);
            }
            if before != after {
                ward.recount(&before, &after);
            }
        }
        if due.is_some() {
            self.file(key, LeaseTime::default());
        }
    }

    /// Puts a lease on the agenda, wherever it was.
    fn file(&mut self, key: &LeaseKey, turn: LeaseTime) {
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        if let Place::Agenda(before) = slot.place {
            self.agenda.remove(&(before, key.lease));
        }
        slot.place = Place::Agenda(turn);
        self.agenda.insert((turn, key.lease));
    }

    fn judge_agenda(&mut self, now: LeaseTime, judged: &mut JudgeLeases) {
        for _ in 0..EXAMINED_MAX {
            let full = judged.len() >= LEASES_PER_JUDGEMENT_MAX;
            if full || self.agenda.first().is_none_or(|(turn, _)| *turn > now) {
                return;
            }
            let Some((_, lease)) = self.agenda.pop_first() else {
                return;
            };
            let Some(key) = self.slots.key(lease) else {
                continue;
            };
            self.update(&key, |_| {});
            let Some(slot) = self.slots.get(&key) else {
                continue;
            };
            match slot.next(now, &self.settings) {
                Next::Wait(turn) => self.file(&key, turn),
                Next::Suspect => {
                    self.await_answer(now, &key, |slot| slot.doubt(now));
                    judged.suspect.push(key);
                }
                Next::Revive => {
                    self.await_answer(now, &key, |slot| slot.judge(now));
                    judged.revive.push(key);
                }
                Next::Expire(_) => self.is_due(now, key),
            }
        }
    }

    fn judge_due(&mut self, now: LeaseTime, judged: &mut JudgeLeases) {
        let restless: Vec<ServiceName> = self.restless.iter().cloned().collect();
        for service in restless {
            let room = LEASES_PER_JUDGEMENT_MAX - judged.len();
            let Some(ward) = self.wards.get_mut(&service) else {
                self.restless.remove(&service);
                continue;
            };
            let due = ward.take_due(now, &self.settings, room);
            if ward.is_calm() {
                self.restless.remove(&service);
            }
            for key in due {
                let next = (self.slots.get(&key)).map(|slot| slot.next(now, &self.settings));
                self.await_answer(now, &key, |slot| slot.let_go(now));
                if let Some(Next::Expire(suspect_since)) = next {
                    judged.expire.push(Expiry { key, suspect_since });
                }
            }
        }
    }

    /// A lease is due for removal, which its service's ward may hold back.
    fn is_due(&mut self, now: LeaseTime, key: LeaseKey) {
        let ward = self.wards.get_mut(&key.service);
        let (Some(slot), Some(ward)) = (self.slots.get_mut(&key), ward) else {
            return;
        };
        slot.place = Place::Due;
        let since = *slot.due.get_or_insert(now);
        self.restless.insert(key.service.clone());
        ward.add_due(slot.counted().pen, since, slot.ttl(), key);
    }

    /// A lease went into a judgement: what comes of it is told by an event.
    fn await_answer(&mut self, now: LeaseTime, key: &LeaseKey, note: impl FnOnce(&mut Slot)) {
        self.file(key, now.after(self.settings.retry));
        self.update(key, note);
    }
}

fn lasts(ttl: Ttl) -> Duration {
    Duration::from_millis(ttl.as_millis())
}
