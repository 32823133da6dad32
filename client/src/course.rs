//! Which replica is watched next, and when: decided from how the last stream ended.

use std::time::Duration;

use rand::Rng;

use crate::backoff::Backoff;
use crate::conversation::Ended;

/// The first wait spreads the watchers of a replica that went away over a
/// moment; the last is how late they notice that the registry is back.
const RECONNECT_FIRST: Duration = Duration::from_millis(100);
const RECONNECT_MOST: Duration = Duration::from_secs(2);

/// One process's way from replica to replica.
#[derive(Debug)]
pub(crate) struct Course {
    replicas: usize,
    backoff: Backoff,
    /// Replicas in a row that were cut off from a leader. When all are, the
    /// quorum is lost, and what they know is the newest there is.
    stale: usize,
}

impl Course {
    /// Over so many replicas, at least one.
    pub(crate) fn new(replicas: usize) -> Self {
        Self {
            replicas,
            backoff: Backoff::new(RECONNECT_FIRST, RECONNECT_MOST),
            stale: 0,
        }
    }

    /// Whether a replica that is cut off from a leader will do.
    pub(crate) fn takes_stale(&self) -> bool {
        self.stale + 1 >= self.replicas
    }

    /// How long to wait before the next replica is tried; `None`: this one,
    /// as soon as there is something to follow again.
    pub(crate) fn ended(
        &mut self,
        ended: &Ended,
        was_welcome: bool,
        rng: &mut impl Rng,
    ) -> Option<Duration> {
        self.stale = match ended {
            Ended::Stale => self.stale + 1,
            // A replica that cannot be reached knows nothing newer.
            Ended::Broken(_) if !was_welcome => self.stale + usize::from(self.stale > 0),
            _ => 0,
        };
        if matches!(ended, Ended::Idle) {
            return None;
        }
        if was_welcome {
            self.backoff.reset();
        }
        Some(self.backoff.next(rng))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    #[test]
    fn what_is_cut_off_will_do_when_all_others_are_too() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut course = Course::new(3);
        assert!(!course.takes_stale());
        course.ended(&Ended::Stale, true, &mut rng);
        assert!(!course.takes_stale());
        let unreachable = Ended::Broken("refused".to_owned());
        course.ended(&unreachable, false, &mut rng);
        assert!(course.takes_stale());
        course.ended(&Ended::GoingAway, true, &mut rng);
        assert!(!course.takes_stale());
    }
}
