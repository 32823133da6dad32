//! The brake: when most of a service would go at once, the registry doubts itself first.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use trimtab_registry::instance::LeaseKey;
use trimtab_registry::name::ServiceName;

use crate::leases::clock::LeaseTime;

/// How many unwell leases the brake needs: in a smaller service it would hold
/// on to the ordinary death of one or two processes.
const UNWELL_MIN: u32 = 3;

/// Removals that are held back in one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brake {
    /// The service.
    pub service: ServiceName,
    /// Leases whose removal waits.
    pub held: usize,
    /// Leases that are SUSPECT and do not renew, these included.
    pub unwell: u32,
    /// All leases of the service.
    pub leases: u32,
    /// Since when.
    pub since: LeaseTime,
}

impl fmt::Display for Brake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "service {}: {} of {} instances stopped renewing together; \
             they stay SUSPECT and the removal of {} is held back",
            self.service, self.unwell, self.leases, self.held
        )
    }
}

/// The leases of one service, counted.
///
/// All instances that die together are SUSPECT before the first of them is
/// due for removal: SUSPECT comes at two thirds of the TTL, and their last
/// renewals lie at most one third apart. So what counts is how many are
/// unwell, not how many happen to be due already.
#[derive(Debug, Default)]
pub(crate) struct Ward {
    leases: u32,
    unwell: u32,
    due: BTreeSet<LeaseKey>,
    /// Since when most leases are unwell while some are due.
    alarmed: Option<LeaseTime>,
    held: bool,
}

impl Ward {
    pub(crate) fn admit(&mut self, unwell: bool) {
        self.leases += 1;
        self.unwell += u32::from(unwell);
    }

    pub(crate) fn release(&mut self, unwell: bool) {
        self.leases -= 1;
        self.unwell -= u32::from(unwell);
    }

    /// The health of one lease changed, or not.
    pub(crate) fn note(&mut self, was_unwell: bool, unwell: bool) {
        self.unwell = self.unwell + u32::from(unwell) - u32::from(was_unwell);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.leases == 0
    }

    pub(crate) fn add_due(&mut self, key: LeaseKey) {
        self.due.insert(key);
    }

    pub(crate) fn remove_due(&mut self, key: &LeaseKey) {
        self.due.remove(key);
    }

    pub(crate) fn due_count(&self) -> usize {
        self.due.len()
    }

    /// Nothing is due and no alarm goes on.
    pub(crate) fn is_calm(&self) -> bool {
        self.due.is_empty() && self.alarmed.is_none()
    }

    /// Forgets what is due and any alarm.
    pub(crate) fn discharge(&mut self) -> BTreeSet<LeaseKey> {
        self.alarmed = None;
        self.held = false;
        std::mem::take(&mut self.due)
    }

    /// At most `count` leases to remove now: none while the brake holds.
    pub(crate) fn take_due(
        &mut self,
        now: LeaseTime,
        hold: Duration,
        count: usize,
    ) -> Vec<LeaseKey> {
        let most = self.unwell >= UNWELL_MIN && self.unwell * 2 > self.leases;
        self.alarmed = match self.alarmed {
            _ if !most => None,
            None if !self.due.is_empty() => Some(now),
            alarmed => alarmed,
        };
        self.held = self.alarmed.is_some_and(|since| since.after(hold) > now);
        if self.held {
            return Vec::new();
        }
        let count = count.min(self.due_count());
        std::iter::from_fn(|| self.due.pop_first())
            .take(count)
            .collect()
    }

    /// What is held back, if anything is.
    pub(crate) fn brake(&self, service: &ServiceName) -> Option<Brake> {
        let since = self.alarmed.filter(|_| self.held && !self.due.is_empty())?;
        Some(Brake {
            service: service.clone(),
            held: self.due_count(),
            unwell: self.unwell,
            leases: self.leases,
            since,
        })
    }
}
