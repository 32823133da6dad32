//! One watch stream, from hello to its end: subscribes, takes views, sends receipts and load reports.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;
use trimtab_proto::v1 as wire;
use trimtab_proto::v1::discovery_client::DiscoveryClient;
use wire::watch_request::Kind as Ask;
use wire::watch_response::Kind as Answer;

use crate::cluster::{MESSAGE_BYTES_MAX, describe};
use crate::convert::view_from_wire;
use crate::load::GroupReport;
use crate::subscription::{Followed, Known, SUBSCRIPTIONS_MAX, Subscriptions};
use crate::watcher::Watcher;

/// A replica that runs opens a stream well within this.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);

/// Messages handed to the transport but not sent yet; more wait in order.
const UNSENT_MAX: usize = 64;

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

/// A view that arrives damaged this often in a row is not damaged by chance.
const DAMAGED_MAX: u32 = 3;

/// Why a stream is over.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Nothing is followed any more.
    Idle,
    /// The replica is stopping.
    GoingAway,
    /// The replica is cut off from a leader; another may not be.
    Stale,
    /// Anything else.
    Broken(String),
}

/// What this stream has been told so far.
pub(crate) struct WatchStream<'a> {
    watcher: &'a Watcher,
    subscriptions: &'a Arc<Subscriptions>,
    asked: HashMap<Arc<str>, Asked>,
    outbox: VecDeque<Ask>,
    /// The outbox was too full to be brought in line.
    behind: bool,
    /// No replica is known to do better, so one that is cut off will do.
    takes_stale: bool,
    welcome: bool,
    reported: bool,
}

/// A subscription of this stream.
#[derive(Debug, Default)]
struct Asked {
    /// The revision of the last receipt.
    receipt: u64,
    damaged: u32,
}

impl<'a> WatchStream<'a> {
    pub(crate) fn new(
        watcher: &'a Watcher,
        subscriptions: &'a Arc<Subscriptions>,
        takes_stale: bool,
    ) -> Self {
        Self {
            watcher,
            subscriptions,
            asked: HashMap::new(),
            outbox: VecDeque::new(),
            behind: false,
            takes_stale,
            welcome: false,
            reported: false,
        }
    }

    /// Whether the replica took the stream.
    pub(crate) fn was_welcome(&self) -> bool {
        self.welcome
    }

    /// Runs the stream to its end.
    pub(crate) async fn follow(&mut self, channel: Channel) -> Ended {
        let (sender, receiver) = mpsc::channel(UNSENT_MAX);
        self.outbox.push_back(Ask::Hello(wire::Hello {
            watcher_id: self.watcher.id.clone(),
            name: self.watcher.name.clone(),
            zone: self.watcher.zone.clone(),
        }));
        self.reconcile();
        let mut client = DiscoveryClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        self.fill(&sender);
        let opened = timeout(OPEN_TIMEOUT, client.watch(ReceiverStream::new(receiver))).await;
        match opened {
            Ok(Ok(answers)) => self.converse(answers.into_inner(), sender).await,
            Ok(Err(status)) => Ended::Broken(describe(&status)),
            Err(_) => Ended::Broken(format!("no answer within {OPEN_TIMEOUT:.1?}")),
        }
    }

    async fn converse(
        &mut self,
        mut answers: Streaming<wire::WatchResponse>,
        sender: mpsc::Sender<wire::WatchRequest>,
    ) -> Ended {
        let mut reports = reports_every(self.watcher.report_interval.unwrap_or(REPORT_INTERVAL));
        let welcome_due = Instant::now() + OPEN_TIMEOUT;
        // When to look whether another replica does better by now.
        let mut look_elsewhere: Option<Instant> = None;
        loop {
            let look = look_elsewhere.unwrap_or(welcome_due);
            tokio::select! {
                () = sleep_until(look), if look_elsewhere.is_some() => return Ended::Stale,
                () = sleep_until(welcome_due), if !self.welcome => {
                    return Ended::Broken(format!("no welcome within {OPEN_TIMEOUT:.1?}"));
                }
                answer = answers.message() => match answer {
                    Ok(Some(answer)) if answer.possibly_stale && !self.takes_stale => {
                        return Ended::Stale;
                    }
                    Ok(Some(answer)) => {
                        if !answer.possibly_stale {
                            look_elsewhere = None;
                        } else if look_elsewhere.is_none() {
                            let patience = STALE_PATIENCE.mul_f64(rand::random_range(1.0..=2.0));
                            look_elsewhere = Some(Instant::now() + patience);
                        }
                        match answer.kind {
                            Some(Answer::Welcome(welcome)) => {
                                self.welcome = true;
                                reports = reports_every(self.report_interval(&welcome));
                            }
                            Some(Answer::GoingAway(_)) => return Ended::GoingAway,
                            Some(news) => if let Err(ended) = self.take(news) {
                                return ended;
                            },
                            // It only says whether it is cut off.
                            None => {}
                        }
                    }
                    Ok(None) => return Ended::Broken("the replica ended the stream".to_owned()),
                    Err(status) => return Ended::Broken(describe(&status)),
                },
                () = self.subscriptions.changed.notified() => {
                    self.reconcile();
                    if self.asked.is_empty() {
                        return Ended::Idle;
                    }
                }
                _ = reports.tick(), if self.welcome => self.report(),
                // Never waits for the transport while views wait to be read.
                permit = sender.reserve(), if !self.outbox.is_empty() => match permit {
                    Ok(permit) => {
                        if let Some(ask) = self.outbox.pop_front() {
                            permit.send(wire::WatchRequest { kind: Some(ask) });
                        }
                        if self.behind && self.outbox.is_empty() {
                            self.reconcile();
                        }
                    }
                    Err(_) => return Ended::Broken("the stream takes no more requests".to_owned()),
                },
            }
        }
    }

