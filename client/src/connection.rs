//! The connection to one instance: made ahead of need, watched, remade.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwapOption, Guard};
use http::uri::Authority;
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::coverage::LinkState;
use crate::endpoint::{Connection, Outcome};
use crate::fair_sleep::{Census, FairSleep};
use crate::http2::{self, Http2, Kept};
use crate::record::Record;
use crate::vitals::Vitals;

/// A peer in reach answers well within this; calls may be waiting for the
/// first attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// After a break the first attempt follows almost at once, then ever later.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MOST: Duration = Duration::from_secs(3);

/// A connection that held this long was a good one: the next break starts from
/// the first wait again.
const HELD_WELL: Duration = Duration::from_secs(1);

/// The pings that find a peer which hangs.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(5);

/// How an instance is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    /// A connection is kept, and calls go over it.
    Http2 {
        /// `None`: never ping.
        ping_interval: Option<Duration>,
    },
    /// Calls are the user's own; a TCP connect says whether anyone listens.
    Tcp,
}

/// One instance's connection, kept by a task until [`Link::close`].
pub(crate) struct Link {
    address: Arc<str>,
    authority: Option<Authority>,
    vitals: Arc<Vitals>,
    record: Record,
    /// Told when it is time to judge by the records.
    suspicion: Arc<Notify>,
    http2: ArcSwapOption<Http2>,
    retry_now: Notify,
    unreachable: Notify,
    closing: CancellationToken,
}

/// What the links of one service share.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) protocol: Protocol,
    /// Told when any link goes up or down.
    pub(crate) changed: Notify,
    /// Told when calls to an instance fail one after another.
    pub(crate) suspicion: Arc<Notify>,
    /// The newest failure of any link, for error messages.
    pub(crate) last_error: Mutex<Option<String>>,
    /// Bounds the attempts made at once.
    pub(crate) attempts: Semaphore,
    /// How many are connected, and how many of these are silent.
    pub(crate) census: Arc<Census>,
}

/// A connection in use.
enum Held {
    Http2(Kept),
    Probed,
}

// === impl Link ===

impl Link {
    /// Begins to connect.
    pub(crate) fn open(address: &Arc<str>, surroundings: Arc<Surroundings>) -> Arc<Self> {
        let mut link = Self::unopened(address);
        link.suspicion = Arc::clone(&surroundings.suspicion);
        let link = Arc::new(link);
        tokio::spawn(keep_connected(Arc::clone(&link), surroundings));
        link
    }

    /// One that nobody connects.
    pub(crate) fn unopened(address: &Arc<str>) -> Self {
        Self {
            address: Arc::clone(address),
            authority: address.parse().ok(),
            vitals: Arc::new(Vitals::new()),
            record: Record::default(),
            suspicion: Arc::default(),
            http2: ArcSwapOption::empty(),
            retry_now: Notify::new(),
            unreachable: Notify::new(),
            closing: CancellationToken::new(),
        }
    }

    /// `None` when the address is none.
    pub(crate) fn authority(&self) -> Option<&Authority> {
        self.authority.as_ref()
    }

    /// What calls go over, while it is connected.
    pub(crate) fn http2(&self) -> Guard<Option<Arc<Http2>>> {
        self.http2.load()
    }

    /// A call to it ended.
    pub(crate) fn note(&self, outcome: Outcome) {
        if self.record.note(outcome) {
            self.suspicion.notify_one();
        }
    }

    /// The user could not reach it. For [`Protocol::Tcp`] nothing else tells.
    pub(crate) fn told_unreachable(&self) {
        if self.state() == LinkState::Up {
            self.unreachable.notify_one();
        }
    }

    async fn connect(&self, surroundings: &Surroundings) -> Result<Held, String> {
        let _permit = surroundings
            .attempts
            .acquire()
            .await
            .map_err(|e| e.to_string())?;
        tokio::select! {
            held = self.attempt(surroundings) => held,
            () = FairSleep::after(CONNECT_TIMEOUT) => {
                Err(format!("no connection within {CONNECT_TIMEOUT:.1?}"))
            }
        }
    }

