//! The connection to the replicas of the registry: finds one that answers, and repeats only what is safe.

use std::error::Error as StdError;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Endpoint;
use tonic::{Code, ConnectError, Response, Status};

pub use crate::details::{Line, LineBody};
use crate::error::{Attempt, Error, Tried};

/// Where a registry started without arguments listens.
pub const DEFAULT_ENDPOINT: &str = "127.0.0.1:7070";

/// The largest message accepted from a replica. A view of 20,000 instances,
/// the most a service may have, with full metadata fits.
pub const MESSAGE_BYTES_MAX: usize = 128 * 1024 * 1024;

/// How long a request looks for a replica that can take it, unless the caller
/// says otherwise: longer than an election.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(5);

/// More replicas than any cluster has; bounds what one request tries.
const ENDPOINTS_MAX: usize = 64;

/// A replica on the same continent answers a SYN well within this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How soon a replica that went away without closing is noticed, at most the
/// sum of the two. The replicas count on it: eight seconds after one was last
/// heard of (`WATCHERS_MOVE_WITHIN` in the server) they take its watchers for
/// moved, which leaves as long again for finding another.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Between rounds over all replicas: short beside an election, long enough not
/// to burn a core.
const ROUND_PAUSE: Duration = Duration::from_millis(100);

/// How long to go on when nobody listens at any endpoint: enough for a restart
/// to overlap, short enough that a wrong address is told soon.
const REFUSED_PATIENCE: Duration = Duration::from_millis(1_000);

/// No single question gets less than this while time remains.
const ATTEMPT_MIN: Duration = Duration::from_millis(250);

/// No single change gets less, for a replica without a leader needs as long to
/// say so: it waits for an election to end, and looks who can be reached. To
/// ask and hang up sooner would turn "not done" into "maybe done".
const CHANGE_ATTEMPT_MIN: Duration = Duration::from_millis(2_500);

/// The trailer by which a server says, in milliseconds, when to ask again.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// However long a replica wants to be left alone, it is asked after this.
const PUSHBACK_MOST: Duration = Duration::from_secs(2);

/// Whether a request that was sent, and whose answer was lost, may be sent
/// again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// It only reads.
    Read,
    /// It changes something, and doing it twice is as doing it once.
    Safe,
    /// Only when it certainly did not reach a replica.
    IfUnsent,
}

/// The replicas of one registry. Cheap to clone; clones share connections and
/// agree on the replica in use.
///
/// Nothing is connected until the first request.
#[derive(Debug, Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    replicas: Box<[Replica]>,
    current: AtomicUsize,
}

#[derive(Debug)]
struct Replica {
    endpoint: String,
    channel: Line,
}

/// What to do with an attempt that failed.
enum Verdict {
    /// Nobody listens there.
    Refused,
    /// This replica cannot; another may.
    Next,
    /// It has too much to do, did nothing, and says when to come again.
    Busy(Duration),
    /// The answer, good for all replicas.
    Final,
    /// It may have been carried out and must not be repeated.
    Unknown,
}

// === impl Cluster ===

impl Cluster {
    /// Reads a comma separated list of endpoints, each `host:port` or
    /// `http://host:port`.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the endpoint that cannot be read. No
    /// connection is made. Must be called within a Tokio runtime.
    pub fn parse(endpoints: &str) -> Result<Self, Error> {
        Self::new(
            endpoints
                .split(',')
                .map(str::trim)
                .filter(|e| !e.is_empty()),
        )
    }

