//! Renews all leases of a process over one stream, and moves to another replica when it breaks.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use trimtab_proto::v1 as wire;
use trimtab_proto::v1::registration_client::RegistrationClient;

use crate::backoff::Backoff;
use crate::cluster::{Cluster, Line, describe};
use crate::error::Error;

/// What the registry takes on one stream.
pub(crate) const LEASES_MAX: usize = 10_000;

/// After a break the instances have a second to renew through another replica
/// before they turn SUSPECT, so the first wait is short.
const RECONNECT_FIRST: Duration = Duration::from_millis(50);
const RECONNECT_MOST: Duration = Duration::from_secs(1);

/// A replica that runs opens a stream well within this.
const OPEN_TIMEOUT: Duration = Duration::from_secs(1);

/// A replica without a leader answers late; beyond this it hangs. Between
/// these, as long as a renewal may take.
const ANSWER_TIMEOUT_MIN: Duration = Duration::from_secs(1);
const ANSWER_TIMEOUT_MAX: Duration = Duration::from_secs(5);

/// Renewals on their way; a replica that lets more pile up does not read.
const UNSENT_MAX: usize = 8;

/// No lease is so short that it must be renewed more often, and none so long
/// that it may be renewed more seldom: a third of ten minutes.
const INTERVAL_MIN: Duration = Duration::from_millis(10);
const INTERVAL_MAX: Duration = Duration::from_secs(200);

/// A stream that was answered and lasted for so long was a good one; another
/// is not waited for. One that breaks sooner, again and again, is.
const GOOD_AFTER: Duration = RECONNECT_MOST;

/// The leases of a process.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    held: Mutex<BTreeMap<Key, Arc<Lease>>>,
    /// Told when a lease comes, goes or is a new one.
    changed: Notify,
}

/// An instance of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) service: String,
    pub(crate) instance_id: String,
}

/// One instance's right to be registered, while it has one.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) key: Key,
    /// 0: none.
    number: AtomicU64,
    interval_ms: AtomicU64,
    /// Told when the registry no longer holds it.
    pub(crate) lost: Notify,
    /// Whether the group is being torn down.
    pub(crate) retired: watch::Sender<bool>,
}

// === impl Leases ===

impl Leases {
    /// # Errors
    /// [`Error::Invalid`] when the instance is held by this process already,
    /// or there are as many as a process may hold.
    pub(crate) fn add(&self, lease: &Arc<Lease>) -> Result<(), Error> {
        let mut held = self.held();
        let Key {
            service,
            instance_id,
        } = &lease.key;
        if held.contains_key(&lease.key) {
            return Err(Error::Invalid(format!(
                "instance {instance_id:?} of {service:?} is registered by this process already"
            )));
        }
        if held.len() >= LEASES_MAX {
            return Err(Error::Invalid(format!(
                "this client holds {LEASES_MAX} registrations, the most it may; \
                 use a second client"
            )));
        }
        held.insert(lease.key.clone(), Arc::clone(lease));
        drop(held);
        self.changed.notify_one();
        Ok(())
    }

    /// Leaves alone who has come under the same key since.
    pub(crate) fn remove(&self, lease: &Arc<Lease>) {
        let mut held = self.held();
        if held
            .get(&lease.key)
            .is_some_and(|it| Arc::ptr_eq(it, lease))
        {
            held.remove(&lease.key);
        }
        drop(held);
        self.changed.notify_one();
    }