    async fn attempt(&self, surroundings: &Surroundings) -> Result<Held, String> {
        if self.authority.is_none() {
            return Err("the address is not host:port".to_owned());
        }
        let stream = TcpStream::connect(&*self.address)
            .await
            .map_err(|e| e.to_string())?;
        let Protocol::Http2 { ping_interval } = surroundings.protocol else {
            return Ok(Held::Probed);
        };
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        let (http2, mut kept, heard) =
            http2::connect(stream, ping_interval, &surroundings.census).await?;
        tokio::select! {
            reason = kept.ended() => return Err(reason),
            _ = heard => {}
        }
        self.http2.store(Some(Arc::new(http2)));
        Ok(Held::Http2(kept))
    }

    /// Until the connection ends, or takes no more calls, with the reason; or
    /// until this is closed, and then what is in flight has ended.
    async fn hold(&self, held: Held, surroundings: &Surroundings) -> Option<String> {
        let Held::Http2(mut kept) = held else {
            tokio::select! {
                () = self.closing.cancelled() => {}
                () = self.unreachable.notified() => {
                    return Some("a caller could not reach it".to_owned());
                }
            }
            self.went(LinkState::Down, surroundings);
            return None;
        };
        let spent = kept.spent();
        tokio::select! {
            () = self.closing.cancelled() => {}
            reason = kept.ended() => return Some(reason),
            () = spent.notified() => {
                kept.finish();
                return Some("the instance takes no more calls over the connection".to_owned());
            }
        }
        // Without what calls hold it ends when what is in flight has.
        self.went(LinkState::Down, surroundings);
        kept.ended().await;
        None
    }

    fn went(&self, state: LinkState, surroundings: &Surroundings) {
        if state != LinkState::Up {
            self.http2.store(None);
        }
        self.vitals.went(state);
        surroundings.changed.notify_one();
    }

    fn went_down(&self, reason: &str, surroundings: &Surroundings) {
        tracing::debug!(address = %self.address, reason, "instance not connected");
        let mut last = surroundings
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *last = Some(format!("{}: {reason}", self.address));
        drop(last);
        self.went(LinkState::Down, surroundings);
    }
}

impl Connection for Link {
    fn address(&self) -> &Arc<str> {
        &self.address
    }

    fn vitals(&self) -> &Arc<Vitals> {
        &self.vitals
    }

    fn record(&self) -> &Record {
        &self.record
    }

    fn retry_now(&self) {
        if self.state() == LinkState::Down {
            self.retry_now.notify_one();
        }
    }

    fn close(&self) {
        self.closing.cancel();
    }
}

async fn keep_connected(link: Arc<Link>, surroundings: Arc<Surroundings>) {
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MOST);
    loop {
        let attempt = tokio::select! {
            () = link.closing.cancelled() => break,
            attempt = link.connect(&surroundings) => attempt,
        };
        let reason = match attempt {
            Ok(held) => {
                link.went(LinkState::Up, &surroundings);
                tracing::debug!(address = %link.address, "instance connected");
                let since = Instant::now();
                let Some(reason) = link.hold(held, &surroundings).await else {
                    return;
                };
                if since.elapsed() >= HELD_WELL {
                    backoff.reset();
                }
                reason
            }
            Err(reason) => reason,
        };
        link.went_down(&reason, &surroundings);
        let wait = backoff.next(&mut rand::rng());
        tokio::select! {
            () = link.closing.cancelled() => break,
            () = sleep(wait) => {}
            () = link.retry_now.notified() => {}
        }
    }
    link.went(LinkState::Down, &surroundings);
}

/// An error and what caused it, as one line.
pub(crate) fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("address", &self.address)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
