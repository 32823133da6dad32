//! How much of each workload is run: whole, or just enough to see that it works.

use std::time::Duration;

/// Counts and times of a run, all of them bounds.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Scale {
    /// How often each workload is run against each backend, in turns.
    pub(crate) rounds: usize,
    /// How long a closed loop runs.
    pub(crate) phase: Duration,
    /// How long it runs before, uncounted.
    pub(crate) warm_up: Duration,
    /// Instances in one call that takes many.
    pub(crate) per_call: usize,
    /// Leases that are renewed.
    pub(crate) leases: usize,
    /// Watchers of one service, in turn.
    pub(crate) watchers: Vec<usize>,
    /// As many as fit are no more than these, and no more than can be opened in that time.
    pub(crate) watchers_most: usize,
    pub(crate) opening: Duration,
    /// Changes that each number of watchers sees.
    pub(crate) changes: u64,
    /// Instances whose memory is measured.
    pub(crate) instances: usize,
    /// Leases that lapse at once.
    pub(crate) lapsing: usize,
    /// Their TTL: long enough that all are registered, and renewed together, before the first lapses.
    pub(crate) lapse_after: Duration,
    /// How often the leader is killed in a round.
    pub(crate) kills: usize,
    /// How long twice what a server takes is offered: longer than a lease that is renewed meanwhile.
    pub(crate) overload: Duration,
    /// How long instances come and go.
    pub(crate) churn: Duration,
}

impl Scale {
    /// What the figures in docs/performance.md are from: some ten minutes.
    pub(crate) fn whole() -> Self {
        Self {
            rounds: 3,
            phase: Duration::from_secs(1),
            warm_up: Duration::from_millis(200),
            per_call: 100,
            leases: 20_000,
            watchers: vec![1, 1_000, 10_000],
            watchers_most: 100_000,
            opening: Duration::from_secs(10),
            changes: 20,
            instances: 100_000,
            lapsing: 10_000,
            lapse_after: Duration::from_secs(12),
            kills: 5,
            overload: Duration::from_secs(8),
            churn: Duration::from_secs(16),
        }
    }

    /// What CI runs: a minute or two.
    pub(crate) fn quick() -> Self {
        Self {
            rounds: 1,
            phase: Duration::from_millis(200),
            warm_up: Duration::from_millis(50),
            per_call: 100,
            leases: 500,
            watchers: vec![1, 100],
            watchers_most: 500,
            opening: Duration::from_secs(2),
            changes: 3,
            instances: 2_000,
            lapsing: 200,
            lapse_after: Duration::from_secs(4),
            kills: 1,
            overload: Duration::from_secs(1),
            churn: Duration::from_secs(1),
        }
    }
}
