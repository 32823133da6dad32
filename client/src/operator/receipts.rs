//! Waiting until every live watcher uses a revision.

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};
use tonic::Streaming;
use trimtab_proto::v1 as wire;

use crate::cluster::{Cluster, Repeat};
use crate::error::Error;
use crate::operator::calls::routing;
use crate::operator::convert;

/// A replica answers at least once a second; one that is silent for so long is
/// not there.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// Between a stream that broke and the next: not to burn a core on a replica
/// that takes the request and drops it.
const REOPEN_PAUSE: Duration = Duration::from_millis(50);

/// How far a revision has come.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ReceiptProgress {
    /// Live watchers of the services asked about, each counted once per
    /// service.
    pub watchers: u32,
    /// How many of these use the revision.
    pub confirmed: u32,
    /// Those that do not yet; at most 100 are named.
    pub laggards: Vec<Laggard>,
    /// Replicas whose watchers are not counted.
    pub unreachable_replicas: Vec<u64>,
    /// Everyone has confirmed: nothing more will come.
    pub complete: bool,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// A watcher that does not use the revision yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Laggard {
    /// Unique per process.
    pub watcher_id: String,
    /// What it calls itself.
    pub name: String,
    /// The replica it watches through.
    pub replica_id: u64,
    /// The service it has not confirmed.
    pub service: String,
    /// The newest revision it has confirmed.
    pub revision: u64,
}

/// The way of one revision to every watcher. Outlives the loss of the replica
/// that is asked.
#[derive(Debug)]
pub struct Receipts {
    cluster: Cluster,
    deadline: Duration,
    request: wire::ReceiptsRequest,
    answers: Option<Streaming<wire::ReceiptsResponse>>,
    complete: bool,
}

impl Receipts {
    pub(super) fn new(
        cluster: Cluster,
        deadline: Duration,
        services: Vec<String>,
        revision: u64,
    ) -> Self {
        Self {
            cluster,
            deadline,
            request: wire::ReceiptsRequest { services, revision },
            answers: None,
            complete: false,
        }
    }

    /// The next answer: at once, after each change, at least once a second;
    /// `None` after one that was `complete`.
    ///
    /// # Errors
    /// As [`Operator`](super::Operator)'s methods; when no replica gave an
    /// answer for the operator's deadline, why. May be called again after an
    /// error.
    pub async fn next(&mut self) -> Result<Option<ReceiptProgress>, Error> {
        if self.complete {
            return Ok(None);
        }
        let started = Instant::now();
        loop {
            if let Some(answer) = self.ask().await? {
                let progress = convert::receipt_progress(answer);
                self.complete = progress.complete;
                return Ok(Some(progress));
            }
            if started.elapsed() >= self.deadline {
                return Err(Error::Deadline {
                    waiting_for: format!("word of who uses revision {}", self.request.revision),
                    after: self.deadline,
                });
            }
            sleep(REOPEN_PAUSE).await;
        }
    }

    /// One answer, or `None` when the stream was lost.
    async fn ask(&mut self) -> Result<Option<wire::ReceiptsResponse>, Error> {
        let mut answers = match self.answers.take() {
            Some(answers) => answers,
            None => self.open().await?,
        };
        match timeout(SILENCE_MAX, answers.message()).await {
            Ok(Ok(Some(answer))) => {
                self.answers = Some(answers);
                Ok(Some(answer))
            }
            Ok(Err(status)) => match Error::from_status("Receipts", status) {
                error @ (Error::Invalid(_) | Error::NotFound(_) | Error::Refused(_)) => Err(error),
                _ => Ok(None),
            },
            Ok(Ok(None)) | Err(_) => Ok(None),
        }
    }

    async fn open(&self) -> Result<Streaming<wire::ReceiptsResponse>, Error> {
        self.cluster
            .call("Receipts", Repeat::Read, self.deadline, |channel| {
                let request = self.request.clone();
                async move { routing(channel).receipts(request).await }
            })
            .await
    }
}
