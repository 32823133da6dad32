//! One call: picks an instance, sends the request, and repeats it elsewhere only where that is safe.

use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderValue, USER_AGENT};
use http::{Request, Response, request};
use http_body::Body as _;
use rand::RngExt;
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tracing::Instrument;

use crate::attempt::{ATTEMPTS_MAX, Attempts, Due, Event, Failure};
pub use crate::deadline::Deadline;
use crate::deadline::Limit;
use crate::endpoint::{Connection, Endpoint, Ongoing, Outcome};
use crate::error::Error;
use crate::incoming::Incoming;
use crate::outcome::{blames_instance, decided_by_head, is_grpc};
use crate::patience::{SILENCE, enough_after};
use crate::pool::Pool;
use crate::replay::Replay;
use crate::response_body::ResponseBody;
use crate::sticky::Affinity;
use crate::ticket::Ticket;
use crate::vigil::LOOKS_EVERY;

mod handover;

/// Put into the extensions of a request (for tonic:
/// `request.extensions_mut().insert(Idempotent)`), it says that carrying the
/// request out twice is as good as once: when its instance is lost, answers that
/// it is at fault, or keeps it waiting, it is sent to another.
///
/// Answers that are worth a repeat are the statuses UNAVAILABLE, INTERNAL,
/// UNKNOWN and DATA_LOSS of gRPC, and 500, 502, 503 and 504 of HTTP. There are at
/// most two repeats.
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

/// Instances that turned out to be gone before anything was sent. Each costs
/// nothing; this bounds bad luck.
const UNSENT_MAX: u32 = 16;

/// The first repeat follows at once, as it goes to another instance. What fails
/// there too may be common to all of them: the next waits for a moment, drawn
/// from this range in milliseconds, so that a crowd does not come at once.
const SECOND_REPEAT_AFTER_MS: std::ops::RangeInclusive<u64> = 5..=25;

const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("trimtab-client/", env!("CARGO_PKG_VERSION")));

/// How a balancer makes its calls.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallOptions {
    pub(crate) wait_for_ready: Duration,
    pub(crate) idempotent: bool,
    /// For calls that do not say so themselves.
    pub(crate) timeout: Option<Duration>,
    /// After how long to ask another instance as well, where that is safe.
    pub(crate) attempt_timeout: Option<Duration>,
}

/// What the caller gets to hear if nothing better comes.
enum Told {
    /// The instance answered that it is at fault.
    Answer(Box<Answer>),
    Broken(Error),
}

struct Answer {
    ongoing: Ongoing,
    response: Response<Incoming>,
}

/// A call between its beginning and its answer.
pub(crate) struct Call {
    pool: Arc<Pool>,
    options: CallOptions,
    head: request::Parts,
    grpc: bool,
    body: Replay,
    affinity: Affinity,
    limit: Option<Limit>,
    attempts: Attempts,
    tried: Vec<Arc<Endpoint>>,
    /// Attempts of which an instance may have seen something.
    begun: usize,
    unsent: u32,
    /// When to begin another attempt, if none ends the call before.
    due: Option<Instant>,
    /// That attempt takes the place of one that failed, and is paid for.
    paid: bool,
    /// Nobody was left whom the request was not sent to yet.
    all_tried: bool,
    told: Option<Told>,
}

/// Sends `request` to an instance of the pool's service. What is kept of a call
/// stays in one place, as moving it would cost as much as choosing an instance.
pub(crate) fn call(
    pool: Arc<Pool>,
    options: CallOptions,
    request: Request<Body>,
) -> impl Future<Output = Result<Response<ResponseBody>, Status>> + Send {
    let (mut head, body) = request.into_parts();
    head.headers.entry(USER_AGENT).or_insert(AGENT);
    let idempotent = options.idempotent || head.extensions.get::<Idempotent>().is_some();
    let deadline = head.extensions.get::<Deadline>();
    let call = Box::new(Call {
        pool,
        options: CallOptions {
            idempotent,
            ..options
        },
        limit: Limit::of(&head.headers, deadline, options.timeout),
        grpc: is_grpc(&head.headers),
        affinity: Affinity::of(&head),
        head,
        body: Replay::new(body),
        attempts: Attempts::default(),
        tried: Vec::new(),
        begun: 0,
        unsent: 0,
        due: None,
        paid: true,
        all_tried: false,
        told: None,
    });
    let span = tracing::debug_span!(
        "call",
        service = &**call.pool.service(),
        path = call.head.uri.path()
    );
    call.run().instrument(span)
}

// === impl Call ===

impl Call {
    async fn run(mut self: Box<Self>) -> Result<Response<ResponseBody>, Status> {
        self.pool.budget().deposit();
        let first = match self.pool.pick_now(None, &[], &self.affinity) {
            Ok(first) => first,
            Err(ticket) => {
                let pick = self.pool.pick(ticket, &[], &self.affinity, self.patience());
                Box::pin(pick).await?
            }
        };
        self.begin(first);
        self.conclude().await.map_err(Status::from)
    }

