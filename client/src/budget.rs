//! How many calls may be repeated: a share of all, so that repeats never multiply an outage.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

/// Credit is counted in thousandths of a repeat.
const REPEAT: u64 = 1_000;

/// One repeat for five calls, beyond the floor.
const CREDIT_PER_CALL: u64 = REPEAT / 5;

/// Ten repeats a second, so that a caller with few calls can repeat them at all.
const CREDIT_PER_MILLISECOND: u64 = 10 * REPEAT / 1_000;

/// What can be saved up: the calls in flight to one instance when it dies must
/// fit, and a storm of repeats must not.
const CREDIT_MAX: u64 = 1_000 * REPEAT;

/// What there is to begin with.
const CREDIT_FIRST: u64 = 100 * REPEAT;

/// Credit for repeats, filled by calls and slowly by time.
#[derive(Debug)]
pub(crate) struct Budget {
    born: Instant,
    credit: AtomicU64,
    /// Milliseconds since `born` for which time has paid.
    paid_until: AtomicU64,
}

impl Budget {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            born: now,
            credit: AtomicU64::new(CREDIT_FIRST),
            paid_until: AtomicU64::new(0),
        }
    }

    /// A call was made.
    pub(crate) fn deposit(&self) {
        self.add(CREDIT_PER_CALL);
    }

    /// Whether one call may be repeated; if so, it is paid for.
    pub(crate) fn withdraw(&self, now: Instant) -> bool {
        let since_born = now.saturating_duration_since(self.born).as_millis();
        let since_born = u64::try_from(since_born).unwrap_or(u64::MAX);
        let paid_until = self.paid_until.fetch_max(since_born, Ordering::Relaxed);
        let unpaid = since_born.saturating_sub(paid_until);
        self.add(
            unpaid
                .saturating_mul(CREDIT_PER_MILLISECOND)
                .min(CREDIT_MAX),
        );
        self.credit
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |credit| {
                credit.checked_sub(REPEAT)
            })
            .is_ok()
    }

    /// May overshoot the most by what others add at the same moment.
    fn add(&self, amount: u64) {
        let room = CREDIT_MAX.saturating_sub(self.credit.load(Ordering::Relaxed));
        self.credit.fetch_add(amount.min(room), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn repeats_are_a_fifth_of_calls_beyond_the_floor() {
        let budget = Budget::new(Instant::now());
        let paid = |budget: &Budget| {
            (0..5_000)
                .take_while(|_| budget.withdraw(Instant::now()))
                .count()
        };
        assert_eq!(paid(&budget), 100);
        for _ in 0..50 {
            budget.deposit();
        }
        assert_eq!(paid(&budget), 10);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(paid(&budget), 20);
        for _ in 0..100_000 {
            budget.deposit();
        }
        assert_eq!(paid(&budget), 1_000);
    }
}
