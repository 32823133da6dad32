//! How everyone else asks: propose, plan, read, look, wait.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use trimtab_proto::internal::v1::{Message, RaftRequest};
use trimtab_registry::command::Command;
use trimtab_registry::outcome::Outcome;
use trimtab_registry::rejection::Rejection;
use trimtab_registry::state::Registry;

use super::change::{Change, HandOverError};
use super::driver::Shared;
use super::entry::{
    COMMAND_BYTES_MAX, decode_command, decode_result, encode_command, encode_result,
};
use super::error::{DeliverError, ProposeError};
use super::forward::{Failed, judge};
use super::input::{Answer, Input, Reply};
use super::message::{MessageError, from_wire};
use super::reach::Reach;
use super::status::ConsensusStatus;
use crate::peers::{Contact, Peers, protocol};
use crate::storage::file::Identity;

/// How long a request waits for a leader: an election and a half. Clients give
/// an attempt more than that, so that they hear the answer.
const LEADER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an accepted proposal may take to be committed and applied. A
/// leader that lost its quorum gives up well before.
const OUTCOME_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a linearizable read may take.
const READ_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the asker's own replica may take to apply what the leader has
/// applied already. Beyond it the answer is given all the same.
const LOCAL_APPLY_TIMEOUT: Duration = Duration::from_secs(2);

/// Pauses between attempts to reach a leader: short, an election is near.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Callers' requests waiting for the thread. A few rounds' worth: whoever
/// finds as many is better told so than kept waiting.
pub(super) const CALLER_INPUTS_MAX: usize = 3_072;

/// Attempts to queue an arrived snapshot, [`RETRY_PAUSE`] apart.
const INSTALL_ATTEMPTS: u32 = 100;

/// Whom a peer's message is for, and in which version it is written.
#[derive(Clone, Copy, Debug)]
pub struct Receiver {
    /// The version of the protocol.
    pub protocol: u32,
    /// The replica.
    pub replica: u64,
    /// Its data directory.
    pub disk_id: u64,
    /// Its cluster.
    pub cluster_id: u64,
}

/// The asking end of a replica's consensus. Cheap to clone; when the last one
/// is dropped, the thread ends.
#[derive(Clone, Debug)]
pub struct Handle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) identity: Identity,
    pub(super) inputs: SyncSender<Input>,
    pub(super) status: watch::Receiver<ConsensusStatus>,
    pub(super) peers: Peers,
    pub(super) shared: Arc<Shared>,
    pub(super) stopped: CancellationToken,
    pub(super) reach: Reach,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.is_abandoned.store(true, Ordering::Relaxed);
    }
}

impl Handle {
    pub(super) fn new(inner: Inner) -> Self {
        Self {
            inner: Arc::new(inner),
        }
    }

    /// This replica's id.
    pub fn id(&self) -> u64 {
        self.inner.identity.replica_id
    }

    /// The data directory's own number.
    pub fn disk_id(&self) -> u64 {
        self.inner.identity.disk_id
    }

    /// The cluster: a hash of its founders.
    pub fn cluster_id(&self) -> u64 {
        self.inner.identity.cluster_id
    }

    /// What this replica knows of its part, as of its last round.
    pub fn status(&self) -> watch::Receiver<ConsensusStatus> {
        self.inner.status.clone()
    }

