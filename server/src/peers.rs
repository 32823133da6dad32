//! The other replicas: Raft messages on bounded lines, and calls to one of them.
//!
//! A line carries Raft messages to one peer on a long stream. When it is full
//! or broken, messages are dropped and reported, never queued without bound:
//! Raft repeats what matters. Snapshots and calls use a connection of their
//! own, so that a large snapshot does not hold up heartbeats.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle as Runtime;
use tonic::transport::{Channel, Endpoint};
use trimtab_proto::internal::v1::peer_client::PeerClient;
use trimtab_proto::internal::v1::{
    ObserveRequest, ObserveResponse, ProposeRequest, ProposeResponse, RenewLeasesRequest,
    RenewLeasesResponse, ReplicaStatusRequest, ReplicaStatusResponse,
};

pub mod error;
pub mod line;
mod snapshot;

use error::PeerError;

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

/// How long a batch of renewals may take: the sender batches again meanwhile.
const RENEW_TIMEOUT: Duration = Duration::from_secs(2);

/// What consensus must know of a message's fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// Messages to this peer were lost.
    Unreachable(u64),
    /// The snapshot for this peer arrived, or did not.
    SnapshotEnded {
        /// The peer.
        peer: u64,
        /// Whether it arrived whole.
        arrived: bool,
    },
}

/// The other replicas of the cluster. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Peers {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    cluster_id: u64,
    peers: BTreeMap<u64, Peer>,
    runtime: Runtime,
}

/// One other replica.
#[derive(Clone, Debug)]
struct Peer {
    id: u64,
    address: String,
    /// For the line alone.
    raft: PeerClient<Channel>,
    /// For snapshots and calls.
    calls: PeerClient<Channel>,
}

impl Peers {
    /// The members other than `id`, each at its address (`host:port`). Connects
    /// to none yet. Must be called within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// When an address is not one, or there is no runtime.
    pub fn new(
        id: u64,
        cluster_id: u64,
        members: &BTreeMap<u64, String>,
    ) -> Result<Self, PeerError> {
        let runtime = Runtime::try_current().map_err(|_| PeerError::NoRuntime)?;
        let mut peers = BTreeMap::new();
        for (peer, address) in members.iter().filter(|(peer, _)| **peer != id) {
            let endpoint = endpoint(*peer, address)?;
            peers.insert(
                *peer,
                Peer {
                    id: *peer,
                    address: address.clone(),
                    raft: client(endpoint.connect_lazy()),
                    calls: client(endpoint.connect_lazy()),
                },
            );
        }
        Ok(Self {
            inner: Arc::new(Inner {
                cluster_id,
                peers,
                runtime,
            }),
        })
    }

    /// The ids of the other replicas.
    pub fn ids(&self) -> impl Iterator<Item = u64> + '_ {
        self.inner.peers.keys().copied()
    }

    /// The address of another replica.
    pub fn address(&self, id: u64) -> Option<&str> {
        self.inner.peers.get(&id).map(|peer| peer.address.as_str())
    }

    /// Opens a line to each peer. `report` is told what was lost; it is called
    /// from several tasks, must not block, and says whether it took the report
    /// (or never will take one again): the end of a snapshot is told until it
    /// is taken.
    pub fn open_lines(
        &self,
        report: impl Fn(Report) -> bool + Send + Sync + 'static,
    ) -> line::Lines {
        line::open(
            &self.inner.runtime,
            self.inner.cluster_id,
            self.inner.peers.values().cloned(),
            Arc::new(report),
        )
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
            cluster_id: self.inner.cluster_id,
            command,
            dry_run,
        };
        let mut client = peer.calls.clone();
        error::within(timeout, peer.id, &peer.address, client.propose(request)).await
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
            cluster_id: self.inner.cluster_id,
            ..request
        };
        let mut client = peer.calls.clone();
        let call = client.renew_leases(request);
        error::within(RENEW_TIMEOUT, peer.id, &peer.address, call).await
    }

    /// What a peer's watchers confirmed and reported.
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
        let mut client = peer.calls.clone();
        let call = client.observe(request);
        error::within(OBSERVE_TIMEOUT, peer.id, &peer.address, call).await
    }

    /// A peer's own status.
    ///
    /// # Errors
    ///
    /// When the peer cannot be reached or refuses.
    pub async fn replica_status(&self, id: u64) -> Result<ReplicaStatusResponse, PeerError> {
        let peer = self.peer(id)?;
        let mut client = peer.calls.clone();
        let call = client.replica_status(ReplicaStatusRequest {});
        error::within(STATUS_TIMEOUT, peer.id, &peer.address, call).await
    }

    fn peer(&self, id: u64) -> Result<&Peer, PeerError> {
        self.inner.peers.get(&id).ok_or(PeerError::Unknown { id })
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
