//! One lease: what is known of it, and what comes of that at a given time.

use std::num::NonZeroU64;
use std::time::Duration;

use trimtab_registry::name::Zone;
use trimtab_registry::revision::Revision;

use super::LeaseSettings;
use super::clock::LeaseTime;
use super::ward::{Counted, Heard, Pen};

/// One stretch of leading, or of following, by this replica.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reign {
    /// Tells reigns apart that begin at the same lease time.
    pub(crate) number: u32,
    /// When it began; while following, when it last led.
    pub(crate) since: LeaseTime,
}

/// What is known of a lease when it begins, or is found.
#[derive(Clone, Debug)]
pub(crate) struct Granted {
    pub(crate) ttl: Duration,
    pub(crate) zone: Zone,
    pub(crate) leaving: bool,
    pub(crate) suspect_since: Option<Revision>,
}

/// What the leader remembers of one lease.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// In milliseconds.
    ttl_ms: u32,
    /// The reign that the rest was noted in.
    reign: u32,
    /// The last renewal.
    renewed: LeaseTime,
    heard: Heard,
    zone: Zone,
    /// It is expected that it goes.
    leaving: bool,
    /// When its stream broke, if no renewal came since.
    broken: Option<LeaseTime>,
    /// Since when it is SUSPECT, as applied: no revision is 0.
    suspect_since: Option<NonZeroU64>,
    /// It is SUSPECT but was renewed since.
    returned: bool,
    /// It was judged to be SUSPECT, which may not have been applied yet, and
    /// was not renewed since.
    doubted: bool,
    /// When it became due for removal.
    pub(crate) due: Option<LeaseTime>,
    /// Its removal was let through.
    let_go: bool,
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
    pub(crate) fn new(now: LeaseTime, reign: Reign, granted: Granted) -> Self {
        Self {
            ttl_ms: u32::try_from(granted.ttl.as_millis()).unwrap_or(u32::MAX),
            reign: reign.number,
            renewed: now,
            heard: Heard::Granted,
            zone: granted.zone,
            leaving: granted.leaving,
            broken: None,
            suspect_since: granted.suspect_since.and_then(number_of),
            returned: false,
            doubted: false,
            due: None,
            let_go: false,
            judged: None,
            renewed_since_judged: false,
            place: Place::Agenda(now),
        }
    }

    /// It stopped renewing: it is SUSPECT, or about to be, and was not renewed
    /// since.
    pub(crate) fn unwell(&self) -> bool {
        self.doubted || (self.suspect_since.is_some() && !self.returned)
    }

    /// It is SUSPECT, as applied.
    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect_since.is_some()
    }

    pub(crate) fn ttl(&self) -> Duration {
        Duration::from_millis(u64::from(self.ttl_ms))
    }

    /// Its removal was let through.
    pub(crate) fn was_let_go(&self) -> bool {
        self.let_go
    }

    /// Where the brake counts it.
    pub(crate) fn counted(&self) -> Counted {
        let belongs = !self.leaving && !self.let_go;
        let pen = belongs.then(|| Pen {
            zone: self.zone.clone(),
            heard: self.heard,
        });
        let unwell = self.unwell();
        Counted { pen, unwell }
    }

    /// A renewal through this replica would change nothing but its time.
    pub(crate) fn is_steady(&self, reign: Reign, via: u64) -> bool {
        self.reign == reign.number
            && self.heard == Heard::Through(via)
            && !self.unwell()
            && !self.let_go
    }

    /// Forgets what was noted in an earlier reign, of which this one knows
    /// too little, and counts as renewed when this one began. To be called
    /// before anything is noted or asked.
    pub(crate) fn enter(&mut self, reign: Reign) {
        if self.reign != reign.number {
            self.reign = reign.number;
            self.renewed = self.renewed.max(reign.since);
            self.heard = Heard::Unheard;
            self.broken = None;
            self.judged = None;
            self.due = None;
            self.let_go = false;
        }
    }

    pub(crate) fn renew(&mut self, now: LeaseTime, via: u64) {
        self.renewed = now;
        self.heard = Heard::Through(via);
        self.broken = None;
        self.doubted = false;
        self.due = None;
        self.let_go = false;
        self.renewed_since_judged = true;
        self.returned = self.suspect_since.is_some();
    }

    /// Notes that its stream at replica `via` broke, unless its last renewal
    /// came through another one.
    pub(crate) fn note_break(&mut self, now: LeaseTime, via: u64) -> bool {
        let elsewhere = matches!(self.heard, Heard::Through(other) if other != via);
        if !elsewhere {
            self.broken = self.broken.or(Some(now));
        }
        !elsewhere
    }

    pub(crate) fn judge(&mut self, now: LeaseTime) {
        self.judged = Some(now);
        self.renewed_since_judged = false;
    }

    /// It was put into a judgement as SUSPECT.
    pub(crate) fn doubt(&mut self, now: LeaseTime) {
        self.judge(now);
        self.doubted = true;
    }

    /// It was put into a judgement for removal.
    pub(crate) fn let_go(&mut self, now: LeaseTime) {
        self.judge(now);
        self.let_go = true;
    }

    pub(crate) fn suspected(&mut self, since: Revision) {
        self.suspect_since = number_of(since);
        self.returned = self.judged.take().is_some() && self.renewed_since_judged;
        self.doubted = false;
    }

    pub(crate) fn revived(&mut self) {
        self.suspect_since = None;
        self.returned = false;
        self.doubted = false;
        self.judged = None;
    }

    pub(crate) fn leaves(&mut self, leaving: bool) {
        self.leaving = leaving;
    }

    /// What comes of it `now`.
    pub(crate) fn next(&self, now: LeaseTime, settings: &LeaseSettings) -> Next {
        let answer_by = self.judged.map(|judged| judged.after(settings.retry));
        if let Some(answer_by) = answer_by.filter(|by| *by > now) {
            return Next::Wait(answer_by);
        }
        let (deadline, then) = match self.suspect_since {
            Some(_) if self.returned => return Next::Revive,
            Some(since) => {
                let since = Revision(since.get());
                (self.renewed.after(self.ttl()), Next::Expire(since))
            }
            None => {
                let silent = self.renewed.after(self.ttl() * 2 / 3);
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

fn number_of(revision: Revision) -> Option<NonZeroU64> {
    NonZeroU64::new(revision.0)
}
