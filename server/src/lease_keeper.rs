//! The lease clock of this replica: judges leases while it leads, and only then.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::debug;
use trimtab_registry::command::Command;
use trimtab_registry::event::Event;
use trimtab_registry::instance::LeaseKey;
use trimtab_registry::state::Registry;

use crate::consensus::handle::Handle;
use crate::consensus::status::ConsensusStatus;
use crate::leases::{LeaseClock, Leases};

/// How often the leader looks for leases that ran out.
pub const JUDGE_INTERVAL: Duration = Duration::from_millis(100);

/// The leases as this replica sees them, with the clock they are judged by.
#[derive(Debug, Default)]
pub struct LeaseKeeper {
    clocked: Mutex<Clocked>,
}

#[derive(Debug, Default)]
struct Clocked {
    clock: LeaseClock,
    leases: Leases,
    leading_term: Option<u64>,
}

impl LeaseKeeper {
    /// The log was applied.
    pub fn applied(&self, events: &[Event]) {
        let mut clocked = self.lock();
        let now = clocked.clock.now();
        for event in events {
            clocked.leases.observe(now, event);
        }
    }

    /// The whole state was replaced.
    pub fn restored(&self, registry: &Registry) {
        let mut clocked = self.lock();
        let now = clocked.clock.now();
        clocked.leases.reset(now, registry);
    }

    /// Leadership may have changed hands.
    pub fn role_changed(&self, status: &ConsensusStatus) {
        let mut clocked = self.lock();
        // Before that it may not know of a lease that is held, and would call
        // it lost.
        let leading_term = status.leads_up_to_date.then_some(status.term);
        if clocked.leading_term == leading_term {
            return;
        }
        clocked.leading_term = leading_term;
        let now = clocked.clock.now();
        match leading_term {
            Some(term) => clocked.leases.lead(now, term),
            None => clocked.leases.follow(),
        }
    }

    /// Renews leases as the leader; answers those it does not hold, or `None`
    /// when this replica does not lead. `via` is the replica that the instances renew through.
    pub fn renew(&self, via: u64, leases: &[LeaseKey]) -> Option<Vec<LeaseKey>> {
        let mut clocked = self.lock();
        clocked.leading_term?;
        let now = clocked.clock.now();
        Some(clocked.leases.renew(now, via, leases))
    }

    /// Takes note, as the leader, of streams that broke; `false` when this
    /// replica does not lead.
    pub fn broken(&self, via: u64, leases: &[LeaseKey]) -> bool {
        let mut clocked = self.lock();
        if clocked.leading_term.is_none() {
            return false;
        }
        let now = clocked.clock.now();
        clocked.leases.broken(now, via, leases);
        true
    }

    /// Services whose removals are held back, in words.
    pub fn brakes(&self) -> Vec<String> {
        let clocked = self.lock();
        let held = clocked.leases.brakes();
        held.iter().map(ToString::to_string).collect()
    }

    /// Carries out what the leader's clock decides, until told to stop.
    pub async fn run(self: Arc<LeaseKeeper>, handle: Handle, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(JUDGE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let elapsed = last.elapsed();
            last = Instant::now();
            let Some(judgement) = self.judge(elapsed) else {
                continue;
            };
            let handle = handle.clone();
            // Not awaited here: a slow log must not stop the lease clock.
            tokio::spawn(async move {
                if let Err(error) = handle.propose(judgement).await {
                    debug!(%error, "a judgement of leases was not applied; it is made again");
                }
            });
        }
    }

    fn judge(&self, elapsed: Duration) -> Option<Command> {
        let mut clocked = self.lock();
        clocked.clock.advance(elapsed);
        clocked.leading_term?;
        let now = clocked.clock.now();
        clocked.leases.judge(now)
    }

    fn lock(&self) -> MutexGuard<'_, Clocked> {
        self.clocked
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
