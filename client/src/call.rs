//! One call: picks an instance, sends the request, and repeats it elsewhere only where that is safe.

use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderValue, USER_AGENT};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, Request, Response, Uri, request};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};
use tonic::body::Body;
use tonic::{Code, Status};

use crate::connection::with_causes;
use crate::endpoint::{Connection, Endpoint, Ongoing, Outcome};
use crate::error::Error;
use crate::outcome::{grpc_code, is_faulty_http, is_grpc};
use crate::pool::Pool;
use crate::replay::Replay;
use crate::response_body::{ResponseBody, outcome_of};
use crate::ticket::Ticket;

/// Put into the extensions of a request (for tonic:
/// `request.extensions_mut().insert(Idempotent)`), it says that carrying the
/// request out twice is as good as once: when its instance is lost before any
/// answer, it is sent to another.
#[derive(Debug, Clone, Copy)]
pub struct Idempotent;

/// Which instance answered a call, and by which view it was chosen: found in
/// the extensions of every response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PickInfo {
    /// The release the instance runs.
    pub group: Arc<str>,
    /// Unique within the service.
    pub instance_id: Arc<str>,
    /// The revision of the view.
    pub revision: u64,
}

/// After the first attempt; what fails three times is not the instance's
/// fault.
const REPEATS_MAX: u32 = 2;

/// Instances that turned out to be gone before anything was sent. Each costs
/// nothing; this bounds bad luck.
const UNSENT_MAX: u32 = 16;

/// Later than any call ends.
const DECADES: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 30);

const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("trimtab-client/", env!("CARGO_PKG_VERSION")));

/// How a balancer makes its calls.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallOptions {
    pub(crate) wait_for_ready: Duration,
    pub(crate) idempotent: bool,
}

/// Why an attempt did not give an answer.
enum Failure {
    /// The instance has seen nothing of it.
    Unsent(String),
    /// It may have.
    Broken(String),
    /// It answered that it cannot serve; this is the answer.
    Unavailable(Box<Response<Incoming>>),
    /// The caller's time is over.
    Late(Duration),
}

/// A call between attempts.
struct Call {
    pool: Arc<Pool>,
    options: CallOptions,
    head: request::Parts,
    body: Replay,
    /// The caller's limit, and when it is reached.
    limit: Option<(Duration, Instant)>,
    tried: Vec<Arc<Endpoint>>,
    repeats: u32,
    unsent: u32,
}

/// Sends `request` to an instance of the pool's service.
pub(crate) async fn call(
    pool: Arc<Pool>,
    options: CallOptions,
    request: Request<Body>,
) -> Result<Response<ResponseBody>, Status> {
    let (mut head, body) = request.into_parts();
    head.headers.entry(USER_AGENT).or_insert(AGENT);
    let idempotent = options.idempotent || head.extensions.get::<Idempotent>().is_some();
    let call = Call {
        pool,
        options: CallOptions {
            idempotent,
            ..options
        },
        limit: grpc_timeout(&head.headers).map(|limit| (limit, far_from_now(limit))),
        head,
        body: Replay::new(body),
        tried: Vec::new(),
        repeats: 0,
        unsent: 0,
    };
    call.run().await.map_err(Status::from)
}

// === impl Call ===

impl Call {
    async fn run(mut self) -> Result<Response<ResponseBody>, Error> {
        self.pool.budget().deposit();
        let mut ticket = None;
        loop {
            let ongoing = self.pool.pick(ticket, &self.tried, self.patience()).await?;
            let endpoint = Arc::clone(ongoing.endpoint());
            let failure = match self.attempt(&endpoint).await {
                Ok(response) => return Ok(self.finish(ongoing, response)),
                Err(failure) => failure,
            };
            if !self.may_repeat(&failure) {
                return self.give_up(ongoing, failure);
            }
            ongoing.end(match failure {
                Failure::Unsent(_) => Outcome::Unsent,
                _ => Outcome::Failed,
            });
            ticket = Some(Ticket::again(&endpoint));
            self.tried.push(endpoint);
        }
    }

    /// How long to wait for an instance.
    fn patience(&self) -> Duration {
        let wait = self.options.wait_for_ready;
        match self.limit {
            Some((_, end)) => wait.min(end.saturating_duration_since(Instant::now())),
            None => wait,
        }
    }

