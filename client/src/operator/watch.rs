//! Following what callers are told about a service.

use std::time::Duration;

use prost::Message;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use trimtab_proto::v1 as wire;
use trimtab_proto::v1::watch_request::Kind as Ask;
use trimtab_proto::v1::watch_response::Kind as Answer;

use crate::cluster::{Cluster, Repeat};
use crate::error::Error;
use crate::operator::convert;
use crate::operator::service_status::ServiceView;
use crate::operator::stubs::discovery;

/// Hello, subscribe, and then at most one receipt that the connection has not
/// taken yet: a newer one makes it needless.
const REQUESTS_QUEUED_MAX: usize = 8;

/// Between a stream that broke and the next, not to burn a core on a replica
/// that takes the stream and drops it.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);

/// What became of the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum WatchEvent {
    /// It is now so.
    View(ServiceView),
    /// It is not registered.
    Absent {
        /// The service.
        service: String,
        /// The revision of the registry at which it was not there.
        revision: u64,
    },
}

/// Follows one service. Counts as a caller that uses each view at once.
#[derive(Debug)]
pub struct ServiceWatch {
    cluster: Cluster,
    deadline: Duration,
    service: String,
    hello: wire::Hello,
    known: Known,
    stream: Option<OpenStream>,
}

/// The newest that was told.
#[derive(Debug, Default, Clone, Copy)]
struct Known {
    revision: u64,
    checksum: u64,
    absent: bool,
}

#[derive(Debug)]
struct OpenStream {
    requests: mpsc::Sender<wire::WatchRequest>,
    answers: Streaming<wire::WatchResponse>,
}

impl ServiceWatch {
    pub(super) fn new(cluster: Cluster, deadline: Duration, service: String, name: String) -> Self {
        Self {
            cluster,
            deadline,
            service,
            hello: wire::Hello {
                watcher_id: format!("watch-{:032x}", rand::random::<u128>()),
                name,
                zone: String::new(),
            },
            known: Known::default(),
            stream: None,
        }
    }

    /// The next change; the first time, how it is now. Outlives the loss of
    /// the replica that is asked.
    ///
    /// # Errors
    /// As [`Operator`](super::Operator)'s methods, when no replica can be
    /// asked for the operator's deadline. May be called again after an error.
    pub async fn next(&mut self) -> Result<WatchEvent, Error> {
        loop {
            let mut stream = match self.stream.take() {
                Some(stream) => stream,
                None => self.open().await?,
            };
            match stream.answers.message().await {
                Ok(Some(answer)) => {
                    if !matches!(answer.kind, Some(Answer::GoingAway(_))) {
                        let event = self.take(answer, &stream)?;
                        self.stream = Some(stream);
                        if let Some(event) = event {
                            return Ok(event);
                        }
                        continue;
                    }
                }
                Ok(None) => {}
                Err(status) => {
                    let error = Error::from_status("Watch", status);
                    if matches!(error, Error::Invalid(_) | Error::Refused(_)) {
                        return Err(error);
                    }
                }
            }
            sleep(REOPEN_PAUSE).await;
        }
    }

    async fn open(&self) -> Result<OpenStream, Error> {
        let mut requests = None;
        let answers = self
            .cluster
            .call("Watch", Repeat::Read, self.deadline, |channel| {
                let (sender, receiver) = mpsc::channel(REQUESTS_QUEUED_MAX);
                for ask in self.greeting() {
                    // An empty queue takes both.
                    let _ = sender.try_send(wire::WatchRequest { kind: Some(ask) });
                }
                requests = Some(sender);
                async move {
                    discovery(channel)
                        .watch(ReceiverStream::new(receiver))
                        .await
                }
            })
            .await?;
        match requests {
            Some(requests) => Ok(OpenStream { requests, answers }),
            None => Err(Error::Closed),
        }
    }

    fn greeting(&self) -> [Ask; 2] {
        [
            Ask::Hello(self.hello.clone()),
            Ask::Subscribe(wire::Subscribe {
                service: self.service.clone(),
                known_revision: self.known.revision,
                known_checksum: self.known.checksum,
                // People look at views; few of them watch.
                ..wire::Subscribe::default()
            }),
        ]
    }

    /// What an answer says that was not known.
    fn take(
        &mut self,
        answer: wire::WatchResponse,
        stream: &OpenStream,
    ) -> Result<Option<WatchEvent>, Error> {
        let possibly_stale = answer.possibly_stale;
        match answer.kind {
            Some(Answer::View(update)) if update.revision > self.known.revision => {
                let malformed = || Error::Malformed(format!("view of {}", self.service));
                if trimtab_proto::checksum(&update.view) != update.checksum {
                    return Err(malformed());
                }
                let view = wire::View::decode(update.view).map_err(|_| malformed())?;
                self.known = Known {
                    revision: update.revision,
                    checksum: update.checksum,
                    absent: false,
                };
                self.confirm(stream);
                let view = convert::service_view(view, possibly_stale);
                Ok(Some(WatchEvent::View(view)))
            }
            Some(Answer::Absent(absent)) if absent.revision >= self.known.revision => {
                let told = self.known.absent;
                self.known = Known {
                    revision: absent.revision,
                    checksum: 0,
                    absent: true,
                };
                Ok((!told).then_some(WatchEvent::Absent {
                    service: absent.service,
                    revision: absent.revision,
                }))
            }
            Some(Answer::Unchanged(_)) => {
                self.confirm(stream);
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    fn confirm(&self, stream: &OpenStream) {
        let receipt = Ask::Receipt(wire::Receipt {
            service: self.service.clone(),
            revision: self.known.revision,
        });
        // A full queue means that the replica takes nothing: the stream breaks
        // soon, and the next one says what is known.
        let _ = stream.requests.try_send(wire::WatchRequest {
            kind: Some(receipt),
        });
    }
}
