//! A request body that can be sent again: frames are remembered, up to a bound, until the call is decided.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::body::Body;

/// A larger request is sent once. Remembering shares the bytes, it does not
/// copy them.
const REMEMBERED_BYTES_MAX: usize = 1024 * 1024;

/// The original body, and what was read from it.
#[derive(Clone)]
pub(crate) struct Replay {
    source: Arc<Mutex<Source>>,
}

struct Source {
    body: Body,
    frames: Vec<Bytes>,
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
    pub(crate) fn new(body: Body) -> Self {
        Self {
            source: Arc::new(Mutex::new(Source {
                body,
                frames: Vec::new(),
                bytes: 0,
                ended: false,
                forgotten: false,
                attempt: 0,
            })),
        }
    }

    /// The body from its beginning, or `None` when that is no longer known.
    /// Earlier attempts read from now on only what was read before.
    pub(crate) fn attempt(&self) -> Option<Body> {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        if source.forgotten {
            return None;
        }
        source.attempt += 1;
        if source.frames.is_empty() && (source.ended || source.body.is_end_stream()) {
            return Some(Body::empty());
        }
        let number = source.attempt;
        // The wrapper asks the attempt at once whether it is empty.
        drop(source);
        Some(Body::new(Attempt {
            source: Arc::clone(&self.source),
            number,
            position: 0,
        }))
    }

    /// Whether there can be another attempt.
    pub(crate) fn is_known(&self) -> bool {
        !self
            .source
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .forgotten
    }

    /// Whether all of it is remembered, so that several attempts can read it at
    /// the same time.
    pub(crate) fn is_complete(&self) -> bool {
        let source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        !source.forgotten && (source.ended || source.body.is_end_stream())
    }

    /// No attempt will follow: nothing more is remembered, and what was is
    /// dropped as the attempt under way reads on.
    pub(crate) fn forget(&self) {
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
        let polled = Pin::new(&mut source.body).poll_frame(cx);
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

    async fn read(body: Body) -> Result<Bytes, tonic::Status> {
        body.collect().await.map(|collected| collected.to_bytes())
    }

    #[tokio::test]
    async fn every_attempt_reads_the_whole_body() {
        let replay = Replay::new(Body::new(http_body_util::Full::new(Bytes::from("abc"))));
        for _ in 0..3 {
            assert_eq!(read(replay.attempt().unwrap()).await.unwrap(), "abc");
        }
    }

    #[tokio::test]
    async fn an_attempt_that_was_replaced_reads_nothing_new() {
        let replay = Replay::new(Body::new(http_body_util::Full::new(Bytes::from("abc"))));
        let first = replay.attempt().unwrap();
        let second = replay.attempt().unwrap();
        assert!(!replay.is_complete());
        assert!(read(first).await.is_err());
        assert_eq!(read(second).await.unwrap(), "abc");
    }

    #[tokio::test]
    async fn attempts_read_side_by_side_what_is_complete() {
        let replay = Replay::new(Body::new(http_body_util::Full::new(Bytes::from("abc"))));
        let first = replay.attempt().unwrap();
        assert_eq!(read(replay.attempt().unwrap()).await.unwrap(), "abc");
        assert!(replay.is_complete());
        let third = replay.attempt().unwrap();
        replay.forget();
        assert_eq!(read(first).await.unwrap(), "abc");
        assert_eq!(read(third).await.unwrap(), "abc");
    }

    #[tokio::test]
    async fn what_is_too_large_is_sent_once() {
        let large = Bytes::from(vec![7; REMEMBERED_BYTES_MAX + 1]);
        let replay = Replay::new(Body::new(http_body_util::Full::new(large.clone())));
        assert_eq!(read(replay.attempt().unwrap()).await.unwrap(), large);
        assert!(replay.attempt().is_none());
    }

    #[tokio::test]
    async fn a_decided_call_is_not_sent_again() {
        let replay = Replay::new(Body::new(http_body_util::Full::new(Bytes::from("abc"))));
        let attempt = replay.attempt().unwrap();
        replay.forget();
        assert_eq!(read(attempt).await.unwrap(), "abc");
        assert!(replay.attempt().is_none());
    }
}