    /// Sends the request elsewhere although an answer had begun: nothing of its
    /// body was passed on.
    pub(crate) async fn resume(
        mut self: Box<Self>,
        endpoint: Arc<Endpoint>,
        error: Error,
    ) -> Result<Response<ResponseBody>, Error> {
        self.told = Some(Told::Broken(error));
        self.after_failure(endpoint, false);
        if self.due.is_none() {
            return self.give_up();
        }
        self.conclude().await
    }

    /// From the first attempt to the answer.
    async fn conclude(mut self: Box<Self>) -> Result<Response<ResponseBody>, Error> {
        loop {
            let end = self.limit.map(|limit| limit.end);
            let due = match (self.due, end) {
                (None, None) => Due::Never,
                (Some(due), None) if self.is_due_about() => Due::About(due, self.pool.vigil()),
                (due, end) => due.into_iter().chain(end).min().map_or(Due::Never, Due::At),
            };
            match self.attempts.next(due).await {
                Event::Answered(mut ongoing, response) => {
                    if !(self.options.idempotent && blames_instance(&response)) {
                        return Ok(self.finish(ongoing, response));
                    }
                    let endpoint = Arc::clone(ongoing.endpoint());
                    ongoing.presume(Outcome::Failed);
                    let answer = Answer { ongoing, response };
                    self.told = Some(Told::Answer(Box::new(answer)));
                    self.after_failure(endpoint, false);
                }
                Event::Failed(ongoing, failure) => self.failed(ongoing, failure),
                Event::Due if end.is_some_and(|end| end <= Instant::now()) => {
                    return Err(self.out_of_time());
                }
                Event::Due => Box::pin(self.begin_another()).await,
            }
            if self.due.is_none() && self.attempts.is_empty() {
                return self.give_up();
            }
        }
    }

    /// Nobody said when exactly.
    fn is_due_about(&self) -> bool {
        !self.paid && self.options.attempt_timeout.is_none()
    }

    /// How long to wait for an instance.
    fn patience(&self) -> Duration {
        let wait = self.options.wait_for_ready;
        match self.limit {
            Some(limit) => wait.min(limit.end.saturating_duration_since(Instant::now())),
            None => wait,
        }
    }

    /// Sends the request to this instance.
    fn begin(&mut self, ongoing: Ongoing) {
        self.begun += 1;
        match self.hand_over(&ongoing) {
            Ok(answer) => {
                self.due = self.enough_of(&ongoing);
                self.paid = false;
                self.attempts.add(self.begun, ongoing, answer);
            }
            Err(failure) => self.failed(ongoing, failure),
        }
    }

    /// When this attempt has kept the caller waiting for so long that another
    /// instance is to be asked as well.
    fn enough_of(&self, ongoing: &Ongoing) -> Option<Instant> {
        if !self.options.idempotent || self.begun >= ATTEMPTS_MAX {
            return None;
        }
        let silence = self.options.attempt_timeout.unwrap_or(SILENCE);
        self.enough_after(ongoing.started(), silence)
    }

    /// The same by when the newest attempt began.
    fn enough_after(&self, began: Instant, silence: Duration) -> Option<Instant> {
        let end = self.limit.map(|limit| limit.end);
        enough_after(began, silence, end, ATTEMPTS_MAX - self.begun)
    }

    /// Where the caller did not say how long to wait for one instance: waits on
    /// while others take as long.
    fn is_usual(&mut self) -> bool {
        let Some(began) = self.attempts.newest() else {
            return false;
        };
        if self.options.attempt_timeout.is_some() {
            return false;
        }
        let enough = self.enough_after(began, self.pool.silence(&self.tried));
        self.due = enough.filter(|enough| *enough > Instant::now());
        self.due.is_some()
    }

    /// An attempt came to nothing.
    fn failed(&mut self, ongoing: Ongoing, failure: Failure) {
        let endpoint = Arc::clone(ongoing.endpoint());
        let (outcome, reason) = failure.verdict();
        ongoing.end(outcome);
        self.told = Some(Told::Broken(Error::Broken {
            service: self.pool.service().to_string(),
            address: endpoint.link.address().to_string(),
            reason,
        }));
        self.after_failure(endpoint, outcome == Outcome::Unsent);
    }

    /// Decides whether, and when, the call is sent elsewhere.
    fn after_failure(&mut self, endpoint: Arc<Endpoint>, unsent: bool) {
        self.tried.push(endpoint);
        let now = Instant::now();
        if unsent {
            self.begun -= 1;
            self.unsent += 1;
            self.pool.meter().unsent.increment(1);
            self.paid = self.body.is_known() && self.unsent <= UNSENT_MAX;
            self.due = self.paid.then_some(now);
            return;
        }
        let may = self.options.idempotent && self.begun < ATTEMPTS_MAX && self.body.is_known();
        self.paid = may && self.may_pay(now, &self.pool.meter().failed);
        let pause = match self.begun {
            1 => Duration::ZERO,
            _ => Duration::from_millis(rand::rng().random_range(SECOND_REPEAT_AFTER_MS)),
        };
        self.due = self.paid.then_some(now + pause);
    }

