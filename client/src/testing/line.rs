//! A connection to the registry of a test, which the test can silence or cut.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;
use tonic::transport::server::Connected;

/// What connections do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// What they are for.
    Open,
    /// They stay, and nothing passes.
    Silent,
    /// They break.
    Cut,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Line {
    stream: TcpStream,
    mode: Mode,
    modes: WatchStream<Mode>,
}

impl Line {
    pub(super) fn new(stream: TcpStream, modes: watch::Receiver<Mode>) -> Self {
        Self {
            stream,
            mode: Mode::Open,
            modes: WatchStream::new(modes),
        }
    }

    /// Ready when bytes may pass; woken when that changes.
    fn poll_mode(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Poll::Ready(mode) = Pin::new(&mut self.modes).poll_next(cx) {
            // Nobody is left to say: as if cut.
            self.mode = mode.unwrap_or(Mode::Cut);
            if self.mode == Mode::Cut {
                break;
            }
        }
        match self.mode {
            Mode::Open => Poll::Ready(Ok(())),
            Mode::Silent => Poll::Pending,
            Mode::Cut => Poll::Ready(Err(ErrorKind::ConnectionReset.into())),
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.poll_mode(cx)? {
            Poll::Ready(()) => Pin::new(&mut self.stream).poll_read(cx, buffer),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.poll_mode(cx)? {
            Poll::Ready(()) => Pin::new(&mut self.stream).poll_write(cx, bytes),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.poll_mode(cx)? {
            Poll::Ready(()) => Pin::new(&mut self.stream).poll_flush(cx),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Connected for Line {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}
