//! An HTTP/2 connection: what calls hold of it, and what keeps it.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{Ping, PingPong};
use http::Request;
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use crate::connection::with_causes;
use crate::exchange::{Exchange, Sent, Unanswered, make_fit};
use crate::fair_sleep::{Census, Member};
use crate::heard::Heard;
use crate::outgoing::Outgoing;

/// A peer that answers no ping within this, and says nothing else, is gone,
/// whatever TCP says: of the time that this process had; twice this while most
/// of the service's peers are silent.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// What a peer may send before it is read, over the connection and in one
/// answer: enough that no network waits for it. As hyper has them, and what
/// follows.
const CONNECTION_WINDOW_BYTES: u32 = 5 * 1024 * 1024;
const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;

/// What a streamed request may be ahead of the network.
const SEND_BUFFER_BYTES: usize = 1024 * 1024;

/// The headers of an answer.
const HEADERS_BYTES_MAX: u32 = 16 * 1024;

/// Requests at once before the peer has said how many it takes: what every
/// peer should (RFC 9113, 6.5.2).
const REQUESTS_AT_FIRST: usize = 100;

/// What calls hold.
pub(crate) struct Http2 {
    line: Mutex<Line>,
    /// Held by the one who waits for the peer to take more.
    turn: tokio::sync::Mutex<()>,
    spent: Arc<Notify>,
}

/// Those who want to send something.
struct Line {
    sender: SendRequest<Bytes>,
    /// Requests that wait for their turn.
    waiting: usize,
}

/// A place among those who wait.
struct Place(Arc<Http2>);

/// What keeps a connection. It is closed when this is dropped.
pub(crate) struct Kept {
    transport: AbortOnDropHandle<Result<(), h2::Error>>,
    ping_pong: Option<PingPong>,
    /// Pings are sent this often; never without it.
    interval: Option<Duration>,
    member: Arc<Member>,
    /// The peer was heard since this was last reset.
    lately: Arc<AtomicBool>,
    spent: Arc<Notify>,
}

/// Begins to speak HTTP/2. Tells when the peer is heard for the first time.
pub(crate) async fn connect(
    stream: TcpStream,
    ping_interval: Option<Duration>,
    census: &Arc<Census>,
) -> Result<(Http2, Kept, oneshot::Receiver<()>), String> {
    let (stream, heard, lately) = Heard::on(stream);
    let (sender, mut connection) = Builder::new()
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .initial_max_send_streams(REQUESTS_AT_FIRST)
        .enable_push(false)
        .handshake(stream)
        .await
        .map_err(|error| with_causes(&error))?;
    let spent = Arc::new(Notify::new());
    let kept = Kept {
        ping_pong: connection.ping_pong(),
        // In a task of its own nothing else is looked at whenever something is
        // sent or received.
        transport: AbortOnDropHandle::new(tokio::spawn(connection)),
        interval: ping_interval,
        member: Member::of(census),
        lately,
        spent: Arc::clone(&spent),
    };
    let http2 = Http2 {
        line: Mutex::new(Line { sender, waiting: 0 }),
        turn: tokio::sync::Mutex::default(),
        spent,
    };
    Ok((http2, kept, heard))
}

// === impl Http2 ===

impl Http2 {
    /// Sends a request, now or when the peer takes more.
    pub(crate) fn begin(
        self: &Arc<Self>,
        request: Request<()>,
        body: Outgoing,
    ) -> Result<Exchange, Unanswered> {
        let mut line = self.line();
        // Whoever waits is to be woken, and comes first.
        let ready = match line.waiting {
            0 => line
                .sender
                .poll_ready(&mut Context::from_waker(Waker::noop())),
            _ => Poll::Pending,
        };
        let sent = match ready {
            Poll::Ready(Ok(())) => Sent::by(&mut line.sender, request, body).map(Exchange::Sent),
            Poll::Ready(Err(error)) => Err(Unanswered::Spent(error)),
            Poll::Pending => {
                line.waiting += 1;
                let place = Place(Arc::clone(self));
                Ok(Exchange::Waiting(Box::pin(place.wait(request, body))))
            }
        };
        drop(line);
        self.look_at(sent)
    }

    /// Tells whoever keeps the connection when it takes no more.
    fn look_at<T>(&self, sent: Result<T, Unanswered>) -> Result<T, Unanswered> {
        if let Err(Unanswered::Spent(_)) = &sent {
            self.spent.notify_one();
        }
        sent
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    async fn wait(self, mut request: Request<()>, body: Outgoing) -> Result<Sent, Unanswered> {
        let http2 = &*self.0;
        make_fit(request.headers_mut());
        let turn = http2.turn.lock().await;
        let ready = std::future::poll_fn(|cx| http2.line().sender.poll_ready(cx)).await;
        let sent = match ready {
            Ok(()) => Sent::by(&mut http2.line().sender, request, body),
            Err(error) => Err(Unanswered::Spent(error)),
        };
        drop(turn);
        http2.look_at(sent)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.line().waiting -= 1;
    }
}

// === impl Kept ===

impl Kept {
    /// Returns, with the reason, when the connection has ended.
    pub(crate) async fn ended(&mut self) -> String {
        let pings = self.ping_pong.as_mut().zip(self.interval);
        let silence = silence(pings, &self.member, &self.lately);
        tokio::select! {
            ended = &mut self.transport => match ended {
                Ok(Ok(())) => "the instance closed the connection".to_owned(),
                Ok(Err(error)) => format!("the connection broke: {}", with_causes(&error)),
                Err(error) => format!("the connection broke: {error}"),
            },
            () = silence => {
                self.transport.abort();
                "the connection broke: the instance answers no ping".to_owned()
            }
        }
    }

    /// Told when calls have found that it takes no more, though those under way
    /// may go on.
    pub(crate) fn spent(&self) -> Arc<Notify> {
        Arc::clone(&self.spent)
    }

    /// Lets what is under way end.
    pub(crate) fn finish(mut self) {
        tokio::spawn(async move { self.ended().await });
    }
}

/// Pings. Returns when the peer is silent.
async fn silence(
    pings: Option<(&mut PingPong, Duration)>,
    member: &Arc<Member>,
    lately: &AtomicBool,
) {
    let Some((ping_pong, interval)) = pings else {
        return std::future::pending().await;
    };
    loop {
        sleep(interval).await;
        lately.store(false, Ordering::Relaxed);
        let mut pong = pin!(ping_pong.ping(Ping::opaque()));
        loop {
            tokio::select! {
                _ = &mut pong => break,
                // It may come late behind much else.
                () = member.wait(PING_TIMEOUT) => {
                    if !lately.swap(false, Ordering::Relaxed) {
                        return;
                    }
                }
            }
        }
    }
}
