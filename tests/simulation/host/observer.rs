//! Who is told what a replica applied: its leases and its views, as the production publisher does it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use trimtab_registry::command::{Command, Expiry, JudgeLeases};
use trimtab_registry::event::Event;
use trimtab_registry::instance::LeaseKey;
use trimtab_registry::name::ServiceName;
use trimtab_registry::revision::Revision;
use trimtab_registry::state::Registry;
use trimtab_server::consensus::observer::Observer;
use trimtab_server::consensus::status::ConsensusStatus;
use trimtab_server::lease_keeper::JUDGE_INTERVAL;
use trimtab_server::leases::{Judge, LeaseClock, LeaseSettings, LeaseTime};
use trimtab_server::views::Views;

use crate::planted::Planted;

/// The judge of leases of one process, and what planted bugs do to it.
#[derive(Debug)]
pub(crate) struct Keeper {
    planted: Option<Planted>,
    pub(crate) judge: Judge,
    leading: Option<u64>,
    /// What a planted bug expires at the next judgement, whatever happened.
    stale: Vec<LeaseKey>,
}

/// Told by consensus.
#[derive(Debug, Clone)]
pub(crate) struct Ear {
    pub(crate) keeper: Arc<Mutex<Keeper>>,
    pub(crate) views: Arc<Views>,
}

impl Keeper {
    pub(crate) fn new(settings: LeaseSettings, planted: Option<Planted>) -> Self {
        Self {
            planted,
            judge: Judge::new(settings, LeaseClock::default()),
            leading: None,
            stale: Vec::new(),
        }
    }

    /// Looks for leases that ran out, after real time `elapsed`. `last` is
    /// the last index of the log.
    pub(crate) fn judge(&mut self, elapsed: Duration, last: u64) -> Option<Command> {
        let mut elapsed = elapsed;
        if self.planted == Some(Planted::PausesCount) {
            // Neither left out nor noticed.
            let stood_still = elapsed.saturating_sub(JUDGE_INTERVAL);
            self.judge.leap(stood_still);
            elapsed -= stood_still;
        }
        let mut command = self.judge.judge(elapsed)?;
        match (self.planted, &mut command) {
            (Some(Planted::UnfencedExpiry), Command::JudgeLeases(judgement)) => {
                self.unfence(judgement, last);
            }
            (Some(Planted::NobodyExpires), Command::JudgeLeases(judgement)) => {
                judgement.expire.clear();
            }
            _ => {}
        }
        Some(command)
    }

    /// The planted bug: who was suspect once is removed at the next judgement,
    /// whatever happened since.
    fn unfence(&mut self, judgement: &mut JudgeLeases, last: u64) {
        for key in std::mem::take(&mut self.stale) {
            judgement.suspect.push(key.clone());
            let suspect_since = Revision(last + 1);
            judgement.expire.push(Expiry { key, suspect_since });
        }
        self.stale.extend(judgement.revive.iter().cloned());
    }

    fn leads_in(&mut self, term: Option<u64>) {
        if self.leading == term {
            return;
        }
        self.leading = term;
        self.judge.leads_in(term);
        if let (Some(Planted::NoGrace), Some(term)) = (self.planted, term) {
            self.judge.leases_mut().lead(LeaseTime::default(), term);
        }
    }
}

impl Ear {
    pub(crate) fn keeper(&self) -> MutexGuard<'_, Keeper> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Ear {
    fn applied(&mut self, registry: &Registry, events: &[Event]) {
        self.keeper().judge.applied(events);
        publish(&self.views, registry, events);
    }

    fn restored(&mut self, registry: &Registry) {
        self.keeper().judge.restored(registry);
        self.views.replace(registry);
    }

    fn role_changed(&mut self, status: &ConsensusStatus) {
        let term = status.leads_up_to_date.then_some(status.term);
        self.keeper().leads_in(term);
    }
}

/// Publishes the services that these events changed.
pub(crate) fn publish(views: &Views, registry: &Registry, events: &[Event]) {
    let changed: BTreeSet<&ServiceName> = (events.iter())
        .filter_map(|event| match event {
            Event::ServiceChanged(service) | Event::ServiceEnded(service, _) => Some(service),
            _ => None,
        })
        .collect();
    views.publish(registry, changed);
}
