//! Waiting for a condition instead of sleeping for luck.

use std::fmt::Debug;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long a condition may take on a busy machine. No test waits this long
/// unless it fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

const PAUSE: Duration = Duration::from_millis(10);

/// Asks until the answer satisfies `is_done`, and returns that answer.
///
/// # Panics
/// When [`PATIENCE`] is over: with what was waited for and the last answer.
pub async fn eventually<T: Debug>(
    what: &str,
    mut ask: impl AsyncFnMut() -> T,
    is_done: impl Fn(&T) -> bool,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask().await;
        if is_done(&answer) {
            return answer;
        }
        assert!(
            Instant::now() < deadline,
            "waited {PATIENCE:?} for {what}; the last answer was {answer:?}"
        );
        sleep(PAUSE).await;
    }
}
