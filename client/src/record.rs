//! What calls to one instance came to, and what follows from it: a few numbers that calls write and picks read.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use crate::endpoint::Outcome;
use crate::policy::OutlierPolicy;

/// What calls to one instance came to. Written by every call.
#[derive(Debug)]
pub(crate) struct Record {
    failures_in_a_row: AtomicU32,
    /// A run of this length is told. 0: none is.
    run_limit: AtomicU32,
    /// Since the last comparison.
    answered: AtomicU32,
    failed: AtomicU32,
    standing: AtomicU8,
}

/// What follows from a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Takes its share.
    Good,
    /// Takes no calls while others can.
    Ejected,
    /// Back, with a part of its share.
    Probation,
}

// === impl Record ===

impl Default for Record {
    fn default() -> Self {
        Self {
            failures_in_a_row: AtomicU32::new(0),
            run_limit: AtomicU32::new(OutlierPolicy::default().consecutive_failures),
            answered: AtomicU32::new(0),
            failed: AtomicU32::new(0),
            standing: AtomicU8::new(Standing::Good as u8),
        }
    }
}

impl Record {
    /// A call ended. Whether it is time for a judgement. Only answers and
    /// failures of the instance itself count: a lost connection says so by
    /// being lost.
    pub(crate) fn note(&self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Answered => self.answered(),
            Outcome::Failed => return self.failed(),
            Outcome::Lost
            | Outcome::Declined
            | Outcome::Abandoned
            | Outcome::GivenUp
            | Outcome::Unsent => {}
        }
        false
    }

    /// A call was answered.
    pub(crate) fn answered(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        // Read first: all calls of a good instance would write one place.
        if self.failures_in_a_row.load(Ordering::Relaxed) != 0 {
            self.failures_in_a_row.store(0, Ordering::Relaxed);
        }
    }

    /// A call failed. Whether it is time for a judgement.
    pub(crate) fn failed(&self) -> bool {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let run = self.failures_in_a_row.fetch_add(1, Ordering::Relaxed) + 1;
        run == self.run_limit.load(Ordering::Relaxed)
    }

    pub(crate) fn standing(&self) -> Standing {
        match self.standing.load(Ordering::Relaxed) {
            EJECTED => Standing::Ejected,
            PROBATION => Standing::Probation,
            _ => Standing::Good,
        }
    }

    /// From now on tells runs of so many failures; 0: none.
    pub(crate) fn tell_runs_of(&self, failures: u32) {
        self.run_limit.store(failures, Ordering::Relaxed);
    }

    /// Calls answered and failed since the last comparison.
    pub(crate) fn interval(&self) -> (u32, u32) {
        let answered = self.answered.load(Ordering::Relaxed);
        (answered, self.failed.load(Ordering::Relaxed))
    }

    /// Counts anew. How many calls were answered before.
    pub(crate) fn begin_interval(&self) -> u32 {
        self.failed.store(0, Ordering::Relaxed);
        self.answered.swap(0, Ordering::Relaxed)
    }

    pub(crate) fn failures_in_a_row(&self) -> u32 {
        self.failures_in_a_row.load(Ordering::Relaxed)
    }

    /// The length of the run of failures, if it is too long.
    pub(crate) fn run(&self) -> Option<u32> {
        let limit = self.run_limit.load(Ordering::Relaxed);
        let run = self.failures_in_a_row();
        (limit > 0 && run >= limit).then_some(run)
    }

    pub(crate) fn set(&self, standing: Standing) {
        self.standing.store(standing as u8, Ordering::Relaxed);
    }

    /// Nothing that happened so far counts any more.
    pub(crate) fn forget(&self) {
        self.failures_in_a_row.store(0, Ordering::Relaxed);
        self.answered.store(0, Ordering::Relaxed);
        self.failed.store(0, Ordering::Relaxed);
    }
}

const EJECTED: u8 = Standing::Ejected as u8;
const PROBATION: u8 = Standing::Probation as u8;