    /// Puts what is ready into the channel before there is anyone to wait for.
    fn fill(&mut self, sender: &mpsc::Sender<wire::WatchRequest>) {
        while let Ok(permit) = sender.try_reserve() {
            let Some(ask) = self.outbox.pop_front() else {
                break;
            };
            permit.send(wire::WatchRequest { kind: Some(ask) });
        }
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

    /// Takes one answer about one service. Revisions never go back; what is
    /// damaged is asked for again.
    fn take(&mut self, news: Answer) -> Result<(), Ended> {
        match news {
            Answer::View(update) => return self.take_view(&update),
            Answer::Absent(absent) => {
                let Some(followed) = self.subscriptions.get(&absent.service) else {
                    return Ok(());
                };
                let revision = absent.revision;
                followed.known.send_if_modified(|known| {
                    let first = matches!(known, Known::Nothing);
                    let newer = revision > known.revision();
                    if first || newer {
                        *known = Known::Absent { revision };
                    }
                    first || newer
                });
            }
            Answer::Unchanged(unchanged) => {
                let Some(followed) = self.subscriptions.get(&unchanged.service) else {
                    return Ok(());
                };
                if !matches!(*followed.known.borrow(), Known::View { .. }) {
                    self.ask_anew(&followed.service);
                }
            }
            Answer::Welcome(_) | Answer::GoingAway(_) => {}
        }
        Ok(())
    }

    fn take_view(&mut self, update: &wire::ViewUpdate) -> Result<(), Ended> {
        let Some(followed) = self.subscriptions.get(&update.service) else {
            return Ok(());
        };
        let held = followed.known.borrow().revision();
        if !is_news(&followed.known.borrow(), update) {
            if update.revision < held {
                tracing::info!(
                    service = %update.service, offered = update.revision, held,
                    "the replica offers an older view than the one held, keeping that"
                );
            }
            return Ok(());
        }
        match view_from_wire(update) {
            Ok(view) => {
                if let Some(asked) = self.asked.get_mut(&followed.service) {
                    asked.damaged = 0;
                }
                tracing::debug!(service = %update.service, revision = update.revision, "view taken");
                followed.known.send_replace(Known::View {
                    view: Arc::new(view),
                    checksum: update.checksum,
                });
                Ok(())
            }
            Err(error) => {
                tracing::warn!(service = %update.service, %error, "asking for the view again");
                let asked = self.asked.entry(Arc::clone(&followed.service)).or_default();
                asked.damaged += 1;
                if asked.damaged >= DAMAGED_MAX {
                    return Err(Ended::Broken(error.to_string()));
                }
                self.ask_anew(&followed.service);
                Ok(())
            }
        }
    }

    /// Drops the subscription and makes it again with nothing known.
    fn ask_anew(&mut self, service: &Arc<str>) {
        let service = service.to_string();
        self.outbox.push_back(Ask::Unsubscribe(wire::Unsubscribe {
            service: service.clone(),
        }));
        self.outbox.push_back(Ask::Subscribe(wire::Subscribe {
            service,
            known_revision: 0,
            known_checksum: 0,
        }));
    }

    fn report_interval(&self, welcome: &wire::Welcome) -> Duration {
        let asked_for = welcome
            .report_interval
            .and_then(|interval| interval.try_into().ok());
        let interval = self
            .watcher
            .report_interval
            .or(asked_for)
            .unwrap_or(REPORT_INTERVAL);
        interval.clamp(REPORT_INTERVAL_MIN, REPORT_INTERVAL_MAX)
    }

    /// What happened since the last report; at first, all groups. Skipped
    /// while earlier messages wait, so that reports cannot pile up.
    fn report(&mut self) {
        if !self.outbox.is_empty() {
            return;
        }
        let all = !std::mem::replace(&mut self.reported, true);
        let now = Instant::now();
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

fn subscribe(followed: &Followed) -> wire::Subscribe {
    let (known_revision, known_checksum) = match &*followed.known.borrow() {
        Known::View { view, checksum } => (view.revision, *checksum),
        Known::Absent { .. } | Known::Nothing => (0, 0),
    };
    wire::Subscribe {
        service: followed.service.to_string(),
        known_revision,
        known_checksum,
    }
}

/// A replica that lags may send what is older than what is held. The same
/// revision with another checksum means that one of the two is wrong: the
/// registry's counts.
fn is_news(known: &Known, update: &wire::ViewUpdate) -> bool {
    match known {
        Known::Nothing => true,
        Known::Absent { revision } => update.revision > *revision,
        Known::View { view, checksum } => {
            update.revision > view.revision
                || (update.revision == view.revision && update.checksum != *checksum)
        }
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
    }
}

fn reports_every(period: Duration) -> Interval {
    let period = period.clamp(REPORT_INTERVAL_MIN, REPORT_INTERVAL_MAX);
    // Somewhere within the first period, as processes start together.
    let first = period.mul_f64(rand::random_range(0.1..=1.0));
    let mut reports = interval_at(Instant::now() + first, period);
    reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
    reports
}
