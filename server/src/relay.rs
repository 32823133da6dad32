//! The way of renewals from a follower to the leader: gathered into few messages, and tried again while leaders change.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use trimtab_proto::internal::v1::RenewLeasesRequest;
use trimtab_registry::instance::LeaseKey;

use crate::consensus::handle::Handle;
use crate::convert;
use crate::lease_keeper::LeaseKeeper;
use crate::peers::Peers;

/// How long a follower gathers renewals before it sends them on: far below
/// any TTL, long enough to make one message of many.
const GATHER: Duration = Duration::from_millis(20);
/// Renewals waiting to be relayed, at most; beyond it streams wait, which
/// slows their instances down to what the leader takes.
const RELAY_QUEUE_MAX: usize = 4_096;
/// Leases in one message between replicas.
const RELAY_BATCH_MAX: usize = 10_000;
/// A relay that fails is tried again until a leader must have been found: a
/// missed renewal costs the instance a third of its TTL.
const RELAY_TRIES: u32 = 10;
const RELAY_RETRY: Duration = Duration::from_millis(200);

/// What a stream asks to be carried to the leader.
#[derive(Debug)]
pub enum Relayed {
    /// These renew, and wait to be told which of them are lost.
    Renewed(Vec<LeaseKey>, oneshot::Sender<Vec<LeaseKey>>),
    /// The stream of these broke.
    Broken(Vec<LeaseKey>),
}

/// The sending end of the relay.
pub type RelaySender = mpsc::Sender<Relayed>;

/// The receiving end of the relay, for [`Relay::run`].
#[derive(Debug)]
pub struct Relay(mpsc::Receiver<Relayed>);

/// A relay and the way into it.
pub fn relay() -> (RelaySender, Relay) {
    let (sender, receiver) = mpsc::channel(RELAY_QUEUE_MAX);
    (sender, Relay(receiver))
}

/// Renewals gathered from many streams into one message.
#[derive(Debug, Default)]
struct Batch {
    renewed: Vec<LeaseKey>,
    broken: Vec<LeaseKey>,
    waiting: Vec<(Vec<LeaseKey>, oneshot::Sender<Vec<LeaseKey>>)>,
}

impl Batch {
    fn add(&mut self, relayed: Relayed) {
        match relayed {
            Relayed::Renewed(leases, answer) => {
                self.renewed.extend(leases.iter().cloned());
                self.waiting.push((leases, answer));
            }
            Relayed::Broken(leases) => self.broken.extend(leases),
        }
    }

    fn is_full(&self) -> bool {
        self.renewed.len() + self.broken.len() >= RELAY_BATCH_MAX
    }

    fn answer(self, lost: &[LeaseKey]) {
        let lost: HashSet<&LeaseKey> = lost.iter().collect();
        for (leases, answer) in self.waiting {
            let its_own = leases
                .into_iter()
                .filter(|lease| lost.contains(lease))
                .collect();
            // The stream that asked may be gone; then nobody needs the answer.
            let _ = answer.send(its_own);
        }
    }
}

impl Relay {
    /// Sends on what the streams of this replica renew, until all are gone or
    /// it is told to stop.
    pub async fn run(
        mut self,
        keeper: Arc<LeaseKeeper>,
        handle: Handle,
        peers: Peers,
        stop: CancellationToken,
    ) {
        loop {
            let first = tokio::select! {
                () = stop.cancelled() => return,
                relayed = self.0.recv() => relayed,
            };
            let Some(first) = first else { return };
            let mut batch = Batch::default();
            batch.add(first);
            let gathered = tokio::time::sleep(GATHER);
            tokio::pin!(gathered);
            while !batch.is_full() {
                tokio::select! {
                    () = &mut gathered => break,
                    relayed = self.0.recv() => match relayed {
                        Some(relayed) => batch.add(relayed),
                        None => break,
                    },
                }
            }
            // A batch that cannot be delivered is dropped, which tells its
            // streams so.
            if let Some(lost) = deliver(&batch, &keeper, &handle, &peers).await {
                batch.answer(&lost);
            }
        }
    }
}

/// Brings one batch to whoever leads; answers what is lost of it, or `None`
/// when no leader could be reached.
async fn deliver(
    batch: &Batch,
    keeper: &LeaseKeeper,
    handle: &Handle,
    peers: &Peers,
) -> Option<Vec<LeaseKey>> {
    let id = handle.id();
    let request = RenewLeasesRequest {
        cluster_id: handle.cluster_id(),
        from_replica: id,
        renewed: batch.renewed.iter().map(convert::lease_ref).collect(),
        broken: batch.broken.iter().map(convert::lease_ref).collect(),
    };
    for _ in 0..RELAY_TRIES {
        if let Some(lost) = keeper.renew(handle, id, &batch.renewed).await {
            keeper.broken(id, &batch.broken);
            return Some(lost);
        }
        let leader = handle.status().borrow().leader();
        if let Some(leader) = leader
            && let Ok(answer) = peers.renew_leases(leader, request.clone()).await
        {
            let lost = answer.lost.iter();
            return Some(
                lost.filter_map(|lease| convert::lease_key(lease).ok())
                    .collect(),
            );
        }
        tokio::time::sleep(RELAY_RETRY).await;
    }
    None
}
