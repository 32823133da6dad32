//! What the registry of a test holds, and what changes when it is told something.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tonic::Status;
use trimtab_proto::duration::parse;
use trimtab_proto::v1 as wire;
use wire::watch_response::Kind as Answer;

use crate::error::Error;
use crate::operator::service_status::{Instance, InstanceStatus};
use crate::testing::fake_service::{FakeInstance, FakeService};
use crate::testing::told::{Told, ToldLoad, ToldRegistration, ToldWatcher};

/// As a registry has it when an instance says nothing of it.
const TTL: Duration = Duration::from_secs(15);

/// How often callers are asked for loads: soon enough for a test to see.
const REPORT_INTERVAL: Duration = Duration::from_millis(50);

/// Laggards that are named.
const LAGGARDS_MAX: usize = 100;

/// Shared by the services of a fake registry and by the test.
#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Counts changes of services.
    pub(super) published: watch::Sender<u64>,
    /// Counts what was told.
    pub(super) told: watch::Sender<u64>,
}

/// Everything, behind one lock.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) cluster: u64,
    revision: u64,
    services: BTreeMap<String, FakeService>,
    watchers: BTreeMap<u64, ToldWatcher>,
    streams: u64,
    leases: BTreeMap<(String, String), Lease>,
    loads: BTreeMap<(String, String), ToldLoad>,
    /// Instances that are told to leave.
    retiring: BTreeSet<(String, String)>,
    pub(super) refusal: Option<String>,
    pub(super) renew_interval: Option<Duration>,
}

#[derive(Debug)]
struct Lease {
    number: u64,
    ttl: Duration,
    renewals: u64,
}

// === impl Shared ===

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was told, and perhaps a service changed by it.
    pub(super) fn tell<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let before = state.revision;
        let changed = change(&mut state);
        let is_news = state.revision != before;
        drop(state);
        if is_news {
            self.published.send_modify(|count| *count += 1);
        }
        self.told.send_modify(|count| *count += 1);
        changed
    }
}

// === impl State: services ===

impl State {
    pub(super) fn service(&self, name: &str) -> Option<&FakeService> {
        self.services.get(name)
    }

    pub(super) fn services(&self) -> impl Iterator<Item = &FakeService> {
        self.services.values()
    }

    pub(super) fn publish(&mut self, service: FakeService) -> Result<u64, Error> {
        let revision = self.revision + 1;
        let name = service.name().to_owned();
        let service = service.at(revision, self.services.get(&name))?;
        self.services.insert(name, service);
        self.revision = revision;
        Ok(revision)
    }

    pub(super) fn remove(&mut self, service: &str) -> u64 {
        if self.services.remove(service).is_some() {
            self.revision += 1;
        }
        self.revision
    }

    /// From here on as if the registry had been founded anew.
    pub(super) fn found_anew(&mut self, cluster: u64) {
        *self = Self {
            cluster,
            streams: self.streams,
            ..Self::default()
        };
    }

    pub(super) fn answer(&self, service: &str) -> Answer {
        match self.services.get(service) {
            Some(found) => Answer::View(found.update()),
            None => Answer::Absent(wire::Absent {
                service: service.to_owned(),
                revision: self.revision,
            }),
        }
    }

    fn change(&mut self, service: &str, change: impl FnOnce(&mut FakeService)) -> u64 {
        let before = self.services.get(service).cloned();
        let mut changed = before.unwrap_or_else(|| FakeService::new(service));
        change(&mut changed);
        // An instance changes no weights but those of a first group.
        let _ = self.publish(changed);
        self.revision
    }
}

// === impl State: callers ===

impl State {
    pub(super) fn welcome(&mut self, hello: wire::Hello) -> (u64, wire::Welcome) {
        self.streams += 1;
        let watcher = ToldWatcher {
            id: hello.watcher_id,
            name: hello.name,
            zone: hello.zone,
            services: BTreeMap::new(),
        };
        self.watchers.insert(self.streams, watcher);
        let welcome = wire::Welcome {
            replica_id: 1,
            report_interval: REPORT_INTERVAL.try_into().ok(),
            cluster_id: self.cluster,
        };
        (self.streams, welcome)
    }

    pub(super) fn subscribed(&mut self, stream: u64, service: &str) {
        if let Some(watcher) = self.watchers.get_mut(&stream) {
            watcher.services.entry(service.to_owned()).or_default();
        }
    }

    pub(super) fn unsubscribed(&mut self, stream: u64, service: &str) {
        if let Some(watcher) = self.watchers.get_mut(&stream) {
            watcher.services.remove(service);
        }
    }

    pub(super) fn confirmed(&mut self, stream: u64, receipt: &wire::Receipt) {
        let watcher = self.watchers.get_mut(&stream);
        if let Some(confirmed) = watcher.and_then(|it| it.services.get_mut(&receipt.service)) {
            *confirmed = receipt.revision.max(*confirmed);
        }
    }

    pub(super) fn reported(&mut self, reports: wire::LoadReports) {
        for report in reports.loads {
            let load = self
                .loads
                .entry((report.service, report.group))
                .or_default();
            let latency = report.latency_total.as_ref().and_then(parse);
            load.calls = load.calls.saturating_add(report.calls);
            load.errors = load.errors.saturating_add(report.errors);
            load.latency_total = load
                .latency_total
                .saturating_add(latency.unwrap_or_default());
        }
    }

    pub(super) fn left(&mut self, stream: u64) {
        self.watchers.remove(&stream);
    }

