//! How long an instance may keep a call waiting before that is held against it, where the caller did not say.

use std::time::Duration;

use tokio::time::Instant;

/// A call that may be repeated, and whose caller set no time for an attempt,
/// asks another instance after so long in any case it is slow for. Longer than
/// nearly all calls take; shorter than people wait.
pub(crate) const SILENCE: Duration = Duration::from_secs(5);

/// Where the others of a group take long, an instance is silent only after so
/// many times as long as they.
const TIMES_USUAL: u32 = 4;

/// So many others are asked how long they take, at most.
pub(crate) const OTHERS_MAX: usize = 64;

/// Who gives up after less has learnt nothing.
const GIVEN_UP_AFTER_MIN: Duration = Duration::from_millis(100);

/// The same at an instance that never answered: it may be slow to begin with.
const GIVEN_UP_AFTER_FIRST: Duration = Duration::from_secs(1);

/// Who gives up on an instance after so many times what it usually takes has
/// met more than a slow answer.
const TIMES_GIVEN_UP: u32 = 8;

/// How long to wait for an instance of a group whose others took so long. By
/// the lower of those in the middle: should half of the group hang, it is the
/// other half that says what is usual.
pub(crate) fn silence_of(others: &mut [Duration]) -> Duration {
    others.sort_unstable();
    let middle = others.len().saturating_sub(1) / 2;
    let usual = others.get(middle).copied().unwrap_or_default();
    SILENCE.max(usual.saturating_mul(TIMES_USUAL))
}

/// When an attempt that began then has kept its call waiting for so long that
/// another instance is to be asked as well: after its part of the time there
/// is, which leaves as much to each of the attempts that may follow, and after
/// this silence at the latest. `None`: never.
pub(crate) fn enough_after(
    began: Instant,
    silence: Duration,
    end: Option<Instant>,
    may_follow: usize,
) -> Option<Instant> {
    let parts = u32::try_from(may_follow + 1).unwrap_or(u32::MAX);
    let part = end.map(|end| end.saturating_duration_since(began) / parts);
    began.checked_add(part.map_or(silence, |part| part.min(silence)))
}

/// Whether a caller that gave up after so long was let down by the instance,
/// which usually takes so long, if that is known: a time limit of the caller's
/// own making looks so.
///
/// When calls failed there and none succeeded since, the instance says of
/// itself no more what is usual.
pub(crate) fn was_let_down(waited: Duration, usual: Option<Duration>, fails_already: bool) -> bool {
    let least = match usual {
        _ if fails_already => GIVEN_UP_AFTER_MIN,
        Some(usual) => GIVEN_UP_AFTER_MIN.max(usual.saturating_mul(TIMES_GIVEN_UP)),
        None => GIVEN_UP_AFTER_FIRST,
    };
    waited >= least
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn silence_is_five_seconds_or_far_more_than_is_usual() {
        assert_eq!(silence_of(&mut []), SILENCE);
        assert_eq!(silence_of(&mut [ms(1), ms(2), ms(900)]), SILENCE);
        assert_eq!(silence_of(&mut [ms(30_000); 3]), ms(120_000));
        // Half of them hang.
        assert_eq!(
            silence_of(&mut [ms(90_000), ms(1), ms(90_000), ms(2)]),
            SILENCE
        );
    }

    #[test]
    fn each_attempt_leaves_as_much_time_to_those_that_may_follow() {
        let began = Instant::now();
        let enough = |silence, end: Option<u64>, may_follow| {
            let end = end.map(|end| began + ms(end));
            let enough = enough_after(began, silence, end, may_follow);
            enough.map(|enough| enough.duration_since(began))
        };
        assert_eq!(enough(SILENCE, Some(900), 2), Some(ms(300)));
        assert_eq!(enough(SILENCE, Some(600), 1), Some(ms(300)));
        assert_eq!(enough(SILENCE, Some(60_000), 2), Some(SILENCE));
        assert_eq!(enough(SILENCE, None, 2), Some(SILENCE));
        assert_eq!(enough(Duration::MAX, None, 2), None);
    }

    #[test]
    fn giving_up_early_says_nothing_and_late_that_it_hangs() {
        assert!(!was_let_down(ms(99), Some(ms(1)), true));
        assert!(was_let_down(ms(100), Some(ms(1)), false));
        assert!(!was_let_down(ms(500), Some(ms(100)), false));
        assert!(was_let_down(ms(500), Some(ms(100)), true));
        assert!(was_let_down(ms(800), Some(ms(100)), false));
        assert!(!was_let_down(ms(999), None, false));
        assert!(was_let_down(ms(1_000), None, false));
    }
}
