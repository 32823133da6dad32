//! One line of Raft messages to each peer: bounded, in order, reconnecting.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prost::Message as _;
use rand::RngExt as _;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use trimtab_proto::internal::v1::{Message, RaftRequest};

use super::error::{PeerError, classify};
use super::knock::is_deserted;
use super::protocol::PROTOCOL;
use super::{Contact, Own, Peer, Peers, Report, snapshot};

/// Raft messages waiting for one peer. Several times what Raft keeps in
/// flight; when a peer is that far behind, fresh messages help it more.
const LINE_MESSAGES_MAX: usize = 1_024;

/// Messages in one request are gathered up to this size; the last one may
/// reach beyond it.
pub const BATCH_BYTES_MAX: usize = 1 << 20;

/// Messages in one request, at most.
const BATCH_MESSAGES_MAX: usize = 256;

/// Requests handed to the connection but not yet taken by it. Few, so that a
/// stalled connection shows as a full line.
const REQUESTS_WAITING_MAX: usize = 2;

/// Pauses between attempts to connect. Short at first, because a replica that
/// restarts is back at once; each is drawn between half and all of it, so that
/// peers do not knock in step.
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// A stream that lived this long was a connection that worked: longer than it
/// takes to find out that the peer is silent, while connecting or afterwards.
/// Otherwise each attempt to reach a silent peer would end one outage and
/// report another.
const STREAM_SETTLED: Duration = Duration::from_secs(6);

/// How long a closing line waits for the peer to take the last messages.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(500);

/// How long to wait before telling again of a snapshot's end.
const REPORT_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// So few tasks are woken as fast from outside of the runtime.
const WOKEN_HERE_MAX: usize = 1;

/// Told of lost messages and ended snapshots; true when it took the report.
pub(super) type Reports = Arc<dyn Fn(Report) -> bool + Send + Sync>;

/// The sending ends of all lines. Dropping it lets each line send what it
/// holds and end.
pub struct Lines {
    peers: Peers,
    reports: Reports,
    lines: HashMap<u64, Line>,
    /// What `peers` had changed to when `lines` were last looked through.
    changes: u64,
}

struct Line {
    peer: Peer,
    messages: mpsc::Sender<Message>,
    /// One snapshot at a time: another would only be behind the first.
    snapshot_under_way: Arc<AtomicBool>,
}

impl Lines {
    pub(super) fn new(peers: Peers, reports: Reports) -> Self {
        Self {
            changes: peers.changes(),
            peers,
            reports,
            lines: HashMap::new(),
        }
    }

    /// The members are these now: closes the lines to those who went.
    pub fn follow(&mut self, members: impl Iterator<Item = (u64, Contact)>) {
        self.peers.follow(members);
        self.look_through();
    }

    /// Sends a message to the peer it names. What cannot be queued is dropped
    /// and reported. A snapshot goes its own way and its end is reported.
    pub fn send(&mut self, message: Message) {
        if self.changes != self.peers.changes() {
            self.look_through();
        }
        let id = message.to;
        let line = match self.lines.entry(id) {
            Entry::Occupied(line) => line.into_mut(),
            Entry::Vacant(place) => {
                let Some(peer) = self.peers.correspondent(id) else {
                    tracing::debug!(peer = id, "message for an unknown replica dropped");
                    return;
                };
                place.insert(open(&self.peers, peer, &self.reports))
            }
        };
        if message.snapshot.is_some() {
            send_snapshot(&self.peers, line, &self.reports, message);
            return;
        }
        if line.messages.try_send(message).is_err() {
            (self.reports)(Report::Unreachable(id));
        }
    }

    /// Wakes `tasks` tasks. From a thread outside of the runtime each costs a
    /// system call, or waits for a lock that all threads share; from within
    /// the first one, nothing, and what they write leaves together.
    pub(crate) fn on_the_runtime(&self, tasks: usize, wake: impl FnOnce() + Send + 'static) {
        if tasks > WOKEN_HERE_MAX {
            self.peers.inner.runtime.spawn(async move { wake() });
        } else {
            wake();
        }
    }

    /// Closes the lines to whoever is not there any more.
    fn look_through(&mut self) {
        self.changes = self.peers.changes();
        let peers = &self.peers;
        self.lines.retain(|id, line| {
            let now = peers.correspondent(*id);
            now.is_some_and(|now| now.contact == line.peer.contact)
        });
    }
}

fn open(peers: &Peers, peer: Peer, reports: &Reports) -> Line {
    let (messages, waiting) = mpsc::channel(LINE_MESSAGES_MAX);
    let own = peers.own().clone();
    let (to, reports) = (peer.clone(), Arc::clone(reports));
    let runtime = &peers.inner.runtime;
    runtime.spawn(keep_open(own, to, waiting, reports));
    Line {
        peer,
        messages,
        snapshot_under_way: Arc::new(AtomicBool::new(false)),
    }
}

