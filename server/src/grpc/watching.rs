//! One watch stream from the replica's side: takes a caller's requests and says what is news, without a socket or a clock.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use tonic::Status;
use trimtab_proto::v1::{
    Absent, Hello, LoadReports, Subscribe, Unchanged, ViewUpdate, WatchRequest, Welcome,
    watch_request, watch_response,
};
use trimtab_registry::name::{GroupName, InstanceId, ServiceName};
use trimtab_registry::rejection::Invalid;

use super::status::of_invalid;
use crate::convert;
use crate::views::{Published, PublishedView, Subscription, Views};
use crate::watchers::{ConnectionId, Watchers};

/// Services one stream may follow: far more than a process calls.
pub const SUBSCRIPTIONS_MAX: usize = 1_024;
/// Groups in one load report: what a caller of many services has.
pub const LOADS_PER_REPORT_MAX: usize = 1_024;
/// How often callers are asked to report their load.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(1);

const WATCHER_NAME_BYTES_MAX: usize = 128;

/// What one stream follows, and what its caller held.
#[derive(Debug)]
pub struct Watching {
    replica: u64,
    cluster: u64,
    views: Arc<Views>,
    watchers: Arc<Watchers>,
    subscriptions: BTreeMap<ServiceName, Subscription>,
    /// The service that was answered last. The next answer is of one after
    /// it, if there is one, so that none waits behind a busy one.
    last: Option<ServiceName>,
    /// What the caller held when it subscribed, until the first answer.
    held: HashMap<ServiceName, Subscribe>,
    connection: Option<ConnectionId>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.watchers.disconnect(connection);
        }
    }
}

impl Watching {
    /// A stream that has just been opened at this replica of this cluster.
    pub fn new(replica: u64, cluster: u64, views: Arc<Views>, watchers: Arc<Watchers>) -> Watching {
        Watching {
            replica,
            cluster,
            views,
            watchers,
            subscriptions: BTreeMap::new(),
            last: None,
            held: HashMap::new(),
            connection: None,
        }
    }

    /// The stream is no more, and the caller did not end it.
    pub fn broke(&mut self, now: Duration) {
        if let Some(connection) = self.connection.take() {
            self.watchers.broke(now, connection);
        }
    }

    /// The next thing to tell the caller.
    pub fn poll_news(&mut self, context: &mut Context<'_>) -> Poll<watch_response::Kind> {
        let Some(last) = self.last.clone() else {
            return self.poll_within((Bound::Unbounded, Bound::Unbounded), context);
        };
        let after = (Bound::Excluded(last.clone()), Bound::Unbounded);
        match self.poll_within(after, context) {
            Poll::Pending => {
                let rest = (Bound::Unbounded, Bound::Included(last));
                self.poll_within(rest, context)
            }
            news => news,
        }
    }

    fn poll_within(
        &mut self,
        range: (Bound<ServiceName>, Bound<ServiceName>),
        context: &mut Context<'_>,
    ) -> Poll<watch_response::Kind> {
        for (service, subscription) in self.subscriptions.range_mut(range) {
            // What is no news is skipped, until it says that it will wake us.
            while let Poll::Ready(Some(published)) = Pin::new(&mut *subscription).poll_next(context)
            {
                if let Some(kind) = answer(&mut self.held, service, &published) {
                    self.last = Some(service.clone());
                    return Poll::Ready(kind);
                }
            }
        }
        Poll::Pending
    }

    /// Takes in one request; some have an answer of their own.
    ///
    /// # Errors
    /// What the stream ends with: a request breaks a rule of the protocol.
    pub fn take(
        &mut self,
        now: Duration,
        request: WatchRequest,
    ) -> Result<Option<watch_response::Kind>, Status> {
        let Some(connection) = self.connection else {
            return match request.kind {
                Some(watch_request::Kind::Hello(hello)) => self.welcome(hello).map(Some),
                _ => Err(of_invalid(Invalid::new(
                    "kind",
                    "",
                    "must be hello in the first message of a watch stream",
                ))),
            };
        };
        match request.kind {
            Some(watch_request::Kind::Subscribe(subscribe)) => {
                self.subscribe(connection, subscribe)?;
            }
            Some(watch_request::Kind::Unsubscribe(unsubscribe)) => {
                let service = ServiceName::parse(&unsubscribe.service).map_err(of_invalid)?;
                self.subscriptions.remove(&service);
                self.held.remove(&service);
                self.watchers.unsubscribe(connection, &service);
            }
            Some(watch_request::Kind::Receipt(receipt)) => {
                let service = ServiceName::parse(&receipt.service).map_err(of_invalid)?;
                self.watchers
                    .confirm(connection, &service, receipt.revision);
            }
            Some(watch_request::Kind::LoadReports(reports)) => self.report(now, &reports)?,
            Some(watch_request::Kind::Hello(_)) => {
                return Err(of_invalid(Invalid::new(
                    "kind",
                    "hello",
                    "must be sent once",
                )));
            }
            // A kind that a newer caller knows: nothing this replica could do.
            None => {}
        }
        Ok(None)
    }