    async fn attempt(&self, endpoint: &Endpoint) -> Result<Response<Incoming>, Failure> {
        let gone = || Failure::Unsent("the connection was closed".to_owned());
        let mut sender = endpoint.link.sender().ok_or_else(gone)?;
        let request = self.request_to(endpoint).ok_or_else(gone)?;
        let sent = sender.try_send_request(request);
        let answered = match self.limit {
            None => sent.await,
            Some((limit, end)) => match timeout_at(end, sent).await {
                Ok(answered) => answered,
                Err(_) => return Err(Failure::Late(limit)),
            },
        };
        match answered {
            Ok(response) if self.options.idempotent && says_unavailable(response.headers()) => {
                Err(Failure::Unavailable(Box::new(response)))
            }
            Ok(response) => Ok(response),
            Err(error) => {
                let never_left = error.message().is_some();
                let error = error.into_error();
                let reason = with_causes(&error);
                if never_left || was_refused(&error) {
                    Err(Failure::Unsent(reason))
                } else {
                    Err(Failure::Broken(reason))
                }
            }
        }
    }

    /// The request as this instance gets it. `None` when it has no address, or
    /// the body is no longer known from its beginning.
    fn request_to(&self, endpoint: &Endpoint) -> Option<Request<Body>> {
        let mut uri = self.head.uri.clone().into_parts();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(endpoint.link.authority()?.clone());
        uri.path_and_query
            .get_or_insert(PathAndQuery::from_static("/"));
        let mut head = self.head.clone();
        head.uri = Uri::from_parts(uri).ok()?;
        Some(Request::from_parts(head, self.body.attempt()?))
    }

    fn may_repeat(&mut self, failure: &Failure) -> bool {
        if !self.body.is_known() {
            return false;
        }
        match failure {
            Failure::Unsent(_) => {
                self.unsent += 1;
                self.unsent <= UNSENT_MAX
            }
            Failure::Broken(_) | Failure::Unavailable(_) => {
                self.repeats += 1;
                self.options.idempotent
                    && self.repeats <= REPEATS_MAX
                    && self.pool.budget().withdraw(Instant::now())
            }
            Failure::Late(_) => false,
        }
    }

    fn give_up(&self, ongoing: Ongoing, failure: Failure) -> Result<Response<ResponseBody>, Error> {
        let reason = match failure {
            Failure::Unavailable(response) => return Ok(self.finish(ongoing, *response)),
            Failure::Late(after) => {
                let address = ongoing.endpoint().link.address();
                let waiting_for = format!("the answer of {} at {address}", self.pool.service());
                ongoing.end(Outcome::Failed);
                return Err(Error::Deadline { waiting_for, after });
            }
            Failure::Unsent(reason) | Failure::Broken(reason) => reason,
        };
        let address = ongoing.endpoint().link.address().to_string();
        ongoing.end(Outcome::Failed);
        Err(Error::Broken {
            service: self.pool.service().to_string(),
            address,
            reason,
        })
    }

    /// The call has an answer; it ends with the answer's body, or now when the
    /// head says it all.
    fn finish(&self, ongoing: Ongoing, response: Response<Incoming>) -> Response<ResponseBody> {
        self.body.forget();
        let (mut head, incoming) = response.into_parts();
        head.extensions.insert(PickInfo {
            group: Arc::clone(&ongoing.endpoint().group),
            instance_id: Arc::clone(&ongoing.endpoint().id),
            revision: ongoing.revision(),
        });
        let grpc = is_grpc(&head);
        let decided = if is_faulty_http(head.status) {
            Some(Outcome::Failed)
        } else if let Some(code) = grpc_code(&head.headers) {
            Some(outcome_of(code))
        } else if incoming.is_end_stream() {
            Some(if grpc {
                Outcome::Failed
            } else {
                Outcome::Answered
            })
        } else {
            None
        };
        let service = Arc::clone(self.pool.service());
        let mut body = ResponseBody::new(incoming, service, ongoing, grpc);
        if let Some(outcome) = decided {
            body.end(outcome);
        }
        Response::from_parts(head, body)
    }
}

// === private parts ===

fn says_unavailable(headers: &HeaderMap) -> bool {
    grpc_code(headers) == Some(Code::Unavailable)
}

/// The peer said that it did nothing about the request (RFC 9113, 8.7).
fn was_refused(error: &hyper::Error) -> bool {
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<h2::Error>())
        .is_some_and(|error| {
            error.is_remote()
                && error.is_reset()
                && error.reason() == Some(h2::Reason::REFUSED_STREAM)
        })
}

fn far_from_now(limit: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(limit).unwrap_or(now + DECADES)
}

/// The `grpc-timeout` header: up to eight digits and a unit.
fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3_600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        let read = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_static(value));
            grpc_timeout(&headers)
        };
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(
            read("99999999H"),
            Some(Duration::from_secs(99_999_999 * 3_600))
        );
        for bad in ["", "m", "5", "5x", "123456789n", "-1S"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