    /// As [`Cluster::parse`], from endpoints already taken apart.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is none, more than 64, or one cannot be
    /// read.
    pub fn new<I>(endpoints: I) -> Result<Self, Error>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let mut replicas = Vec::new();
        for endpoint in endpoints {
            replicas.push(Replica::new(endpoint.as_ref())?);
        }
        if replicas.is_empty() || replicas.len() > ENDPOINTS_MAX {
            return Err(Error::Invalid(format!(
                "{} endpoints given; give 1 to {ENDPOINTS_MAX}, separated by commas, \
                 for example {DEFAULT_ENDPOINT}",
                replicas.len()
            )));
        }
        Ok(Self {
            inner: Arc::new(Inner {
                replicas: replicas.into(),
                current: AtomicUsize::new(0),
            }),
        })
    }

    /// The endpoints as they were configured.
    pub fn endpoints(&self) -> impl Iterator<Item = &str> {
        self.inner
            .replicas
            .iter()
            .map(|replica| replica.endpoint.as_str())
    }

    /// The endpoint that the next request tries first.
    pub fn current_endpoint(&self) -> &str {
        &self.replica(self.current()).endpoint
    }

    /// Begins with the replica at `position` of the list instead of the first,
    /// so that many processes with the same list spread over the replicas.
    #[must_use]
    pub fn starting_at(self, position: usize) -> Self {
        self.inner
            .current
            .store(position % self.len(), Ordering::Relaxed);
        self
    }

    /// Asks the replica in use, and moves on to the next where that is safe,
    /// until one answers or `deadline` is over.
    ///
    /// A replica that cannot be connected to, or that answers `UNAVAILABLE`
    /// (which replicas say only of what they did not take), is always passed
    /// over; so is, after the pause it asks for, one that has too much to do;
    /// one that does not answer only under [`Repeat::Read`] and [`Repeat::Safe`].
    /// `attempt` makes the request on the channel it is given.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the last word of each replica, when none took
    /// the request; [`Error::UnknownOutcome`] when one may have and its answer
    /// was lost; any other as [`Error::from_status`] sorts it.
    pub async fn call<T, F, Fut>(
        &self,
        request: &'static str,
        repeat: Repeat,
        deadline: Duration,
        mut attempt: F,
    ) -> Result<T, Error>
    where
        F: FnMut(Line) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let started = Instant::now();
        let mut last_words: Vec<Option<String>> = vec![None; self.len()];
        let mut may_be_done = false;
        loop {
            let mut all_refused = true;
            for _ in 0..self.len() {
                let remaining = deadline.saturating_sub(started.elapsed());
                if remaining.is_zero() {
                    return Err(self.given_up(request, started, &last_words, may_be_done));
                }
                let position = self.current();
                let was_heard = last_words.get(position).is_some_and(Option::is_some);
                if repeat == Repeat::Safe && was_heard && remaining < CHANGE_ATTEMPT_MIN {
                    return Err(self.given_up(request, started, &last_words, may_be_done));
                }
                let patience = attempt_patience(repeat, remaining);
                let asked = timeout(patience, attempt(self.replica(position).channel.clone()));
                let status = match asked.await {
                    Ok(Ok(response)) => return Ok(response.into_inner()),
                    Ok(Err(status)) => status,
                    Err(_) => Status::deadline_exceeded(format!("no answer within {patience:.1?}")),
                };
                let verdict = judge(&status, repeat);
                tracing::debug!(
                    endpoint = %self.replica(position).endpoint,
                    request,
                    said = %describe(&status),
                    "replica did not answer"
                );
                match verdict {
                    Verdict::Final => return Err(Error::from_status(request, status)),
                    Verdict::Unknown => {
                        self.move_on(position);
                        let endpoint = &self.replica(position).endpoint;
                        return Err(Error::UnknownOutcome {
                            request,
                            reason: format!("{endpoint}: {}", describe(&status)),
                        });
                    }
                    Verdict::Refused => {}
                    Verdict::Busy(wait) => {
                        all_refused = false;
                        // Spread, or all who were sent away come back together.
                        let wait = wait.mul_f64(rand::random_range(0.5..=1.5));
                        sleep(wait.min(deadline.saturating_sub(started.elapsed()))).await;
                    }
                    Verdict::Next => {
                        all_refused = false;
                        may_be_done |= repeat != Repeat::Read && !not_taken(&status);
                    }
                }
                if let Some(word) = last_words.get_mut(position)
                    // Silence says less than what the replica said before.
                    && (word.is_none() || status.code() != Code::DeadlineExceeded)
                {
                    *word = Some(describe(&status));
                }
                self.move_on(position);
            }
            if all_refused && started.elapsed() >= REFUSED_PATIENCE.min(deadline) {
                return Err(self.given_up(request, started, &last_words, may_be_done));
            }
            sleep(ROUND_PAUSE.min(deadline.saturating_sub(started.elapsed()))).await;
        }
    }

    /// The replica in use: its position and its channel.
    pub(crate) fn channel(&self) -> (usize, Line) {
        let position = self.current();
        (position, self.replica(position).channel.clone())
    }

    /// Turns to the next replica, unless another request already turned away
    /// from the one at `from`.
    pub(crate) fn move_on(&self, from: usize) {
        let next = (from + 1) % self.len();
        // A lost race means that somebody else has moved on: fine.
        let _ =
            self.inner
                .current
                .compare_exchange(from, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The endpoint at a position that [`Cluster::channel`] gave.
    pub(crate) fn endpoint_at(&self, position: usize) -> &str {
        &self.replica(position).endpoint
    }

    /// How many replicas there are to try: at least one.
    pub(crate) fn len(&self) -> usize {
        self.inner.replicas.len()
    }

    fn current(&self) -> usize {
        self.inner.current.load(Ordering::Relaxed) % self.len()
    }

    fn replica(&self, position: usize) -> &Replica {
        &self.inner.replicas[position % self.len()]
    }

    fn given_up(
        &self,
        request: &'static str,
        started: Instant,
        last_words: &[Option<String>],
        may_be_done: bool,
    ) -> Error {
        let tried = self
            .endpoints()
            .zip(last_words)
            .filter_map(|(endpoint, word)| {
                word.as_ref().map(|said| Attempt {
                    endpoint: endpoint.to_owned(),
                    said: said.clone(),
                })
            })
            .collect();
        let tried = Tried(tried);
        if may_be_done {
            let reason = format!("no replica answered for it{tried}");
            return Error::UnknownOutcome { request, reason };
        }
        Error::Unavailable {
            request,
            after: started.elapsed(),
            tried,
        }
    }
}

// === impl Replica ===

impl Replica {
    fn new(endpoint: &str) -> Result<Self, Error> {
        let invalid = |rule: &str| {
            Error::Invalid(format!(
                "endpoint {endpoint:?} {rule}; write host:port, for example {DEFAULT_ENDPOINT}"
            ))
        };
        let authority = endpoint.strip_prefix("http://").unwrap_or(endpoint);
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        if authority.contains("://") {
            return Err(invalid("has a scheme other than http"));
        }
        let authority: http::uri::Authority =
            authority.parse().map_err(|_| invalid("is not host:port"))?;
        if authority.port_u16().is_none() {
            return Err(invalid("has no port"));
        }
        let channel = Endpoint::from_shared(format!("http://{authority}"))
            .map_err(|_| invalid("is not host:port"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .connect_lazy();
        Ok(Self {
            endpoint: authority.to_string(),
            channel: Line::over(channel),
        })
    }
}

// === private parts ===

/// A request that may be repeated leaves time to ask somebody else; one that
/// may not gets all there is.
fn attempt_patience(repeat: Repeat, remaining: Duration) -> Duration {
    match repeat {
        Repeat::Read => (remaining / 2).max(ATTEMPT_MIN).min(remaining),
        Repeat::Safe => (remaining / 2).max(CHANGE_ATTEMPT_MIN).min(remaining),
        Repeat::IfUnsent => remaining,
    }
}

fn judge(status: &Status, repeat: Repeat) -> Verdict {
    if never_sent(status) {
        return Verdict::Refused;
    }
    if not_taken(status) {
        return Verdict::Next;
    }
    if let Some(wait) = pushback(status) {
        return Verdict::Busy(wait);
    }
    let lost = status.source().is_some()
        || matches!(
            status.code(),
            Code::DeadlineExceeded | Code::Unknown | Code::Aborted
        );
    match repeat {
        _ if !lost => Verdict::Final,
        Repeat::Read | Repeat::Safe => Verdict::Next,
        Repeat::IfUnsent => Verdict::Unknown,
    }
}

/// Whether the replica itself says that it did not take the request.
fn not_taken(status: &Status) -> bool {
    status.code() == Code::Unavailable && status.source().is_none()
}

/// When a replica that has too much to do wants to be asked again.
fn pushback(status: &Status) -> Option<Duration> {
    let is_busy = status.code() == Code::ResourceExhausted && status.source().is_none();
    let said = status.metadata().get(PUSHBACK).filter(|_| is_busy)?;
    let wait = Duration::from_millis(said.to_str().ok()?.parse().ok()?);
    Some(wait.min(PUSHBACK_MOST))
}

/// Whether the connection could not be made, so that nothing was sent.
fn never_sent(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// A status in words: the innermost cause says most.
pub(crate) fn describe(status: &Status) -> String {
    let mut innermost: Option<&(dyn StdError + 'static)> = status.source();
    while let Some(cause) = innermost.and_then(|error| error.source()) {
        innermost = Some(cause);
    }
    match innermost {
        Some(cause) => cause.to_string(),
        None if status.message().is_empty() => format!("{:?}", status.code()),
        None => status.message().to_owned(),
    }
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
