//! The body of an answer: the call it belongs to ends when it does.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tonic::{Code, Status};

use crate::connection::with_causes;
use crate::endpoint::{Connection, Ongoing, Outcome};
use crate::error::Error;
use crate::outcome::{grpc_code, is_fault};

/// What a [`Balancer`](crate::balancer::Balancer) answers with. The call
/// counts as in flight until the body has ended or is dropped.
pub struct ResponseBody {
    inner: Incoming,
    service: Arc<str>,
    /// Taken when the call has ended.
    ongoing: Option<Ongoing>,
    /// A body that ends without a status is broken.
    grpc: bool,
}

impl ResponseBody {
    pub(crate) fn new(inner: Incoming, service: Arc<str>, ongoing: Ongoing, grpc: bool) -> Self {
        Self {
            inner,
            service,
            ongoing: Some(ongoing),
            grpc,
        }
    }

    /// The call is decided; what remains of the body is read or not.
    pub(crate) fn end(&mut self, outcome: Outcome) {
        if let Some(ongoing) = self.ongoing.take() {
            ongoing.end(outcome);
        }
    }

    fn broken(&mut self, error: &hyper::Error) -> Status {
        let address = self
            .ongoing
            .as_ref()
            .map(|o| o.endpoint().link.address().to_string());
        self.end(Outcome::Failed);
        Status::from(Error::Broken {
            service: self.service.to_string(),
            address: address.unwrap_or_default(),
            reason: with_causes(error),
        })
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
        Pin::new(&mut this.inner)
            .poll_frame(cx)
            .map(|polled| match polled {
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

pub(crate) fn outcome_of(code: Code) -> Outcome {
    if is_fault(code) {
        Outcome::Failed
    } else {
        Outcome::Answered
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody")
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}
