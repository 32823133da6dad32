//! One lease: what is known of it, and what comes of that at a given time.

use std::time::Duration;

use trimtab_registry::revision::Revision;

use crate::leases::LeaseSettings;
use crate::leases::clock::LeaseTime;

/// One stretch of leading, or of following, by this replica.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reign {
    /// Tells reigns apart that begin at the same lease time.
    pub(crate) number: u64,
    /// When it began; while following, when it last led.
    pub(crate) since: LeaseTime,
}

/// What the leader remembers of one lease.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    ttl: Duration,
    /// The reign that the rest was noted in.
    reign: u64,
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
            reign: 0,
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

    /// Forgets what was noted in an earlier reign, of which this one knows
    /// too little, and counts as renewed when this one began. To be called
    /// before anything is noted or asked.
    pub(crate) fn enter(&mut self, reign: Reign) {
        if self.reign != reign.number {
            self.reign = reign.number;
            self.renewed = self.renewed.max(reign.since);
            self.via = 0;
            self.broken = None;
            self.judged = None;
        }
    }

    pub(crate) fn renew(&mut self, now: LeaseTime, via: u64) {
        self.renewed = now;
        self.via = via;
        self.broken = None;
        self.renewed_since_judged = true;
        self.returned = self.suspect_since.is_some();
    }

    /// Notes that its stream at replica `via` broke, unless its last renewal
    /// came through another one.
    pub(crate) fn note_break(&mut self, now: LeaseTime, via: u64) -> bool {
        let elsewhere = self.via != 0 && self.via != via;
        if !elsewhere {
            self.broken = self.broken.or(Some(now));
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

    /// What comes of it `now`.
    pub(crate) fn next(&self, now: LeaseTime, settings: &LeaseSettings) -> Next {
        let answer_by = self.judged.map(|judged| judged.after(settings.retry));
        if let Some(answer_by) = answer_by.filter(|by| *by > now) {
            return Next::Wait(answer_by);
        }
        let (deadline, then) = match self.suspect_since {
            Some(_) if self.returned => return Next::Revive,
            Some(since) => (self.renewed.after(self.ttl), Next::Expire(since)),
            None => {
                let silent = self.renewed.after(self.ttl.saturating_mul(2) / 3);
                let broken = self.broken.map(|at| at.after(settings.break_grace));
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
