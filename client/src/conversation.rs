//! What one watch stream asks and how it takes the answers, without a socket, a clock or chance of its own.
//!
//! Whoever drives it repeats: send what [`Conversation::next_request`] gives,
//! feed what arrives, tell it when something followed has changed and when
//! [`Conversation::due`] has come. Time is counted from the stream's opening.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::{Rng, RngExt};
use tokio::time::Instant;
use trimtab_proto::v1 as wire;
use wire::watch_request::Kind as Ask;
use wire::watch_response::Kind as Answer;

use crate::load::GroupReport;
use crate::subscription::{Followed, Known, SUBSCRIPTIONS_MAX, Source, Subscriptions};
use crate::watcher::Watcher;

mod taking;

/// A replica that runs opens a stream, and says welcome on it, well within
/// this.
pub(crate) const OPEN_TIMEOUT: Duration = Duration::from_secs(2);

/// Messages that wait here: a subscription and a receipt for each service, and
/// then some. Beyond it, nothing is added until they are sent.
const OUTBOX_MAX: usize = 4 * SUBSCRIPTIONS_MAX;

/// What the protocol allows in one message.
const LOADS_MAX: usize = 1_024;

/// How long to stay, at least, with a replica that is cut off from a leader
/// though no other did better: long beside the cost of looking again.
const STALE_PATIENCE: Duration = Duration::from_secs(5);

/// Load reports when the replica does not say how often.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// What a replica may ask for: neither a flood nor silence.
const REPORT_INTERVAL_MIN: Duration = Duration::from_millis(50);
const REPORT_INTERVAL_MAX: Duration = Duration::from_secs(60);

/// Why a stream is over.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Nothing is followed any more.
    Idle,
    /// The replica is stopping, and spreads those who leave over this time.
    GoingAway(Option<Duration>),
    /// The replica is cut off from a leader; another may not be.
    Stale,
    /// Anything else.
    Broken(String),
}

/// What this stream has been told so far.
#[derive(Debug)]
pub(crate) struct Conversation {
    subscriptions: Arc<Subscriptions>,
    /// Overrides what the replica asks for.
    report_interval: Option<Duration>,
    asked: BTreeMap<Arc<str>, Asked>,
    outbox: VecDeque<Ask>,
    /// The outbox was too full to be brought in line.
    behind: bool,
    /// No replica is known to do better, so one that is cut off will do.
    takes_stale: bool,
    /// When to look whether another replica does better by now.
    look_elsewhere: Option<Duration>,
    welcome: bool,
    /// Whose replica it is, as it said with its welcome; 0 until then.
    cluster: u64,
    reported: bool,
}

/// A subscription of this stream.
#[derive(Debug, Default)]
struct Asked {
    /// The revision of the last receipt.
    receipt: u64,
    damaged: u32,
    /// Deltas that did not fit.
    refused: u32,
    /// A delta did not fit, and the view was asked for.
    awaits_view: bool,
}

impl Conversation {
    /// Says hello and asks for all that is followed.
    pub(crate) fn new(
        watcher: &Watcher,
        subscriptions: &Arc<Subscriptions>,
        takes_stale: bool,
    ) -> Self {
        let hello = Ask::Hello(wire::Hello {
            watcher_id: watcher.id.clone(),
            name: watcher.name.clone(),
            zone: watcher.zone.clone(),
        });
        let mut conversation = Self {
            subscriptions: Arc::clone(subscriptions),
            report_interval: watcher.report_interval,
            asked: BTreeMap::new(),
            outbox: VecDeque::from([hello]),
            behind: false,
            takes_stale,
            look_elsewhere: None,
            welcome: false,
            cluster: 0,
            reported: false,
        };
        conversation.reconcile();
        conversation
    }

    /// Whether the replica took the stream.
    pub(crate) fn was_welcome(&self) -> bool {
        self.welcome
    }