    /// Has a command replicated and applied, whichever replica leads. When it
    /// returns, this replica has applied it too, so that whoever asked reads
    /// his own write here; only if it lags by seconds is that given up.
    ///
    /// # Errors
    ///
    /// See [`ProposeError`]. After [`ProposeError::Unknown`] the command may
    /// have taken effect, after any other error it has not.
    pub async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        let bytes = encode_command(&command)?;
        check_size(&bytes)?;
        // What cannot be read back would stop every replica once committed.
        decode_command(&bytes)?;
        let deadline = Instant::now() + LEADER_TIMEOUT;
        loop {
            let leader = self.await_leader(deadline).await?;
            if leader == self.id() {
                match self.submit(bytes.clone()).await {
                    Ok(answer) => return answer.result.map_err(ProposeError::Rejected),
                    Err(ProposeError::NotLeader { .. }) => {}
                    Err(error) => return Err(error),
                }
            } else if let Some(outcome) = self.forward(leader, bytes.clone()).await? {
                return outcome.map_err(ProposeError::Rejected);
            }
            if Instant::now() >= deadline {
                return Err(self.unavailable().await);
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    /// What a command would do now, on a state no older than this call.
    /// Nothing changes.
    ///
    /// # Errors
    ///
    /// The rejection it would meet, or why the state cannot be known.
    pub async fn plan(&self, command: Command) -> Result<Outcome, ProposeError> {
        self.read_barrier().await?;
        self.query(move |registry| registry.plan(&command))
            .await?
            .map_err(ProposeError::Rejected)
    }

    /// Serves another replica's forwarded command: proposes it here, or, in a
    /// dry run, plans it. The result is encoded for the way back.
    ///
    /// # Errors
    ///
    /// [`ProposeError::NotLeader`] when another replica leads; the command's
    /// rejection is part of the result, not an error.
    pub async fn propose_here(
        &self,
        command: Bytes,
        dry_run: bool,
    ) -> Result<(u64, Bytes), ProposeError> {
        check_size(&command)?;
        // The sender may be of another version; see `propose`.
        let readable = decode_command(&command)?;
        if dry_run {
            let index = self.read_barrier().await?;
            let result = self.query(move |registry| registry.plan(&readable)).await?;
            return Ok((index, encode_result(&result)?));
        }
        let answer = self.submit(command).await?;
        Ok((answer.index, encode_result(&answer.result)?))
    }

    /// Waits until this replica has applied everything that was committed
    /// before the call; the index it has applied then.
    ///
    /// # Errors
    ///
    /// When no quorum confirmed it in time.
    pub async fn read_barrier(&self) -> Result<u64, ProposeError> {
        let (reply, answer) = oneshot::channel();
        self.queue(Input::Read(reply))?;
        match timeout(READ_TIMEOUT, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(self.stopped()),
            Err(_) => Err(self.unavailable().await),
        }
    }

    /// Looks at this replica's applied state. `look` runs on the consensus
    /// thread: it must be short.
    ///
    /// # Errors
    ///
    /// When the replica has stopped or too much is queued.
    pub async fn query<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Registry) -> T + Send + 'static,
    ) -> Result<T, ProposeError> {
        let (reply, answer) = oneshot::channel();
        self.queue(Input::Query(Box::new(move |registry| {
            // Whoever asked may have given up.
            let _ = reply.send(look(registry));
        })))?;
        answer.await.map_err(|_| self.stopped())
    }

    /// Changes the members, if this replica leads; false when they were so
    /// already. When it returns, the change is over on this replica.
    ///
    /// # Errors
    ///
    /// [`ProposeError::Members`] when it is refused,
    /// [`ProposeError::NotLeader`] when another replica leads: then nothing
    /// was done. After [`ProposeError::Unknown`] it may have been.
    pub async fn change_members(&self, change: Change) -> Result<bool, ProposeError> {
        let (reply, answer): (Reply<Option<u64>>, _) = oneshot::channel();
        self.queue(Input::Change(change, reply))?;
        let deadline = Instant::now() + OUTCOME_TIMEOUT;
        let unknown = || ProposeError::Unknown {
            reason: format!("it was not made within {} s", OUTCOME_TIMEOUT.as_secs()),
        };
        let applied = match timeout_at(deadline, answer).await {
            Ok(Ok(result)) => result?,
            // Dropped unanswered: it was never taken from the queue.
            Ok(Err(_)) => return Err(self.stopped()),
            Err(_) => return Err(unknown()),
        };
        let Some(index) = applied else {
            return Ok(false);
        };
        let mut status = self.inner.status.clone();
        let is_over = |status: &ConsensusStatus| {
            status.applied >= index && !status.members.is_between() || status.fatal.is_some()
        };
        match timeout_at(deadline, status.wait_for(is_over)).await {
            Ok(_) => Ok(true),
            Err(_) => Err(unknown()),
        }
    }

