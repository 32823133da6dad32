//! The attempts of one call that are under way: one as a rule, more where one keeps the caller waiting.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Response;
use tokio::time::{Instant, sleep_until};
use tracing::Span;
use tracing::field::Empty;

use crate::connection::with_causes;
use crate::endpoint::{Connection, Endpoint, Ongoing, Outcome};
use crate::exchange::{Exchange, Unanswered};
use crate::incoming::Incoming;
use crate::vigil::Vigil;

/// The first, and two more: what fails three times is not the instance's
/// fault.
pub(crate) const ATTEMPTS_MAX: usize = 3;

/// A request that was sent to an instance.
struct Attempt {
    ongoing: Ongoing,
    span: Span,
    answer: Exchange,
}

/// The attempts under way, in the order in which they began.
#[derive(Default)]
pub(crate) struct Attempts {
    under_way: [Option<Attempt>; ATTEMPTS_MAX],
}

/// When to stop waiting.
pub(crate) enum Due<'a> {
    Never,
    At(Instant),
    /// A second later will do.
    About(Instant, &'a Vigil),
}

/// What there is to act on.
pub(crate) enum Event {
    /// An instance answered, well or not.
    Answered(Ongoing, Response<Incoming>),
    /// An attempt came to nothing.
    Failed(Ongoing, Failure),
    /// It is time.
    Due,
}

/// Why an attempt did not give an answer.
pub(crate) enum Failure {
    /// The instance has seen nothing of it.
    Unsent(String),
    /// It may have, and the connection is gone.
    Lost(String),
    /// It may have, and broke off this call alone.
    Broken(String),
    /// HTTP/2 cannot carry the request: nobody's fault but the caller's.
    Unfit(String),
}

// === impl Attempts ===

impl Attempts {
    pub(crate) fn is_empty(&self) -> bool {
        self.under_way.iter().all(Option::is_none)
    }

    /// Adds one, the call's so-manyth. There is room for [`ATTEMPTS_MAX`]; one more would take the
    /// place of the newest.
    pub(crate) fn add(&mut self, number: usize, ongoing: Ongoing, answer: Exchange) {
        let endpoint = ongoing.endpoint();
        let span = tracing::debug_span!(
            "attempt",
            number,
            group = &*endpoint.group,
            instance = &*endpoint.id,
            address = &**endpoint.link.address(),
            outcome = Empty,
        );
        let attempt = Attempt {
            ongoing,
            span,
            answer,
        };
        let free = self.under_way.iter().position(Option::is_none);
        if let Some(place) = self.under_way.get_mut(free.unwrap_or(ATTEMPTS_MAX - 1)) {
            *place = Some(attempt);
        }
    }

    /// Waits for the first to end, but not beyond `due`, if that is said.
    pub(crate) async fn next(&mut self, due: Due<'_>) -> Event {
        match due {
            Due::Never => std::future::poll_fn(|cx| self.poll(cx)).await,
            Due::At(due) => {
                let mut sleep = pin!(sleep_until(due));
                self.next_before(|cx| sleep.as_mut().poll(cx)).await
            }
            Due::About(due, vigil) => {
                let mut watch = vigil.watch(due);
                self.next_before(|cx| watch.poll(cx)).await
            }
        }
    }

    async fn next_before(&mut self, mut due: impl FnMut(&mut Context<'_>) -> Poll<()>) -> Event {
        std::future::poll_fn(|cx| match self.poll(cx) {
            Poll::Ready(event) => Poll::Ready(event),
            Poll::Pending => due(cx).map(|()| Event::Due),
        })
        .await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        for place in &mut self.under_way {
            let Some(attempt) = place else { continue };
            let answer = Pin::new(&mut attempt.answer);
            let polled = attempt.span.in_scope(|| answer.poll(cx));
            let Poll::Ready(answer) = polled else {
                continue;
            };
            let outcome = if answer.is_ok() { "answered" } else { "failed" };
            attempt.span.record("outcome", outcome);
            if let Some(Attempt { ongoing, .. }) = place.take() {
                return Poll::Ready(match answer {
                    Ok(response) => Event::Answered(ongoing, response),
                    Err(error) => Event::Failed(ongoing, Failure::of(&error)),
                });
            }
        }
        Poll::Pending
    }

    /// Gives up what is under way. Those who were asked before `winner` have
    /// kept the caller waiting for too long, the others had little time.
    pub(crate) fn lose_to(&mut self, winner: &Ongoing) {
        for place in &mut self.under_way {
            if let Some(Attempt { ongoing, .. }) = place.take() {
                let outcome = if ongoing.started() < winner.started() {
                    Outcome::Failed
                } else {
                    Outcome::Abandoned
                };
                ongoing.end(outcome);
            }
        }
    }

    /// The caller's time is over. Whom it waited for longest, and whose fault
    /// that is taken to be.
    pub(crate) fn out_of_time(&mut self) -> Option<Arc<Endpoint>> {
        let under_way = self.under_way.iter_mut().filter_map(Option::take);
        let longest = under_way.min_by_key(|attempt| attempt.ongoing.started())?;
        let endpoint = Arc::clone(longest.ongoing.endpoint());
        longest.ongoing.end(Outcome::Failed);
        Some(endpoint)
    }

    /// When the newest began.
    pub(crate) fn newest(&self) -> Option<Instant> {
        let under_way = self.under_way.iter().flatten();
        under_way.map(|attempt| attempt.ongoing.started()).max()
    }

    /// Nobody waits for them any more.
    pub(crate) fn give_up(&mut self) {
        for Attempt { ongoing, .. } in self.under_way.iter_mut().filter_map(Option::take) {
            ongoing.end(Outcome::GivenUp);
        }
    }

    /// Who has not answered yet.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        let under_way = self.under_way.iter().flatten();
        under_way.map(|attempt| attempt.ongoing.endpoint())
    }
}

// === impl Failure ===

impl Failure {
    pub(crate) fn of(unanswered: &Unanswered) -> Self {
        match unanswered {
            Unanswered::Spent(error) => Self::Unsent(with_causes(error)),
            Unanswered::Unfit(error) => Self::Unfit(with_causes(error)),
            Unanswered::Broken(error) if was_refused(error) => Self::Unsent(with_causes(error)),
            Unanswered::Broken(error) if is_of_connection(error) => Self::Lost(with_causes(error)),
            Unanswered::Broken(error) => Self::Broken(with_causes(error)),
        }
    }

    /// What it says of the instance, and why.
    pub(crate) fn verdict(self) -> (Outcome, String) {
        match self {
            Self::Unsent(reason) => (Outcome::Unsent, reason),
            Self::Lost(reason) => (Outcome::Lost, reason),
            Self::Broken(reason) => (Outcome::Failed, reason),
            Self::Unfit(reason) => (Outcome::Abandoned, reason),
        }
    }
}

/// The peer said that it did nothing about the request: of this one (RFC 9113,
/// 8.7), or of all that came after some other (6.8). A connection that ends so
/// without an error ends only those.
fn was_refused(error: &h2::Error) -> bool {
    let reason = error.reason().filter(|_| error.is_remote());
    match reason {
        Some(h2::Reason::REFUSED_STREAM) => error.is_reset(),
        Some(h2::Reason::NO_ERROR) => error.is_go_away(),
        _ => false,
    }
}

/// Whether more is broken than one call.
pub(crate) fn is_of_connection(error: &h2::Error) -> bool {
    !error.is_reset()
}
