//! Which instances are left out for a while, because calls to them fail more than calls to the rest of their group.
//!
//! After Envoy's outlier detection: a run of failures ejects at once, a bad
//! success rate at the end of an interval; each ejection lasts longer than the
//! one before. Unlike there, an instance is judged by the others of its own
//! group, as a bad release is not an outlier but news for the operator; and it
//! comes back on probation: with a tenth of its share, and the first failure
//! ejects it again.
//!
//! There is no ejection for being slow: choosing by load gives a slow instance
//! less already, and leaving it out would give its load to others that may be
//! slow for the same reason.
//!
//! Pure: calls count into a [`Record`], and whoever calls [`Outliers::judge`]
//! brings the time and the generator.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::{Rng, RngExt};
use tokio::time::Instant;

use crate::policy::OutlierPolicy;
use crate::record::{Record, Standing};

/// How often success rates are compared.
pub(crate) const INTERVAL: Duration = Duration::from_secs(10);

/// No ejection lasts longer, but for the spread.
const EJECTION_MAX: Duration = Duration::from_secs(300);

/// Callers that ejected an instance together do not return together: each
/// ejection is longer by up to this part.
const EJECTION_SPREAD: f64 = 0.1;

/// Rates of fewer instances, or over fewer calls in an interval, say nothing.
const RATE_INSTANCES_MIN: usize = 5;
const RATE_CALLS_MIN: u32 = 100;

/// How many standard deviations below the mean is too bad.
const RATE_DEVIATIONS: f64 = 1.9;

/// Where nearly all calls succeed the deviation is next to nothing, and one
/// failure in a thousand would be far below the mean. This is not.
const RATE_GAP_MIN: f64 = 0.05;

/// The share an instance on probation gets is its own divided by this.
pub(crate) const PROBATION_DIVISOR: u32 = 10;

/// An instance that is to be judged.
#[derive(Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) id: &'a Arc<str>,
    pub(crate) group: &'a Arc<str>,
    pub(crate) record: &'a Record,
    /// READY and connected. Another is out by that already, counts for nobody
    /// and is not ejected; if it was, it comes back on probation.
    pub(crate) counts: bool,
}

/// All that is remembered of a service's instances between judgements.
#[derive(Debug)]
pub(crate) struct Outliers {
    histories: BTreeMap<Arc<str>, History>,
    next_comparison: Instant,
}

/// What a judgement changed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Change {
    pub(crate) id: Arc<str>,
    pub(crate) group: Arc<str>,
    pub(crate) what: Verdict,
}

/// How an instance's standing changed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Verdict {
    /// It is left out for so long.
    Ejected {
        /// Why.
        reason: Reason,
        /// From now.
        lasts: Duration,
    },
    /// Its time is over, it is on probation.
    Returned,
    /// It takes its whole share again.
    Cleared,
}

/// Why an instance was ejected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Reason {
    /// So many calls failed one after another.
    Run(u32),
    /// This part of its calls succeeded, and that of its group.
    Rate {
        /// Of the instance.
        own: f64,
        /// Of the group, on average.
        mean: f64,
    },
}

/// How many more of each group may be ejected.
struct Rooms<'a>(BTreeMap<&'a Arc<str>, usize>);

/// What one instance has been through.
#[derive(Debug, Default)]
struct History {
    /// Ejections that still count; one is forgiven each good interval.
    ejections: u32,
    ejected_until: Option<Instant>,
    /// Since it came back.
    answered_on_probation: u32,
    /// Seen in the judgement that is under way.
    present: bool,
}

// === impl Outliers ===

