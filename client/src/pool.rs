//! One service as its callers share it: the connections to its instances, and the picker over them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rand::RngExt;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::budget::Budget;
use crate::chance;
use crate::connection::{Link, Protocol, Surroundings};
use crate::endpoint::{Connection, Endpoint, Ongoing, Outcome};
use crate::error::Error;
use crate::explain::{Explanation, explain};
use crate::lineup::Lineup;
use crate::meter::RepeatMeter;
use crate::patience::{OTHERS_MAX, silence_of};
use crate::picker::Picker;
use crate::sticky::Affinity;
use crate::subscription::{Known, Subscription};
use crate::ticket::{Ticket, pick};
use crate::vigil::{LOOKS_EVERY, Vigil};
use crate::watcher::Standpoint;

/// Attempts to connect made at once for one service; the rest wait their turn.
const ATTEMPTS_AT_ONCE: usize = 256;

/// How long a picker that was replaced may still be read before its successor
/// is confirmed anyway: a pick takes well under a microsecond, but its thread
/// may be suspended in the midst of it.
const LAST_READERS_PATIENCE: Duration = Duration::from_millis(100);

/// The pool and what keeps it alive. Ends its work when dropped.
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
    subscription: Arc<Subscription>,
    _stop: DropGuard,
}

/// What calls read and the worker writes.
#[derive(Debug)]
struct Shared {
    service: Arc<str>,
    picker: ArcSwap<Picker<Arc<Endpoint>>>,
    /// Counts pickers, for those who wait for another.
    version: watch::Sender<u64>,
    surroundings: Arc<Surroundings>,
    budget: Budget,
    meter: RepeatMeter,
    vigil: Vigil,
}

/// The only writer of the picker.
struct Worker {
    shared: Arc<Shared>,
    subscription: Arc<Subscription>,
    lineup: Lineup<Link>,
}

// === impl Pool ===

impl Pool {
    pub(crate) fn start(
        subscription: Subscription,
        protocol: Protocol,
        standpoint: Standpoint,
    ) -> Self {
        let now = standpoint.origin;
        let shared = Arc::new(Shared {
            service: Arc::clone(subscription.service()),
            picker: ArcSwap::from_pointee(Picker::empty(now)),
            version: watch::Sender::new(0),
            surroundings: Arc::new(Surroundings {
                protocol,
                changed: Notify::new(),
                suspicion: Arc::default(),
                last_error: Mutex::new(None),
                attempts: Semaphore::new(ATTEMPTS_AT_ONCE),
                census: Arc::default(),
            }),
            budget: Budget::new(now),
            meter: RepeatMeter::of(subscription.service()),
            vigil: Vigil::default(),
        });
        let subscription = Arc::new(subscription);
        let stop = CancellationToken::new();
        let worker = Worker {
            shared: Arc::clone(&shared),
            lineup: Lineup::new(Arc::clone(subscription.service()), standpoint),
            subscription: Arc::clone(&subscription),
        };
        tokio::spawn(worker.run(stop.clone()));
        Self {
            shared,
            subscription,
            _stop: stop.drop_guard(),
        }
    }

    pub(crate) fn service(&self) -> &Arc<str> {
        &self.shared.service
    }

    pub(crate) fn subscription(&self) -> &Subscription {
        &self.subscription
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.shared.surroundings.protocol
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.shared.budget
    }

    pub(crate) fn meter(&self) -> &RepeatMeter {
        &self.shared.meter
    }

    /// Wakes calls that wait for long.
    pub(crate) fn vigil(&self) -> &Vigil {
        &self.shared.vigil
    }

    /// Why each instance is chosen or not.
    pub(crate) fn explain(&self) -> Explanation {
        let picker = self.shared.picker.load_full();
        explain(self.service(), &picker, Instant::now())
    }

    /// Returns when calls follow the first view.
    pub(crate) async fn first_picker(&self) {
        let mut version = self.shared.version.subscribe();
        // Fails only when the sender is gone, which `self` holds.
        let _ = version.wait_for(|version| *version > 0).await;
    }

