//! Durations as peers send them, also absurd ones.

use std::time::Duration;

const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// A duration that somebody sent; `None` when it is negative.
///
/// Not `Duration::try_from`: that of prost-types 0.14 overflows on the way to
/// its error, where overflow is checked.
pub fn parse(wire: &prost_types::Duration) -> Option<Duration> {
    let nanos = i128::from(wire.seconds) * NANOS_PER_SECOND + i128::from(wire.nanos);
    let seconds = u64::try_from(nanos.div_euclid(NANOS_PER_SECOND)).ok()?;
    let nanos = u32::try_from(nanos.rem_euclid(NANOS_PER_SECOND)).ok()?;
    Some(Duration::new(seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_duration_is_none_and_nothing_panics() {
        let parsed = |seconds, nanos| parse(&prost_types::Duration { seconds, nanos });
        assert_eq!(parsed(0, 0), Some(Duration::ZERO));
        assert_eq!(parsed(1, 500_000_000), Some(Duration::from_millis(1_500)));
        assert_eq!(parsed(2, -500_000_000), Some(Duration::from_millis(1_500)));
        assert_eq!(
            parsed(0, i32::MAX),
            Some(Duration::from_nanos(i32::MAX as u64))
        );
        assert_eq!(parsed(0, -1), None);
        assert_eq!(
            parsed(-1, i32::MAX),
            Some(Duration::from_nanos(1_147_483_647))
        );
        assert_eq!(parsed(i64::MIN, i32::MIN), None);
        assert_eq!(parsed(i64::MIN, i32::MAX), None);
        let longest = parsed(i64::MAX, i32::MAX).map(|it| it.as_secs());
        assert_eq!(longest, Some(i64::MAX as u64 + 2));
    }
}
