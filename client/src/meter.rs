//! What this crate counts for whoever collects metrics in the process: the table is in docs/telemetry-of-callers.md.
//!
//! Handles that calls use are made once and kept: a call costs what the
//! recorder that the program installed makes of it, and next to nothing without
//! one. A recorder that is installed after a service was first called hears
//! nothing of those handles.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Histogram, Label, SharedString, counter, gauge, histogram};

use crate::endpoint::Outcome;
use crate::outlier::Reason;

/// Calls to one group.
#[derive(Debug)]
pub(crate) struct GroupMeter {
    calls: Endings,
    seconds: Histogram,
}

/// Calls to one instance, where the program asked for it.
#[derive(Debug, Clone)]
pub(crate) struct InstanceMeter(Endings);

/// Calls by how they ended.
#[derive(Debug, Clone)]
struct Endings {
    answered: Counter,
    failed: Counter,
    declined: Counter,
    abandoned: Counter,
}

/// Calls to one service that did not go straight.
#[derive(Debug)]
pub(crate) struct RepeatMeter {
    service: Arc<str>,
    /// Sent again, as the first instance has not seen it.
    pub(crate) unsent: Counter,
    /// Sent again, after a failure.
    pub(crate) failed: Counter,
    /// Sent to one more, as the first kept it waiting.
    pub(crate) waiting: Counter,
    /// Not sent again, as the budget was used up.
    pub(crate) refused: Counter,
    /// Ended without an instance.
    pub(crate) no_instance: Counter,
}

/// The instances of one service, as its lineup has them.
#[derive(Debug)]
pub(crate) struct LineupMeter {
    service: Arc<str>,
    /// Groups that were told of last.
    told: BTreeMap<Arc<str>, Standings>,
}

/// How many instances of a group are how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Standings {
    pub(crate) up: usize,
    pub(crate) connecting: usize,
    pub(crate) down: usize,
    /// Of those that are up.
    pub(crate) ejected: usize,
    /// So many that the ejected are called too.
    pub(crate) in_panic: bool,
}

// === impl GroupMeter ===

impl GroupMeter {
    pub(crate) fn of(service: &Arc<str>, group: &Arc<str>) -> Self {
        let labels = labels(service, group);
        Self {
            calls: Endings::of("trimtab_client_calls_total", &labels),
            seconds: histogram!("trimtab_client_call_seconds", labels),
        }
    }

    pub(crate) fn ended(&self, outcome: Outcome, latency: Duration) {
        if outcome != Outcome::Unsent {
            self.calls.count(outcome);
            self.seconds.record(latency);
        }
    }
}

// === impl InstanceMeter ===

impl InstanceMeter {
    pub(crate) fn of(service: &Arc<str>, group: &Arc<str>, instance: &Arc<str>) -> Self {
        let labels = and(&labels(service, group), "instance", Arc::clone(instance));
        Self(Endings::of("trimtab_client_instance_calls_total", &labels))
    }

    pub(crate) fn ended(&self, outcome: Outcome) {
        self.0.count(outcome);
    }
}

// === impl Endings ===

impl Endings {
    fn of(name: &'static str, labels: &[Label]) -> Self {
        let ended = |outcome| counter!(name, and(labels, "outcome", outcome));
        Self {
            answered: ended("answered"),
            failed: ended("failed"),
            declined: ended("declined"),
            abandoned: ended("abandoned"),
        }
    }

    fn count(&self, outcome: Outcome) {
        let counter = match outcome {
            Outcome::Answered => &self.answered,
            Outcome::Failed | Outcome::Lost => &self.failed,
            Outcome::Declined => &self.declined,
            Outcome::Abandoned | Outcome::GivenUp => &self.abandoned,
            Outcome::Unsent => return,
        };
        counter.increment(1);
    }
}

// === impl RepeatMeter ===

impl RepeatMeter {
    pub(crate) fn of(service: &Arc<str>) -> Self {
        let labels = vec![Label::new("service", Arc::clone(service))];
        let repeats = |reason| {
            counter!(
                "trimtab_client_repeats_total",
                and(&labels, "reason", reason)
            )
        };
        Self {
            service: Arc::clone(service),
            unsent: repeats("unsent"),
            failed: repeats("failed"),
            waiting: repeats("waiting"),
            refused: counter!("trimtab_client_repeats_refused_total", labels.clone()),
            no_instance: counter!("trimtab_client_no_instance_total", labels.clone()),
        }
    }

    /// Sent again, to another group than this one.
    pub(crate) fn elsewhere(&self, group: &Arc<str>) {
        let labels = labels(&self.service, group);
        counter!("trimtab_client_repeats_elsewhere_total", labels).increment(1);
    }
}

// === impl LineupMeter ===

impl LineupMeter {
    pub(crate) fn of(service: &Arc<str>) -> Self {
        Self {
            service: Arc::clone(service),
            told: BTreeMap::new(),
        }
    }

    /// An instance was left out for failing calls.
    pub(crate) fn ejected(&self, group: &Arc<str>, reason: Reason) {
        let reason = match reason {
            Reason::Run(_) => "run",
            Reason::Rate { .. } => "rate",
        };
        let labels = and(&labels(&self.service, group), "reason", reason);
        counter!("trimtab_client_ejections_total", labels).increment(1);
    }

    /// What calls follow from now on. A group that is gone has no instances.
    pub(crate) fn follows(
        &mut self,
        revision: u64,
        uncovered_basis_points: u32,
        groups: BTreeMap<Arc<str>, Standings>,
    ) {
        let service = vec![Label::new("service", Arc::clone(&self.service))];
        gauge!("trimtab_client_revision", service.clone()).set(revision as f64);
        let uncovered = f64::from(uncovered_basis_points) / 10_000.0;
        gauge!("trimtab_client_uncovered_share", service).set(uncovered);
        for group in self
            .told
            .keys()
            .filter(|group| !groups.contains_key(*group))
        {
            self.tell(group, Standings::default());
        }
        for (group, standings) in &groups {
            if self.told.get(group) != Some(standings) {
                self.tell(group, *standings);
            }
        }
        self.told = groups;
    }

    fn tell(&self, group: &Arc<str>, standings: Standings) {
        let labels = labels(&self.service, group);
        for (state, count) in [
            ("up", standings.up),
            ("connecting", standings.connecting),
            ("down", standings.down),
        ] {
            gauge!("trimtab_client_instances", and(&labels, "state", state)).set(count as f64);
        }
        gauge!("trimtab_client_ejected", labels.clone()).set(standings.ejected as f64);
        gauge!("trimtab_client_panic", labels).set(f64::from(u8::from(standings.in_panic)));
    }
}

fn labels(service: &Arc<str>, group: &Arc<str>) -> Vec<Label> {
    vec![
        Label::new("service", Arc::clone(service)),
        Label::new("group", Arc::clone(group)),
    ]
}

fn and(labels: &[Label], name: &'static str, value: impl Into<SharedString>) -> Vec<Label> {
    let more = Label::new(name, value);
    labels.iter().cloned().chain([more]).collect()
}
