//! `trimtab.v1.Discovery`: lookups, watches and the list of services.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt, stream};
use tokio::sync::watch;
use tokio_stream::StreamMap;
use tonic::{Request, Response, Status, Streaming};
use trimtab_proto::v1::discovery_server::Discovery;
use trimtab_proto::v1::{
    Absent, GoingAway, Hello, ListServicesRequest, ListServicesResponse, LoadReports,
    ResolveRequest, ResolveResponse, ServiceSummary, Subscribe, Unchanged, ViewUpdate,
    WatchRequest, WatchResponse, Welcome, resolve_response, watch_request, watch_response,
};
use trimtab_registry::instance::Status as InstanceStatus;
use trimtab_registry::name::{GroupName, InstanceId, ServiceName};
use trimtab_registry::rejection::{Invalid, Missing, Rejection};

use super::context::Context;
use super::status::{of_invalid, of_propose_error, of_rejection};
use crate::convert;
use crate::views::{Published, PublishedView, Subscription};
use crate::watchers::ConnectionId;

/// Services one stream may follow: far more than a process calls.
pub const SUBSCRIPTIONS_MAX: usize = 1_024;
/// Groups in one load report: what a caller of many services has.
pub const LOADS_PER_REPORT_MAX: usize = 1_024;
/// Services in one page of the list.
pub const SERVICES_PER_PAGE_MAX: u32 = 1_000;
/// How often callers are asked to report their load.
pub const REPORT_INTERVAL: std::time::Duration = std::time::Duration::from_secs(1);

const WATCHER_NAME_BYTES_MAX: usize = 128;

/// The service.
#[derive(Debug)]
pub struct DiscoveryService {
    context: Context,
}

impl DiscoveryService {
    /// Answers from the rooms of one replica.
    pub fn new(context: Context) -> DiscoveryService {
        DiscoveryService { context }
    }
}

type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Discovery for DiscoveryService {
    async fn resolve(
        &self,
        request: Request<ResolveRequest>,
    ) -> Result<Response<ResolveResponse>, Status> {
        let request = request.into_inner();
        let service = ServiceName::parse(&request.service).map_err(of_invalid)?;
        self.context.require_caught_up()?;
        if request.linearizable {
            let barrier = self.context.handle.read_barrier().await;
            barrier.map_err(of_propose_error)?;
        }
        let published = self.context.views.latest(&service);
        let Some(present) = published.present() else {
            return Err(of_rejection(Rejection::NotFound(Missing::Service(service))));
        };
        let revision = published.revision();
        let result = if request.known_revision == revision && revision > 0 {
            resolve_response::Result::Unchanged(Unchanged {
                service: request.service,
                revision,
            })
        } else {
            resolve_response::Result::View(view_update(present))
        };
        Ok(Response::new(ResolveResponse {
            result: Some(result),
            possibly_stale: self.context.possibly_stale(),
        }))
    }

    type WatchStream = WatchStream;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<WatchStream>, Status> {
        self.context.require_caught_up()?;
        let session = Session::new(self.context.clone(), request.into_inner());
        let responses = stream::unfold(session, |mut session| async move {
            let next = session.next().await?;
            Some((next, session))
        });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn list_services(
        &self,
        request: Request<ListServicesRequest>,
    ) -> Result<Response<ListServicesResponse>, Status> {
        let request = request.into_inner();
        self.context.require_caught_up()?;
        let limit = match request.limit {
            0 => SERVICES_PER_PAGE_MAX,
            limit => limit.min(SERVICES_PER_PAGE_MAX),
        } as usize;
        let (services, more) = self
            .context
            .handle
            .query(move |registry| {
                let mut rest = registry.services_after(&request.after);
                let page: Vec<ServiceSummary> = rest.by_ref().take(limit).map(summary).collect();
                (page, rest.next().is_some())
            })
            .await
            .map_err(of_propose_error)?;
        Ok(Response::new(ListServicesResponse {
            services,
            more,
            possibly_stale: self.context.possibly_stale(),
        }))
    }
}

fn summary(service: &trimtab_registry::service::Service) -> ServiceSummary {
    let ready = service
        .instances()
        .filter(|instance| instance.status() == InstanceStatus::Ready);
    ServiceSummary {
        service: service.name().to_string(),
        revision: service.revision().0,
        groups: service.groups().len() as u32,
        ready: ready.count() as u32,
        instances: service.instances().len() as u32,
    }
}

fn view_update(present: &PublishedView) -> ViewUpdate {
    let encoded = present.encoded();
    ViewUpdate {
        service: present.view.service.to_string(),
        revision: present.view.revision.0,
        checksum: encoded.checksum,
        view: encoded.bytes.clone(),
    }
}

/// One open watch stream. Owned by the response: when the caller is gone it
/// is dropped, and with it all that it held.
struct Session {
    context: Context,
    requests: Streaming<WatchRequest>,
    subscriptions: StreamMap<ServiceName, Subscription>,
    /// What the caller held when it subscribed, until the first answer.
    held: HashMap<ServiceName, Subscribe>,
    connection: Option<ConnectionId>,
    cut_off: watch::Receiver<bool>,
    ended: bool,
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(connection) = self.connection {
            self.context.watchers.disconnect(connection);
        }
    }
}

