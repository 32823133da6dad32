//! A request body that can be sent again: what is there at once is, and of the rest frames are remembered, up to a bound, until the call is decided.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::body::Body;

use crate::outgoing::Outgoing;

/// A larger request is sent once. Remembering shares the bytes, it does not
/// copy them.
const REMEMBERED_BYTES_MAX: usize = 1024 * 1024;

/// A request's body, for as many attempts as there are.
pub(crate) enum Replay {
    /// All of it, which was there at once: that of a call with one message.
    Whole(Option<Bytes>),
    Streamed(Streamed),
}

/// The original body, and what was read from it.
#[derive(Clone)]
pub(crate) struct Streamed {
    source: Arc<Mutex<Source>>,
}

struct Source {
    body: Body,
    frames: Vec<Bytes>,
    /// Read from the body, and not yet by an attempt.
    next: Option<Result<Frame<Bytes>, tonic::Status>>,
    bytes: usize,
    ended: bool,
    /// Too large, carries trailers, or no attempt will follow.
    forgotten: bool,
    /// Only the newest attempt may read on.
    attempt: u64,
}

/// The body of one attempt.
struct Attempt {
    source: Arc<Mutex<Source>>,
    number: u64,
    position: usize,
}

// === impl Replay ===

impl Replay {
    /// Looks at what of the body is there.
    pub(crate) fn new(mut body: Body) -> Self {
        if body.is_end_stream() {
            return Self::Whole(None);
        }
        // Whoever polls next is woken.
        let mut nobody = Context::from_waker(Waker::noop());
        let mut poll = || Pin::new(&mut body).poll_frame(&mut nobody);
        let first = match poll() {
            Poll::Pending => return Self::streamed(body, None, None),
            Poll::Ready(None) => return Self::Whole(None),
            Poll::Ready(Some(first)) => first,
        };
        let first = match first.map(Frame::into_data) {
            Ok(Ok(data)) => data,
            Ok(Err(frame)) => return Self::streamed(body, None, Some(Ok(frame))),
            Err(error) => return Self::streamed(body, None, Some(Err(error))),
        };
        match poll() {
            Poll::Ready(None) => Self::Whole(Some(first)),
            Poll::Ready(Some(next)) => Self::streamed(body, Some(first), Some(next)),
            Poll::Pending => Self::streamed(body, Some(first), None),
        }
    }

    fn streamed(
        body: Body,
        first: Option<Bytes>,
        next: Option<Result<Frame<Bytes>, tonic::Status>>,
    ) -> Self {
        Self::Streamed(Streamed {
            source: Arc::new(Mutex::new(Source {
                body,
                bytes: first.as_ref().map_or(0, Bytes::len),
                frames: first.into_iter().collect(),
                next,
                ended: false,
                forgotten: false,
                attempt: 0,
            })),
        })
    }

    /// The body from its beginning, or `None` when that is no longer known.
    /// Earlier attempts read from now on only what was read before.
    pub(crate) fn attempt(&self) -> Option<Outgoing> {
        match self {
            Self::Whole(None) => Some(Outgoing::Nothing),
            Self::Whole(Some(data)) => Some(Outgoing::Whole(data.clone())),
            Self::Streamed(streamed) => streamed.attempt(),
        }
    }

    /// Whether there can be another attempt.
    pub(crate) fn is_known(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Streamed(streamed) => streamed.is_known(),
        }
    }

    /// Whether all of it is remembered, so that several attempts can read it at
    /// the same time.
    pub(crate) fn is_complete(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Streamed(streamed) => streamed.is_complete(),
        }
    }

    /// No attempt will follow: nothing more is remembered, and what was is
    /// dropped as the attempt under way reads on.
    pub(crate) fn forget(&self) {
        if let Self::Streamed(streamed) = self {
            streamed.forget();
        }
    }
}

// === impl Streamed ===

impl Streamed {
    fn attempt(&self) -> Option<Outgoing> {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        if source.forgotten {
            return None;
        }
        source.attempt += 1;
        if source.frames.is_empty() && (source.ended || source.body.is_end_stream()) {
            return Some(Outgoing::Nothing);
        }
        let number = source.attempt;
        // The wrapper asks the attempt at once whether it is empty.
        drop(source);
        Some(Outgoing::Streamed(Body::new(Attempt {
            source: Arc::clone(&self.source),
            number,
            position: 0,
        })))
    }

    fn is_known(&self) -> bool {
        !self
            .source
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .forgotten
    }

    fn is_complete(&self) -> bool {
        let source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        !source.forgotten && (source.ended || source.body.is_end_stream())
    }

    fn forget(&self) {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        source.forgotten = true;
    }
}

// === impl Attempt ===

