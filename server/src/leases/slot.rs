//! One lease: what is known of it, and what comes of that at a given time.

use std::time::Duration;

use trimtab_registry::revision::Revision;

use crate::leases::LeaseSettings;
use crate::leases::clock::LeaseTime;

/// What the leader remembers of one lease.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    ttl: Duration,
    /// The last renewal.
    renewed: LeaseTime,
    /// The replica it came through; 0 when not known.
    via: u64,
    /// When its stream broke, if no renewal came since.
    broken: Option<LeaseTime>,
    /// Since when it is SUSPECT, as applied.
    suspect_since: Option<Revision>,
    /// It is SUSPECT but was renewed since.
    returned: bool,
    /// When it was last put into a judgement of which nothing was heard yet.
    judged: Option<LeaseTime>,
    /// It was renewed since it was judged.
    renewed_since_judged: bool,
    /// Where to look for it.
    pub(crate) place: Place,
}

/// Where a lease waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On the agenda, for this time.
    Agenda(LeaseTime),
    /// Among those of its service that are due for removal.
    Due,
}

/// What comes of a lease at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing before that time.
    Wait(LeaseTime),
    /// It stopped renewing.
    Suspect,
    /// It was SUSPECT and renews again.
    Revive,
    /// It is over.
    Expire(Revision),
}

impl Slot {
    /// A lease that counts as renewed `now`.
    pub(crate) fn new(now: LeaseTime, ttl: Duration, suspect_since: Option<Revision>) -> Self {
        Self {
            ttl,
            renewed: now,
            via: 0,
            broken: None,
            suspect_since,
            returned: false,
            judged: None,
            renewed_since_judged: false,
            place: Place::Agenda(now),
        }
    }

    /// It is SUSPECT and was not renewed since.
    pub(crate) fn unwell(&self) -> bool {
        self.suspect_since.is_some() && !self.returned
    }

    pub(crate) fn renew(&mut self, now: LeaseTime, via: u64) {
        self.renewed = now;
        self.via = via;
        self.broken = None;
        self.renewed_since_judged = true;
        self.returned = self.suspect_since.is_some();
    }

    /// Notes that its stream at replica `via` broke, unless its last renewal
    /// since this replica leads came through another one.
    pub(crate) fn note_break(
        &mut self,
        now: LeaseTime,
        via: u64,
        leading_since: LeaseTime,
    ) -> bool {
        let elsewhere = self.via != 0 && self.via != via && self.renewed >= leading_since;
        if !elsewhere {
            self.broken = Some(now);
        }
        !elsewhere
    }

    pub(crate) fn judge(&mut self, now: LeaseTime) {
        self.judged = Some(now);
        self.renewed_since_judged = false;
    }

    pub(crate) fn suspected(&mut self, since: Revision) {
        self.suspect_since = Some(since);
        self.returned = self.judged.take().is_some() && self.renewed_since_judged;
    }

    pub(crate) fn revived(&mut self) {
        self.suspect_since = None;
        self.returned = false;
        self.judged = None;
    }

    /// What comes of it `now`, for a leader since `leading_since`: what was
    /// noted before that does not count, and all leases were renewed then.
    pub(crate) fn next(
        &self,
        now: LeaseTime,
        leading_since: LeaseTime,
        settings: &LeaseSettings,
    ) -> Next {
        let in_this_term = |noted: Option<LeaseTime>| noted.filter(|at| *at >= leading_since);
        let answer_by = in_this_term(self.judged).map(|judged| judged.after(settings.retry));
        if let Some(answer_by) = answer_by.filter(|by| *by > now) {
            return Next::Wait(answer_by);
        }
        let renewed = self.renewed.max(leading_since);
        let (deadline, then) = match self.suspect_since {
            Some(_) if self.returned => return Next::Revive,
            Some(since) => (renewed.after(self.ttl), Next::Expire(since)),
            None => {
                let silent = renewed.after(self.ttl.saturating_mul(2) / 3);
                let broken = in_this_term(self.broken).map(|at| at.after(settings.break_grace));
                (broken.map_or(silent, |at| at.min(silent)), Next::Suspect)
            }
        };
        if deadline > now {
            Next::Wait(deadline)
        } else {
            then
        }
    }
}