    /// Whether there is anything to send.
    pub(crate) fn has_requests(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// What to send next.
    pub(crate) fn next_request(&mut self) -> Option<wire::WatchRequest> {
        let ask = self.outbox.pop_front()?;
        if self.behind && self.outbox.is_empty() {
            self.reconcile();
        }
        Some(wire::WatchRequest { kind: Some(ask) })
    }

    /// When to ask [`Conversation::overdue`], if nothing happens before.
    pub(crate) fn due(&self) -> Option<Duration> {
        let welcome = (!self.welcome).then_some(OPEN_TIMEOUT);
        welcome.into_iter().chain(self.look_elsewhere).min()
    }

    /// Whether the stream has been waited for long enough.
    pub(crate) fn overdue(&self, now: Duration) -> Option<Ended> {
        if self.look_elsewhere.is_some_and(|due| due <= now) {
            return Some(Ended::Stale);
        }
        if !self.welcome && OPEN_TIMEOUT <= now {
            let reason = format!("no welcome within {OPEN_TIMEOUT:.1?}");
            return Some(Ended::Broken(reason));
        }
        None
    }

    /// Takes one answer. How often to report load, when it says.
    ///
    /// # Errors
    /// Why the stream must end.
    pub(crate) fn hear(
        &mut self,
        now: Duration,
        answer: wire::WatchResponse,
        rng: &mut impl Rng,
    ) -> Result<Option<Duration>, Ended> {
        if !answer.possibly_stale {
            self.look_elsewhere = None;
        } else if !self.takes_stale {
            return Err(Ended::Stale);
        } else if self.look_elsewhere.is_none() {
            let patience = STALE_PATIENCE.mul_f64(rng.random_range(1.0..=2.0));
            self.look_elsewhere = Some(now + patience);
        }
        match answer.kind {
            Some(Answer::Welcome(welcome)) => {
                self.welcome = true;
                self.cluster = welcome.cluster_id;
                return Ok(Some(self.report_interval(&welcome)));
            }
            Some(Answer::GoingAway(going_away)) => {
                let within = going_away.reconnect_within;
                let within = within.and_then(|within| trimtab_proto::duration::parse(&within));
                return Err(Ended::GoingAway(within));
            }
            Some(news) => self.take(news)?,
            // It only says whether it is cut off.
            None => {}
        }
        Ok(None)
    }

    /// Something is followed, dropped or confirmed.
    ///
    /// # Errors
    /// [`Ended::Idle`] when nothing is followed any more.
    pub(crate) fn followed_changed(&mut self) -> Result<(), Ended> {
        self.reconcile();
        if self.asked.is_empty() {
            return Err(Ended::Idle);
        }
        Ok(())
    }

    /// Brings the stream in line with what is followed and confirmed. The
    /// outbox holds at most a few messages per subscription.
    fn reconcile(&mut self) {
        self.behind = self.outbox.len() >= OUTBOX_MAX;
        if self.behind {
            return;
        }
        let followed = self.subscriptions.all();
        let gone: Vec<Arc<str>> = self
            .asked
            .keys()
            .filter(|service| !followed.iter().any(|f| f.service == **service))
            .cloned()
            .collect();
        for service in gone {
            self.asked.remove(&service);
            self.outbox.push_back(Ask::Unsubscribe(wire::Unsubscribe {
                service: service.to_string(),
            }));
        }
        for followed in followed {
            if !self.asked.contains_key(&followed.service) {
                self.outbox.push_back(Ask::Subscribe(subscribe(&followed)));
            }
            let asked = self.asked.entry(Arc::clone(&followed.service)).or_default();
            let confirmed = followed.confirmed();
            if confirmed > asked.receipt {
                asked.receipt = confirmed;
                self.outbox.push_back(Ask::Receipt(wire::Receipt {
                    service: followed.service.to_string(),
                    revision: confirmed,
                }));
            }
        }
    }

    fn report_interval(&self, welcome: &wire::Welcome) -> Duration {
        let asked_for = welcome
            .report_interval
            .and_then(|interval| trimtab_proto::duration::parse(&interval));
        let interval = self.report_interval.or(asked_for);
        bounded(interval.unwrap_or(REPORT_INTERVAL))
    }

    /// What happened since the last report; at first, all groups. Skipped
    /// while earlier messages wait, so that reports cannot pile up.
    pub(crate) fn report(&mut self, now: Instant) {
        if !self.outbox.is_empty() {
            return;
        }
        let all = !std::mem::replace(&mut self.reported, true);
        let mut loads: Vec<wire::GroupLoad> = Vec::new();
        for followed in self.subscriptions.all() {
            let reports = followed.loads.report(now, all);
            loads.extend(
                reports
                    .into_iter()
                    .map(|report| load_to_wire(&followed, report)),
            );
        }
        for part in loads.chunks(LOADS_MAX) {
            self.outbox.push_back(Ask::LoadReports(wire::LoadReports {
                loads: part.to_vec(),
            }));
        }
    }
}

fn bounded(report_interval: Duration) -> Duration {
    report_interval.clamp(REPORT_INTERVAL_MIN, REPORT_INTERVAL_MAX)
}

fn subscribe(followed: &Followed) -> wire::Subscribe {
    let (known_revision, known_checksum, known_digest) = match &*followed.known.borrow() {
        // A replica says nothing as long as it is behind what is said here. It
        // must not be measured by what another registry may have written.
        Known::View {
            view,
            checksum,
            base,
            source: Source::Registry,
        } => (view.revision, *checksum, base.digest),
        Known::View { .. } | Known::Absent { .. } | Known::Nothing => (0, 0, 0),
    };
    wire::Subscribe {
        service: followed.service.to_string(),
        known_revision,
        known_checksum,
        known_digest,
        takes_deltas: true,
    }
}

fn load_to_wire(followed: &Followed, report: GroupReport) -> wire::GroupLoad {
    wire::GroupLoad {
        service: followed.service.to_string(),
        group: report.group.to_string(),
        calls: report.calls,
        errors: report.errors,
        latency_total: report.latency_total.try_into().ok(),
        last_call_age: report.last_call_age.and_then(|age| age.try_into().ok()),
        latency_buckets: report.latencies,
    }
}