    /// The registry has given a lease a number: renew it from now on.
    pub(crate) fn granted(&self, lease: &Lease, number: u64, interval: Duration) {
        let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        lease.interval_ms.store(interval_ms, Ordering::Release);
        lease.number.store(number, Ordering::Release);
        self.changed.notify_one();
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<Lease>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Lease ===

impl Lease {
    pub(crate) fn new(key: Key) -> Self {
        Self {
            key,
            number: AtomicU64::new(0),
            interval_ms: AtomicU64::new(0),
            lost: Notify::new(),
            retired: watch::Sender::new(false),
        }
    }

    /// `None` while there is none.
    pub(crate) fn reference(&self) -> Option<wire::LeaseRef> {
        let number = self.number.load(Ordering::Acquire);
        (number != 0).then(|| wire::LeaseRef {
            service: self.key.service.clone(),
            instance_id: self.key.instance_id.clone(),
            lease: number,
        })
    }

    /// Whether there is one.
    pub(crate) fn is_held(&self) -> bool {
        self.number.load(Ordering::Acquire) != 0
    }

    /// The registry does not hold this number. Has no effect on a newer one.
    pub(crate) fn is_lost(&self, number: u64) {
        let ours = self
            .number
            .compare_exchange(number, 0, Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        if ours && number != 0 {
            self.lost.notify_one();
        }
    }

    fn interval(&self) -> Duration {
        let interval = Duration::from_millis(self.interval_ms.load(Ordering::Acquire));
        interval.clamp(INTERVAL_MIN, INTERVAL_MAX)
    }

    fn is(&self, number: u64) -> bool {
        number != 0 && self.number.load(Ordering::Acquire) == number
    }
}

/// Runs until `stop`. There is no stream while there is no lease.
pub(crate) async fn renew(cluster: Cluster, leases: Arc<Leases>, stop: CancellationToken) {
    let mut backoff = Backoff::new(RECONNECT_FIRST, RECONNECT_MOST);
    let work = async {
        loop {
            while leases.held().is_empty() {
                leases.changed.notified().await;
            }
            let (position, channel) = cluster.channel();
            let replica = cluster.endpoint_at(position).to_owned();
            let mut stream = RenewalStream::new(&leases);
            let opened = Instant::now();
            match stream.run(channel).await {
                Ended::Idle => continue,
                Ended::GoingAway => tracing::debug!(%replica, "replica says goodbye"),
                Ended::Broken(reason) => {
                    tracing::info!(%replica, %reason, "renewals broke, moving to another replica");
                }
            }
            cluster.move_on(position);
            if stream.was_answered && opened.elapsed() >= GOOD_AFTER {
                backoff.reset();
            }
            let wait = backoff.next(&mut rand::rng());
            sleep(wait).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

/// Why a stream is over.
enum Ended {
    /// Nothing is left to renew.
    Idle,
    /// The replica is stopping.
    GoingAway,
    /// Anything else.
    Broken(String),
}

/// One stream to one replica.
struct RenewalStream<'a> {
    leases: &'a Leases,
    /// By lease: the number renewed, and when to renew it again.
    due: HashMap<Key, (u64, Instant)>,
    unanswered_since: Option<Instant>,
    answer_timeout: Duration,
    was_answered: bool,
}

impl<'a> RenewalStream<'a> {
    fn new(leases: &'a Leases) -> Self {
        Self {
            leases,
            due: HashMap::new(),
            unanswered_since: None,
            answer_timeout: ANSWER_TIMEOUT_MAX,
            was_answered: false,
        }
    }

    async fn run(&mut self, channel: Line) -> Ended {
        let (sender, receiver) = mpsc::channel(UNSENT_MAX);
        let mut client = RegistrationClient::new(channel);
        // What is due goes ahead, so that it is the first thing read.
        if let Err(ended) = self.send_due(&sender) {
            return ended;
        }
        let opened = timeout(OPEN_TIMEOUT, client.renew(ReceiverStream::new(receiver))).await;
        match opened {
            Ok(Ok(answers)) => self.converse(answers.into_inner(), sender).await,
            Ok(Err(status)) => Ended::Broken(describe(&status)),
            Err(_) => Ended::Broken(format!("no answer within {OPEN_TIMEOUT:.1?}")),
        }
    }

    async fn converse(
        &mut self,
        mut answers: Streaming<wire::RenewResponse>,
        sender: mpsc::Sender<wire::RenewRequest>,
    ) -> Ended {
        loop {
            let next = match self.send_due(&sender) {
                Ok(next) => next,
                Err(ended) => return ended,
            };
            let overdue = self
                .unanswered_since
                .map(|since| since + self.answer_timeout);
            tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => {
                        if let Some(ended) = self.take(answer) {
                            return ended;
                        }
                    }
                    Ok(None) => return Ended::Broken("the replica ended the stream".to_owned()),
                    Err(status) => return Ended::Broken(describe(&status)),
                },
                () = self.leases.changed.notified() => {}
                () = sleep_until(next) => {}
                () = sleep_until(overdue.unwrap_or(next)), if overdue.is_some() => {
                    return Ended::Broken(format!("no answer within {:.1?}", self.answer_timeout));
                }
            }
        }
    }

    /// Sends every lease whose time has come, or that is new to this stream.
    /// Returns when the next one is due.
    fn send_due(&mut self, sender: &mpsc::Sender<wire::RenewRequest>) -> Result<Instant, Ended> {
        let now = Instant::now();
        let held = self.leases.held();
        if held.is_empty() {
            return Err(Ended::Idle);
        }
        self.due.retain(|key, _| held.contains_key(key));
        let mut next = now + ANSWER_TIMEOUT_MAX;
        let mut renewed = Vec::new();
        let mut shortest = ANSWER_TIMEOUT_MAX;
        for lease in held.values() {
            let Some(reference) = lease.reference() else {
                continue;
            };
            let interval = lease.interval();
            shortest = shortest.min(interval);
            let entry = self.due.entry(lease.key.clone()).or_insert((0, now));
            if entry.0 != reference.lease || entry.1 <= now {
                // Early by chance, so that many processes do not keep step.
                let wait = interval.mul_f64(rand::random_range(0.8..=1.0));
                *entry = (reference.lease, now + wait);
                renewed.push(reference);
            }
            next = next.min(entry.1);
        }
        drop(held);
        self.answer_timeout = shortest.clamp(ANSWER_TIMEOUT_MIN, ANSWER_TIMEOUT_MAX);
        if !renewed.is_empty() {
            self.unanswered_since.get_or_insert(now);
            let request = wire::RenewRequest { leases: renewed };
            if sender.try_send(request).is_err() {
                return Err(Ended::Broken(
                    "the replica does not read renewals".to_owned(),
                ));
            }
        }
        Ok(next)
    }

    fn take(&mut self, answer: wire::RenewResponse) -> Option<Ended> {
        self.was_answered = true;
        self.unanswered_since = None;
        let held = self.leases.held();
        let find = |reference: &wire::LeaseRef| {
            let key = Key {
                service: reference.service.clone(),
                instance_id: reference.instance_id.clone(),
            };
            held.get(&key)
        };
        for lost in &answer.lost {
            if let Some(lease) = find(lost) {
                lease.is_lost(lost.lease);
            }
        }
        for retired in &answer.retire {
            if let Some(lease) = find(retired).filter(|lease| lease.is(retired.lease)) {
                lease.retired.send_replace(true);
            }
        }
        answer.going_away.then_some(Ended::GoingAway)
    }
}
