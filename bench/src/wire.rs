//! Connections whose bytes are counted, and channels over them.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::failure::Failure;

/// How long a connection may take: a server that starts is asked again and again.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// The largest answer that is taken: a million small instances listed by prefix.
pub(crate) const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Bytes that came from a server, over all connections that count here: what TCP carried, without TCP's and IP's own.
pub(crate) type Received = Arc<AtomicU64>;

/// A socket that counts what it reads.
#[derive(Debug)]
struct Counted {
    stream: TcpStream,
    received: Received,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        self.received.fetch_add(read as u64, Relaxed);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A channel over one connection of its own.
pub(crate) async fn connect(address: SocketAddr, received: &Received) -> Result<Channel, Failure> {
    connect_within(address, received, None).await
}

/// The same, with HTTP/2 windows of this many bytes: how much a server may send ahead of its reader.
pub(crate) async fn connect_within(
    address: SocketAddr,
    received: &Received,
    window: Option<u32>,
) -> Result<Channel, Failure> {
    let wrong = |error: tonic::transport::Error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        Failure::Wrong(format!(
            "connecting to {address}: {}",
            cause.unwrap_or_else(|| error.to_string())
        ))
    };
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(wrong)?
        .connect_timeout(CONNECT_TIME)
        .initial_stream_window_size(window)
        .initial_connection_window_size(window);
    let received = received.clone();
    let connector = service_fn(move |_| {
        let received = received.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            io::Result::Ok(TokioIo::new(Counted { stream, received }))
        }
    });
    endpoint
        .connect_with_connector(connector)
        .await
        .map_err(wrong)
}
