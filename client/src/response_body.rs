//! The body of an answer: the call it belongs to ends when it does, and begins anew when it breaks before it began.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::response::Parts;
use http::{HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tonic::{Code, Status};

use crate::attempt::is_of_connection;
use crate::call::Call;
use crate::connection::with_causes;
use crate::deadline::Limit;
use crate::endpoint::{Connection, Ongoing, Outcome};
use crate::error::Error;
use crate::incoming::Incoming;
use crate::outcome::{blames, grpc_code, outcome_of};

/// How long the first part of an answer is kept back for what follows it, in
/// calls that may be repeated: an answer of one message is passed on whole or
/// not at all. A break that cuts one through comes right behind the first part.
const KEPT_BACK: Duration = Duration::from_millis(2);

type Resumed = Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Error>> + Send>>;

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
    /// Nothing was passed on yet, and the call may be repeated.
    opening: Option<Box<Opening>>,
    /// Goes out before what `inner` has.
    next: Option<Box<Frame<Bytes>>>,
}

/// An answer of which the caller has seen nothing but the head.
struct Opening {
    call: Option<Box<Call>>,
    /// What the caller has seen.
    status: StatusCode,
    content_type: Option<HeaderValue>,
    first: Option<Frame<Bytes>>,
    /// Made when what follows is not there yet.
    kept_back: Option<Pin<Box<Sleep>>>,
    resumed: Option<Resumed>,
}

