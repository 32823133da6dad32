//! How long to wait before trying again: exponential, jittered, bounded.

use std::time::Duration;

use rand::{Rng, RngExt};

/// Doubles from `first` to `most`. Each wait is drawn from the upper half of
/// the step, so that a crowd that lost the same peer does not return at once.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    step: Duration,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            step: first,
        }
    }

    /// The next wait.
    pub(crate) fn next(&mut self, rng: &mut impl Rng) -> Duration {
        let step = self.step;
        self.step = step.saturating_mul(2).min(self.most);
        step.mul_f64(rng.random_range(0.5..=1.0))
    }

    /// Begins again from the first step, after a success.
    pub(crate) fn reset(&mut self) {
        self.step = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    #[test]
    fn waits_double_up_to_the_most_and_are_spread() {
        let mut rng = SmallRng::seed_from_u64(7);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        for full in [100, 200, 350, 350, 350] {
            let wait = backoff.next(&mut rng);
            let full = Duration::from_millis(full);
            assert!(wait >= full / 2 && wait <= full, "{wait:?} of {full:?}");
        }
        backoff.reset();
        assert!(backoff.next(&mut rng) <= Duration::from_millis(100));
    }
}