    /// Hands leadership to `to`, or to whoever is next; who leads then.
    ///
    /// # Errors
    ///
    /// When this replica does not lead, there is nobody to lead, or nobody
    /// does in time.
    pub async fn hand_over(&self, to: Option<u64>) -> Result<u64, HandOverError> {
        let (reply, answer) = oneshot::channel();
        let queued = self.queue(Input::HandOver(to, reply));
        queued.map_err(|_| HandOverError::NotLeader)?;
        answer.await.map_err(|_| HandOverError::NotLeader)??;
        let own = self.id();
        if to == Some(own) {
            return Ok(own);
        }
        let mut status = self.inner.status.clone();
        let taken = status.wait_for(|status| {
            let leader = status.leader().filter(|leader| *leader != own);
            leader.is_some_and(|leader| to.is_none_or(|to| to == leader))
        });
        // The guard must not outlive this statement: it cannot cross an await.
        let leader = match timeout(LEADER_TIMEOUT, taken).await {
            Ok(Ok(status)) => status.leader(),
            Ok(Err(_)) | Err(_) => None,
        };
        let after = LEADER_TIMEOUT;
        leader.ok_or(HandOverError::NotTaken { to, after })
    }

    /// Another replica has it from the log that this one was removed: it
    /// stops.
    pub fn removed(&self) {
        // If the queue is full it is told again.
        let _ = self.inner.inputs.try_send(Input::Removed);
    }

    /// Whether a peer's message is for this replica of this cluster, with this
    /// data directory, and in a version that it understands.
    ///
    /// # Errors
    ///
    /// When it is not.
    pub fn admit(&self, to: &Receiver) -> Result<(), MessageError> {
        protocol::check(to.protocol)?;
        let own = self.inner.identity;
        if (to.replica, to.cluster_id) != (own.replica_id, own.cluster_id) {
            return Err(MessageError::Misdirected {
                found: to.replica,
                found_cluster: to.cluster_id,
                expected: own.replica_id,
                expected_cluster: own.cluster_id,
            });
        }
        if to.disk_id != own.disk_id {
            return Err(MessageError::OtherDisk {
                id: own.replica_id,
                found: to.disk_id,
                expected: own.disk_id,
            });
        }
        Ok(())
    }

