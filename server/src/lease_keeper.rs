//! The lease clock of this replica: drives the judge of leases in real time, and proposes what it decides.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use trimtab_registry::event::Event;
use trimtab_registry::instance::LeaseKey;
use trimtab_registry::state::Registry;

use crate::consensus::handle::Handle;
use crate::consensus::status::ConsensusStatus;
use crate::leases::brake::Brake;
use crate::leases::journal::News;
use crate::leases::{Judge, LeaseClock, LeaseSettings};

/// How often the leader looks for leases that ran out.
pub const JUDGE_INTERVAL: Duration = Duration::from_millis(100);

/// The judge of leases as the tasks of this replica share it.
#[derive(Debug, Default)]
pub struct LeaseKeeper {
    judge: Mutex<Judge>,
}

impl LeaseKeeper {
    /// Knows no lease and does not lead.
    pub fn new(settings: LeaseSettings) -> Self {
        Self {
            judge: Mutex::new(Judge::new(settings, LeaseClock::default())),
        }
    }

    /// The log was applied.
    pub fn applied(&self, events: &[Event]) {
        self.lock().applied(events);
    }

    /// The whole state was replaced.
    pub fn restored(&self, registry: &Registry) {
        self.lock().restored(registry);
    }

    /// Leadership may have changed hands.
    pub fn role_changed(&self, status: &ConsensusStatus) {
        let term = status.leads_up_to_date.then_some(status.term);
        self.lock().leads_in(term);
    }

    /// Renews leases as the leader; answers those that are lost for sure, or
    /// `None` when this replica does not lead, or cannot show that it does
    /// while it misses some. `via` is the replica that the instances renew
    /// through.
    pub async fn renew(
        &self,
        handle: &Handle,
        via: u64,
        leases: &[LeaseKey],
    ) -> Option<Vec<LeaseKey>> {
        let missing = self.lock().renew(via, leases)?;
        if missing.is_empty() {
            return Some(missing);
        }
        handle.read_barrier().await.ok()?;
        self.lock().renew(via, &missing)
    }

    /// Takes note, as the leader, of streams that broke; `false` when this
    /// replica does not lead.
    pub fn broken(&self, via: u64, leases: &[LeaseKey]) -> bool {
        self.lock().broken(via, leases)
    }

    /// Where this replica holds removals back.
    pub fn brakes(&self) -> Vec<Brake> {
        self.lock().brakes()
    }

    /// How many leases there are, and how many of them are SUSPECT.
    pub fn counts(&self) -> (usize, usize) {
        self.lock().counts()
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
            let (judged, news) = {
                let mut judge = self.lock();
                (judge.judge(elapsed), judge.news())
            };
            news.iter().for_each(tell);
            let Some(judgement) = judged else {
                continue;
            };
            let handle = handle.clone();
            // Not awaited here: a slow log must not stop the lease clock.
            tokio::spawn(async move {
                if let Err(error) = handle.propose_judgement(&judgement).await {
                    debug!(%error, "a judgement of leases was not applied; it is made again");
                }
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Judge> {
        self.judge
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// One line of the log.
fn tell(news: &News) {
    match news {
        News::Changed {
            service,
            changes,
            named,
        } => info!(
            %service, suspected = changes.suspected, revived = changes.revived,
            removed = changes.removed, instances = %named, "leases changed"
        ),
        News::ChangedElsewhere { services, changes } => info!(
            services,
            suspected = changes.suspected,
            revived = changes.revived,
            removed = changes.removed,
            "leases of more services changed"
        ),
        News::BrakeBegan(brake) => warn!(
            service = %brake.service, unwell = brake.unwell, leases = brake.leases,
            held = brake.held, reason = %brake.reason(), "removals are held back"
        ),
        News::BrakeEnded(brake) => info!(
            service = %brake.service, held = brake.held, after_ms = brake.age.as_millis(),
            "removals are no longer held back"
        ),
        News::BrakesElsewhere { began, ended } => warn!(
            began,
            ended, "removals are held back, or no longer, in more places"
        ),
    }
}