    fn welcome(&mut self, hello: Hello) -> Result<watch_response::Kind, Status> {
        // The same rule as for instances: what names a process.
        InstanceId::parse(&hello.watcher_id)
            .map_err(|invalid| of_invalid(invalid.at("hello.watcher_id")))?;
        if hello.name.len() > WATCHER_NAME_BYTES_MAX {
            return Err(of_invalid(Invalid::new(
                "hello.name",
                hello.name,
                "must be at most 128 bytes",
            )));
        }
        self.connection = Some(self.watchers.connect(hello.watcher_id, hello.name));
        Ok(watch_response::Kind::Welcome(Welcome {
            replica_id: self.replica,
            report_interval: Some(convert::duration(REPORT_INTERVAL)),
            cluster_id: self.cluster,
        }))
    }

    fn subscribe(&mut self, connection: ConnectionId, asked: Subscribe) -> Result<(), Status> {
        let service = ServiceName::parse(&asked.service).map_err(of_invalid)?;
        let known = self.subscriptions.contains_key(&service);
        if !known && self.subscriptions.len() >= SUBSCRIPTIONS_MAX {
            return Err(Status::resource_exhausted(format!(
                "a watch stream follows at most {SUBSCRIPTIONS_MAX} services; open another one"
            )));
        }
        self.watchers.subscribe(connection, service.clone());
        let subscription = self.views.subscribe(service.clone());
        self.held.insert(service.clone(), asked);
        self.subscriptions.insert(service, subscription);
        Ok(())
    }

    fn report(&self, now: Duration, reports: &LoadReports) -> Result<(), Status> {
        if reports.loads.len() > LOADS_PER_REPORT_MAX {
            return Err(of_invalid(Invalid::new(
                "load_reports.loads",
                reports.loads.len(),
                "must have at most 1,024 entries",
            )));
        }
        for reported in &reports.loads {
            let service = ServiceName::parse(&reported.service).map_err(of_invalid)?;
            let group = GroupName::parse(&reported.group).map_err(of_invalid)?;
            // What is not followed or not there is not counted: so nobody can
            // make this replica remember names without bound.
            let known = self.subscriptions.contains_key(&service)
                && has_group(&self.views.latest(&service), &group);
            if known {
                let load = convert::load(reported).map_err(of_invalid)?;
                self.watchers.report(now, &service, &group, load);
            }
        }
        Ok(())
    }
}

/// What to say of a service's new state; nothing when this replica is behind
/// what the caller already holds.
fn answer(
    held: &mut HashMap<ServiceName, Subscribe>,
    service: &ServiceName,
    published: &Published,
) -> Option<watch_response::Kind> {
    let revision = published.revision();
    if let Some(known) = held.get(service) {
        if revision < known.known_revision {
            return None;
        }
        let known = held.remove(service)?;
        let same = |present: &PublishedView| {
            present.view.revision.0 == known.known_revision
                && present.encoded().checksum == known.known_checksum
        };
        if published.present().is_some_and(same) {
            return Some(watch_response::Kind::Unchanged(Unchanged {
                service: service.to_string(),
                revision,
            }));
        }
    }
    Some(match published.present() {
        Some(present) => watch_response::Kind::View(view_update(present)),
        None => watch_response::Kind::Absent(Absent {
            service: service.to_string(),
            revision,
        }),
    })
}

/// A view as it travels.
pub(super) fn view_update(present: &PublishedView) -> ViewUpdate {
    let encoded = present.encoded();
    ViewUpdate {
        service: present.view.service.to_string(),
        revision: present.view.revision.0,
        checksum: encoded.checksum,
        view: encoded.bytes.clone(),
    }
}

fn has_group(published: &Published, group: &GroupName) -> bool {
    published.present().is_some_and(|present| {
        let groups = &present.view.groups;
        groups.binary_search_by(|(name, _)| name.cmp(group)).is_ok()
    })
}