    /// The next call's instance; `ticket` and `tried` come from an earlier
    /// attempt of the same call, if there was one, `affinity` from what the
    /// call is about. Waits up to `patience` for
    /// an instance to be connected.
    ///
    /// # Errors
    /// [`Error::NoInstance`] when none was.
    pub(crate) async fn pick(
        &self,
        mut ticket: Option<Ticket>,
        tried: &[Arc<Endpoint>],
        affinity: &Affinity,
        patience: Duration,
    ) -> Result<Ongoing, Error> {
        if let Some(ongoing) = self.shared.try_pick(&mut ticket, tried, affinity) {
            return Ok(ongoing);
        }
        let mut version = self.shared.version.subscribe();
        let connected = async {
            loop {
                version.borrow_and_update();
                if let Some(ongoing) = self.shared.try_pick(&mut ticket, tried, affinity) {
                    return ongoing;
                }
                if version.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        timeout(patience, connected)
            .await
            .map_err(|_| self.shared.no_instance())
    }

    /// The same without waiting. When nobody is connected, the ticket is for the
    /// next try.
    pub(crate) fn pick_now(
        &self,
        mut ticket: Option<Ticket>,
        tried: &[Arc<Endpoint>],
        affinity: &Affinity,
    ) -> Result<Ongoing, Option<Ticket>> {
        let picked = self.shared.try_pick(&mut ticket, tried, affinity);
        picked.ok_or(ticket)
    }

    /// How long to wait for one of those a call was sent to, by how long others
    /// take.
    pub(crate) fn silence(&self, tried: &[Arc<Endpoint>]) -> Duration {
        let picker = self.shared.picker.load();
        let roster = &picker.basis().roster;
        let middle = chance::with(|rng| rng.random_range(0..=roster.len()));
        let (before, from) = roster.split_at(middle);
        let was_tried = |endpoint: &&Arc<Endpoint>| {
            let is_it = |tried: &Arc<Endpoint>| Arc::ptr_eq(&tried.link, &endpoint.link);
            tried.iter().any(is_it)
        };
        let others = from.iter().chain(before).filter(|it| !was_tried(it));
        let latencies = others.filter_map(|it| it.link.vitals().last_latency());
        silence_of(&mut latencies.take(OTHERS_MAX).collect::<Vec<_>>())
    }

    /// For one more attempt of a call: an instance that none of its attempts
    /// was sent to, if one is connected now.
    pub(crate) fn pick_untried(
        &self,
        mut ticket: Option<Ticket>,
        tried: &[Arc<Endpoint>],
        affinity: &Affinity,
    ) -> Option<Ongoing> {
        let ongoing = self.shared.try_pick(&mut ticket, tried, affinity)?;
        let again = |tried: &Arc<Endpoint>| Arc::ptr_eq(&tried.link, &ongoing.endpoint().link);
        if tried.iter().any(again) {
            ongoing.end(Outcome::Unsent);
            return None;
        }
        Some(ongoing)
    }
}

// === impl Shared ===

impl Shared {
    /// One pick, without waiting. The picker is held until the call counts as
    /// begun, so that no call begins by a picker that was replaced.
    fn try_pick(
        &self,
        ticket: &mut Option<Ticket>,
        tried: &[Arc<Endpoint>],
        affinity: &Affinity,
    ) -> Option<Ongoing> {
        let picker = self.picker.load();
        let picked = chance::with(|rng| pick(&picker, ticket, tried, affinity, rng));
        let (endpoint, bucket) = picked?;
        let terms = picker.terms(Instant::now(), bucket);
        Some(Ongoing::start(Arc::clone(endpoint), terms))
    }

    fn no_instance(&self) -> Error {
        self.meter.no_instance.increment(1);
        let last_error = &self.surroundings.last_error;
        Error::NoInstance {
            service: self.service.to_string(),
            known: self.picker.load().known(),
            last_error: last_error
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        }
    }
}

// === impl Worker ===

impl Worker {
    async fn run(mut self, stop: CancellationToken) {
        let mut known = self.subscription.known();
        known.mark_changed();
        let mut looks = interval(LOOKS_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let surroundings = &self.shared.surroundings;
            let due = self.lineup.due(Instant::now());
            tokio::select! {
                () = stop.cancelled() => break,
                result = known.changed() => {
                    if result.is_err() {
                        break;
                    }
                    let news = known.borrow_and_update().clone();
                    self.apply(news).await;
                }
                () = surroundings.changed.notified() => {
                    self.look_after();
                    self.swap_picker();
                }
                () = surroundings.suspicion.notified() => self.look_again(),
                () = sleep_until(due) => self.look_again(),
                now = looks.tick() => self.shared.vigil.look(now),
            }
        }
        for link in self.lineup.connections() {
            link.close();
        }
    }

    /// Uses a new view, then says so.
    async fn apply(&mut self, news: Known) {
        let Some(view) = news.view() else {
            return;
        };
        let surroundings = &self.shared.surroundings;
        let open = |address: &Arc<str>| Link::open(address, Arc::clone(surroundings));
        let loads = self.subscription.loads();
        self.lineup.follow(view, loads, Instant::now(), open);
        let source = news.source();
        let replaced = self.swap_picker();
        let since = Instant::now();
        while Arc::strong_count(&replaced) > 1 && since.elapsed() < LAST_READERS_PATIENCE {
            sleep(Duration::from_millis(1)).await;
        }
        self.subscription.confirm(self.lineup.revision(), source);
    }

    /// It is time for something, or calls to an instance fail.
    fn look_again(&mut self) {
        if self.look_after() {
            self.swap_picker();
        }
    }

    /// Whether there is news for the picker.
    fn look_after(&mut self) -> bool {
        let surroundings = &self.shared.surroundings;
        let open = |address: &Arc<str>| Link::open(address, Arc::clone(surroundings));
        let loads = self.subscription.loads();
        let (lineup, now) = (&mut self.lineup, Instant::now());
        lineup.look_after(loads, now, open, &mut rand::rng())
    }

    /// Returns the picker that was in use.
    fn swap_picker(&mut self) -> Arc<Picker<Arc<Endpoint>>> {
        let picker = self.lineup.picker(Instant::now(), &mut rand::rng());
        let replaced = self.shared.picker.swap(Arc::new(picker));
        self.shared.version.send_modify(|version| *version += 1);
        replaced
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("service", &self.shared.service)
            .finish_non_exhaustive()
    }
}
