//! Which replica is watched next, and when: decided from how the last stream ended.

use std::time::Duration;

use rand::{Rng, RngExt};

use crate::backoff::Backoff;
use crate::conversation::Ended;

/// The first wait spreads the watchers of a replica that went away over a
/// moment; the last is how late they notice that the registry is back.
const RECONNECT_FIRST: Duration = Duration::from_millis(100);
const RECONNECT_MOST: Duration = Duration::from_secs(2);

/// A replica that stops may ask to be left in this time, no longer: what
/// changes meanwhile is not seen.
const PACED_MOST: Duration = Duration::from_secs(5);

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
        if let Ended::GoingAway(Some(within)) = ended {
            let within = (*within).min(PACED_MOST);
            return Some(within.mul_f64(rng.random_range(0.0..=1.0)));
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
        course.ended(&Ended::GoingAway(None), true, &mut rng);
        assert!(!course.takes_stale());
    }

    #[test]
    fn a_replica_that_stops_says_how_soon_to_leave_it() {
        let mut rng = SmallRng::seed_from_u64(2);
        let mut course = Course::new(3);
        let mut waits = |within| {
            let ended = Ended::GoingAway(Some(Duration::from_millis(within)));
            let waits = (0..1_000).filter_map(|_| course.ended(&ended, true, &mut rng));
            let waits: Vec<u128> = waits.map(|wait| wait.as_millis()).collect();
            (waits.iter().min().copied(), waits.iter().max().copied())
        };
        let (soonest, latest) = waits(3_000);
        assert!(soonest < Some(100) && latest > Some(2_900) && latest <= Some(3_000));
        let (_, latest) = waits(1_000_000);
        assert!(latest <= Some(5_000), "{latest:?}");
    }

    #[test]
    fn a_crowd_that_lost_its_replica_does_not_come_back_at_once() {
        let mut rng = SmallRng::seed_from_u64(3);
        let broken = Ended::Broken("reset".to_owned());
        let mut waits: Vec<u128> = (0..1_000)
            .filter_map(|_| Course::new(3).ended(&broken, true, &mut rng))
            .map(|wait| wait.as_millis())
            .collect();
        waits.sort_unstable();
        assert!(waits[0] >= 50 && waits[999] <= 100);
        assert!(waits[900] - waits[100] > 30, "they are spread");
        // Those that find nobody come ever more seldom.
        let mut course = Course::new(3);
        let late: Vec<Duration> = (0..20)
            .filter_map(|_| course.ended(&broken, false, &mut rng))
            .collect();
        assert!(late[19] >= RECONNECT_MOST / 2 && late[19] <= RECONNECT_MOST);
    }
}