    /// Takes Raft messages from a peer. When too much is queued they are
    /// dropped and counted: Raft repeats what matters.
    ///
    /// # Errors
    ///
    /// When a message is refused, or the replica has stopped.
    pub fn step(&self, request: RaftRequest) -> Result<(), DeliverError> {
        self.admit(&Receiver {
            protocol: request.protocol,
            replica: request.to_replica,
            disk_id: request.to_disk,
            cluster_id: request.cluster_id,
        })?;
        let from = request.from_replica;
        let messages = request
            .messages
            .into_iter()
            .map(|message| self.convert(from, message))
            .collect::<Result<Vec<_>, _>>()?;
        let count = messages.len() as u64;
        self.inner.peers.meet(
            from,
            Contact {
                address: request.from_address,
                disk_id: request.from_disk,
            },
        );
        let input = Input::Step {
            from_disk: request.from_disk,
            messages,
        };
        match self.inner.inputs.try_send(input) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => {
                let dropped = &self.inner.shared.dropped_messages;
                dropped.fetch_add(count, Ordering::Relaxed);
                Ok(())
            }
            Err(TrySendError::Disconnected(_)) => Err(self.gone()),
        }
    }

    /// Takes a snapshot message that arrived whole
    /// ([`super::transfer::Arriving`]) from a replica with this data
    /// directory.
    ///
    /// # Errors
    ///
    /// When it is refused, cannot be queued in time, or the replica has
    /// stopped.
    pub async fn install(&self, from_disk: u64, message: Message) -> Result<(), DeliverError> {
        let messages = vec![self.convert(message.from, message)?];
        let mut input = Input::Step {
            from_disk,
            messages,
        };
        for _ in 0..INSTALL_ATTEMPTS {
            match self.inner.inputs.try_send(input) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(returned)) => input = returned,
                Err(TrySendError::Disconnected(_)) => return Err(self.gone()),
            }
            sleep(RETRY_PAUSE).await;
        }
        Err(DeliverError::Full)
    }

    /// Stops the replica: hands leadership over first, if it leads and there
    /// is someone to lead. Returns when its files are closed.
    pub async fn shutdown(&self) {
        let mut input = Input::Stop;
        while let Err(TrySendError::Full(returned)) = self.inner.inputs.try_send(input) {
            input = returned;
            sleep(RETRY_PAUSE).await;
        }
        self.inner.stopped.cancelled().await;
    }

    fn convert(&self, from: u64, message: Message) -> Result<raft::eraftpb::Message, MessageError> {
        if message.to != self.id() {
            return Err(MessageError::Misdirected {
                found: message.to,
                found_cluster: self.cluster_id(),
                expected: self.id(),
                expected_cluster: self.cluster_id(),
            });
        }
        if message.from != from {
            return Err(MessageError::NotAMember { from: message.from });
        }
        from_wire(message)
    }

    /// Proposes to this replica's own Raft and waits for the end.
    async fn submit(&self, command: Bytes) -> Result<Answer, ProposeError> {
        let (reply, answer): (Reply<Answer>, _) = oneshot::channel();
        self.queue(Input::Propose(command, reply))?;
        match timeout(OUTCOME_TIMEOUT, answer).await {
            Ok(Ok(result)) => result,
            // Dropped unanswered: it was never taken from the queue.
            Ok(Err(_)) => Err(self.stopped()),
            Err(_) => Err(ProposeError::Unknown {
                reason: format!(
                    "it was not committed within {} s",
                    OUTCOME_TIMEOUT.as_secs()
                ),
            }),
        }
    }

    /// Has the leader propose it; `None` when it surely did not and another
    /// attempt may succeed.
    async fn forward(
        &self,
        leader: u64,
        command: Bytes,
    ) -> Result<Option<Result<Outcome, Rejection>>, ProposeError> {
        let asked = self
            .inner
            .peers
            .propose(leader, command, false, OUTCOME_TIMEOUT);
        match asked.await.map_err(judge) {
            Ok(response) => {
                let result =
                    decode_result(&response.result).map_err(|error| ProposeError::Unknown {
                        reason: format!("it was applied, but {error}"),
                    })?;
                self.await_applied(response.applied_index).await;
                Ok(Some(result))
            }
            Err(Failed::Over(error)) => Err(error),
            Err(Failed::Again(reason)) => {
                tracing::debug!(leader, reason, "forwarding a proposal failed");
                Ok(None)
            }
        }
    }

    async fn await_applied(&self, index: u64) {
        if self.inner.status.borrow().applied >= index {
            return;
        }
        let (reply, answer) = oneshot::channel();
        if self.queue(Input::AwaitApplied(index, reply)).is_ok()
            && timeout(LOCAL_APPLY_TIMEOUT, answer).await.is_err()
        {
            tracing::debug!(index, "answered a change before it was applied here");
        }
    }

    async fn await_leader(&self, deadline: Instant) -> Result<u64, ProposeError> {
        let mut status = self.inner.status.clone();
        let known = async {
            let decided =
                |status: &ConsensusStatus| status.leader().is_some() || status.fatal.is_some();
            // The guard must not outlive this block: it cannot cross an await.
            let found = status.wait_for(decided).await;
            found.ok().and_then(|status| status.leader())
        };
        let Ok(leader) = timeout_at(deadline, known).await else {
            return Err(self.unavailable().await);
        };
        leader.ok_or_else(|| self.stopped())
    }

    fn queue(&self, input: Input) -> Result<(), ProposeError> {
        let waiting = &self.inner.shared.caller_inputs;
        let queued = if waiting.fetch_add(1, Ordering::Relaxed) < CALLER_INPUTS_MAX {
            self.inner.inputs.try_send(input)
        } else {
            Err(TrySendError::Full(input))
        };
        queued.map_err(|error| {
            waiting.fetch_sub(1, Ordering::Relaxed);
            match error {
                TrySendError::Full(_) => ProposeError::Overloaded {
                    reason: "this replica has too many requests waiting".to_owned(),
                },
                TrySendError::Disconnected(_) => self.stopped(),
            }
        })
    }

    fn stopped(&self) -> ProposeError {
        ProposeError::Stopped {
            reason: self.why_stopped(),
        }
    }

    fn gone(&self) -> DeliverError {
        DeliverError::Stopped {
            reason: self.why_stopped(),
        }
    }

    fn why_stopped(&self) -> String {
        let fatal = self.inner.status.borrow().fatal.clone();
        fatal.unwrap_or_else(|| "it is shutting down".to_owned())
    }

    async fn unavailable(&self) -> ProposeError {
        let status = self.inner.status.borrow().clone();
        ProposeError::Unavailable {
            reason: self.inner.reach.describe(&status, &self.inner.peers).await,
        }
    }
}

fn check_size(command: &Bytes) -> Result<(), ProposeError> {
    if command.len() <= COMMAND_BYTES_MAX {
        return Ok(());
    }
    Err(ProposeError::TooLarge {
        bytes: command.len(),
        max: COMMAND_BYTES_MAX,
    })
}
