//! One request over an HTTP/2 connection and its answer, driven by whoever waits for the answer: no task and no queue is in between.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Method, Request, Response};

use crate::details::drop_unreadable;
use crate::incoming::Incoming;
use crate::outgoing::{Outgoing, Sending};

/// A request to one instance. Dropped before the answer is there, it ends the
/// call.
pub(crate) enum Exchange {
    /// For its turn, as the peer takes no more at once.
    Waiting(Pin<Box<dyn Future<Output = Result<Sent, Unanswered>> + Send>>),
    Sent(Sent),
}

/// A request that was handed over to a connection.
pub(crate) struct Sent {
    answer: ResponseFuture,
    sending: Option<Sending>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// The connection took no more requests: this one was not sent.
    Spent(h2::Error),
    /// HTTP/2 cannot carry it: it was not sent.
    Unfit(h2::Error),
    Broken(h2::Error),
}

/// What belongs to one connection of HTTP/1 (RFC 9110, 7.6.1) and must not be
/// in a request of HTTP/2.
const OF_CONNECTIONS: [HeaderName; 4] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TRANSFER_ENCODING,
    UPGRADE,
];

// === impl Sent ===

impl Sent {
    /// Hands a request over; the connection's own task sends it. `sender` has
    /// said that it is ready.
    pub(crate) fn by(
        sender: &mut SendRequest<Bytes>,
        mut request: Request<()>,
        body: Outgoing,
    ) -> Result<Self, Unanswered> {
        let is_all = matches!(body, Outgoing::Nothing);
        if !matches!(body, Outgoing::Whole(_)) {
            say_length(&mut request, &body);
        }
        // A connection that took no more would not have been ready, but for
        // what happened since.
        let sent = sender.send_request(request, is_all);
        let (answer, mut stream) =
            sent.map_err(|error| match error.is_io() || error.is_go_away() {
                true => Unanswered::Spent(error),
                false => Unanswered::Unfit(error),
            })?;
        let sending = match body {
            Outgoing::Nothing => None,
            Outgoing::Whole(data) => {
                // Fails where the connection just broke, which the answer says.
                let _ = stream.send_data(data, true);
                None
            }
            Outgoing::Streamed(body) => Some(Sending::start(body, stream)),
        };
        Ok(Self { answer, sending })
    }
}

// === impl Exchange ===

impl Future for Exchange {
    type Output = Result<Response<Incoming>, Unanswered>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Self::Waiting(turn) = this {
            let sent = ready!(turn.as_mut().poll(cx))?;
            *this = Self::Sent(sent);
        }
        let Self::Sent(Sent { answer, sending }) = this else {
            return Poll::Pending;
        };
        let answered = ready!(Pin::new(answer).poll(cx));
        let incoming = |stream| Incoming::new(stream, sending.take());
        let answered = answered.map(|mut response| {
            drop_unreadable(response.headers_mut());
            response.map(incoming)
        });
        Poll::Ready(answered.map_err(Unanswered::Broken))
    }
}

/// A length that is known is said, except that of nothing where nothing is
/// what is expected (RFC 9110, 8.6).
fn say_length(request: &mut Request<()>, body: &Outgoing) {
    let expects_some = !matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::DELETE | Method::CONNECT
    );
    if let Some(length) = body.length()
        && (length > 0 || expects_some)
    {
        let headers = request.headers_mut();
        headers
            .entry(CONTENT_LENGTH)
            .or_insert_with(|| HeaderValue::from(length));
    }
}

/// Takes out what HTTP/2 does not allow. Whether there was anything.
pub(crate) fn make_fit(headers: &mut HeaderMap) -> bool {
    let before = headers.len();
    let named = headers.remove(CONNECTION);
    let named = named.as_ref().and_then(|names| names.to_str().ok());
    for name in named.unwrap_or_default().split(',') {
        headers.remove(name.trim());
    }
    for name in &OF_CONNECTIONS {
        headers.remove(name);
    }
    if headers.get(TE).is_some_and(|te| te != "trailers") {
        headers.remove(TE);
    }
    headers.len() < before
}