impl Outliers {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            histories: BTreeMap::new(),
            next_comparison: now + INTERVAL,
        }
    }

    /// When to judge next, if no run of failures is told before.
    pub(crate) fn next_judgement(&self) -> Instant {
        self.histories
            .values()
            .filter_map(|history| history.ejected_until)
            .fold(self.next_comparison, Instant::min)
    }

    /// Ejects who is to be ejected, and lets return whose time is over. What
    /// changed is in the records, and told.
    pub(crate) fn judge(
        &mut self,
        now: Instant,
        policy: &OutlierPolicy,
        subjects: &[Subject<'_>],
        rng: &mut impl Rng,
    ) -> Vec<Change> {
        if !policy.enabled {
            self.next_comparison = now + INTERVAL;
            return self.acquit_all(subjects);
        }
        let mut changes = Vec::new();
        for subject in subjects {
            changes.extend(self.bring_up_to_date(now, policy, subject));
        }
        self.histories
            .retain(|_, history| std::mem::take(&mut history.present));
        let mut rooms = Rooms::of(subjects, policy);
        let mut found = Vec::new();
        for subject in subjects {
            found.extend(subject.record.run().map(|run| (subject, Reason::Run(run))));
        }
        if self.next_comparison <= now {
            self.next_comparison = now + INTERVAL;
            found.extend(compare(subjects));
            for subject in subjects {
                changes.extend(self.end_interval(policy, subject));
            }
        }
        for (subject, reason) in found {
            if rooms.take(subject) {
                let lasts = self.eject(now, policy, subject, rng);
                changes.push(Change::of(subject, Verdict::Ejected { reason, lasts }));
            }
        }
        changes
    }

    /// Nobody is judged any more.
    fn acquit_all(&mut self, subjects: &[Subject<'_>]) -> Vec<Change> {
        self.histories.clear();
        let mut changes = Vec::new();
        for subject in subjects {
            let record = subject.record;
            record.tell_runs_of(0);
            record.forget();
            if record.standing() != Standing::Good {
                record.set(Standing::Good);
                changes.push(Change::of(subject, Verdict::Cleared));
            }
        }
        changes
    }

    /// Lets the instance return if its time is over, and has its record tell
    /// what the policy wants to be told.
    fn bring_up_to_date(
        &mut self,
        now: Instant,
        policy: &OutlierPolicy,
        subject: &Subject<'_>,
    ) -> Option<Change> {
        let record = subject.record;
        // Most were never ejected, and have none.
        let history = self.histories.get_mut(subject.id);
        let ejected_until = history.and_then(|history| {
            history.present = true;
            history.ejected_until
        });
        let mut change = None;
        if record.standing() != Standing::Ejected {
            if ejected_until.is_some() {
                // Of an earlier connection, whose record is gone.
                self.history_of(subject).ejected_until = None;
            }
        } else if !subject.counts || ejected_until.is_none_or(|until| until <= now) {
            let history = self.history_of(subject);
            history.present = true;
            history.ejected_until = None;
            history.answered_on_probation = 0;
            record.forget();
            record.set(Standing::Probation);
            change = Some(Change::of(subject, Verdict::Returned));
        }
        let run_limit = match record.standing() {
            Standing::Probation => 1,
            Standing::Good | Standing::Ejected => policy.consecutive_failures,
        };
        record.tell_runs_of(run_limit);
        change
    }

    fn history_of(&mut self, subject: &Subject<'_>) -> &mut History {
        self.histories.entry(Arc::clone(subject.id)).or_default()
    }

    /// An interval has passed: probation ends with enough answers, and one
    /// earlier ejection is forgotten.
    fn end_interval(&mut self, policy: &OutlierPolicy, subject: &Subject<'_>) -> Option<Change> {
        let record = subject.record;
        let answered = record.begin_interval();
        match record.standing() {
            Standing::Ejected => None,
            Standing::Good => {
                if let Some(history) = self.histories.get_mut(subject.id) {
                    history.ejections = history.ejections.saturating_sub(1);
                }
                None
            }
            Standing::Probation => {
                let history = self.history_of(subject);
                history.answered_on_probation =
                    history.answered_on_probation.saturating_add(answered);
                if history.answered_on_probation < policy.consecutive_failures {
                    return None;
                }
                record.set(Standing::Good);
                record.tell_runs_of(policy.consecutive_failures);
                Some(Change::of(subject, Verdict::Cleared))
            }
        }
    }

    /// For how long.
    fn eject(
        &mut self,
        now: Instant,
        policy: &OutlierPolicy,
        subject: &Subject<'_>,
        rng: &mut impl Rng,
    ) -> Duration {
        let history = self.history_of(subject);
        history.ejections = history.ejections.saturating_add(1);
        let longest = EJECTION_MAX.max(policy.base_ejection);
        let lasts = policy
            .base_ejection
            .saturating_mul(history.ejections)
            .min(longest)
            .mul_f64(1.0 + rng.random_range(0.0..=EJECTION_SPREAD));
        history.ejected_until = Some(now + lasts);
        subject.record.set(Standing::Ejected);
        lasts
    }
}

// === impl Rooms ===

impl<'a> Rooms<'a> {
    fn of(subjects: &[Subject<'a>], policy: &OutlierPolicy) -> Self {
        let mut rooms: BTreeMap<&Arc<str>, (usize, usize)> = BTreeMap::new();
        for subject in subjects.iter().filter(|subject| subject.counts) {
            let (members, ejected) = rooms.entry(subject.group).or_default();
            *members += 1;
            *ejected += usize::from(subject.record.standing() == Standing::Ejected);
        }
        let room = |(members, ejected)| {
            ejected_max(members, policy.max_ejected_percent).saturating_sub(ejected)
        };
        Self(
            rooms
                .into_iter()
                .map(|(group, counts)| (group, room(counts)))
                .collect(),
        )
    }

    /// Whether the instance may be ejected; if so, its place is taken.
    fn take(&mut self, subject: &Subject<'_>) -> bool {
        if !subject.counts || subject.record.standing() == Standing::Ejected {
            return false;
        }
        match self.0.get_mut(subject.group) {
            Some(room) if *room > 0 => {
                *room -= 1;
                true
            }
            _ => false,
        }
    }
}

// === private parts ===

/// Who had a far worse interval than the rest of its group.
fn compare<'s, 'a>(subjects: &'s [Subject<'a>]) -> Vec<(&'s Subject<'a>, Reason)> {
    let mut rates: BTreeMap<&Arc<str>, Vec<(&'s Subject<'a>, f64)>> = BTreeMap::new();
    for subject in subjects.iter().filter(|subject| subject.counts) {
        let (answered, failed) = subject.record.interval();
        let calls = answered.saturating_add(failed);
        if calls >= RATE_CALLS_MIN {
            let rate = f64::from(answered) / f64::from(calls);
            rates
                .entry(subject.group)
                .or_default()
                .push((subject, rate));
        }
    }
    rates.values().flat_map(|rates| far_below(rates)).collect()
}

/// How many of a group's connected instances may be out at a time: the part
/// that the policy allows, but one in any case, unless it is the only one.
fn ejected_max(members: usize, percent: u32) -> usize {
    if members < 2 {
        return 0;
    }
    let part = members * usize::try_from(percent).unwrap_or(100) / 100;
    part.clamp(1, members - 1)
}

fn far_below<'s, 'a>(rates: &[(&'s Subject<'a>, f64)]) -> Vec<(&'s Subject<'a>, Reason)> {
    if rates.len() < RATE_INSTANCES_MIN {
        return Vec::new();
    }
    let count = rates.len() as f64;
    let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
    let squares = rates.iter().map(|(_, rate)| (rate - mean).powi(2));
    let deviation = (squares.sum::<f64>() / count).sqrt();
    let gap = (deviation * RATE_DEVIATIONS).max(RATE_GAP_MIN);
    let below = rates.iter().filter(|(_, rate)| *rate < mean - gap);
    below
        .map(|&(subject, own)| (subject, Reason::Rate { own, mean }))
        .collect()
}

// === impl Change ===

impl Change {
    fn of(subject: &Subject<'_>, what: Verdict) -> Self {
        Self {
            id: Arc::clone(subject.id),
            group: Arc::clone(subject.group),
            what,
        }
    }
}

#[cfg(test)]
#[path = "outlier_tests.rs"]
mod tests;
