//! What every gRPC service of a replica has at hand.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::standing::Standing;
use crate::consensus::handle::Handle;
use crate::lease_keeper::LeaseKeeper;
use crate::observation::Observer;
use crate::peers::Peers;
use crate::renewals::Renewals;
use crate::storage::gauge::Gauge;
use crate::views::Views;
use crate::watchers::Watchers;

/// The rooms behind the gRPC door; cheap to clone.
#[derive(Clone, Debug)]
pub struct Context {
    /// This replica.
    pub id: u64,
    /// When it started.
    pub started: Instant,
    /// The way to the replicated log.
    pub handle: Handle,
    /// How much room its data take, and have.
    pub gauge: Gauge,
    /// The other replicas.
    pub peers: Peers,
    /// What callers see.
    pub views: Arc<Views>,
    /// Who watches, and what they reported.
    pub watchers: Arc<Watchers>,
    /// The renewal streams of this replica.
    pub renewals: Arc<Renewals>,
    /// Judges leases while this replica leads.
    pub keeper: Arc<LeaseKeeper>,
    /// Asks all replicas.
    pub observer: Arc<Observer>,
    /// Whether this replica has heard of no leader for longer than an election
    /// takes.
    pub cut_off: watch::Receiver<bool>,
    /// The same as watch streams are told.
    pub standing: Arc<Standing>,
    /// Until when views are held back, after a restore.
    pub settles_at: Option<Instant>,
    /// Cancelled when the replica stops: streams say goodbye and end.
    pub stop: CancellationToken,
}

impl Context {
    /// The wall clock, for what the history tells people; nothing is decided
    /// by it.
    pub(crate) fn now_ms(&self) -> u64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        since_epoch.map_or(0, |elapsed| {
            u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
        })
    }

    /// Whether what this replica says may be old: it hears of no leader.
    pub(crate) fn possibly_stale(&self) -> bool {
        !self.handle.status().borrow().has_leader()
    }

    /// # Errors
    /// UNAVAILABLE as long as callers do better with the last views they have:
    /// after a restore, until instances that the snapshot does not know had
    /// the time to register anew.
    pub(crate) fn require_settled(&self) -> Result<(), Status> {
        let now = Instant::now();
        match self.settles_at {
            Some(at) if now < at => Err(Status::unavailable(format!(
                "replica {} was restored from a snapshot, and waits {} s more for instances to \
                 register anew before it tells callers where they are",
                self.id,
                (at - now).as_secs() + 1
            ))),
            _ => Ok(()),
        }
    }

    /// # Errors
    /// UNAVAILABLE while this replica has not caught up since its start: it
    /// serves nothing rather than something old and short.
    pub(crate) fn require_caught_up(&self) -> Result<(), Status> {
        if self.handle.status().borrow().caught_up {
            return Ok(());
        }
        Err(Status::unavailable(format!(
            "replica {} has started and not caught up yet; ask another replica, or again in a moment",
            self.id
        )))
    }
}
