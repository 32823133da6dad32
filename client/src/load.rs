//! What this process saw of each group: calls, failures, times; summed for the reports to the registry.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use trimtab_proto::latency::{BUCKETS, bucket};

use crate::meter::GroupMeter;

/// Counts of one group. Written by every call, read once per report.
#[derive(Debug)]
pub(crate) struct GroupLoad {
    pub(crate) meter: GroupMeter,
    born: Instant,
    errors: AtomicU64,
    latency_nanos: AtomicU64,
    /// Calls that ended, by latency; their number is the sum. Wraps, which the
    /// differences that are reported survive.
    latencies: [AtomicU32; BUCKETS],
    /// Milliseconds from `born` to the last start or end of a call, plus one;
    /// 0 for never.
    last_call: AtomicU64,
}

/// What happened in one group since the last report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupReport {
    pub(crate) group: Arc<str>,
    pub(crate) calls: u64,
    pub(crate) errors: u64,
    pub(crate) latency_total: Duration,
    /// By bucket, without the zeros at the end.
    pub(crate) latencies: Vec<u32>,
    /// `None`: no call yet.
    pub(crate) last_call_age: Option<Duration>,
}

/// The groups of one service.
#[derive(Debug)]
pub(crate) struct Loads {
    service: Arc<str>,
    groups: Mutex<BTreeMap<Arc<str>, Tracked>>,
}

#[derive(Debug)]
struct Tracked {
    load: Arc<GroupLoad>,
    reported: Totals,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Totals {
    errors: u64,
    latency_nanos: u64,
    latencies: [u32; BUCKETS],
    last_call: u64,
}

// === impl GroupLoad ===

impl GroupLoad {
    fn new(meter: GroupMeter, born: Instant) -> Self {
        Self {
            meter,
            born,
            errors: AtomicU64::new(0),
            latency_nanos: AtomicU64::new(0),
            latencies: [const { AtomicU32::new(0) }; BUCKETS],
            last_call: AtomicU64::new(0),
        }
    }

    pub(crate) fn started(&self, now: Instant) {
        self.touch(now);
    }

    pub(crate) fn ended(&self, now: Instant, latency: Duration, failed: bool) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latency_nanos.fetch_add(nanos, Ordering::Relaxed);
        if failed {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(calls) = self.latencies.get(bucket(latency)) {
            calls.fetch_add(1, Ordering::Relaxed);
        }
        self.touch(now);
    }

    fn touch(&self, now: Instant) {
        let since = now.saturating_duration_since(self.born).as_millis();
        let stamp = u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1);
        // Read first: all calls write this place, and few have news.
        if self.last_call.load(Ordering::Relaxed) < stamp {
            self.last_call.fetch_max(stamp, Ordering::Relaxed);
        }
    }

    fn totals(&self) -> Totals {
        Totals {
            errors: self.errors.load(Ordering::Relaxed),
            latency_nanos: self.latency_nanos.load(Ordering::Relaxed),
            latencies: std::array::from_fn(|bucket| {
                let calls = self.latencies.get(bucket);
                calls.map_or(0, |calls| calls.load(Ordering::Relaxed))
            }),
            last_call: self.last_call.load(Ordering::Relaxed),
        }
    }

    fn age(&self, last_call: u64, now: Instant) -> Option<Duration> {
        let since_born = last_call.checked_sub(1)?;
        let age = now.saturating_duration_since(self.born);
        Some(age.saturating_sub(Duration::from_millis(since_born)))
    }
}

// === impl Totals ===

impl Totals {
    /// Without the zeros at the end.
    fn latencies_since(&self, before: &Self) -> Vec<u32> {
        let pairs = self.latencies.iter().zip(&before.latencies);
        let mut since: Vec<u32> = pairs
            .map(|(now, before)| now.wrapping_sub(*before))
            .collect();
        let used = since.iter().rposition(|calls| *calls > 0);
        since.truncate(used.map_or(0, |last| last + 1));
        since
    }
}

// === impl Loads ===

impl Loads {
    /// Of a service nobody has called yet.
    pub(crate) fn of(service: &Arc<str>) -> Self {
        Self {
            service: Arc::clone(service),
            groups: Mutex::default(),
        }
    }

    /// The counts of a group, shared by all who call it.
    pub(crate) fn group(&self, name: &Arc<str>, now: Instant) -> Arc<GroupLoad> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let tracked = groups.entry(Arc::clone(name)).or_insert_with(|| Tracked {
            load: Arc::new(GroupLoad::new(GroupMeter::of(&self.service, name), now)),
            reported: Totals::default(),
        });
        Arc::clone(&tracked.load)
    }

    /// What is new since the last report, or `all` groups for a replica that
    /// has heard nothing yet. Groups that nobody can call any more and that
    /// have nothing new are forgotten, which bounds the map.
    pub(crate) fn report(&self, now: Instant, all: bool) -> Vec<GroupReport> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.retain(|_, tracked| {
            Arc::strong_count(&tracked.load) > 1 || tracked.load.totals() != tracked.reported
        });
        let mut reports = Vec::new();
        for (group, tracked) in groups.iter_mut() {
            let totals = tracked.load.totals();
            if totals == tracked.reported && !all {
                continue;
            }
            let before = std::mem::replace(&mut tracked.reported, totals);
            let latencies = totals.latencies_since(&before);
            reports.push(GroupReport {
                group: Arc::clone(group),
                calls: latencies.iter().copied().map(u64::from).sum(),
                errors: totals.errors.saturating_sub(before.errors),
                latency_total: Duration::from_nanos(
                    totals.latency_nanos.saturating_sub(before.latency_nanos),
                ),
                latencies,
                last_call_age: tracked.load.age(totals.last_call, now),
            });
        }
        reports
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn reports_carry_what_is_new_and_how_long_ago() {
        let loads = Loads::of(&"catalog".into());
        let v1 = loads.group(&"v1".into(), Instant::now());
        let _v2 = loads.group(&"v2".into(), Instant::now());
        v1.started(Instant::now());
        tokio::time::advance(Duration::from_millis(30)).await;
        v1.ended(Instant::now(), Duration::from_millis(30), true);
        tokio::time::advance(Duration::from_millis(500)).await;

        let first = loads.report(Instant::now(), false);
        assert_eq!(first.len(), 1, "v2 was not called");
        assert_eq!((first[0].calls, first[0].errors), (1, 1));
        assert_eq!(first[0].latency_total, Duration::from_millis(30));
        let at = bucket(Duration::from_millis(30));
        assert_eq!(first[0].latencies.len(), at + 1);
        assert_eq!(first[0].latencies.last(), Some(&1));
        assert_eq!(first[0].last_call_age, Some(Duration::from_millis(500)));
        assert!(loads.report(Instant::now(), false).is_empty());

        let all = loads.report(Instant::now(), true);
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].calls, all[1].last_call_age), (0, None));
    }

    #[tokio::test]
    async fn a_group_is_forgotten_when_gone_and_reported() {
        let loads = Loads::of(&"catalog".into());
        let gone = loads.group(&"v1".into(), Instant::now());
        gone.ended(Instant::now(), Duration::ZERO, false);
        drop(gone);
        assert_eq!(loads.report(Instant::now(), true).len(), 1);
        assert!(loads.report(Instant::now(), true).is_empty());
    }
}
