//! What a replica has to tell all its watch streams at once: that it stops, or is cut off.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::views::bell::Bell;

/// Read by every stream whenever it is woken, so it must cost nothing to read.
#[derive(Debug, Default)]
pub struct Standing {
    is_cut_off: AtomicBool,
    is_stopping: AtomicBool,
    streams: Mutex<Streams>,
}

#[derive(Debug, Default)]
struct Streams {
    next: u64,
    bells: BTreeMap<u64, Arc<Bell>>,
}

/// A stream's place among those that are told. Ends when dropped.
#[derive(Debug)]
pub(super) struct Place {
    number: u64,
    standing: Arc<Standing>,
}

impl Standing {
    /// Tells the streams until the replica stops.
    pub async fn follow(
        self: Arc<Standing>,
        mut cut_off: watch::Receiver<bool>,
        stop: CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                changed = cut_off.changed() => if changed.is_err() {
                    break stop.cancelled().await;
                }
            }
            let now = *cut_off.borrow_and_update();
            self.is_cut_off.store(now, Ordering::Release);
            self.ring();
        }
        self.is_stopping.store(true, Ordering::Release);
        self.ring();
    }

    /// The replica has heard of no leader for longer than an election takes.
    pub(super) fn is_cut_off(&self) -> bool {
        self.is_cut_off.load(Ordering::Acquire)
    }

    /// The replica is stopping.
    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    /// Has a bell rung when any of this changes.
    pub(super) fn join(self: &Arc<Standing>, bell: &Arc<Bell>) -> Place {
        let mut streams = self.streams();
        let number = streams.next;
        streams.next += 1;
        streams.bells.insert(number, Arc::clone(bell));
        Place {
            number,
            standing: Arc::clone(self),
        }
    }

    fn ring(&self) {
        for bell in self.streams().bells.values() {
            bell.ring();
        }
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.standing.streams().bells.remove(&self.number);
    }
}
