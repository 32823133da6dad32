//! One clock for every process on this machine, which nobody sets.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Microseconds since the machine started. `std::time::Instant` reads the
/// same clock, but what it reads cannot be told to another process.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000
        + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000
}

/// The same unit.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
