//! A server on loopback that plays a script of bytes, whatever is said to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::frames::HEADERS;

#[derive(Debug, Clone)]
pub enum Step {
    Send(Vec<u8>),
    /// Waits until there is a request.
    Request,
    /// Again and again, until nobody takes it any more.
    Flood(Vec<u8>),
}

/// What it does when it has said all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Listens, and says no more.
    Stays,
    Closes,
    /// Ends the connection as a process does that is killed.
    Resets,
}

#[derive(Debug, Clone)]
pub struct Script {
    pub steps: Vec<Step>,
    pub end: End,
    /// It reads nothing.
    pub is_deaf: bool,
}

/// Plays the same to whoever connects.
pub struct Peer {
    address: SocketAddr,
    counts: Arc<Counts>,
    _plays: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    floods: AtomicU64,
}

impl Script {
    pub fn of(steps: Vec<Step>) -> Self {
        Self {
            steps,
            end: End::Stays,
            is_deaf: false,
        }
    }
}

impl Peer {
    pub async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let counts = Arc::new(Counts::default());
        let counted = Arc::clone(&counts);
        let plays = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(play(stream, script.clone(), Arc::clone(&counted)));
            }
        });
        Self {
            address,
            counts,
            _plays: AbortOnDropHandle::new(plays),
        }
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Requests that it has heard.
    pub fn requests(&self) -> u64 {
        self.counts.requests.load(Ordering::SeqCst)
    }

    /// How often it has sent what it floods with.
    pub fn floods(&self) -> u64 {
        self.counts.floods.load(Ordering::SeqCst)
    }
}

async fn play(stream: TcpStream, script: Script, counts: Arc<Counts>) {
    stream.set_nodelay(true).unwrap();
    let (from, mut to) = stream.into_split();
    let (tell, mut told) = watch::channel(false);
    let counted = Arc::clone(&counts);
    let listens = async move {
        match script.is_deaf {
            true => std::future::pending().await,
            false => listen(from, tell, &counted).await,
        }
    };
    let listens = AbortOnDropHandle::new(tokio::spawn(listens));
    for step in &script.steps {
        let goes_on = match step {
            Step::Send(bytes) => to.write_all(bytes).await.is_ok(),
            Step::Request => told.wait_for(|is_there| *is_there).await.is_ok(),
            Step::Flood(bytes) => flood(&mut to, bytes, &counts).await,
        };
        if !goes_on {
            return;
        }
    }
    match script.end {
        End::Stays => drop(listens.await),
        End::Closes => drop(to.shutdown().await),
        End::Resets => to.as_ref().set_zero_linger().unwrap(),
    }
}

async fn flood(to: &mut OwnedWriteHalf, bytes: &[u8], counts: &Counts) -> bool {
    while to.write_all(bytes).await.is_ok() {
        counts.floods.fetch_add(1, Ordering::SeqCst);
    }
    false
}

/// Until the other side ends the connection.
async fn listen(mut from: OwnedReadHalf, tell: watch::Sender<bool>, counts: &Counts) -> Option<()> {
    let mut preface = [0; 24];
    from.read_exact(&mut preface).await.ok()?;
    loop {
        let mut head = [0; 9];
        from.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        from.read_exact(&mut payload).await.ok()?;
        if head[3] == HEADERS {
            counts.requests.fetch_add(1, Ordering::SeqCst);
            tell.send_replace(true);
        }
    }
}
