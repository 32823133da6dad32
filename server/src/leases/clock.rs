//! Lease time: how long this process has been awake to hear renewals.

use std::num::NonZeroU64;
use std::time::Duration;

/// A moment in lease time: how long a [`LeaseClock`] has run, in nanoseconds
/// and one, so that leaving it out takes no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseTime(NonZeroU64);

impl Default for LeaseTime {
    fn default() -> Self {
        Self(NonZeroU64::MIN)
    }
}

impl LeaseTime {
    /// So much later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }

    /// How long after `earlier` it is; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.get().saturating_sub(earlier.0.get()))
    }
}

/// Counts lease time.
///
/// Real time is the wrong measure of silence. A process that was stopped for
/// a minute, or that got no processor, heard no renewal in that minute because
/// it did not listen; the instances kept renewing all the same, and their
/// renewals wait in its sockets. So one step of this clock counts no more
/// than `step_max`, however long it really took. The clock only ever lags:
/// leases may live longer than their TTL, never shorter.
#[derive(Clone, Debug)]
pub struct LeaseClock {
    now: LeaseTime,
    step_max: Duration,
}

impl LeaseClock {
    /// Twice as long as [`crate::lease_keeper::JUDGE_INTERVAL`], the step that is
    /// expected: enough for an ordinary delay.
    pub const STEP_MAX: Duration = Duration::from_millis(200);

    /// Starts at zero. One step counts at most `step_max`.
    pub fn new(step_max: Duration) -> Self {
        Self {
            now: LeaseTime::default(),
            step_max,
        }
    }

    /// The time as of the last step.
    pub fn now(&self) -> LeaseTime {
        self.now
    }

    /// Takes a step: `elapsed` real time went by since the last one.
    pub fn advance(&mut self, elapsed: Duration) -> LeaseTime {
        self.now = self.now.after(elapsed.min(self.step_max));
        self.now
    }
}

impl Default for LeaseClock {
    fn default() -> Self {
        Self::new(Self::STEP_MAX)
    }
}