fn send_snapshot(peers: &Peers, line: &Line, reports: &Reports, message: Message) {
    let (own, peer) = (peers.own().clone(), line.peer.clone());
    let reports = Arc::clone(reports);
    let under_way = Arc::clone(&line.snapshot_under_way);
    peers.inner.runtime.spawn(async move {
        let arrived = if under_way.swap(true, Ordering::AcqRel) {
            false
        } else {
            let sent = snapshot::send(&own, &peer, message).await;
            under_way.store(false, Ordering::Release);
            if let Err(error) = &sent {
                tracing::warn!(peer = peer.id, %error, "snapshot not delivered");
            }
            sent.is_ok()
        };
        // Until it is told, Raft sends this peer nothing.
        let ended = Report::SnapshotEnded {
            peer: peer.id,
            arrived,
        };
        while !reports(ended) {
            tokio::time::sleep(REPORT_AGAIN_AFTER).await;
        }
    });
}

/// Streams messages until the line is closed; after each break reports it,
/// pauses, and drops what went stale meanwhile.
async fn keep_open(own: Own, peer: Peer, mut waiting: mpsc::Receiver<Message>, reports: Reports) {
    let mut backoff = BACKOFF_FIRST;
    let mut is_reported = false;
    // Connects when there is something to say.
    while let Some(first) = waiting.recv().await {
        let opened = Instant::now();
        let broken = match stream(&own, &peer, first, &mut waiting).await {
            Ok(()) => return,
            Err(broken) => broken,
        };
        reports(Report::Unreachable(peer.id));
        // Of what could not even connect nothing was heard that would end.
        if matches!(broken, PeerError::Lost { .. }) {
            tokio::spawn(look_after(peer.clone(), Arc::clone(&reports)));
        }
        if opened.elapsed() >= STREAM_SETTLED {
            backoff = BACKOFF_FIRST;
            is_reported = false;
        }
        // Once per outage: a peer that is down stays so for many attempts.
        if !is_reported {
            tracing::warn!(peer = peer.id, error = %broken, "connection to a replica lost");
            is_reported = true;
        }
        let pause = backoff.mul_f64(rand::rng().random_range(0.5..=1.0));
        tokio::time::sleep(pause).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
        while waiting.try_recv().is_ok() {}
    }
}

/// The connection to a peer broke: tells if that was the end of its process.
async fn look_after(peer: Peer, reports: Reports) {
    if is_deserted(&peer.contact.address).await {
        reports(Report::Gone(peer.id));
    }
}

/// One stream, from its first message to its break or the line's close.
async fn stream(
    own: &Own,
    peer: &Peer,
    first: Message,
    waiting: &mut mpsc::Receiver<Message>,
) -> Result<(), PeerError> {
    let (requests, stream) = mpsc::channel(REQUESTS_WAITING_MAX);
    let mut client = peer.raft.clone();
    let call = client.raft(ReceiverStream::new(stream));
    tokio::pin!(call);
    let ended = |result: Result<_, tonic::Status>| match result {
        Err(status) => classify(peer.id, &peer.contact.address, status),
        Ok(_) => PeerError::Lost {
            id: peer.id,
            address: peer.contact.address.clone(),
            reason: "it ended the stream".to_owned(),
        },
    };
    let mut next = Some(first);
    loop {
        let message = match next.take() {
            Some(message) => message,
            None => tokio::select! {
                biased;
                result = &mut call => return Err(ended(result)),
                message = waiting.recv() => match message {
                    Some(message) => message,
                    None => break,
                },
            },
        };
        let request = RaftRequest {
            to_replica: peer.id,
            cluster_id: own.cluster_id,
            messages: gather(message, waiting),
            protocol: PROTOCOL,
            to_disk: peer.contact.disk_id,
            from_replica: own.id,
            from_disk: own.contact.disk_id,
            from_address: own.contact.address.clone(),
        };
        tokio::select! {
            biased;
            result = &mut call => return Err(ended(result)),
            sent = requests.send(request) => {
                // The call holds the other end; when it is gone, so is the call.
                if sent.is_err() {
                    return Err(ended((&mut call).await));
                }
            }
        }
    }
    drop(requests);
    // Whether the goodbye arrives matters to no one.
    let _ = tokio::time::timeout(GOODBYE_TIMEOUT, call).await;
    Ok(())
}

/// `first` and what waits behind it, up to the bounds of one request.
fn gather(first: Message, waiting: &mut mpsc::Receiver<Message>) -> Vec<Message> {
    let mut size = first.encoded_len();
    let mut messages = vec![first];
    while size < BATCH_BYTES_MAX && messages.len() < BATCH_MESSAGES_MAX {
        let Ok(message) = waiting.try_recv() else {
            break;
        };
        size += message.encoded_len();
        messages.push(message);
    }
    messages
}
