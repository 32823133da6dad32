//! How far a run is, and how long the rest will take.

use std::fmt;
use std::time::{Duration, Instant};

/// What is done of what was planned, by how long each was expected to take.
#[derive(Debug)]
pub(crate) struct Progress {
    begun: Instant,
    planned: Vec<Duration>,
    done: usize,
}

impl Progress {
    /// Begins, with what is planned, in its order.
    pub(crate) fn new(planned: Vec<Duration>) -> Self {
        Self {
            begun: Instant::now(),
            planned,
            done: 0,
        }
    }

    /// How long all of it takes on a quiet machine with two cores.
    pub(crate) fn expected(&self) -> Duration {
        self.planned.iter().sum()
    }

    /// The next one is done.
    pub(crate) fn step(&mut self) {
        self.done = self.planned.len().min(self.done + 1);
    }

    /// The rest, at the pace so far.
    fn left(&self, passed: Duration) -> Duration {
        let (done, rest) = self.planned.split_at(self.done);
        let (done, rest): (Duration, Duration) = (done.iter().sum(), rest.iter().sum());
        match done.is_zero() {
            true => rest,
            false => rest.mul_f64(passed.as_secs_f64() / done.as_secs_f64()),
        }
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = about(self.left(self.begun.elapsed()));
        write!(f, "{} of {}, {left} left", self.done, self.planned.len())
    }
}

/// "40 s", "7 min".
pub(crate) fn about(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds < 90.0 => format!("{seconds:.0} s"),
        seconds => format!("{:.0} min", seconds / 60.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_takes_as_much_longer_as_what_is_done_did() {
        let seconds = Duration::from_secs;
        let mut progress = Progress::new(vec![seconds(10), seconds(30), seconds(20)]);
        assert_eq!(progress.left(Duration::ZERO), seconds(60));
        progress.step();
        assert_eq!(progress.left(seconds(20)), seconds(100));
        for _ in 0..5 {
            progress.step();
        }
        assert_eq!(progress.left(seconds(90)), Duration::ZERO);
        assert_eq!(about(seconds(89)), "89 s");
        assert_eq!(about(seconds(420)), "7 min");
    }
}
