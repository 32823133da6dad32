//! The judge of leases on one replica: the leases, the clock they are judged by, and the term it leads in.

use std::time::Duration;

use trimtab_registry::command::Command;
use trimtab_registry::event::Event;
use trimtab_registry::instance::LeaseKey;
use trimtab_registry::state::Registry;

use super::brake::Brake;
use super::journal::{Changes, Journal, News};
use super::{LeaseClock, LeaseSettings, Leases};

/// What a replica decides about leases, without a clock, a lock or a task:
/// whoever drives it says how much time passed. `lease_keeper` does in
/// production, the simulation does in its own time.
#[derive(Debug, Default)]
pub struct Judge {
    clock: LeaseClock,
    leases: Leases,
    /// The term this replica leads in.
    leading: Option<u64>,
    /// Steps in a row that came late.
    late: u32,
    journal: Journal,
    is_news: bool,
}

/// A step that took longer came late: the process did not run meanwhile, and
/// renewals that arrived in time may still wait in its sockets. Half as much
/// again as [`crate::lease_keeper::JUDGE_INTERVAL`]. A shorter stall does no
/// harm: what is due goes in the step after, and what arrived before it was
/// due is heard by then.
const ON_TIME: Duration = Duration::from_millis(150);

/// So many late steps in a row are taken for how the machine is, not for a
/// stall: some ten seconds. Beyond that the dead would stay for ever.
const LATE_STEPS_MAX: u32 = 50;

impl Judge {
    /// Knows no lease and does not lead.
    pub fn new(settings: LeaseSettings, clock: LeaseClock) -> Self {
        Self {
            clock,
            leases: Leases::new(settings),
            leading: None,
            late: 0,
            journal: Journal::default(),
            is_news: false,
        }
    }

    /// The log was applied. To be called before the outcome is told to anyone:
    /// whoever is told of a lease may renew it at once.
    pub fn applied(&mut self, events: &[Event]) {
        let now = self.clock.now();
        for event in events {
            if self.leading.is_some() {
                self.note(event);
            }
            self.leases.observe(now, event);
        }
    }

    /// The whole state was replaced.
    pub fn restored(&mut self, registry: &Registry) {
        self.leases.reset(self.clock.now(), registry);
    }

    /// Leadership may have changed hands. `term` is the one this replica leads
    /// in, and `None` until it has applied an entry of that term: before that
    /// it may not know of a lease that is held.
    pub fn leads_in(&mut self, term: Option<u64>) {
        if self.leading == term {
            return;
        }
        self.leading = term;
        self.journal.clear();
        match term {
            Some(term) => self.leases.lead(self.clock.now(), term),
            None => self.leases.follow(),
        }
    }

    /// Renews leases as the leader; answers those it does not know, or `None`
    /// when this replica does not lead. `via` is the replica that the
    /// instances renew through.
    ///
    /// A leader that was deposed and has not heard of it does not know what
    /// was granted since. So what is missing is lost only if it is still
    /// missing when asked again after a linearizable read.
    pub fn renew(&mut self, via: u64, leases: &[LeaseKey]) -> Option<Vec<LeaseKey>> {
        self.leading?;
        Some(self.leases.renew(self.clock.now(), via, leases))
    }

    /// Takes note, as the leader, of streams that broke; `false` when this
    /// replica does not lead.
    pub fn broken(&mut self, via: u64, leases: &[LeaseKey]) -> bool {
        if self.leading.is_some() {
            self.leases.broken(self.clock.now(), via, leases);
        }
        self.leading.is_some()
    }

    /// So much real time went by since the last call: what is to be proposed
    /// now, if anything is. Nothing when the call comes late: what waits in the
    /// sockets is to be heard first.
    pub fn judge(&mut self, elapsed: Duration) -> Option<Command> {
        let now = self.clock.advance(elapsed);
        self.late = match elapsed > ON_TIME {
            true => self.late.saturating_add(1),
            false => 0,
        };
        let is_stalled = (1..=LATE_STEPS_MAX).contains(&self.late);
        self.is_news = self.journal.is_time(elapsed);
        self.leading.filter(|_| !is_stalled)?;
        self.leases.judge(now)
    }

    /// What is to be written to the log, now and then: what happened since
    /// the last time, as far as this replica led.
    pub fn news(&mut self) -> Vec<News> {
        if !std::mem::take(&mut self.is_news) {
            return Vec::new();
        }
        self.journal.entry(self.leases.brakes(self.clock.now()))
    }

    /// The leader writes down what came of its judgements.
    fn note(&mut self, event: &Event) {
        let mut changes = Changes::default();
        let key = match event {
            Event::LeaseSuspected { key, .. } => {
                changes.suspected = 1;
                key
            }
            Event::LeaseRevived { key } => {
                changes.revived = 1;
                key
            }
            // Who left by himself is no news.
            Event::LeaseEnded { key } if self.leases.was_let_go(key) => {
                changes.removed = 1;
                key
            }
            _ => return,
        };
        self.journal.note(key, changes);
    }

    /// Where removals are held back.
    pub fn brakes(&self) -> Vec<Brake> {
        self.leases.brakes(self.clock.now())
    }

    /// How many leases there are, and how many of them are SUSPECT.
    pub fn counts(&self) -> (usize, usize) {
        (self.leases.len(), self.leases.suspects())
    }

    /// For simulations, which plant a bug here: time goes by as if there had
    /// been an ear for every moment of it.
    #[doc(hidden)]
    pub fn leap(&mut self, elapsed: Duration) {
        self.clock.advance(elapsed);
    }

    /// For simulations, which plant bugs here.
    #[doc(hidden)]
    pub fn leases_mut(&mut self) -> &mut Leases {
        &mut self.leases
    }
}
