//! One open watch stream as the body of its response: polls the caller's requests, sends what is news.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Wakes, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use tonic::Status;
use tonic::body::Body;
use trimtab_proto::v1::{GoingAway, WatchRequest, WatchResponse, watch_response};

use super::bodies::{Messages, trailers};
use super::context::Context;
use super::standing::Place;
use super::watching::{News, Watching};
use crate::convert;

/// Callers that a replica welcomes and answers without holding up others: well
/// below what one core does.
const WELCOMES_PER_SECOND: u64 = 5_000;

/// A few callers leave as those of a replica that died do.
const LEAVE_WITHIN_MIN: Duration = Duration::from_millis(100);

/// Replicas take callers to be elsewhere after eight seconds
/// (`WATCHERS_MOVE_WITHIN`): this leaves them time to find another.
const LEAVE_WITHIN_MAX: Duration = Duration::from_secs(3);

/// Requests of one stream that are taken before others have their turn.
const REQUESTS_PER_TURN: usize = 128;

/// Owned by the response: when the caller is gone it is dropped, and with it
/// all that it held.
pub(super) struct Session {
    context: Context,
    requests: Messages<WatchRequest>,
    watching: Watching,
    _place: Place,
    /// Answers that wait to be sent, as many as one turn's requests have.
    answers: VecDeque<News>,
    told_cut_off: bool,
    /// What the stream ends with, once it does.
    ending: Option<Result<(), Status>>,
    ended: bool,
}

impl Drop for Session {
    fn drop(&mut self) {
        // Also when the caller ended it in order: it may be on its way to
        // another replica, and calls as before until it is there.
        self.watching.broke(self.context.started.elapsed());
    }
}

impl Session {
    pub(super) fn new(context: Context, body: Body, bytes_max: usize) -> Session {
        let views = Arc::clone(&context.views);
        let watchers = Arc::clone(&context.watchers);
        let watching = Watching::new(context.id, context.handle.cluster_id(), views, watchers);
        Session {
            _place: context.standing.join(watching.bell()),
            watching,
            told_cut_off: context.standing.is_cut_off(),
            context,
            requests: Messages::new(body, bytes_max),
            answers: VecDeque::new(),
            ending: None,
            ended: false,
        }
    }

    /// Takes what the caller has said. Returns whether there may be more.
    fn take_requests(&mut self, wakes: &mut Wakes<'_>) -> bool {
        for _ in 0..REQUESTS_PER_TURN {
            let request = match self.requests.poll_next(wakes) {
                Poll::Pending => return false,
                Poll::Ready(Some(Ok(request))) => request,
                // Nobody is there to be told anything.
                Poll::Ready(None | Some(Err(_))) => {
                    self.ending = Some(Ok(()));
                    return false;
                }
            };
            let taken = self.watching.take(self.context.started.elapsed(), request);
            match taken {
                Ok(answer) => self.answers.extend(answer.map(News::own)),
                Err(status) => {
                    self.ending = Some(Err(status));
                    return false;
                }
            }
        }
        true
    }

    /// The next answer.
    fn poll_answer(&mut self, wakes: &mut Wakes<'_>) -> Poll<Bytes> {
        let cut_off = self.context.standing.is_cut_off();
        if let Some(answer) = self.answers.pop_front() {
            self.told_cut_off = cut_off;
            return Poll::Ready(answer.framed(cut_off));
        }
        if cut_off != self.told_cut_off {
            self.told_cut_off = cut_off;
            let nothing_else = WatchResponse {
                kind: None,
                possibly_stale: cut_off,
            };
            return Poll::Ready(convert::frame(&nothing_else));
        }
        self.watching
            .poll_news(wakes)
            .map(|news| news.framed(cut_off))
    }
}

impl HttpBody for Session {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        wakes: &mut Wakes<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let me = &mut *self;
        if me.ended {
            return Poll::Ready(None);
        }
        // Before anything is looked at, so that what comes after it wakes us.
        me.watching.bell().listen(wakes);
        if me.ending.is_none() && me.context.standing.is_stopping() {
            let goodbye = goodbye(me.context.watchers.count());
            let goodbye = News::own(watch_response::Kind::GoingAway(goodbye));
            me.answers.push_back(goodbye);
            me.ending = Some(Ok(()));
        }
        let more = me.ending.is_none() && me.take_requests(wakes);
        let answer = match (&me.ending, me.answers.is_empty()) {
            (Some(_), true) => Poll::Pending,
            _ => me.poll_answer(wakes),
        };
        if let Poll::Ready(bytes) = answer {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if let Some(ending) = me.ending.take() {
            me.ended = true;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers(ending)))));
        }
        if more {
            wakes.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// Spreads so many callers over a moment, so that the replicas that are left
/// can welcome them.
fn goodbye(watchers: usize) -> GoingAway {
    let millis = watchers as u64 * 1_000 / WELCOMES_PER_SECOND;
    let within = Duration::from_millis(millis).clamp(LEAVE_WITHIN_MIN, LEAVE_WITHIN_MAX);
    GoingAway {
        reconnect_within: Some(convert::duration(within)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_callers_are_spread_and_none_is_kept_for_long() {
        let within = |watchers| goodbye(watchers).reconnect_within;
        let millis = |millis| Some(convert::duration(Duration::from_millis(millis)));
        assert_eq!(within(0), millis(100));
        assert_eq!(within(5_000), millis(1_000));
        assert_eq!(within(1_000_000), millis(3_000));
    }
}
