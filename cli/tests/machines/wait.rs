//! Waiting for a condition, with a deadline.

use std::time::{Duration, Instant};

/// How long a condition may take on a busy machine. Nothing waits this long
/// unless it fails.
const PATIENCE: Duration = Duration::from_secs(60);

const PAUSE: Duration = Duration::from_millis(50);

/// Asks until there is something.
///
/// # Panics
/// When the patience is over.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(PAUSE);
    }
}
