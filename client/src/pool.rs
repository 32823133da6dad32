//! One service as its callers share it: the connections to its instances, and the picker over them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::budget::Budget;
use crate::connection::{Link, Protocol, Surroundings};
use crate::endpoint::{Endpoint, Ongoing};
use crate::error::Error;
use crate::picker::{Candidate, CandidateGroup, Coverage, Level, Picker, Schedules};
use crate::shares::Schedule;
use crate::subscription::{Known, Subscription};
use crate::view::{Instance, InstanceStatus, View};

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
}

/// A place in the order of groups that was drawn and not used yet.
#[derive(Debug)]
pub(crate) struct Ticket {
    group: Arc<str>,
    /// Only while this schedule is in use; `None`: while the group takes calls.
    schedule: Option<Arc<Schedule>>,
}

/// The only writer of the picker.
struct Worker {
    shared: Arc<Shared>,
    subscription: Arc<Subscription>,
    schedules: Schedules,
    view: Arc<View>,
    endpoints: HashMap<Arc<str>, Arc<Endpoint>>,
    coverage: Option<Coverage>,
}

// === impl Pool ===

impl Pool {
    pub(crate) fn start(subscription: Subscription, protocol: Protocol) -> Self {
        let shared = Arc::new(Shared {
            service: Arc::clone(subscription.service()),
            picker: ArcSwap::from_pointee(Picker::empty()),
            version: watch::Sender::new(0),
            surroundings: Arc::new(Surroundings {
                protocol,
                changed: Notify::new(),
                last_error: Mutex::new(None),
                attempts: Semaphore::new(ATTEMPTS_AT_ONCE),
            }),
            budget: Budget::new(Instant::now()),
        });
        let subscription = Arc::new(subscription);
        let stop = CancellationToken::new();
        let worker = Worker {
            shared: Arc::clone(&shared),
            subscription: Arc::clone(&subscription),
            schedules: Schedules::default(),
            view: Arc::default(),
            endpoints: HashMap::new(),
            coverage: None,
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

    /// Returns when calls follow the first view.
    pub(crate) async fn first_picker(&self) {
        let mut version = self.shared.version.subscribe();
        // Fails only when the sender is gone, which `self` holds.
        let _ = version.wait_for(|version| *version > 0).await;
    }

    /// The next call's instance; `ticket` and `tried` come from an earlier
    /// attempt of the same call, if there was one. Waits up to `patience` for
    /// an instance to be connected.
    ///
    /// # Errors
    /// [`Error::NoInstance`] when none was.
    pub(crate) async fn pick(
        &self,
        mut ticket: Option<Ticket>,
        tried: &[Arc<Endpoint>],
        patience: Duration,
    ) -> Result<Ongoing, Error> {
        if let Some(ongoing) = self.shared.try_pick(&mut ticket, tried) {
            return Ok(ongoing);
        }
        let mut version = self.shared.version.subscribe();
        let connected = async {
            loop {
                version.borrow_and_update();
                if let Some(ongoing) = self.shared.try_pick(&mut ticket, tried) {
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
}

// === impl Shared ===

impl Shared {
    /// One pick, without waiting. The picker is held until the call counts as
    /// begun, so that no call begins by a picker that was replaced.
    fn try_pick(&self, ticket: &mut Option<Ticket>, tried: &[Arc<Endpoint>]) -> Option<Ongoing> {
        let picker = self.picker.load();
        let kept = ticket.take().and_then(|ticket| ticket.position(&picker));
        let group = kept.or_else(|| picker.draw())?;
        let avoid = |endpoint: &Arc<Endpoint>| {
            tried
                .iter()
                .any(|tried| Arc::ptr_eq(&tried.link, &endpoint.link))
        };
        match picker.choose(group, avoid, &mut rand::rng()) {
            Some(endpoint) => Some(Ongoing::start(Arc::clone(endpoint), picker.revision())),
            None => {
                *ticket = picker.group_name(group).map(|name| Ticket {
                    group: Arc::clone(name),
                    schedule: picker.schedule().cloned(),
                });
                None
            }
        }
    }

    fn no_instance(&self) -> Error {
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

// === impl Ticket ===

impl Ticket {
    /// For a call that failed at an instance of `group` and is tried again:
    /// it stays in its group, as that is whose turn it is.
    pub(crate) fn again(endpoint: &Endpoint) -> Self {
        Self {
            group: Arc::clone(&endpoint.group),
            schedule: None,
        }
    }

    fn position(&self, picker: &Picker<Arc<Endpoint>>) -> Option<usize> {
        let in_use = match (&self.schedule, picker.schedule()) {
            (Some(drawn_from), Some(current)) => Arc::ptr_eq(drawn_from, current),
            (Some(_), None) => false,
            (None, _) => true,
        };
        picker.position(&self.group).filter(|_| in_use)
    }
}

// === impl Worker ===

impl Worker {
    async fn run(mut self, stop: CancellationToken) {
        let mut known = self.subscription.known();
        known.mark_changed();
        loop {
            let changed = &self.shared.surroundings.changed;
            tokio::select! {
                () = stop.cancelled() => break,
                result = known.changed() => {
                    if result.is_err() {
                        break;
                    }
                    let news = known.borrow_and_update().clone();
                    self.apply(news).await;
                }
                () = changed.notified() => {
                    self.swap_picker();
                }
            }
        }
        for endpoint in self.endpoints.values() {
            endpoint.link.close();
        }
    }

    /// Uses a new view, then says so.
    async fn apply(&mut self, news: Known) {
        self.view = match &news {
            Known::Nothing => return,
            Known::Absent { revision } => Arc::new(View {
                revision: *revision,
                ..View::default()
            }),
            Known::View { view, .. } => Arc::clone(view),
        };
        self.reconcile_endpoints();
        let replaced = self.swap_picker();
        let since = Instant::now();
        while Arc::strong_count(&replaced) > 1 && since.elapsed() < LAST_READERS_PATIENCE {
            sleep(Duration::from_millis(1)).await;
        }
        self.subscription.confirm(self.view.revision);
    }

    /// One endpoint, and so one connection, for each instance of the view that
    /// is not on its way out; those that are keep what they have.
    fn reconcile_endpoints(&mut self) {
        let mut before = std::mem::take(&mut self.endpoints);
        for group in &self.view.groups {
            let load = self.subscription.loads().group(&group.name);
            for instance in &group.instances {
                let known = before.remove(&instance.id);
                let known = known.filter(|known| {
                    let moved = *known.link.address() != instance.address;
                    if moved {
                        known.link.close();
                    }
                    !moved
                });
                let status = known.as_ref().map(|known| known.status);
                let link = match known {
                    Some(known) => Arc::clone(&known.link),
                    None if instance.status == InstanceStatus::Draining => continue,
                    None => Link::open(&instance.address, Arc::clone(&self.shared.surroundings)),
                };
                if instance.status == InstanceStatus::Ready && status != Some(instance.status) {
                    link.retry_now();
                }
                let endpoint = Endpoint {
                    id: Arc::clone(&instance.id),
                    status: instance.status,
                    group: Arc::clone(&group.name),
                    zone: Arc::clone(&instance.zone),
                    metadata: Arc::clone(&instance.metadata),
                    link,
                    load: Arc::clone(&load),
                };
                self.endpoints
                    .insert(Arc::clone(&instance.id), Arc::new(endpoint));
            }
        }
        for gone in before.into_values() {
            gone.link.close();
        }
    }

    /// Returns the picker that was in use.
    fn swap_picker(&mut self) -> Arc<Picker<Arc<Endpoint>>> {
        let groups = self.view.groups.iter().map(|group| CandidateGroup {
            name: Arc::clone(&group.name),
            state: group.state,
            weight: group.weight,
            candidates: group
                .instances
                .iter()
                .filter(|instance| instance.status.takes_calls())
                .filter_map(|instance| self.candidate(instance))
                .collect(),
        });
        let groups = groups.collect();
        let fall_back_to_dark = self.view.fall_back_to_dark;
        let picker = Picker::build(
            groups,
            fall_back_to_dark,
            &mut self.schedules,
            &mut rand::rng(),
        );
        let picker = picker.at_revision(self.view.revision);
        self.report(picker.coverage().clone());
        let replaced = self.shared.picker.swap(Arc::new(picker));
        self.shared.version.send_modify(|version| *version += 1);
        replaced
    }

    fn candidate(&self, instance: &Instance) -> Option<Candidate<Arc<Endpoint>>> {
        let endpoint = self.endpoints.get(&instance.id)?;
        Some(Candidate {
            target: Arc::clone(endpoint),
            capacity: instance.capacity,
            ready: instance.status == InstanceStatus::Ready,
            link: endpoint.link.state(),
        })
    }

    /// Once for each change of who carries the calls.
    fn report(&mut self, coverage: Coverage) {
        let before = self.coverage.replace(coverage.clone());
        if before.as_ref() == Some(&coverage) {
            return;
        }
        let service = &*self.shared.service;
        let revision = self.view.revision;
        let uncovered = &coverage.uncovered;
        match coverage.level {
            Level::Weighted if uncovered.is_empty() => {
                if before.is_some_and(|before| before.is_degraded()) {
                    tracing::info!(
                        service,
                        revision,
                        "every weighted group takes its share again"
                    );
                }
            }
            Level::Weighted => tracing::warn!(
                service,
                revision,
                ?uncovered,
                "groups cannot be reached, their share goes to the other weighted groups"
            ),
            Level::Nothing => tracing::warn!(
                service,
                revision,
                known = self.endpoints.len(),
                "no instance can take calls, they wait"
            ),
            level => tracing::warn!(
                service,
                revision,
                ?uncovered,
                ?level,
                "no weighted group can be reached, calls go to groups without weight"
            ),
        }
    }
}

impl Coverage {
    fn is_degraded(&self) -> bool {
        self.level != Level::Weighted || !self.uncovered.is_empty()
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("service", &self.shared.service)
            .finish_non_exhaustive()
    }
}
