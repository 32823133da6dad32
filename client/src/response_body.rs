//! The body of an answer: the call it belongs to ends when it does.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep_until};
use tonic::{Code, Status};

use crate::connection::with_causes;
use crate::deadline::Limit;
use crate::endpoint::{Connection, Ongoing, Outcome};
use crate::error::Error;
use crate::outcome::{grpc_code, outcome_of};

/// What a [`Balancer`](crate::balancer::Balancer) answers with. The call
/// counts as in flight until the body has ended or is dropped.
pub struct ResponseBody {
    inner: Incoming,
    service: Arc<str>,
    /// Taken when the call has ended.
    ongoing: Option<Ongoing>,
    /// A body that ends without a status is broken.
    grpc: bool,
    /// Of the whole call.
    limit: Option<Limit>,
    /// Made when the body is waited for: most are there with the head.
    time_is_over: Option<Pin<Box<Sleep>>>,
}

impl ResponseBody {
    pub(crate) fn new(
        inner: Incoming,
        service: Arc<str>,
        ongoing: Ongoing,
        grpc: bool,
        limit: Option<Limit>,
    ) -> Self {
        Self {
            inner,
            service,
            ongoing: Some(ongoing),
            grpc,
            limit,
            time_is_over: None,
        }
    }

    /// The call is decided; what remains of the body is read or not.
    pub(crate) fn end(&mut self, outcome: Outcome) {
        if let Some(ongoing) = self.ongoing.take() {
            ongoing.end(outcome);
        }
    }

    fn broken(&mut self, error: &hyper::Error) -> Status {
        let address = self.address();
        self.end(Outcome::Failed);
        Status::from(Error::Broken {
            service: self.service.to_string(),
            address,
            reason: with_causes(error),
        })
    }

    /// Empty when the call is decided.
    fn address(&self) -> String {
        let ongoing = self.ongoing.as_ref();
        ongoing
            .map(|ongoing| ongoing.endpoint().link.address().to_string())
            .unwrap_or_default()
    }

    /// Whether the caller's time ends before the body does.
    fn poll_limit(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        let Some(limit) = self.limit else {
            return Poll::Pending;
        };
        let sleep = self
            .time_is_over
            .get_or_insert_with(|| Box::pin(sleep_until(limit.end)));
        if sleep.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let address = self.address();
        self.end(Outcome::Failed);
        self.limit = None;
        Poll::Ready(Status::from(Error::Deadline {
            waiting_for: format!("the rest of the answer of {} at {address}", self.service),
            after: limit.after,
        }))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Poll::Ready(polled) = Pin::new(&mut this.inner).poll_frame(cx) else {
            return this.poll_limit(cx).map(|late| Some(Err(late)));
        };
        Poll::Ready(match polled {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    let code = grpc_code(trailers).unwrap_or(if this.grpc {
                        Code::Unknown
                    } else {
                        Code::Ok
                    });
                    this.end(outcome_of(code));
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => Some(Err(this.broken(&error))),
            None => {
                this.end(if this.grpc {
                    Outcome::Failed
                } else {
                    Outcome::Answered
                });
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody")
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}
