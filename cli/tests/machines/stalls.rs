//! When this machine itself stood still: a virtual machine is paused, a busy one starves everybody.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::{self, micros};

const PULSE: Duration = Duration::from_millis(50);

/// A thread that wakes up this late, though it wants nothing, was kept from it.
const LATE: Duration = Duration::from_millis(500);

static STALLS: Mutex<Vec<(u64, u64)>> = Mutex::new(Vec::new());

/// Watches for them until the process ends.
pub(crate) fn watch() {
    std::thread::spawn(|| {
        let mut last = clock::now();
        loop {
            std::thread::sleep(PULSE);
            let now = clock::now();
            if now - last > micros(LATE) {
                let mut stalls = STALLS.lock().unwrap_or_else(PoisonError::into_inner);
                stalls.push((last, now));
            }
            last = now;
        }
    });
}

/// How long, in microseconds, of the time between the two the machine stood
/// still.
pub(crate) fn within(from: u64, to: u64) -> u64 {
    let stalls = STALLS.lock().unwrap_or_else(PoisonError::into_inner);
    let overlaps = stalls
        .iter()
        .map(|(begun, ended)| (*ended).min(to).saturating_sub((*begun).max(from)));
    overlaps.sum()
}

/// All of it since then.
pub(crate) fn since(begun: Instant) -> Duration {
    let now = clock::now();
    Duration::from_micros(within(now.saturating_sub(micros(begun.elapsed())), now))
}

/// All of it, in microseconds.
pub(crate) fn total() -> u64 {
    within(0, u64::MAX)
}
