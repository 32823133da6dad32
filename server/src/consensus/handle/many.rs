//! Many commands proposed together: one round, one message to each follower, an outcome for each.

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};
use trimtab_proto::internal::v1::{ProposeResponse, Proposed, proposed};
use trimtab_registry::command::Command;
use trimtab_registry::outcome::Outcome;

use super::super::entry::{decode_command, decode_result, encode_command, encode_result};
use super::super::error::ProposeError;
use super::super::forward::{Failed, is_not_known, judge};
use super::super::input::{Answer, Input};
use super::{Handle, LEADER_TIMEOUT, OUTCOME_TIMEOUT, RETRY_PAUSE, check_size};

/// Commands proposed together, at most: a good part of what a replica lets
/// wait, but not all of it.
pub const COMMANDS_MAX: usize = 1_000;

/// Forwarded at a time to a leader of an earlier version, which takes one by
/// one.
const FORWARDED_AT_ONCE: usize = 64;

/// What became of each command that was taken.
type Outcomes = Vec<Result<Outcome, ProposeError>>;

impl Handle {
    /// As [`Handle::propose`], for many commands, which stand one behind the
    /// other in the log. Each has its own outcome; one that is refused changes
    /// nothing for the others.
    ///
    /// # Errors
    ///
    /// What kept all of them from being taken; then none was.
    pub async fn propose_many(&self, commands: &[Command]) -> Result<Outcomes, ProposeError> {
        self.room_for(commands.len())?;
        let mut encoded = Vec::with_capacity(commands.len());
        for command in commands {
            let bytes = encode_command(command)?;
            check_size(&bytes)?;
            // What cannot be read back would stop every replica once committed.
            decode_command(&bytes)?;
            encoded.push(bytes);
        }
        let deadline = Instant::now() + LEADER_TIMEOUT;
        loop {
            let leader = self.await_leader(deadline).await?;
            if leader == self.id() {
                match self.submit_many(encoded.clone()).await {
                    Ok(answers) => return Ok(outcomes(answers)),
                    Err(ProposeError::NotLeader { .. }) => {}
                    Err(error) => return Err(error),
                }
            } else if let Some(outcomes) = self.forward_many(leader, &encoded).await? {
                return Ok(outcomes);
            }
            if Instant::now() >= deadline {
                return Err(self.unavailable().await);
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    /// Serves another replica's forwarded commands, as
    /// [`Handle::propose_here`] does one.
    ///
    /// # Errors
    ///
    /// What kept all of them from being taken.
    pub async fn propose_many_here(
        &self,
        commands: Vec<Bytes>,
    ) -> Result<Vec<Proposed>, ProposeError> {
        if commands.len() > COMMANDS_MAX {
            return Err(ProposeError::TooMany {
                count: commands.len(),
                max: COMMANDS_MAX,
            });
        }
        for command in &commands {
            check_size(command)?;
            // The sender may be of another version; see `propose`.
            decode_command(command)?;
        }
        let answers = self.submit_many(commands).await?;
        answers.into_iter().map(to_wire).collect()
    }

    /// Proposes to this replica's own Raft and waits for the end of each. They
    /// are taken together or not at all.
    async fn submit_many(
        &self,
        commands: Vec<Bytes>,
    ) -> Result<Vec<Result<Answer, ProposeError>>, ProposeError> {
        let mut waiting = Vec::with_capacity(commands.len());
        let mut proposals = Vec::with_capacity(commands.len());
        for command in commands {
            let (reply, answer) = oneshot::channel();
            proposals.push((command, reply));
            waiting.push(answer);
        }
        self.queue(Input::ProposeMany(proposals))?;
        let deadline = Instant::now() + OUTCOME_TIMEOUT;
        let mut answers = Vec::with_capacity(waiting.len());
        for answer in waiting {
            match timeout_at(deadline, answer).await {
                // Of what was taken nothing else is not known.
                Ok(Ok(Err(error))) if !is_not_known(&error) => return Err(error),
                Ok(Ok(result)) => answers.push(result),
                Ok(Err(_)) => return Err(self.stopped()),
                Err(_) => answers.push(Err(super::not_in_time())),
            }
        }
        Ok(answers)
    }

    /// Has the leader propose them; `None` when it surely did not and another
    /// attempt may succeed.
    async fn forward_many(
        &self,
        leader: u64,
        commands: &[Bytes],
    ) -> Result<Option<Outcomes>, ProposeError> {
        let peers = &self.inner.peers;
        let asked = peers.propose_many(leader, commands.to_vec(), OUTCOME_TIMEOUT);
        let results = match asked.await {
            Ok(response) => response.results,
            Err(error) if error.is_unimplemented() => {
                return self.forward_one_by_one(leader, commands).await;
            }
            Err(error) => match judge(error) {
                Failed::Over(error) => return Err(error),
                Failed::Again(reason) => {
                    tracing::debug!(leader, reason, "forwarding proposals failed");
                    return Ok(None);
                }
            },
        };
        if results.len() != commands.len() {
            let reason = format!("{} of {} were answered", results.len(), commands.len());
            return Err(ProposeError::Unknown { reason });
        }
        let mut outcomes = Vec::with_capacity(results.len());
        let mut newest = 0;
        for proposed in results {
            let (index, outcome) = from_wire(proposed);
            newest = newest.max(index);
            outcomes.push(outcome);
        }
        self.await_applied(newest).await;
        Ok(Some(outcomes))
    }

    /// To a leader that knows no other way.
    async fn forward_one_by_one(
        &self,
        leader: u64,
        commands: &[Bytes],
    ) -> Result<Option<Outcomes>, ProposeError> {
        let one = |command: Bytes| {
            let handle = self.clone();
            async move {
                match handle.forward(leader, command).await {
                    Ok(Some(result)) => result.map_err(ProposeError::Rejected),
                    Ok(None) => Err(handle.unavailable().await),
                    Err(error) => Err(error),
                }
            }
        };
        let forwarded: Vec<_> = commands.iter().cloned().map(one).collect();
        let outcomes = stream::iter(forwarded).buffered(FORWARDED_AT_ONCE);
        Ok(Some(outcomes.collect().await))
    }
}

fn outcomes(answers: Vec<Result<Answer, ProposeError>>) -> Outcomes {
    let outcome = |answer: Answer| answer.result.map_err(ProposeError::Rejected);
    answers
        .into_iter()
        .map(|answer| answer.and_then(outcome))
        .collect()
}

fn to_wire(answer: Result<Answer, ProposeError>) -> Result<Proposed, ProposeError> {
    let end = match answer {
        Ok(answer) => proposed::End::Answer(ProposeResponse {
            applied_index: answer.index,
            result: encode_result(&answer.result)?,
        }),
        Err(error) => proposed::End::Unknown(error.to_string()),
    };
    Ok(Proposed { end: Some(end) })
}

/// Where it was applied, and what came of it.
fn from_wire(proposed: Proposed) -> (u64, Result<Outcome, ProposeError>) {
    let unknown = |reason: String| (0, Err(ProposeError::Unknown { reason }));
    match proposed.end {
        Some(proposed::End::Answer(answer)) => match decode_result(&answer.result) {
            Ok(result) => (answer.applied_index, result.map_err(ProposeError::Rejected)),
            Err(error) => unknown(format!("it was applied, but {error}")),
        },
        Some(proposed::End::Unknown(reason)) => unknown(reason),
        None => unknown("the leader says nothing of it".to_owned()),
    }
}
