//! The null server: every answer is there before it is asked for.
//!
//! Of a service whose name ends in `-x100` it says that it has 100 instances.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};
use trimtab_proto::v1::discovery_server::{Discovery, DiscoveryServer};
use trimtab_proto::v1::registration_server::{Registration, RegistrationServer};
use trimtab_proto::v1::{
    DeregisterRequest, DeregisterResponse, Group, GroupWeight, Instance, InstanceStatus,
    ListServicesRequest, ListServicesResponse, RegisterManyRequest, RegisterManyResponse,
    RegisterManyResult, RegisterRequest, RegisterResponse, RenewRequest, RenewResponse,
    ResolveRequest, ResolveResponse, Route, SetStatusRequest, SetStatusResponse, Unchanged, View,
    ViewUpdate, WatchRequest, WatchResponse, register_many_result, resolve_response, watch_request,
    watch_response,
};

use super::routing;
use crate::failure::Failure;
use crate::sample::{GROUP, METADATA, Sample};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What all connections share.
#[derive(Clone, Debug)]
pub(super) struct Null {
    small: Bytes,
    large: Bytes,
    /// How many changes were asked for: the revision.
    pub(super) changes: Arc<watch::Sender<u64>>,
    /// Receipts of the newest one.
    pub(super) receipts: Arc<AtomicU64>,
    /// Open watches.
    pub(super) watchers: Arc<AtomicU64>,
}

/// Serves until the process ends.
pub(super) async fn serve(listen: SocketAddr) -> Result<(), Failure> {
    let listener = TcpListener::bind(listen)
        .await
        .map_err(Failure::system(format!("listening on {listen}")))?;
    let null = Null {
        small: view(2),
        large: view(100),
        changes: Arc::new(watch::Sender::new(1)),
        receipts: Arc::default(),
        watchers: Arc::default(),
    };
    let served = Server::builder()
        .add_service(RegistrationServer::new(null.clone()))
        .add_service(DiscoveryServer::new(null.clone()))
        .add_service(routing::server(null))
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
    served
        .await
        .map_err(|error| Failure::Wrong(format!("the null server: {error}")))
}

/// A view of that many instances, encoded.
fn view(instances: usize) -> Bytes {
    let service = format!("lookup-x{instances}");
    let metadata: std::collections::BTreeMap<String, String> = METADATA
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let instance = |number| {
        let sample = Sample::of(&service, number);
        Instance {
            id: sample.id,
            group: GROUP.to_owned(),
            address: sample.address.to_string(),
            zone: sample.zone.to_owned(),
            capacity: 100,
            metadata: metadata.clone(),
            status: InstanceStatus::Ready.into(),
        }
    };
    let view = View {
        service: service.clone(),
        revision: 1,
        route: Some(Route {
            weights: vec![GroupWeight {
                group: GROUP.to_owned(),
                basis_points: 10_000,
            }],
            ..Route::default()
        }),
        route_revision: 1,
        groups: vec![Group {
            name: GROUP.to_owned(),
            state: 2,
        }],
        instances: (0..instances).map(instance).collect(),
    };
    view.encode_to_vec().into()
}

impl Null {
    fn update(&self, service: String, revision: u64) -> ViewUpdate {
        let view = match service.ends_with("-x100") {
            true => self.large.clone(),
            false => self.small.clone(),
        };
        ViewUpdate {
            service,
            revision,
            checksum: 1,
            view,
        }
    }
}

#[tonic::async_trait]
impl Registration for Null {
    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        let ttl = request.into_inner().ttl;
        Ok(Response::new(RegisterResponse {
            revision: 1,
            lease: 1,
            ttl,
            renew_interval: ttl,
        }))
    }

    async fn register_many(
        &self,
        request: Request<RegisterManyRequest>,
    ) -> Result<Response<RegisterManyResponse>, Status> {
        let requests = request.into_inner().requests;
        let results = requests.into_iter().map(|request| RegisterManyResult {
            result: Some(register_many_result::Result::Registered(RegisterResponse {
                revision: 1,
                lease: 1,
                ttl: request.ttl,
                renew_interval: request.ttl,
            })),
        });
        let results = results.collect();
        Ok(Response::new(RegisterManyResponse { results }))
    }

    type RenewStream = Answers<RenewResponse>;

    async fn renew(
        &self,
        request: Request<Streaming<RenewRequest>>,
    ) -> Result<Response<Self::RenewStream>, Status> {
        let answers = request
            .into_inner()
            .map(|asked| asked.map(|_| RenewResponse::default()));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn set_status(
        &self,
        _request: Request<SetStatusRequest>,
    ) -> Result<Response<SetStatusResponse>, Status> {
        Ok(Response::new(SetStatusResponse { revision: 1 }))
    }

    async fn deregister(
        &self,
        _request: Request<DeregisterRequest>,
    ) -> Result<Response<DeregisterResponse>, Status> {
        Ok(Response::new(DeregisterResponse { revision: 1 }))
    }
}

#[tonic::async_trait]
impl Discovery for Null {
    async fn resolve(
        &self,
        request: Request<ResolveRequest>,
    ) -> Result<Response<ResolveResponse>, Status> {
        let request = request.into_inner();
        let result = match request.known_revision {
            0 => resolve_response::Result::View(self.update(request.service, 1)),
            revision => resolve_response::Result::Unchanged(Unchanged {
                service: request.service,
                revision,
            }),
        };
        Ok(Response::new(ResolveResponse {
            result: Some(result),
            possibly_stale: false,
        }))
    }

    type WatchStream = Answers<WatchResponse>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.watchers.fetch_add(1, Relaxed);
        let mut changes = self.changes.subscribe();
        changes.mark_changed();
        let session = Session {
            null: self.clone(),
            asked: request.into_inner(),
            changes,
            service: None,
        };
        let answers = stream::unfold(session, |mut session| async move {
            let answer = session.next().await?;
            Some((Ok(answer), session))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn list_services(
        &self,
        _request: Request<ListServicesRequest>,
    ) -> Result<Response<ListServicesResponse>, Status> {
        Ok(Response::new(ListServicesResponse::default()))
    }
}

/// One watch.
struct Session {
    null: Null,
    asked: Streaming<WatchRequest>,
    changes: watch::Receiver<u64>,
    service: Option<String>,
}

impl Session {
    /// The next answer; `None` when the watcher is gone.
    async fn next(&mut self) -> Option<WatchResponse> {
        loop {
            let asked = tokio::select! {
                asked = self.asked.message() => asked.ok()??,
                changed = self.changes.changed(), if self.service.is_some() => {
                    changed.ok()?;
                    let revision = *self.changes.borrow_and_update();
                    let update = self.null.update(self.service.clone()?, revision);
                    return Some(WatchResponse {
                        kind: Some(watch_response::Kind::View(update)),
                        possibly_stale: false,
                    });
                }
            };
            match asked.kind {
                Some(watch_request::Kind::Subscribe(subscribe)) => {
                    self.service = Some(subscribe.service);
                }
                Some(watch_request::Kind::Receipt(_)) => {
                    self.null.receipts.fetch_add(1, Relaxed);
                }
                _ => {}
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.null.watchers.fetch_sub(1, Relaxed);
    }
}
