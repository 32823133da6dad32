//! The numbers of one instance that calls change and picks read, side by side in memory.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use crate::coverage::LinkState;
use crate::latency::{Estimate, Latency, Moment};

/// Written by the connection and by every call to the instance, read by every
/// pick that considers it. Sixteen bytes behind one pointer, so that
/// considering an instance is one access to memory.
#[derive(Debug)]
pub(crate) struct Vitals {
    latency: Latency,
    in_flight: AtomicU32,
    link: AtomicU8,
}

/// What a pick reads of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Calls it has from this process.
    pub(crate) in_flight: u32,
    /// What an answer is expected to take.
    pub(crate) latency: Estimate,
}

const UNTRIED: u8 = 0;
const UP: u8 = 1;
const DOWN: u8 = 2;

impl Vitals {
    /// Of a connection whose first attempt has not ended.
    pub(crate) fn new() -> Self {
        Self {
            latency: Latency::default(),
            in_flight: AtomicU32::new(0),
            link: AtomicU8::new(UNTRIED),
        }
    }

    /// What is known of the connection.
    pub(crate) fn link(&self) -> LinkState {
        match self.link.load(Ordering::Acquire) {
            UP => LinkState::Up,
            DOWN => LinkState::Down,
            _ => LinkState::Untried,
        }
    }

    #[inline]
    pub(crate) fn is_connected(&self) -> bool {
        self.link.load(Ordering::Acquire) == UP
    }

    /// The connection is made or lost. Behind a new one may be another
    /// process: how fast the last one was says nothing of it.
    pub(crate) fn went(&self, state: LinkState) {
        let state = match state {
            LinkState::Untried => UNTRIED,
            LinkState::Up => UP,
            LinkState::Down => DOWN,
        };
        if state == UP {
            self.latency.forget();
        }
        self.link.store(state, Ordering::Release);
    }

    #[inline]
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn load(&self) -> Load {
        let in_flight = self.in_flight();
        Load {
            in_flight,
            latency: self.latency.read(in_flight == 0),
        }
    }

    /// What an answer is expected to take. `None` while nothing is known.
    pub(crate) fn latency(&self, now: Moment) -> Option<Duration> {
        let nanoseconds = self.latency.nanoseconds(now);
        (nanoseconds > 0.0).then(|| Duration::from_nanos(nanoseconds as u64))
    }

    /// What answers took when there were last any, however long ago. `None`
    /// while nothing is known.
    pub(crate) fn last_latency(&self) -> Option<Duration> {
        let nanoseconds = self.latency.unfaded();
        (nanoseconds > 0.0).then(|| Duration::from_nanos(nanoseconds as u64))
    }

    pub(crate) fn call_begins(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn call_ends(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// A call began to be answered after so long.
    pub(crate) fn answered(&self, now: Moment, latency: Duration) {
        self.latency.answered(now, latency);
    }

    /// A call failed after so long.
    pub(crate) fn failed(&self, now: Moment, after: Duration) {
        self.latency.failed(now, after);
    }

    /// A call was given up after so long.
    pub(crate) fn waited_for(&self, now: Moment, time: Duration) {
        self.latency.waited_for(now, time);
    }
}