    /// Whether the budget has room for one more attempt, which is counted.
    fn may_pay(&self, now: Instant, counter: &metrics::Counter) -> bool {
        let may = self.pool.budget().withdraw(now);
        let counter = if may {
            counter
        } else {
            &self.pool.meter().refused
        };
        counter.increment(1);
        may
    }

    /// Sends the request to one more instance: in place of an attempt that
    /// failed, or beside one that keeps the caller waiting.
    async fn begin_another(&mut self) {
        self.due = None;
        for endpoint in self.attempts.endpoints() {
            if !self.tried.iter().any(|tried| Arc::ptr_eq(tried, endpoint)) {
                self.tried.push(Arc::clone(endpoint));
            }
        }
        let doubts_group = self.begun + 1 >= ATTEMPTS_MAX;
        let last = self.tried.last();
        let ticket = last.map(|last| Ticket::again(last, doubts_group));
        if self.attempts.is_empty() {
            // What was told before is more to the point than that nobody is
            // connected now.
            let (tried, affinity) = (&self.tried, &self.affinity);
            let pick = self.pool.pick(ticket, tried, affinity, self.patience());
            if let Ok(ongoing) = pick.await {
                self.begin_again(ongoing);
            }
            return;
        }
        if !self.paid && self.is_usual() {
            return;
        }
        // If nothing comes of it now.
        self.due = Some(Instant::now() + LOOKS_EVERY);
        if !self.paid && !self.body.is_complete() {
            return;
        }
        let mut ongoing = self.pool.pick_untried(ticket, &self.tried, &self.affinity);
        if ongoing.is_none() && self.all_tried {
            // Whoever failed a while ago may do better than who hangs.
            let hanging: Vec<_> = self.attempts.endpoints().cloned().collect();
            let ticket = hanging.last().map(|last| Ticket::again(last, doubts_group));
            ongoing = self.pool.pick_untried(ticket, &hanging, &self.affinity);
        }
        self.all_tried = ongoing.is_none();
        let Some(ongoing) = ongoing else {
            return;
        };
        if self.paid || self.may_pay(ongoing.started(), &self.pool.meter().waiting) {
            self.begin_again(ongoing);
        } else {
            ongoing.end(Outcome::Unsent);
        }
    }

    /// Not the first attempt.
    fn begin_again(&mut self, ongoing: Ongoing) {
        let group = &ongoing.endpoint().group;
        if let Some(last) = self.tried.last().filter(|last| last.group != *group) {
            self.pool.meter().elsewhere(&last.group);
        }
        self.begin(ongoing);
    }

    fn out_of_time(&mut self) -> Error {
        let service = self.pool.service();
        let waiting_for = match self.attempts.out_of_time() {
            Some(endpoint) => format!("the answer of {service} at {}", endpoint.link.address()),
            None => format!("the answer of {service}"),
        };
        let after = self.limit.map_or(Duration::ZERO, |limit| limit.after);
        Error::Deadline { waiting_for, after }
    }

    fn give_up(mut self: Box<Self>) -> Result<Response<ResponseBody>, Error> {
        match self.told.take() {
            Some(Told::Answer(answer)) => Ok(self.finish(answer.ongoing, answer.response)),
            Some(Told::Broken(error)) => Err(error),
            None => Err(Error::Broken {
                service: self.pool.service().to_string(),
                address: String::new(),
                reason: "no attempt could be made".to_owned(),
            }),
        }
    }

    /// The call has an answer; it ends with the answer's body, or now when the
    /// head says it all.
    fn finish(
        mut self: Box<Self>,
        mut ongoing: Ongoing,
        response: Response<Incoming>,
    ) -> Response<ResponseBody> {
        self.attempts.lose_to(&ongoing);
        let (mut head, mut incoming) = response.into_parts();
        head.extensions.insert(PickInfo {
            group: Arc::clone(&ongoing.endpoint().group),
            instance_id: Arc::clone(&ongoing.endpoint().id),
            revision: ongoing.revision(),
        });
        let grpc = is_grpc(&head.headers);
        if !grpc {
            // Messages of gRPC have their own.
            incoming.measure(&head.headers);
        }
        let decided = decided_by_head(&head, grpc, incoming.is_end_stream(), self.limit);
        if matches!(decided, None | Some(Outcome::Answered)) {
            ongoing.answered(Instant::now());
        }
        let service = Arc::clone(self.pool.service());
        let mut body = ResponseBody::new(incoming, service, ongoing, grpc, self.limit);
        match decided {
            Some(outcome) => body.end(outcome),
            None if self.options.idempotent && self.body.is_known() => body.may_resume(self, &head),
            None => {}
        }
        Response::from_parts(head, body)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.attempts.give_up();
        self.body.forget();
    }
}
