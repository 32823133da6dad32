//! Asking for other members, and for another leader.

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::super::change::{Change, HandOverError};
use super::super::error::ProposeError;
use super::super::input::{Input, Reply};
use super::super::status::ConsensusStatus;
use super::{Handle, LEADER_TIMEOUT, OUTCOME_TIMEOUT};

impl Handle {
    /// Changes the members, if this replica leads; false when they were so
    /// already. When it returns, a majority of the voters know that it is made.
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
        // What is told of the members is read from there.
        let mut status = self.inner.status.clone();
        let is_shown = |status: &ConsensusStatus| status.applied >= index || status.fatal.is_some();
        match timeout_at(deadline, status.wait_for(is_shown)).await {
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

    /// This replica was removed, and nobody needs it any more: it stops.
    pub fn removed(&self) {
        // If the queue is full it is told again.
        let _ = self.inner.inputs.try_send(Input::Removed);
    }
}
