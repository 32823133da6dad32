//! The renewal streams of this replica: which lease is renewed on which, and who is told to retire.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{oneshot, watch};
use tracing::warn;
use trimtab_registry::event::Event;
use trimtab_registry::group::GroupState;
use trimtab_registry::instance::LeaseKey;
use trimtab_registry::name::{GroupName, ServiceName};
use trimtab_registry::service::Service;
use trimtab_registry::state::Registry;

use crate::consensus::handle::Handle;
use crate::lease_keeper::LeaseKeeper;
use crate::relay::{RelaySender, Relayed};

/// One open renewal stream of this replica.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct StreamId(u64);

/// Renewals that could not be brought to a leader.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("this replica cannot reach a leader; renew through another one")]
pub struct NoLeader;

/// The renewal streams of this replica, and the way from them to the leader.
#[derive(Debug)]
pub struct Renewals {
    id: u64,
    keeper: Arc<LeaseKeeper>,
    streams: Mutex<Streams>,
    relay: RelaySender,
    retired: watch::Sender<u64>,
}

/// Which stream of this replica renews which lease, and who is to leave.
#[derive(Debug, Default)]
struct Streams {
    next: u64,
    open: usize,
    holders: HashMap<LeaseKey, StreamId>,
    retiring: HashSet<LeaseKey>,
    /// How often a lease went from one stream to another.
    moves: u64,
}

impl Streams {
    fn hold<'a>(&mut self, stream: StreamId, leases: impl Iterator<Item = &'a LeaseKey>) {
        for lease in leases {
            match self.holders.get_mut(lease) {
                None => {
                    self.holders.insert(lease.clone(), stream);
                }
                Some(holder) if *holder != stream => {
                    *holder = stream;
                    self.moves += 1;
                }
                Some(_) => {}
            }
        }
    }
}

impl Renewals {
    /// No streams yet, on replica `id`. What `keeper` does not judge itself
    /// goes through `relay`.
    pub fn new(id: u64, keeper: Arc<LeaseKeeper>, relay: RelaySender) -> Arc<Renewals> {
        Arc::new(Renewals {
            id,
            keeper,
            streams: Mutex::new(Streams::default()),
            relay,
            retired: watch::Sender::new(0),
        })
    }

    /// A receiver that is woken when groups begin to be torn down.
    pub fn retirements(&self) -> watch::Receiver<u64> {
        self.retired.subscribe()
    }

    /// Those of the leases whose instances are to leave.
    pub fn retiring<'a>(&self, leases: impl Iterator<Item = &'a LeaseKey>) -> Vec<LeaseKey> {
        let streams = self.streams();
        if streams.retiring.is_empty() {
            return Vec::new();
        }
        let retiring = leases.filter(|lease| streams.retiring.contains(*lease));
        retiring.cloned().collect()
    }

    /// A renewal stream opened.
    pub fn open_stream(&self) -> StreamId {
        let mut streams = self.streams();
        streams.next += 1;
        streams.open += 1;
        StreamId(streams.next)
    }

    /// A renewal stream ended. If `broken`, its leases that no other stream of
    /// this replica renews are reported; not when it was this replica that
    /// ended it.
    pub fn close_stream(&self, stream: StreamId, leases: Vec<LeaseKey>, broken: bool) {
        let mut streams = self.streams();
        streams.open = streams.open.saturating_sub(1);
        let abandoned: Vec<LeaseKey> = leases
            .into_iter()
            .filter(|lease| streams.holders.get(lease) == Some(&stream))
            .collect();
        for lease in &abandoned {
            streams.holders.remove(lease);
        }
        drop(streams);
        if broken {
            self.broken(abandoned);
        }
    }

    /// Open renewal streams.
    pub fn stream_count(&self) -> usize {
        self.streams().open
    }

    /// The log was applied.
    pub fn applied(&self, registry: &Registry, events: &[Event]) {
        let mut to_leave = false;
        let mut streams = self.streams();
        for event in events {
            match event {
                Event::GroupRetiring { service, group } => {
                    let leaving = retiring_leases(registry, service)
                        .filter(|(of, _)| *of == group)
                        .map(|(_, lease)| lease);
                    streams.retiring.extend(leaving);
                    to_leave = true;
                }
                Event::LeaseEnded { key } => {
                    streams.retiring.remove(key);
                    streams.holders.remove(key);
                }
                _ => {}
            }
        }
        drop(streams);
        if to_leave {
            self.retired
                .send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// The whole state was replaced.
    pub fn restored(&self, registry: &Registry) {
        let services = registry.services().map(Service::name);
        let leaving = services.flat_map(|service| retiring_leases(registry, service));
        self.streams().retiring = leaving.map(|(_, lease)| lease).collect();
        self.retired
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// As [`Renewals::hold`] gave it, as long as no lease went from one stream
    /// to another.
    pub fn moves(&self) -> u64 {
        self.streams().moves
    }

    /// These leases are renewed on this stream from now on.
    pub fn hold<'a>(&self, stream: StreamId, leases: impl Iterator<Item = &'a LeaseKey>) -> u64 {
        let mut streams = self.streams();
        streams.hold(stream, leases);
        streams.moves
    }

    /// These leases are no more.
    pub fn let_go(&self, leases: &[LeaseKey]) {
        if leases.is_empty() {
            return;
        }
        let mut streams = self.streams();
        for lease in leases {
            streams.holders.remove(lease);
        }
    }

    /// Renews leases wherever the leader is; answers those it does not hold.
    ///
    /// # Errors
    /// When no leader could be reached: the leases are as they were, and may
    /// be renewed through another replica.
    pub async fn renew(
        &self,
        handle: &Handle,
        leases: Vec<LeaseKey>,
    ) -> Result<Vec<LeaseKey>, NoLeader> {
        if let Some(lost) = self.keeper.renew(handle, self.id, &leases).await {
            return Ok(lost);
        }
        let (answer, answered) = oneshot::channel();
        let relayed = Relayed::Renewed(leases, answer);
        self.relay.send(relayed).await.map_err(|_| NoLeader)?;
        answered.await.map_err(|_| NoLeader)
    }

    /// Tells the leader that the stream which renewed these leases broke.
    fn broken(&self, leases: Vec<LeaseKey>) {
        if leases.is_empty() || self.keeper.broken(self.id, &leases) {
            return;
        }
        // A full queue loses the word, not the instance: its lease ends later.
        if self.relay.try_send(Relayed::Broken(leases)).is_err() {
            warn!("too many renewals wait to be relayed; broken streams were not reported");
        }
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The leases of a service whose groups are torn down.
fn retiring_leases<'a>(
    registry: &'a Registry,
    service: &'a ServiceName,
) -> impl Iterator<Item = (&'a GroupName, LeaseKey)> {
    let service = registry.service(service);
    service.into_iter().flat_map(|service| {
        let retiring = service
            .instances()
            .filter(|instance| service.group_state(instance.group()) == Some(GroupState::Retiring));
        retiring.map(|instance| (instance.group(), instance.lease_key(service.name())))
    })
}
