//! Who has the newest change, and since when.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

/// Where watchers note that they have it.
#[derive(Debug)]
pub(super) struct Board {
    watchers: usize,
    arrivals: Mutex<Vec<Instant>>,
    complete: Notify,
}

impl Board {
    pub(super) fn new(watchers: usize) -> Self {
        Self {
            watchers,
            arrivals: Mutex::new(Vec::with_capacity(watchers)),
            complete: Notify::new(),
        }
    }

    /// The next change is about to be made.
    pub(super) fn begin(&self) {
        let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.clear();
    }

    /// One more watcher has it.
    pub(super) fn arrived(&self) {
        let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.push(Instant::now());
        if arrivals.len() >= self.watchers {
            self.complete.notify_one();
        }
    }

    /// Waits until all watchers have it.
    pub(super) async fn everyone(&self) {
        while self.count() < self.watchers {
            self.complete.notified().await;
        }
    }

    /// When each of them had it.
    pub(super) fn arrivals(&self) -> Vec<Instant> {
        let arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.clone()
    }

    fn count(&self) -> usize {
        let arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.len()
    }
}
