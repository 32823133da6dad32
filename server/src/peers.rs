//! The other replicas: Raft messages on bounded lines, and calls to one of them.
//!
//! A line carries Raft messages to one peer on a long stream. When it is full
//! or broken, messages are dropped and reported, never queued without bound:
//! Raft repeats what matters. Snapshots and calls use a connection of their
//! own, so that a large snapshot does not hold up heartbeats.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle as Runtime;
use tonic::transport::{Channel, Endpoint};
use trimtab_proto::internal::v1::peer_client::PeerClient;
use trimtab_proto::internal::v1::{
    IntroduceResponse, ObserveRequest, ObserveResponse, ProposeManyRequest, ProposeManyResponse,
    ProposeRequest, ProposeResponse, RenewLeasesRequest, RenewLeasesResponse, ReplicaStatusRequest,
    ReplicaStatusResponse,
};

pub mod error;
mod introduction;
mod knock;
mod known;
pub mod line;
pub mod protocol;
mod snapshot;

use error::PeerError;
use introduction::introduce;
pub use introduction::introduce_at;
use known::{Known, News};

/// The greatest message between replicas, in bytes; both sides set it. A batch
/// of Raft messages is at most twice [`line::BATCH_BYTES_MAX`] and one entry;
/// the rest is room for batched renewals.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// How long a connection may take: replicas are near each other, and a
/// proposal waits for it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a silent connection is asked whether it lives, and how long it
/// may take to say so. Without this a peer that lost its power is noticed only
/// when the kernel gives up, after minutes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// HTTP/2 windows wide enough that one round trip carries a whole message.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// How long a peer may take to answer a question about itself.
const OBSERVE_TIMEOUT: Duration = Duration::from_secs(2);
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);

/// Senders that are not known as members, at most: a replica that was away
/// while others came answers them before it knows them.
const GUESTS_MAX: usize = 16;

/// How long a batch of renewals may take: the sender batches again meanwhile.
const RENEW_TIMEOUT: Duration = Duration::from_secs(2);

/// What consensus must know of a message's fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// Messages to this peer were lost.
    Unreachable(u64),
    /// The connection to this peer broke, and nobody listens there any more:
    /// its process has ended. It may be wrong, or an old story.
    Gone(u64),
    /// The snapshot for this peer arrived, or did not.
    SnapshotEnded {
        /// The peer.
        peer: u64,
        /// Whether it arrived whole.
        arrived: bool,
    },
}

/// Where a replica is, and its data directory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Contact {
    /// `host:port`.
    pub address: String,
    /// The data directory's own number.
    pub disk_id: u64,
}

/// This replica, as it shows itself to the others.
#[derive(Clone, Debug)]
pub struct Own {
    /// Its id.
    pub id: u64,
    /// Its cluster.
    pub cluster_id: u64,
    /// Where others reach it, and its data directory.
    pub contact: Contact,
}

/// The other replicas of the cluster. Cheap to clone; clones know the same.
#[derive(Clone, Debug)]
pub struct Peers {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    own: Own,
    known: RwLock<Known>,
    /// Goes up when someone is somewhere else, so that lines need not look.
    changes: AtomicU64,
    runtime: Runtime,
}

/// One other replica.
#[derive(Clone, Debug)]
struct Peer {
    id: u64,
    contact: Contact,
    /// For the line alone.
    raft: PeerClient<Channel>,
    /// For snapshots and calls.
    calls: PeerClient<Channel>,
    channel: Channel,
}

impl Peers {
    /// No one yet. `addresses` are those that this replica was started with:
    /// they count more than those in the log, which may be from before a
    /// move. Must be called within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// When an address is not one, or there is no runtime.
    pub fn new(own: Own, addresses: BTreeMap<u64, String>) -> Result<Self, PeerError> {
        let runtime = Runtime::try_current().map_err(|_| PeerError::NoRuntime)?;
        for (id, address) in &addresses {
            endpoint(*id, address)?;
        }
        let known = Known {
            flags: addresses,
            ..Known::default()
        };
        Ok(Self {
            inner: Arc::new(Inner {
                own,
                known: RwLock::new(known),
                changes: AtomicU64::new(0),
                runtime,
            }),
        })
    }

