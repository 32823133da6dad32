//! How everyone else asks: propose, plan, read, look, wait.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use trimtab_registry::command::Command;
use trimtab_registry::outcome::Outcome;
use trimtab_registry::rejection::Rejection;
use trimtab_registry::state::Registry;

use super::driver::Shared;
use super::entry::{
    COMMAND_BYTES_MAX, decode_command, decode_result, encode_command, encode_result,
};
use super::error::{DeliverError, ProposeError};
use super::forward::{Failed, judge};
use super::input::{Answer, Input, Reply};
use super::reach::Reach;
use super::status::ConsensusStatus;
use crate::peers::Peers;
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

mod deliver;
pub mod many;
mod members;

pub use deliver::Receiver;

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
        self.room_for(1)?;
        let bytes = encode_command(&command)?;
        check_size(&bytes)?;
        // What cannot be read back would stop every replica once committed.
        decode_command(&bytes)?;
        let deadline = Instant::now() + LEADER_TIMEOUT;
        loop {
            let leader = self.await_leader(deadline).await?;
            if leader == self.id() {
                match self.submit(Input::Propose, bytes.clone()).await {
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

    /// Has the leader's judgement of leases taken before whatever callers have
    /// proposed, if this replica still leads: what keeps the living registered
    /// does not wait behind, and is not turned away with, those who come.
    ///
    /// # Errors
    ///
    /// As [`Handle::propose_here`]. It is made again in time.
    pub async fn propose_judgement(&self, command: &Command) -> Result<Outcome, ProposeError> {
        let bytes = encode_command(command)?;
        check_size(&bytes)?;
        decode_command(&bytes)?;
        let answer = self.submit(Input::Judgement, bytes).await?;
        answer.result.map_err(ProposeError::Rejected)
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
        let answer = self.submit(Input::Propose, command).await?;
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

    /// Whether so many changes more would be taken now. Asked before a request
    /// is looked at: under twice the load it can take, a replica would else
    /// spend its time on those it turns away, and keep waiting those it took.
    ///
    /// # Errors
    ///
    /// [`ProposeError::Overloaded`].
    pub fn room_for(&self, changes: usize) -> Result<(), ProposeError> {
        let waiting = self.inner.shared.caller_inputs.load(Ordering::Relaxed);
        match waiting + changes <= CALLER_INPUTS_MAX {
            true => Ok(()),
            false => Err(overloaded()),
        }
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

    /// Proposes to this replica's own Raft and waits for the end.
    async fn submit(
        &self,
        input: impl FnOnce(Bytes, Reply<Answer>) -> Input,
        command: Bytes,
    ) -> Result<Answer, ProposeError> {
        let (reply, answer): (Reply<Answer>, _) = oneshot::channel();
        self.queue(input(command, reply))?;
        match timeout(OUTCOME_TIMEOUT, answer).await {
            Ok(Ok(result)) => result,
            // Dropped unanswered: it was never taken from the queue.
            Ok(Err(_)) => Err(self.stopped()),
            Err(_) => Err(not_in_time()),
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
        let weight = input.weight();
        let before = waiting.fetch_add(weight, Ordering::Relaxed);
        let queued = if before + weight <= CALLER_INPUTS_MAX {
            self.inner.inputs.try_send(input)
        } else {
            Err(TrySendError::Full(input))
        };
        queued.map_err(|error| {
            waiting.fetch_sub(weight, Ordering::Relaxed);
            match error {
                TrySendError::Full(_) => overloaded(),
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

fn not_in_time() -> ProposeError {
    ProposeError::Unknown {
        reason: format!(
            "it was not committed within {} s",
            OUTCOME_TIMEOUT.as_secs()
        ),
    }
}

fn overloaded() -> ProposeError {
    ProposeError::Overloaded {
        reason: "this replica has too many requests waiting".to_owned(),
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