    /// Who uses a revision of these services.
    pub(super) fn progress(&self, services: &[String], revision: u64) -> wire::ReceiptsResponse {
        let mut progress = wire::ReceiptsResponse::default();
        for watcher in self.watchers.values() {
            for service in services {
                let Some(confirmed) = watcher.services.get(service) else {
                    continue;
                };
                progress.watchers += 1;
                if *confirmed >= revision {
                    progress.confirmed += 1;
                } else if progress.laggards.len() < LAGGARDS_MAX {
                    progress.laggards.push(wire::Laggard {
                        watcher_id: watcher.id.clone(),
                        name: watcher.name.clone(),
                        replica_id: 1,
                        service: service.clone(),
                        revision: *confirmed,
                    });
                }
            }
        }
        progress.complete = progress.confirmed == progress.watchers;
        progress
    }
}

// === impl State: instances ===

impl State {
    pub(super) fn register(
        &mut self,
        request: wire::RegisterRequest,
    ) -> Result<wire::RegisterResponse, Status> {
        if let Some(reason) = &self.refusal {
            return Err(Status::failed_precondition(reason.clone()));
        }
        let said = request.instance.unwrap_or_default();
        if request.service.is_empty() || said.id.is_empty() || said.group.is_empty() {
            return Err(Status::invalid_argument(
                "service, instance.id and instance.group must be given",
            ));
        }
        let ttl = request.ttl.as_ref().and_then(parse).unwrap_or(TTL);
        let instance = FakeInstance {
            id: said.id.clone(),
            group: said.group.clone(),
            status: match said.status() {
                wire::InstanceStatus::Starting => InstanceStatus::Starting,
                _ => InstanceStatus::Ready,
            },
            address: said.address,
            zone: said.zone,
            capacity: if said.capacity == 0 {
                100
            } else {
                said.capacity
            },
            metadata: said.metadata,
        };
        let revision = self.change(&request.service, |service| {
            service.welcome(&said.group);
            service.put(instance);
        });
        let lease = Lease {
            number: revision,
            ttl,
            renewals: 0,
        };
        self.leases.insert((request.service, said.id), lease);
        let interval = self.renew_interval.unwrap_or(ttl / 3);
        Ok(wire::RegisterResponse {
            revision,
            lease: revision,
            ttl: ttl.try_into().ok(),
            renew_interval: interval.try_into().ok(),
        })
    }

    pub(super) fn renew(&mut self, request: wire::RenewRequest) -> wire::RenewResponse {
        let mut response = wire::RenewResponse::default();
        for reference in request.leases {
            let key = (reference.service.clone(), reference.instance_id.clone());
            let lease = self.leases.get_mut(&key);
            match lease.filter(|lease| lease.number == reference.lease) {
                None => response.lost.push(reference),
                Some(lease) => {
                    lease.renewals += 1;
                    if self.retiring.contains(&key) {
                        response.retire.push(reference);
                    }
                }
            }
        }
        response
    }

    pub(super) fn set_status(
        &mut self,
        request: &wire::SetStatusRequest,
    ) -> Result<wire::SetStatusResponse, Status> {
        let (service, id) = self.holder(request.lease.as_ref())?;
        let status = match request.status() {
            wire::InstanceStatus::Starting => InstanceStatus::Starting,
            wire::InstanceStatus::Ready => InstanceStatus::Ready,
            wire::InstanceStatus::Draining => InstanceStatus::Draining,
            other => {
                return Err(Status::invalid_argument(format!(
                    "status {other:?} must be STARTING, READY or DRAINING"
                )));
            }
        };
        let revision = self.change(&service, |it| {
            it.set_status(&id, status);
        });
        Ok(wire::SetStatusResponse { revision })
    }

    pub(super) fn deregister(&mut self, request: &wire::DeregisterRequest) -> u64 {
        match self.holder(request.lease.as_ref()) {
            Ok((service, id)) => self.lose(&service, &id),
            Err(_) => self.revision,
        }
    }

    /// An instance is gone, with its lease.
    pub(super) fn lose(&mut self, service: &str, id: &str) -> u64 {
        let key = (service.to_owned(), id.to_owned());
        self.leases.remove(&key);
        self.retiring.remove(&key);
        self.change(service, |it| {
            it.take_away(id);
        })
    }

    pub(super) fn retire(&mut self, service: &str, id: &str) {
        self.retiring.insert((service.to_owned(), id.to_owned()));
    }

    fn holder(&self, lease: Option<&wire::LeaseRef>) -> Result<(String, String), Status> {
        let lease = lease.ok_or_else(|| Status::invalid_argument("lease must be given"))?;
        let key = (lease.service.clone(), lease.instance_id.clone());
        let held = self.leases.get(&key).map(|held| held.number);
        if held == Some(lease.lease) {
            return Ok(key);
        }
        Err(Status::not_found(format!(
            "lease {} of {} in {} is not held",
            lease.lease, lease.instance_id, lease.service
        )))
    }
}

// === impl State: what the test asks ===

impl State {
    pub(super) fn told(&self) -> Told {
        let registrations = self.leases.iter().filter_map(|((service, id), lease)| {
            let mut instances = self.services.get(service)?.instances();
            let found = instances.find(|it| it.id == *id)?;
            Some(ToldRegistration {
                service: service.clone(),
                instance: Instance {
                    id: found.id.clone(),
                    group: found.group.clone(),
                    address: found.address.clone(),
                    zone: found.zone.clone(),
                    capacity: found.capacity,
                    status: found.status,
                    metadata: found.metadata.clone(),
                },
                ttl: lease.ttl,
                renewals: lease.renewals,
            })
        });
        Told {
            watchers: self.watchers.values().cloned().collect(),
            registrations: registrations.collect(),
            loads: self.loads.clone(),
        }
    }
}
