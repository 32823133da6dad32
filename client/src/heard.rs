//! A stream that says when the peer has been heard for the first time, and whether it was since.
//!
//! A kernel completes connections for a process that was stopped, or is too
//! busy to accept them. A server of HTTP/2 says its settings at once: only then
//! is somebody there.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// A TCP stream.
#[derive(Debug)]
pub(crate) struct Heard {
    stream: TcpStream,
    /// Taken when it is told.
    first: Option<oneshot::Sender<()>>,
    /// Set whenever something is.
    lately: Arc<AtomicBool>,
}

impl Heard {
    /// What is received ends with the first bytes, or with the stream. The flag
    /// is set whenever the peer is heard; whoever asks resets it.
    pub(crate) fn on(stream: TcpStream) -> (Self, oneshot::Receiver<()>, Arc<AtomicBool>) {
        let (first, heard) = oneshot::channel();
        let lately = Arc::new(AtomicBool::new(false));
        let it = Self {
            stream,
            first: Some(first),
            lately: Arc::clone(&lately),
        };
        (it, heard, lately)
    }
}

impl AsyncRead for Heard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.lately.store(true, Ordering::Relaxed);
            if let Some(first) = self.first.take() {
                // Whoever waited may have lost patience.
                let _ = first.send(());
            }
        }
        polled
    }
}

impl AsyncWrite for Heard {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
