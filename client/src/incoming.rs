//! The body of an answer, as it comes over HTTP/2.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Body, Frame, SizeHint};

use crate::details::drop_unreadable;
use crate::outgoing::Sending;

/// Data, then trailers. Dropped before it has ended, it ends the call.
pub(crate) struct Incoming {
    stream: RecvStream,
    data_is_over: bool,
    length: Option<u64>,
    /// What the request still has to say.
    sending: Option<Sending>,
}

impl Incoming {
    pub(crate) fn new(stream: RecvStream, sending: Option<Sending>) -> Self {
        Self {
            stream,
            data_is_over: false,
            length: None,
            sending,
        }
    }

    /// Takes its length from the head of the answer.
    pub(crate) fn measure(&mut self, headers: &HeaderMap) {
        let length = headers.get(CONTENT_LENGTH);
        self.length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    }

    /// The answer is complete; what the request still has to say goes on.
    fn ended(&mut self) {
        if let Some(sending) = self.sending.take() {
            sending.detach();
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let this = &mut *self;
        if !this.data_is_over {
            match ready!(this.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // It is taken out of the window when it is read. Fails only
                    // for more than was received.
                    let _ = this.stream.flow_control().release_capacity(data.len());
                    let left = |length: u64| length.saturating_sub(data.len() as u64);
                    this.length = this.length.map(left);
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(break_or_end(error)),
                None => this.data_is_over = true,
            }
        }
        // The future has no state of its own.
        let trailers = ready!(pin!(this.stream.trailers()).poll(cx));
        match trailers {
            Ok(trailers) => {
                this.ended();
                Poll::Ready(trailers.map(|mut trailers| {
                    drop_unreadable(&mut trailers);
                    Ok(Frame::trailers(trailers))
                }))
            }
            Err(error) => Poll::Ready(break_or_end(error)),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map(SizeHint::with_exact).unwrap_or_default()
    }
}

/// A peer that has said all before it was told all may end the call with a
/// reset that is no error (RFC 9113, 8.1).
fn break_or_end(error: h2::Error) -> Option<Result<Frame<Bytes>, h2::Error>> {
    let is_end = error.is_reset() && error.reason() == Some(Reason::NO_ERROR);
    (!is_end).then_some(Err(error))
}
