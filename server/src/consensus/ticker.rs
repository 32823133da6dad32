//! Real time in Raft's unit: ticks that do not pile up.

use std::time::{Duration, Instant};

/// Ticks that may pass at once. A process that was paused for an hour must
/// not believe that it heard nothing for an hour before it has looked at what
/// waits for it.
const TICKS_AT_ONCE_MAX: u32 = 2;

/// Turns real time into ticks.
#[derive(Debug)]
pub(super) struct Ticker {
    interval: Duration,
    next: Instant,
}

impl Ticker {
    /// Ticks every `interval` from `now` on.
    pub(super) fn new(interval: Duration, now: Instant) -> Self {
        Self {
            interval,
            next: now.checked_add(interval).unwrap_or(now),
        }
    }

    /// Time left until the next tick.
    pub(super) fn until_next(&self, now: Instant) -> Duration {
        self.next.saturating_duration_since(now)
    }

    /// Ticks since the last call, at most [`TICKS_AT_ONCE_MAX`]; the rest is
    /// forgotten, not owed.
    pub(super) fn due(&mut self, now: Instant) -> u32 {
        let mut due = 0;
        while self.next <= now && due < TICKS_AT_ONCE_MAX {
            due += 1;
            self.next = self.next.checked_add(self.interval).unwrap_or(now);
        }
        if self.next <= now {
            self.next = now.checked_add(self.interval).unwrap_or(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_counts_for_two_ticks_however_long_it_was() {
        let start = Instant::now();
        let tick = Duration::from_millis(50);
        let mut ticker = Ticker::new(tick, start);
        assert_eq!(ticker.due(start), 0);
        assert_eq!(ticker.until_next(start), tick);
        assert_eq!(ticker.due(start + tick), 1);
        assert_eq!(ticker.due(start + tick), 0);
        assert_eq!(ticker.due(start + tick * 3), 2);
        let later = start + Duration::from_secs(3600);
        assert_eq!(ticker.due(later), TICKS_AT_ONCE_MAX);
        assert_eq!(ticker.due(later), 0);
        assert_eq!(ticker.until_next(later), tick);
        assert_eq!(ticker.due(later + tick), 1);
    }
}
