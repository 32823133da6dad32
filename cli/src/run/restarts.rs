//! Whether a program that ended is started again, and when (pure).

use std::time::Duration;

use clap::ValueEnum;

/// The first wait, and the longest: it doubles from one to the other.
pub(crate) const FIRST: Duration = Duration::from_millis(500);
pub(crate) const MOST: Duration = Duration::from_secs(30);

/// One that has served for so long has proved itself: its next end counts as
/// the first.
pub(crate) const PROVEN_AFTER: Duration = Duration::from_secs(60);

/// Which ends call for a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Restart {
    // Not doc comments: they would become help, and double its length.
    Never,
    // Any end but exit code 0.
    OnFailure,
    Always,
}

/// The restarts in a row so far.
#[derive(Debug, Clone)]
pub(crate) struct Restarts {
    limit: u32,
    in_a_row: u32,
}

impl Restart {
    pub(crate) fn calls_for(self, failed: bool) -> bool {
        match self {
            Self::Never => false,
            Self::OnFailure => failed,
            Self::Always => true,
        }
    }
}

impl Restarts {
    pub(crate) fn new(limit: u32) -> Self {
        Self { limit, in_a_row: 0 }
    }

    /// How long to wait before the next start, after the program had served
    /// for `served`. `None`: it has been tried often enough.
    pub(crate) fn next(&mut self, served: Duration) -> Option<Duration> {
        if served >= PROVEN_AFTER {
            self.in_a_row = 0;
        }
        if self.in_a_row >= self.limit {
            return None;
        }
        let factor = 2_u32.saturating_pow(self.in_a_row);
        self.in_a_row += 1;
        Some(FIRST.saturating_mul(factor).min(MOST))
    }

    pub(crate) fn in_a_row(&self) -> u32 {
        self.in_a_row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_most_and_end_at_the_limit() {
        let mut restarts = Restarts::new(8);
        let waits: Vec<Option<u64>> = (0..9)
            .map(|_| restarts.next(Duration::ZERO))
            .map(|wait| wait.map(|wait| wait.as_millis() as u64))
            .collect();
        let expected = [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000].map(Some);
        assert_eq!(waits, [&expected[..], &[None]].concat());
    }

    #[test]
    fn one_that_has_proved_itself_begins_anew() {
        let mut restarts = Restarts::new(2);
        assert!(restarts.next(Duration::ZERO).is_some());
        assert!(restarts.next(Duration::ZERO).is_some());
        assert_eq!(restarts.next(PROVEN_AFTER), Some(FIRST));
        assert!(restarts.next(Duration::ZERO).is_some());
        assert_eq!(restarts.next(Duration::ZERO), None);
    }

    #[test]
    fn policies_tell_failures_from_ends() {
        assert!(!Restart::Never.calls_for(true));
        assert!(Restart::OnFailure.calls_for(true));
        assert!(!Restart::OnFailure.calls_for(false));
        assert!(Restart::Always.calls_for(false));
    }
}
