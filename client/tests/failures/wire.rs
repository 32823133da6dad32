//! The network in front of an instance, which can fail in the ways networks and hosts do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Duration, sleep};

/// How bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    Clear,
    /// Nothing arrives, in either direction, and nothing is closed: a host that
    /// lost its power, or a process that was stopped.
    Blocked,
    /// Connections are reset when so many bytes of answers have passed.
    ResetAfter(usize),
    /// Every piece takes so long.
    Delayed(Duration),
    /// Nobody listens.
    Closed,
}

/// A relay on an address of its own.
pub struct Wire {
    address: SocketAddr,
    passage: watch::Sender<Passage>,
    counts: Arc<Counts>,
    relay: JoinHandle<()>,
}

/// Connections.
#[derive(Default)]
struct Counts {
    accepted: AtomicU64,
    ended: AtomicU64,
}

impl Wire {
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let passage = watch::Sender::new(Passage::Clear);
        let counts = Arc::new(Counts::default());
        let carried = Arc::clone(&counts);
        let relay = relay(
            address,
            Some(listener),
            server,
            passage.subscribe(),
            carried,
        );
        Self {
            address,
            passage,
            counts,
            relay: tokio::spawn(relay),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections ever made through it.
    pub fn accepted(&self) -> u64 {
        self.counts.accepted.load(Ordering::SeqCst)
    }

    /// Whether anyone is connected.
    pub fn is_in_use(&self) -> bool {
        self.counts.ended.load(Ordering::SeqCst) < self.accepted()
    }

    pub fn set(&self, passage: Passage) {
        self.passage.send_replace(passage);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.relay.abort();
    }
}

async fn relay(
    address: SocketAddr,
    mut listener: Option<TcpListener>,
    server: SocketAddr,
    mut passage: watch::Receiver<Passage>,
    counts: Arc<Counts>,
) {
    loop {
        let now = *passage.borrow_and_update();
        if now == Passage::Closed {
            // The connections see it themselves.
            listener = None;
            if passage.changed().await.is_err() {
                return;
            }
            continue;
        }
        let open = match listener.take() {
            Some(open) => open,
            None => listen(address).await,
        };
        tokio::select! {
            accepted = open.accept() => {
                let (stream, _) = accepted.unwrap();
                counts.accepted.fetch_add(1, Ordering::SeqCst);
                let (passage, counts) = (passage.clone(), Arc::clone(&counts));
                tokio::spawn(async move {
                    carry(stream, server, passage).await;
                    counts.ended.fetch_add(1, Ordering::SeqCst);
                });
            }
            changed = passage.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
        listener = Some(open);
    }
}

async fn listen(address: SocketAddr) -> TcpListener {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            // Its last connections are not gone yet.
            Err(_) => sleep(Duration::from_millis(5)).await,
        }
    }
}

/// One connection, until either side or the passage ends it.
async fn carry(near: TcpStream, server: SocketAddr, passage: watch::Receiver<Passage>) {
    let far = TcpStream::connect(server).await.unwrap();
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    // What is dropped is reset, as by a process that was killed.
    near.set_zero_linger().unwrap();
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let mut ends = passage.clone();
    tokio::select! {
        () = pass(near_read, far_write, passage.clone(), false) => {}
        () = pass(far_read, near_write, passage, true) => {}
        _ = ends.wait_for(|passage| *passage == Passage::Closed) => {}
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut passage: watch::Receiver<Passage>,
    answers: bool,
) {
    let mut buffer = vec![0; 16 * 1024];
    let mut passed = 0;
    loop {
        let Ok(mut count @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        let open = passage.wait_for(|passage| *passage != Passage::Blocked);
        let Ok(now) = open.await.map(|now| *now) else {
            return;
        };
        let mut last = false;
        match now {
            Passage::Delayed(time) => sleep(time).await,
            Passage::ResetAfter(bytes) if answers => {
                last = passed + count >= bytes;
                count = count.min(bytes.saturating_sub(passed));
            }
            _ => {}
        }
        passed += count;
        if to.write_all(&buffer[..count]).await.is_err() || last {
            return;
        }
    }
}
