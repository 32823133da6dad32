//! Being told things from outside: to stop, or lines on stdin.

use std::io;
use std::thread;

use tokio::sync::mpsc;

/// Lines not yet taken: whoever writes more waits.
const LINES_QUEUED_MAX: usize = 16;

/// Waits for Ctrl-C or, where there is such a thing, SIGTERM.
///
/// # Errors
/// When the signals cannot be listened for.
pub(crate) async fn asked_to_stop() -> io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}

/// The lines of stdin, and its end. Read by a thread of its own, which does
/// not hold up the end of the process.
pub(crate) fn stdin_lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(LINES_QUEUED_MAX);
    thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