impl HttpBody for Attempt {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let this = &mut *self;
        let mut source = this.source.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(frame) = source.frames.get(this.position) {
            this.position += 1;
            return Poll::Ready(Some(Ok(Frame::data(frame.clone()))));
        }
        if source.ended {
            return Poll::Ready(None);
        }
        if source.attempt != this.number {
            return Poll::Ready(Some(Err(tonic::Status::cancelled(
                "the call is sent elsewhere",
            ))));
        }
        if source.forgotten {
            source.frames = Vec::new();
            this.position = 0;
        }
        let polled = match source.next.take() {
            Some(next) => Poll::Ready(Some(next)),
            None => Pin::new(&mut source.body).poll_frame(cx),
        };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if source.remember(frame) {
                    this.position += 1;
                }
            }
            Poll::Ready(Some(Err(_))) => source.forgotten = true,
            Poll::Ready(None) => source.ended = true,
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        source.ended && self.position >= source.frames.len()
    }

    fn size_hint(&self) -> SizeHint {
        let source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        if self.position == 0 && source.frames.is_empty() {
            source.body.size_hint()
        } else {
            SizeHint::default()
        }
    }
}

impl Source {
    /// Whether the frame was kept.
    fn remember(&mut self, frame: &Frame<Bytes>) -> bool {
        let Some(data) = frame.data_ref().filter(|_| !self.forgotten) else {
            self.forgotten = true;
            return false;
        };
        if self.bytes + data.len() > REMEMBERED_BYTES_MAX {
            self.forgotten = true;
            return false;
        }
        self.bytes += data.len();
        self.frames.push(data.clone());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use tokio_stream::StreamExt;

    /// A body that comes frame by frame.
    fn slowly(data: &'static [u8], times: usize) -> Body {
        let frames = tokio_stream::iter(vec![data; times]);
        let frames = frames.throttle(std::time::Duration::from_millis(1));
        let frames =
            frames.map(|data| Ok::<_, tonic::Status>(Frame::data(Bytes::from_static(data))));
        Body::new(http_body_util::StreamBody::new(frames))
    }

    async fn read(attempt: Outgoing) -> Result<Bytes, tonic::Status> {
        let body = match attempt {
            Outgoing::Nothing => Body::empty(),
            Outgoing::Whole(data) => Body::new(http_body_util::Full::new(data)),
            Outgoing::Streamed(body) => body,
        };
        body.collect().await.map(|collected| collected.to_bytes())
    }

    #[tokio::test]
    async fn every_attempt_reads_the_whole_body() {
        let replay = Replay::new(slowly(b"abc", 1));
        for _ in 0..3 {
            assert_eq!(read(replay.attempt().unwrap()).await.unwrap(), "abc");
        }
    }

    #[tokio::test]
    async fn an_attempt_that_was_replaced_reads_nothing_new() {
        let replay = Replay::new(slowly(b"abc", 1));
        let first = replay.attempt().unwrap();
        let second = replay.attempt().unwrap();
        assert!(!replay.is_complete());
        assert!(read(first).await.is_err());
        assert_eq!(read(second).await.unwrap(), "abc");
    }

    #[tokio::test]
    async fn attempts_read_side_by_side_what_is_complete() {
        let replay = Replay::new(slowly(b"abc", 1));
        let first = replay.attempt().unwrap();
        assert_eq!(read(replay.attempt().unwrap()).await.unwrap(), "abc");
        assert!(replay.is_complete());
        let third = replay.attempt().unwrap();
        replay.forget();
        assert_eq!(read(first).await.unwrap(), "abc");
        assert_eq!(read(third).await.unwrap(), "abc");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_large_is_sent_once() {
        const PART: &[u8] = &[7; REMEMBERED_BYTES_MAX / 2];
        let replay = Replay::new(slowly(PART, 3));
        let sent = read(replay.attempt().unwrap()).await.unwrap();
        assert_eq!(sent.len(), 3 * PART.len());
        assert!(replay.attempt().is_none());
    }

    #[tokio::test]
    async fn what_is_there_at_once_is_never_forgotten() {
        let at_once = http_body_util::Full::new(Bytes::from("abc"));
        let replay = Replay::new(Body::new(at_once));
        assert!(matches!(&replay, Replay::Whole(Some(_))));
        let first = replay.attempt().unwrap();
        replay.forget();
        assert_eq!(read(first).await.unwrap(), "abc");
        assert_eq!(read(replay.attempt().unwrap()).await.unwrap(), "abc");
        assert!(replay.is_known() && replay.is_complete());
        let empty = Replay::new(Body::empty());
        assert_eq!(read(empty.attempt().unwrap()).await.unwrap(), "");
    }

    #[tokio::test]
    async fn frames_that_are_there_at_once_are_all_sent() {
        let frames = [
            Ok(Frame::data(Bytes::from("a"))),
            Ok(Frame::data(Bytes::from("b"))),
        ];
        let frames = tokio_stream::iter(
            frames
                .into_iter()
                .collect::<Vec<Result<_, tonic::Status>>>(),
        );
        let replay = Replay::new(Body::new(http_body_util::StreamBody::new(frames)));
        for _ in 0..2 {
            assert_eq!(read(replay.attempt().unwrap()).await.unwrap(), "ab");
        }
    }

    #[tokio::test]
    async fn a_decided_call_is_not_sent_again() {
        let replay = Replay::new(slowly(b"abc", 1));
        let attempt = replay.attempt().unwrap();
        replay.forget();
        assert_eq!(read(attempt).await.unwrap(), "abc");
        assert!(replay.attempt().is_none());
    }
}
