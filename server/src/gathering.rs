//! A connection that sends together what becomes ready together.
//!
//! When one change is told on the hundreds of streams of a connection, each of
//! them wakes the connection, which would write what that one has said before
//! the next has its turn: a system call, and a packet, for each. This one asks
//! for another turn first, behind all that is ready to run now, and then writes
//! all at once. A single answer waits for nothing but an empty queue.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// Around a socket.
#[derive(Debug)]
pub(crate) struct Gathering<S> {
    socket: S,
    turn: Turn,
}

/// Where it is between two writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Nothing waits to be written.
    Idle,
    /// It asked for another turn, or has it: writes go through.
    Writing,
    /// All was written. The next turn begins anew.
    Flushed,
}

impl<S> Gathering<S> {
    pub(crate) fn new(socket: S) -> Self {
        Self {
            socket,
            turn: Turn::Idle,
        }
    }

    /// Whether to write now rather than in another turn.
    fn is_due(&mut self, context: &Context<'_>) -> bool {
        let due = self.turn != Turn::Idle;
        self.turn = Turn::Writing;
        if !due {
            context.waker().wake_by_ref();
        }
        due
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // A connection reads at the beginning of each of its turns.
        if self.turn == Turn::Flushed {
            self.turn = Turn::Idle;
        }
        Pin::new(&mut self.socket).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathering<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.is_due(context) {
            return Poll::Pending;
        }
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.is_due(context) {
            return Poll::Pending;
        }
        Pin::new(&mut self.socket).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.socket).poll_flush(context))?;
        if self.turn == Turn::Writing {
            self.turn = Turn::Flushed;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

impl<S: Connected> Connected for Gathering<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> S::ConnectInfo {
        self.socket.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_first_write_of_a_turn_waits_for_the_next_and_the_others_do_not() {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        let (ours, _theirs) = duplex(64);
        let mut ours = Gathering::new(ours);
        let mut write = |bytes: &[u8]| Pin::new(&mut ours).poll_write(&mut context, bytes);
        assert!(write(b"one").is_pending());
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        // Its turn again, and more to say by now.
        assert!(matches!(write(b"one, two"), Poll::Ready(Ok(8))));
        assert!(matches!(write(b"three"), Poll::Ready(Ok(5))));
    }

    #[tokio::test]
    async fn what_is_written_arrives_and_each_turn_begins_anew() {
        let (ours, mut theirs) = duplex(64);
        let mut ours = Gathering::new(ours);
        for word in ["one", "two"] {
            ours.write_all(word.as_bytes()).await.expect("written");
            ours.flush().await.expect("flushed");
            let mut read = [0; 3];
            theirs.read_exact(&mut read).await.expect("read");
            assert_eq!(read, word.as_bytes());
            let mut nothing = [0; 1];
            let mut nothing = ReadBuf::new(&mut nothing);
            let read = poll_fn(|context| {
                let read = Pin::new(&mut ours).poll_read(context, &mut nothing);
                Poll::Ready(read.is_pending())
            });
            assert!(read.await);
            assert_eq!(ours.turn, Turn::Idle);
        }
    }
}
