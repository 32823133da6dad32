//! The leases and renewal streams of this replica: judged here while it leads, relayed to the leader while not.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use trimtab_registry::command::Command;
use trimtab_registry::event::Event;
use trimtab_registry::group::GroupState;
use trimtab_registry::instance::LeaseKey;
use trimtab_registry::name::{GroupName, ServiceName};
use trimtab_registry::service::Service;
use trimtab_registry::state::Registry;

use crate::consensus::handle::Handle;
use crate::consensus::status::ConsensusStatus;
use crate::leases::{LeaseClock, Leases};
use crate::relay::{self, Relay, RelaySender, Relayed};

/// How often the leader looks for leases that ran out.
pub const JUDGE_INTERVAL: Duration = Duration::from_millis(100);

/// One open renewal stream of this replica.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct StreamId(u64);

/// Renewals that could not be brought to a leader.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("this replica cannot reach a leader; renew through another one")]
pub struct NoLeader;

/// The leases as this replica sees them, and the way to those who judge.
#[derive(Debug)]
pub struct Renewals {
    id: u64,
    leases: Mutex<Clocked>,
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
}

#[derive(Debug)]
struct Clocked {
    clock: LeaseClock,
    leases: Leases,
    leading_term: Option<u64>,
}

impl Streams {
    fn hold(&mut self, stream: StreamId, leases: &[LeaseKey]) {
        for lease in leases {
            if self.holders.get(lease) != Some(&stream) {
                self.holders.insert(lease.clone(), stream);
            }
        }
    }
}

impl Renewals {
    /// No leases yet, on replica `id`.
    pub fn new(id: u64) -> (Arc<Renewals>, Relay) {
        let (sender, relay) = relay::relay();
        let renewals = Renewals {
            id,
            leases: Mutex::new(Clocked {
                clock: LeaseClock::default(),
                leases: Leases::default(),
                leading_term: None,
            }),
            streams: Mutex::new(Streams::default()),
            relay: sender,
            retired: watch::Sender::new(0),
        };
        (Arc::new(renewals), relay)
    }

    /// This replica.
    pub(crate) fn replica(&self) -> u64 {
        self.id
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
        let mut clocked = self.lock();
        let now = clocked.clock.now();
        for event in events {
            clocked.leases.observe(now, event);
        }
        drop(clocked);
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
        let mut clocked = self.lock();
        let now = clocked.clock.now();
        clocked.leases.reset(now, registry);
        drop(clocked);
        let services = registry.services().map(Service::name);
        let leaving = services.flat_map(|service| retiring_leases(registry, service));
        self.streams().retiring = leaving.map(|(_, lease)| lease).collect();
        self.retired
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Leadership may have changed hands.
    pub fn role_changed(&self, status: &ConsensusStatus) {
        let mut clocked = self.lock();
        let leading_term = status.is_leader().then_some(status.term);
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
    /// when this replica does not lead.
    /// `via` is the replica that the instances renew through.
    pub fn renew_here(&self, via: u64, leases: &[LeaseKey]) -> Option<Vec<LeaseKey>> {
        let mut clocked = self.lock();
        clocked.leading_term?;
        let now = clocked.clock.now();
        Some(clocked.leases.renew(now, via, leases))
    }

    /// Takes note, as the leader, of streams that broke; `false` when this
    /// replica does not lead.
    pub fn broken_here(&self, via: u64, leases: &[LeaseKey]) -> bool {
        let mut clocked = self.lock();
        if clocked.leading_term.is_none() {
            return false;
        }
        let now = clocked.clock.now();
        clocked.leases.broken(now, via, leases);
        true
    }

    /// Renews leases wherever the leader is; answers those it does not hold.
    ///
    /// # Errors
    /// When no leader could be reached: the leases are as they were, and may
    /// be renewed through another replica.
    pub async fn renew(
        &self,
        stream: StreamId,
        leases: Vec<LeaseKey>,
    ) -> Result<Vec<LeaseKey>, NoLeader> {
        self.streams().hold(stream, &leases);
        if let Some(lost) = self.renew_here(self.id, &leases) {
            return Ok(lost);
        }
        let (answer, answered) = oneshot::channel();
        let relayed = Relayed::Renewed(leases, answer);
        self.relay.send(relayed).await.map_err(|_| NoLeader)?;
        answered.await.map_err(|_| NoLeader)
    }

    /// Tells the leader that the stream which renewed these leases broke.
    fn broken(&self, leases: Vec<LeaseKey>) {
        if leases.is_empty() || self.broken_here(self.id, &leases) {
            return;
        }
        // A full queue loses the word, not the instance: its lease ends later.
        if self.relay.try_send(Relayed::Broken(leases)).is_err() {
            warn!("too many renewals wait to be relayed; broken streams were not reported");
        }
    }

    /// Services whose removals are held back, in words.
    pub fn brakes(&self) -> Vec<String> {
        let clocked = self.lock();
        let held = clocked.leases.brakes();
        held.iter().map(ToString::to_string).collect()
    }

    /// Carries out what the leader's clock decides, until told to stop.
    pub async fn run_judge(self: Arc<Renewals>, handle: Handle, stop: CancellationToken) {
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
        self.leases
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
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