    /// The members are these now, this replica perhaps among them. Connects
    /// to none yet.
    pub fn follow(&self, members: impl Iterator<Item = (u64, Contact)>) {
        let _within = self.inner.runtime.enter();
        let mut known = self.write();
        let mut before = std::mem::take(&mut known.members);
        for (id, mut contact) in members.filter(|(id, _)| *id != self.inner.own.id) {
            if let Some(flag) = known.flags.get(&id) {
                contact.address.clone_from(flag);
            }
            let told = known.told.get(&id);
            if let Some(told) = told.filter(|told| told.disk_id == contact.disk_id) {
                contact.clone_from(told);
            }
            let kept = before.remove(&id).filter(|peer| peer.contact == contact);
            if let Some(peer) = kept.or_else(|| Peer::new(id, contact)) {
                known.members.insert(id, peer);
            }
        }
        let Known {
            members,
            guests,
            told,
            ..
        } = &mut *known;
        guests.retain(|id, _| !members.contains_key(id));
        told.retain(|id, _| members.contains_key(id));
        self.inner.changes.fetch_add(1, Ordering::Release);
    }

    /// A replica said where it is: a member that moved, or one that is not
    /// known yet. `is_owed`: it gets answers even when the member of its id is
    /// known by another data directory.
    pub fn meet(&self, id: u64, contact: Contact, is_owed: bool) {
        let is_own = id == self.inner.own.id || contact.disk_id == self.inner.own.contact.disk_id;
        let news = |known: &Known| known.news_of(id, &contact, is_owed);
        if is_own || contact.address.is_empty() || news(&self.read()) == News::Nothing {
            return;
        }
        let _within = self.inner.runtime.enter();
        let mut known = self.write();
        match news(&known) {
            News::Nothing => return,
            News::Back => {
                known.guests.remove(&id);
            }
            News::Moved => {
                let Some(peer) = Peer::new(id, contact.clone()) else {
                    return;
                };
                tracing::info!(peer = id, address = contact.address, "a member is here");
                known.guests.remove(&id);
                known.told.insert(id, contact);
                known.members.insert(id, peer);
            }
            News::Guest => {
                let Some(peer) = Peer::new(id, contact.clone()) else {
                    return;
                };
                tracing::info!(peer = id, address = contact.address, "a replica is here");
                if known.guests.len() >= GUESTS_MAX {
                    known.guests.pop_first();
                }
                known.guests.insert(id, peer);
            }
        }
        self.inner.changes.fetch_add(1, Ordering::Release);
    }

    /// The ids of the other members.
    pub fn ids(&self) -> Vec<u64> {
        self.read().members.keys().copied().collect()
    }

    /// The address of another member.
    pub fn address(&self, id: u64) -> Option<String> {
        let known = self.read();
        known
            .members
            .get(&id)
            .map(|peer| peer.contact.address.clone())
    }

    /// The way to another member, for its other services.
    ///
    /// # Errors
    ///
    /// When there is no such member.
    pub fn channel(&self, id: u64) -> Result<Channel, PeerError> {
        Ok(self.peer(id)?.channel)
    }

    /// This replica, as the others see it.
    pub fn own(&self) -> &Own {
        &self.inner.own
    }

    /// Lines to the others, opened when there is something to say. `report` is told what was lost; it is called
    /// from several tasks, must not block, and says whether it took the report
    /// (or never will take one again): the end of a snapshot is told until it
    /// is taken.
    pub fn open_lines(
        &self,
        report: impl Fn(Report) -> bool + Send + Sync + 'static,
    ) -> line::Lines {
        line::Lines::new(self.clone(), Arc::new(report))
    }

    /// Forwards a command to the peer that leads.
    ///
    /// # Errors
    ///
    /// [`PeerError::happened_not`] tells whether it is safe to ask again.
    pub async fn propose(
        &self,
        id: u64,
        command: Bytes,
        dry_run: bool,
        timeout: Duration,
    ) -> Result<ProposeResponse, PeerError> {
        let peer = self.peer(id)?;
        let request = ProposeRequest {
            cluster_id: self.inner.own.cluster_id,
            command,
            dry_run,
        };
        let mut client = peer.calls.clone();
        error::within(
            timeout,
            peer.id,
            &peer.contact.address,
            client.propose(request),
        )
        .await
    }