type Polled = Option<Result<Frame<Bytes>, Status>>;

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
            opening: None,
            next: None,
        }
    }

    /// If the body breaks before anything of it was passed on, `call` is to be
    /// made again. The caller gets this `head`.
    pub(crate) fn may_resume(&mut self, call: Box<Call>, head: &Parts) {
        self.opening = Some(Box::new(Opening {
            call: Some(call),
            status: head.status,
            content_type: head.headers.get(CONTENT_TYPE).cloned(),
            first: None,
            kept_back: None,
            resumed: None,
        }));
    }

    /// The call is decided; what remains of the body is read or not.
    pub(crate) fn end(&mut self, outcome: Outcome) {
        if let Some(ongoing) = self.ongoing.take() {
            ongoing.end(outcome);
        }
    }

    fn broken(&self, reason: String) -> Error {
        Error::Broken {
            service: self.service.to_string(),
            address: self.address(),
            reason,
        }
    }

    /// Empty when the call is decided.
    fn address(&self) -> String {
        let ongoing = self.ongoing.as_ref();
        ongoing
            .map(|ongoing| ongoing.endpoint().link.address().to_string())
            .unwrap_or_default()
    }

    /// Whether the caller's time ends before the body does.
    fn poll_limit(&mut self, cx: &mut Context<'_>) -> Poll<Polled> {
        let Some(limit) = self.limit else {
            return Poll::Pending;
        };
        let sleep = self
            .time_is_over
            .get_or_insert_with(|| Box::pin(sleep_until(limit.end)));
        ready!(sleep.as_mut().poll(cx));
        Poll::Ready(Some(Err(self.late(limit, Outcome::Failed))))
    }

    /// The caller's time, if it is over though there is more: a caller may be
    /// slower than what comes.
    fn missed(&self, polled: &Option<Result<Frame<Bytes>, h2::Error>>) -> Option<Limit> {
        let is_data = matches!(polled, Some(Ok(frame)) if frame.is_data());
        self.limit
            .filter(|limit| is_data && limit.end <= Instant::now())
    }

    fn late(&mut self, limit: Limit, outcome: Outcome) -> Status {
        let address = self.address();
        self.end(outcome);
        self.limit = None;
        self.opening = None;
        Status::from(Error::Deadline {
            waiting_for: format!("the rest of the answer of {} at {address}", self.service),
            after: limit.after,
        })
    }

    /// Passes on what came, and ends the call when that says how it ended.
    fn pass_on(&mut self, polled: Option<Result<Frame<Bytes>, h2::Error>>) -> Polled {
        match polled {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    let code = grpc_code(trailers).unwrap_or(if self.grpc {
                        Code::Unknown
                    } else {
                        Code::Ok
                    });
                    self.end(outcome_of(code, self.limit));
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                let broken = self.broken(with_causes(&error));
                self.end(outcome_of_break(&error));
                Some(Err(broken.into()))
            }
            None => {
                self.end(if self.grpc {
                    Outcome::Failed
                } else {
                    Outcome::Answered
                });
                None
            }
        }
    }

    /// While nothing was passed on: waits for enough of the answer to pass it
    /// on, and has the call made again when it breaks before. Ready when the
    /// opening is over: with what to pass on, or with nothing when this has
    /// become another answer.
    fn poll_opening(
        &mut self,
        opening: &mut Opening,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Polled>> {
        loop {
            if let Some(resumed) = &mut opening.resumed {
                let answer = ready!(resumed.as_mut().poll(cx));
                return Poll::Ready(self.adopt(opening, answer));
            }
            let Poll::Ready(polled) = Pin::new(&mut self.inner).poll_frame(cx) else {
                if opening.first.is_none() {
                    return Poll::Pending;
                }
                let kept_back = opening
                    .kept_back
                    .get_or_insert_with(|| Box::pin(sleep(KEPT_BACK)));
                ready!(kept_back.as_mut().poll(cx));
                return Poll::Ready(Some(opening.first.take().map(Ok)));
            };
            let (outcome, reason) = match polled {
                Some(Ok(frame)) if opening.first.is_none() && frame.is_data() => {
                    opening.first = Some(frame);
                    continue;
                }
                Some(Ok(frame)) => match self.fault_in(&frame, opening.first.is_none()) {
                    Some(reason) => (Outcome::Failed, reason),
                    None => {
                        let opened = self.open_with(opening.first.take(), frame);
                        return Poll::Ready(Some(opened));
                    }
                },
                Some(Err(error)) => (outcome_of_break(&error), with_causes(&error)),
                None if self.grpc => {
                    let reason = "the answer ended without a status".to_owned();
                    (Outcome::Failed, reason)
                }
                None => {
                    self.end(Outcome::Answered);
                    return Poll::Ready(Some(opening.first.take().map(Ok)));
                }
            };
            if let (Some(call), Some(ongoing)) = (opening.call.take(), self.ongoing.take()) {
                let error = Error::Broken {
                    service: self.service.to_string(),
                    address: ongoing.endpoint().link.address().to_string(),
                    reason,
                };
                let endpoint = Arc::clone(ongoing.endpoint());
                ongoing.end(outcome);
                opening.resumed = Some(Box::pin(call.resume(endpoint, error)));
            } else {
                let error = self.broken(reason);
                return Poll::Ready(Some(Some(Err(error.into()))));
            }
        }
    }

    /// Whether a status that comes before any data blames the instance.
    fn fault_in(&self, frame: &Frame<Bytes>, is_first: bool) -> Option<String> {
        let code = frame.trailers_ref().and_then(grpc_code)?;
        (is_first && blames(code)).then(|| format!("it answered {code:?}"))
    }

    /// Two frames are there: the first is passed on now.
    fn open_with(&mut self, first: Option<Frame<Bytes>>, second: Frame<Bytes>) -> Polled {
        match first {
            Some(first) => {
                self.next = Some(Box::new(second));
                Some(Ok(first))
            }
            None => self.pass_on(Some(Ok(second))),
        }
    }

    /// Becomes the answer of another instance.
    fn adopt(
        &mut self,
        opening: &Opening,
        answer: Result<Response<ResponseBody>, Error>,
    ) -> Option<Polled> {
        let (head, body) = match answer {
            Ok(response) => response.into_parts(),
            Err(error) => return Some(Some(Err(error.into()))),
        };
        let content_type = head.headers.get(CONTENT_TYPE);
        if head.status != opening.status || content_type != opening.content_type.as_ref() {
            let reason = format!("and another instance answered otherwise ({})", head.status);
            return Some(Some(Err(self.broken(reason).into())));
        }
        *self = body;
        // An answer that is only a status has it in the head. The head that the
        // caller has seen promised one in the trailers.
        grpc_code(&head.headers).map(|_| Some(Ok(Frame::trailers(head.headers))))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Polled> {
        let this = &mut *self;
        if let Some(next) = this.next.take() {
            return Poll::Ready(this.pass_on(Some(Ok(*next))));
        }
        while let Some(mut opening) = this.opening.take() {
            match this.poll_opening(&mut opening, cx) {
                Poll::Ready(Some(polled)) => return Poll::Ready(polled),
                Poll::Ready(None) => {}
                Poll::Pending => {
                    this.opening = Some(opening);
                    return this.poll_limit(cx);
                }
            }
        }
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(polled) => Poll::Ready(match this.missed(&polled) {
                Some(limit) => Some(Err(this.late(limit, Outcome::Answered))),
                None => this.pass_on(polled),
            }),
            Poll::Pending => this.poll_limit(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.next.is_none() && self.opening.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.next, &self.opening) {
            (None, None) => self.inner.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

fn outcome_of_break(error: &h2::Error) -> Outcome {
    if is_of_connection(error) {
        Outcome::Lost
    } else {
        Outcome::Failed
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody")
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}