impl Session {
    fn new(context: Context, requests: Streaming<WatchRequest>) -> Session {
        Session {
            cut_off: context.cut_off.clone(),
            context,
            requests,
            subscriptions: StreamMap::new(),
            held: HashMap::new(),
            connection: None,
            ended: false,
        }
    }

    /// The next answer; `None` when the stream has ended.
    async fn next(&mut self) -> Option<Result<WatchResponse, Status>> {
        if self.ended {
            return None;
        }
        let stop = self.context.stop.clone();
        loop {
            let answer = tokio::select! {
                () = stop.cancelled() => {
                    self.ended = true;
                    Some(Ok(Some(watch_response::Kind::GoingAway(GoingAway {}))))
                }
                Ok(()) = self.cut_off.changed() => Some(Ok(None)),
                request = self.requests.message() => match request {
                    // A stream that breaks and one that ends are the same here.
                    Ok(None) | Err(_) => return None,
                    Ok(Some(request)) => self.take(request).transpose().map(|kind| kind.map(Some)),
                },
                Some((service, published)) = self.subscriptions.next(), if !self.subscriptions.is_empty() => {
                    self.answer(service, &published).map(|kind| Ok(Some(kind)))
                }
            };
            match answer {
                None => {}
                Some(Ok(kind)) => {
                    return Some(Ok(WatchResponse {
                        kind,
                        possibly_stale: *self.cut_off.borrow_and_update(),
                    }));
                }
                Some(Err(status)) => {
                    self.ended = true;
                    return Some(Err(status));
                }
            }
        }
    }

    /// Takes in one request; some have an answer of their own.
    fn take(&mut self, request: WatchRequest) -> Result<Option<watch_response::Kind>, Status> {
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
                self.context.watchers.unsubscribe(connection, &service);
            }
            Some(watch_request::Kind::Receipt(receipt)) => {
                let service = ServiceName::parse(&receipt.service).map_err(of_invalid)?;
                let watchers = &self.context.watchers;
                watchers.confirm(connection, &service, receipt.revision);
            }
            Some(watch_request::Kind::LoadReports(reports)) => self.report(&reports)?,
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
        let watchers = &self.context.watchers;
        self.connection = Some(watchers.connect(hello.watcher_id, hello.name));
        Ok(watch_response::Kind::Welcome(Welcome {
            replica_id: self.context.id,
            report_interval: Some(convert::duration(REPORT_INTERVAL)),
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
        self.context.watchers.subscribe(connection, service.clone());
        let subscription = self.context.views.subscribe(service.clone());
        self.held.insert(service.clone(), asked);
        self.subscriptions.insert(service, subscription);
        Ok(())
    }

    fn report(&self, reports: &LoadReports) -> Result<(), Status> {
        if reports.loads.len() > LOADS_PER_REPORT_MAX {
            return Err(of_invalid(Invalid::new(
                "load_reports.loads",
                reports.loads.len(),
                "must have at most 1,024 entries",
            )));
        }
        let now = self.context.started.elapsed();
        for reported in &reports.loads {
            let service = ServiceName::parse(&reported.service).map_err(of_invalid)?;
            let group = GroupName::parse(&reported.group).map_err(of_invalid)?;
            // What is not followed or not there is not counted: so nobody can
            // make this replica remember names without bound.
            let known = self.subscriptions.contains_key(&service)
                && has_group(&self.context.views.latest(&service), &group);
            if known {
                let load = convert::load(reported);
                self.context.watchers.report(now, &service, &group, load);
            }
        }
        Ok(())
    }

    /// What to say of a service's new state; nothing when this replica is
    /// behind what the caller already holds.
    fn answer(
        &mut self,
        service: ServiceName,
        published: &Arc<Published>,
    ) -> Option<watch_response::Kind> {
        let revision = published.revision();
        if let Some(held) = self.held.get(&service) {
            if revision < held.known_revision {
                return None;
            }
            let held = self.held.remove(&service)?;
            let same = |present: &PublishedView| {
                present.view.revision.0 == held.known_revision
                    && present.encoded().checksum == held.known_checksum
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
}

fn has_group(published: &Published, group: &GroupName) -> bool {
    published.present().is_some_and(|present| {
        let groups = &present.view.groups;
        groups.binary_search_by(|(name, _)| name.cmp(group)).is_ok()
    })
}
