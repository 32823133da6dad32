//! Waiting until every live watcher uses a revision.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tonic::Streaming;
use trimtab_proto::v1 as wire;

use crate::cluster::{Cluster, Repeat};
use crate::error::Error;
use crate::operator::convert;
use crate::operator::stubs::routing;

pub use crate::operator::progress::{Laggard, ReceiptProgress};

/// A replica answers at least once a second; one that is silent for so long is
/// not there.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// Between a stream that broke and the next: not to burn a core on a replica
/// that takes the request and drops it.
const REOPEN_PAUSE: Duration = Duration::from_millis(50);

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
