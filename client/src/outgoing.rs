//! A request's body on its way out: at once where all of it is there, else by a task of its own.

use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::{Body as _, Frame};
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;

/// What is sent after the head.
pub(crate) enum Outgoing {
    Nothing,
    /// All of it.
    Whole(Bytes),
    /// As it comes.
    Streamed(Body),
}

/// The task that sends what comes. Dropped, it sends no more, and the peer is
/// told so.
pub(crate) struct Sending(AbortOnDropHandle<()>);

// === impl Outgoing ===

impl Outgoing {
    /// How long it is, if that is known before all of it is sent.
    pub(crate) fn length(&self) -> Option<u64> {
        match self {
            Self::Nothing => Some(0),
            Self::Whole(data) => u64::try_from(data.len()).ok(),
            Self::Streamed(body) => body.size_hint().exact(),
        }
    }
}

// === impl Sending ===

impl Sending {
    /// By a task, as whoever made the call may wait for something else.
    pub(crate) fn start(body: Body, stream: SendStream<Bytes>) -> Self {
        let sending = tokio::spawn(send(body, stream));
        Self(AbortOnDropHandle::new(sending))
    }

    /// It goes on without whoever began it.
    pub(crate) fn detach(self) {
        drop(self.0.detach());
    }
}

/// Until the body ends, or the peer wants no more of it.
async fn send(mut body: Body, mut stream: SendStream<Bytes>) {
    while let Some(frame) = next(&mut body, &mut stream).await {
        let is_sent = match frame.map(Frame::into_data) {
            Ok(Ok(data)) => {
                // Nothing is reserved before there is something to send: that
                // would be taken from others.
                let is_last = body.is_end_stream();
                let has_room = data.is_empty() || has_room(&mut stream).await;
                has_room && stream.send_data(data, is_last).is_ok() && !is_last
            }
            Ok(Err(frame)) => {
                if let Ok(trailers) = frame.into_trailers() {
                    // Fails where the peer has ended the call.
                    let _ = stream.send_trailers(trailers);
                }
                false
            }
            Err(_) => {
                stream.send_reset(Reason::INTERNAL_ERROR);
                false
            }
        };
        if !is_sent {
            return;
        }
    }
    // Fails where the peer has ended the call.
    let _ = stream.send_data(Bytes::new(), true);
}

type Next = Option<Result<Frame<Bytes>, tonic::Status>>;

/// What is to be sent next, unless the peer ends the call before: then nothing
/// follows.
async fn next(body: &mut Body, stream: &mut SendStream<Bytes>) -> Next {
    std::future::poll_fn(|cx| match stream.poll_reset(cx) {
        Poll::Ready(_) => Poll::Ready(None),
        Poll::Pending => Pin::new(&mut *body).poll_frame(cx),
    })
    .await
}

/// Waits until the peer takes more. Whether it ever does.
async fn has_room(stream: &mut SendStream<Bytes>) -> bool {
    // What is sent raises this to its length.
    stream.reserve_capacity(1);
    std::future::poll_fn(|cx| {
        loop {
            if stream.capacity() > 0 {
                return Poll::Ready(true);
            }
            if stream.poll_reset(cx).is_ready() {
                return Poll::Ready(false);
            }
            match stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(_) => return Poll::Ready(false),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}
