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

use self::brake::{Brake, Ward};
pub use self::clock::{LeaseClock, LeaseTime};
pub use self::judge::Judge;
use self::slot::{Next, Place, Reign, Slot};

pub mod brake;
mod clock;
mod judge;
mod slot;
#[cfg(test)]
mod tests;

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
    /// How long removals of a service are held back when most of its
    /// instances would go together. Zero holds none back.
    pub brake_hold: Duration,
    /// After how long a judgement that nothing came of is made again.
    pub retry: Duration,
}

impl Default for LeaseSettings {
    fn default() -> Self {
        Self {
            break_grace: Duration::from_millis(500),
            brake_hold: Duration::from_secs(60),
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
    slots: HashMap<LeaseKey, Slot>,
    /// When to look at which lease again: each that is not due is here once,
    /// no later than its next deadline. Renewals leave it alone; a lease that
    /// was renewed meanwhile is filed anew when its old turn comes.
    agenda: BTreeSet<(LeaseTime, LeaseKey)>,
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

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Takes note of what an applied entry did. To be called for each event in
    /// order, before the entry's outcome is told to anyone: whoever is told of
    /// a lease may renew it at once.
    pub fn observe(&mut self, now: LeaseTime, event: &Event) {
        match event {
            Event::LeaseGranted { key, ttl } => self.grant(now, key, *ttl, None),
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
                self.grant(now, &key, instance.ttl, instance.suspect_since);
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
            slot.enter(self.reign);
            if slot.unwell() {
                self.change(now, key, |slot| slot.renew(now, via));
            } else {
                slot.renew(now, via);
            }
        }
        lost
    }

    /// The renewal streams of these leases, at replica `via`, broke without a
    /// goodbye. Passed over for a lease whose last renewal came through
    /// another replica: its process had left that stream by itself.
    pub fn broken(&mut self, now: LeaseTime, via: u64, keys: &[LeaseKey]) {
        for key in keys {
            let Some(slot) = self.slots.get_mut(key) else {
                continue;
            };
            slot.enter(self.reign);
            let noted = slot.note_break(now, via);
            let turn = now.after(self.settings.break_grace);
            if noted && matches!(slot.place, Place::Agenda(later) if later > turn) {
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

    /// The services whose removals are held back, by name.
    pub fn brakes(&self) -> Vec<Brake> {
        self.restless
            .iter()
            .filter_map(|service| self.wards.get(service)?.brake(service))
            .collect()
    }

    fn grant(&mut self, now: LeaseTime, key: &LeaseKey, ttl: Ttl, suspect: Option<Revision>) {
        self.end(key);
        let ttl = Duration::from_millis(ttl.as_millis());
        let slot = Slot::new(now, ttl, suspect);
        let ward = self.wards.entry(key.service.clone()).or_default();
        ward.admit(slot.unwell());
        let turn = match slot.next(now, &self.settings) {
            Next::Wait(turn) => turn,
            _ => now,
        };
        self.slots.insert(key.clone(), slot);
        self.file(key, turn);
    }

    fn end(&mut self, key: &LeaseKey) {
        let Some(slot) = self.slots.remove(key) else {
            return;
        };
        if let Place::Agenda(turn) = slot.place {
            self.agenda.remove(&(turn, key.clone()));
        }
        if let Some(ward) = self.wards.get_mut(&key.service) {
            ward.remove_due(key);
            ward.release(slot.unwell());
            if ward.is_empty() {
                self.wards.remove(&key.service);
            }
        }
    }

    /// Changes a lease in a way that may bring its next deadline forward.
    fn change(&mut self, now: LeaseTime, key: &LeaseKey, change: impl FnOnce(&mut Slot)) {
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        slot.enter(self.reign);
        let was_unwell = slot.unwell();
        change(slot);
        if let Some(ward) = self.wards.get_mut(&key.service) {
            ward.note(was_unwell, slot.unwell());
            ward.remove_due(key);
        }
        self.file(key, now);
    }

    /// Puts a lease on the agenda, wherever it was.
    fn file(&mut self, key: &LeaseKey, turn: LeaseTime) {
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        if let Place::Agenda(before) = slot.place {
            self.agenda.remove(&(before, key.clone()));
        }
        slot.place = Place::Agenda(turn);
        self.agenda.insert((turn, key.clone()));
    }

    fn judge_agenda(&mut self, now: LeaseTime, judged: &mut JudgeLeases) {
        for _ in 0..EXAMINED_MAX {
            let full = judged.len() >= LEASES_PER_JUDGEMENT_MAX;
            if full || self.agenda.first().is_none_or(|(turn, _)| *turn > now) {
                return;
            }
            let Some((_, key)) = self.agenda.pop_first() else {
                return;
            };
            let Some(slot) = self.slots.get_mut(&key) else {
                continue;
            };
            slot.enter(self.reign);
            match slot.next(now, &self.settings) {
                Next::Wait(turn) => self.file(&key, turn),
                Next::Suspect => {
                    self.await_answer(now, &key);
                    judged.suspect.push(key);
                }
                Next::Revive => {
                    self.await_answer(now, &key);
                    judged.revive.push(key);
                }
                Next::Expire(_) => {
                    slot.place = Place::Due;
                    self.restless.insert(key.service.clone());
                    if let Some(ward) = self.wards.get_mut(&key.service) {
                        ward.add_due(key);
                    }
                }
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
            let due = ward.take_due(now, self.settings.brake_hold, room);
            if ward.is_calm() {
                self.restless.remove(&service);
            }
            for key in due {
                let next = (self.slots.get(&key)).map(|slot| slot.next(now, &self.settings));
                self.await_answer(now, &key);
                if let Some(Next::Expire(suspect_since)) = next {
                    judged.expire.push(Expiry { key, suspect_since });
                }
            }
        }
    }

    /// A lease went into a judgement: what comes of it is told by an event.
    fn await_answer(&mut self, now: LeaseTime, key: &LeaseKey) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.judge(now);
        }
        self.file(key, now.after(self.settings.retry));
    }
}