    /// Forwards commands, to be taken together, to the peer that leads.
    ///
    /// # Errors
    ///
    /// As [`Peers::propose`].
    pub async fn propose_many(
        &self,
        id: u64,
        commands: Vec<Bytes>,
        timeout: Duration,
    ) -> Result<ProposeManyResponse, PeerError> {
        let peer = self.peer(id)?;
        let request = ProposeManyRequest {
            cluster_id: self.inner.own.cluster_id,
            commands,
        };
        let mut client = peer.calls.clone();
        let call = client.propose_many(request);
        error::within(timeout, peer.id, &peer.contact.address, call).await
    }

    /// Hands the leader the renewals gathered here. The cluster id is filled
    /// in.
    ///
    /// # Errors
    ///
    /// When the peer cannot be reached or refuses.
    pub async fn renew_leases(
        &self,
        id: u64,
        request: RenewLeasesRequest,
    ) -> Result<RenewLeasesResponse, PeerError> {
        let peer = self.peer(id)?;
        let request = RenewLeasesRequest {
            cluster_id: self.inner.own.cluster_id,
            ..request
        };
        let mut client = peer.calls.clone();
        let call = client.renew_leases(request);
        error::within(RENEW_TIMEOUT, peer.id, &peer.contact.address, call).await
    }

    /// What a peer's watchers confirmed and reported. The cluster id is filled
    /// in.
    ///
    /// # Errors
    ///
    /// When the peer cannot be reached or refuses.
    pub async fn observe(
        &self,
        id: u64,
        request: ObserveRequest,
    ) -> Result<ObserveResponse, PeerError> {
        let peer = self.peer(id)?;
        let request = ObserveRequest {
            cluster_id: self.inner.own.cluster_id,
            ..request
        };
        let mut client = peer.calls.clone();
        let call = client.observe(request);
        error::within(OBSERVE_TIMEOUT, peer.id, &peer.contact.address, call).await
    }

    /// A peer's own status.
    ///
    /// # Errors
    ///
    /// When the peer cannot be reached or refuses.
    pub async fn replica_status(&self, id: u64) -> Result<ReplicaStatusResponse, PeerError> {
        let peer = self.peer(id)?;
        let request = ReplicaStatusRequest {
            cluster_id: self.inner.own.cluster_id,
        };
        let mut client = peer.calls.clone();
        let call = client.replica_status(request);
        error::within(STATUS_TIMEOUT, peer.id, &peer.contact.address, call).await
    }

    /// Asks another member who it is, and what it knows of this replica.
    ///
    /// # Errors
    ///
    /// When it cannot be reached, or speaks another version.
    pub async fn introduce(&self, id: u64) -> Result<IntroduceResponse, PeerError> {
        let peer = self.peer(id)?;
        let own = &self.inner.own;
        introduce(
            peer.calls,
            id,
            &peer.contact.address,
            own.id,
            own.contact.disk_id,
        )
        .await
    }

    fn peer(&self, id: u64) -> Result<Peer, PeerError> {
        let known = self.read();
        known
            .members
            .get(&id)
            .cloned()
            .ok_or(PeerError::Unknown { id })
    }

    /// Someone who wrote without being known as a member, or a member.
    fn correspondent(&self, id: u64) -> Option<Peer> {
        let known = self.read();
        let peer = known.guests.get(&id).or_else(|| known.members.get(&id));
        peer.cloned()
    }

    fn changes(&self) -> u64 {
        self.inner.changes.load(Ordering::Acquire)
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.inner
            .known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.inner
            .known
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer {
    /// `None`, with a word in the log, when its address is not one.
    fn new(id: u64, contact: Contact) -> Option<Self> {
        match endpoint(id, &contact.address) {
            Ok(endpoint) => {
                let channel = endpoint.connect_lazy();
                Some(Self {
                    id,
                    contact,
                    raft: client(endpoint.connect_lazy()),
                    calls: client(channel.clone()),
                    channel,
                })
            }
            Err(error) => {
                tracing::warn!(%error, "this replica cannot be reached");
                None
            }
        }
    }
}

fn endpoint(id: u64, address: &str) -> Result<Endpoint, PeerError> {
    let endpoint =
        Endpoint::from_shared(format!("http://{address}")).map_err(|error| PeerError::Address {
            id,
            address: address.to_owned(),
            reason: error.to_string(),
        })?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .tcp_nodelay(true))
}

fn client(channel: Channel) -> PeerClient<Channel> {
    PeerClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

#[cfg(test)]
mod tests;
