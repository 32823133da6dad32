//! A registry that says what a test tells it to, and remembers what it was told.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use trimtab_proto::v1 as wire;
use wire::discovery_server::{Discovery, DiscoveryServer};
use wire::registration_server::{Registration, RegistrationServer};
use wire::routing_server::{Routing, RoutingServer};
use wire::watch_request::Kind as Ask;
use wire::watch_response::Kind as Answer;

use crate::instance::Instance;
use crate::process::Process;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// One replica. Several can share a `State`, as replicas do.
pub struct Registry {
    process: Process,
    /// Of this replica alone.
    pub cut_off: Arc<AtomicBool>,
    pub state: Arc<State>,
}

#[derive(Default)]
pub struct State {
    views: Mutex<HashMap<String, wire::View>>,
    /// The registry's own revision, for services that are absent.
    revision: AtomicU64,
    /// Its cluster's number.
    pub cluster: AtomicU64,
    changed: watch::Sender<u64>,
    pub asked: Mutex<Vec<Ask>>,
    pub streams: AtomicU32,
    /// Views to send damaged.
    pub damage: AtomicU32,
    pub leases: Mutex<BTreeMap<(String, String), u64>>,
    pub registered: Mutex<Vec<wire::RegisterRequest>>,
    pub statuses: Mutex<Vec<(String, wire::InstanceStatus)>>,
    pub deregistered: Mutex<Vec<String>>,
    pub renewals: Mutex<BTreeMap<String, u64>>,
    pub renew_streams: AtomicU32,
    pub retire: Mutex<BTreeSet<String>>,
    pub refuse_registration: AtomicBool,
    pub receipts_complete: AtomicBool,
    pub receipts_asked: AtomicU32,
    pub renew_interval_ms: AtomicU64,
}

impl Registry {
    pub async fn start() -> Self {
        Self::replica(None, Arc::new(State::default())).await
    }

    pub async fn replica(address: Option<SocketAddr>, state: Arc<State>) -> Self {
        let shared = Arc::clone(&state);
        let cut_off = Arc::new(AtomicBool::new(false));
        let shared_cut_off = Arc::clone(&cut_off);
        let process = Process::start(address, |incoming| {
            let service = Service {
                state: shared,
                cut_off: shared_cut_off,
            };
            tonic::transport::Server::builder()
                .add_service(DiscoveryServer::new(service.clone()))
                .add_service(RegistrationServer::new(service.clone()))
                .add_service(RoutingServer::new(service))
                .serve_with_incoming(incoming)
        })
        .await;
        Self {
            process,
            cut_off,
            state,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.process.address()
    }

    pub fn endpoint(&self) -> String {
        self.process.address().to_string()
    }

    pub fn kill(&mut self) {
        self.process.kill();
    }

    pub async fn restart(&mut self) {
        let address = self.address();
        self.kill();
        *self = Self::replica(Some(address), Arc::clone(&self.state)).await;
    }
}

impl State {
    pub fn publish(&self, view: wire::View) {
        self.revision.fetch_max(view.revision, Ordering::SeqCst);
        self.views
            .lock()
            .unwrap()
            .insert(view.service.clone(), view);
        self.changed.send_modify(|version| *version += 1);
    }

    pub fn remove(&self, service: &str, revision: u64) {
        self.revision.fetch_max(revision, Ordering::SeqCst);
        self.views.lock().unwrap().remove(service);
        self.changed.send_modify(|version| *version += 1);
    }

    pub fn receipts(&self, service: &str) -> Vec<u64> {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .filter_map(|ask| match ask {
                Ask::Receipt(receipt) if receipt.service == service => Some(receipt.revision),
                _ => None,
            })
            .collect()
    }

    pub fn subscribes(&self) -> Vec<wire::Subscribe> {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .filter_map(|ask| match ask {
                Ask::Subscribe(subscribe) => Some(subscribe.clone()),
                _ => None,
            })
            .collect()
    }

    pub fn loads(&self, group: &str) -> (u64, u64) {
        let asked = self.asked.lock().unwrap();
        let loads = asked.iter().filter_map(|ask| match ask {
            Ask::LoadReports(reports) => Some(&reports.loads),
            _ => None,
        });
        loads
            .flatten()
            .filter(|load| load.group == group)
            .fold((0, 0), |(calls, errors), load| {
                (calls + load.calls, errors + load.errors)
            })
    }

    fn update(&self, service: &str) -> Answer {
        let views = self.views.lock().unwrap();
        let Some(view) = views.get(service) else {
            return Answer::Absent(wire::Absent {
                service: service.to_owned(),
                revision: self.revision.load(Ordering::SeqCst),
            });
        };
        let mut bytes = view.encode_to_vec();
        let checksum = trimtab_proto::checksum(&bytes);
        let damaged = self
            .damage
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            })
            .is_ok();
        if damaged {
            bytes[0] ^= 0xff;
        }
        Answer::View(wire::ViewUpdate {
            service: service.to_owned(),
            revision: view.revision,
            checksum,
            view: bytes.into(),
        })
    }
}

/// A view: weights, then groups with their instances.
pub fn view(
    revision: u64,
    weights: &[(&str, u32)],
    groups: &[(&str, wire::GroupState)],
    instances: Vec<wire::Instance>,
) -> wire::View {
    wire::View {
        service: "catalog".to_owned(),
        revision,
        route: Some(wire::Route {
            weights: weights
                .iter()
                .map(|(group, basis_points)| wire::GroupWeight {
                    group: (*group).to_owned(),
                    basis_points: *basis_points,
                })
                .collect(),
            policy: None,
            salt: 0,
        }),
        route_revision: revision,
        groups: groups
            .iter()
            .map(|(name, state)| wire::Group {
                name: (*name).to_owned(),
                state: (*state).into(),
            })
            .collect(),
        instances,
    }
}

/// All of them READY.
pub fn ready<'a>(instances: impl IntoIterator<Item = &'a Instance>) -> Vec<wire::Instance> {
    instances
        .into_iter()
        .map(|i| i.described(wire::InstanceStatus::Ready))
        .collect()
}

#[derive(Clone)]
struct Service {
    state: Arc<State>,
    cut_off: Arc<AtomicBool>,
}

#[tonic::async_trait]
impl Discovery for Service {
    type WatchStream = Answers<wire::WatchResponse>;

    async fn watch(
        &self,
        request: Request<Streaming<wire::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let mut asks = request.into_inner();
        let (sender, receiver) = mpsc::channel(64);
        let state = Arc::clone(&self.state);
        let mut changed = state.changed.subscribe();
        let own_cut_off = Arc::clone(&self.cut_off);
        tokio::spawn(async move {
            state.streams.fetch_add(1, Ordering::SeqCst);
            let answer = |kind| {
                let sender = sender.clone();
                let cut_off = Arc::clone(&own_cut_off);
                async move {
                    let response = wire::WatchResponse {
                        kind: Some(kind),
                        possibly_stale: cut_off.load(Ordering::SeqCst),
                    };
                    sender.send(Ok(response)).await.is_ok()
                }
            };
            let mut sent: HashMap<String, u64> = HashMap::new();
            loop {
                tokio::select! {
                    ask = asks.message() => {
                        let Ok(Some(wire::WatchRequest { kind: Some(ask) })) = ask else { break };
                        state.asked.lock().unwrap().push(ask.clone());
                        let reply = match ask {
                            Ask::Hello(_) => Some(Answer::Welcome(wire::Welcome {
                                replica_id: 1,
                                report_interval: Some(prost_types::Duration { seconds: 0, nanos: 50_000_000 }),
                                cluster_id: state.cluster.load(Ordering::SeqCst),
                            })),
                            Ask::Subscribe(subscribe) => Some(match state.update(&subscribe.service) {
                                Answer::View(view) => {
                                    sent.insert(subscribe.service.clone(), view.revision);
                                    let same = view.revision == subscribe.known_revision
                                        && view.checksum == subscribe.known_checksum;
                                    if same {
                                        Answer::Unchanged(wire::Unchanged {
                                            service: view.service,
                                            revision: view.revision,
                                        })
                                    } else {
                                        Answer::View(view)
                                    }
                                }
                                absent => {
                                    sent.insert(subscribe.service.clone(), 0);
                                    absent
                                }
                            }),
                            Ask::Unsubscribe(gone) => {
                                sent.remove(&gone.service);
                                None
                            }
                            _ => None,
                        };
                        if let Some(reply) = reply && !answer(reply).await {
                            break;
                        }
                    }
                    _ = changed.changed() => {
                        for (service, revision) in &mut sent {
                            let news = state.update(service);
                            let newest = match &news {
                                Answer::View(view) => view.revision,
                                _ => 0,
                            };
                            if newest != *revision {
                                *revision = newest;
                                if !answer(news).await {
                                    break;
                                }
                            }
                        }
                    }
                }
            }
            state.streams.fetch_sub(1, Ordering::SeqCst);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn resolve(
        &self,
        _: Request<wire::ResolveRequest>,
    ) -> Result<Response<wire::ResolveResponse>, Status> {
        Err(Status::unimplemented("not for this test"))
    }

    async fn list_services(
        &self,
        _: Request<wire::ListServicesRequest>,
    ) -> Result<Response<wire::ListServicesResponse>, Status> {
        Err(Status::unimplemented("not for this test"))
    }
}

#[tonic::async_trait]
impl Registration for Service {
    type RenewStream = Answers<wire::RenewResponse>;

    async fn register(
        &self,
        request: Request<wire::RegisterRequest>,
    ) -> Result<Response<wire::RegisterResponse>, Status> {
        let request = request.into_inner();
        if self.state.refuse_registration.load(Ordering::SeqCst) {
            return Err(Status::failed_precondition("group v1 is being torn down"));
        }
        let instance = request.instance.clone().unwrap_or_default();
        let lease = self.state.revision.fetch_add(1, Ordering::SeqCst) + 1;
        let key = (request.service.clone(), instance.id);
        self.state.leases.lock().unwrap().insert(key, lease);
        let ttl = request.ttl;
        self.state.registered.lock().unwrap().push(request);
        let interval = self.state.renew_interval_ms.load(Ordering::SeqCst).max(20);
        Ok(Response::new(wire::RegisterResponse {
            revision: lease,
            lease,
            ttl,
            renew_interval: Duration::from_millis(interval).try_into().ok(),
        }))
    }

    async fn register_many(
        &self,
        _: Request<wire::RegisterManyRequest>,
    ) -> Result<Response<wire::RegisterManyResponse>, Status> {
        Err(Status::unimplemented("not for this test"))
    }

    async fn renew(
        &self,
        request: Request<Streaming<wire::RenewRequest>>,
    ) -> Result<Response<Self::RenewStream>, Status> {
        let mut requests = request.into_inner();
        let (sender, receiver) = mpsc::channel(16);
        let state = Arc::clone(&self.state);
        tokio::spawn(async move {
            state.renew_streams.fetch_add(1, Ordering::SeqCst);
            while let Ok(Some(request)) = requests.message().await {
                let mut response = wire::RenewResponse::default();
                for lease in request.leases {
                    let key = (lease.service.clone(), lease.instance_id.clone());
                    let held = state.leases.lock().unwrap().get(&key) == Some(&lease.lease);
                    *state
                        .renewals
                        .lock()
                        .unwrap()
                        .entry(key.1.clone())
                        .or_default() += 1;
                    if !held {
                        response.lost.push(lease);
                    } else if state.retire.lock().unwrap().contains(&key.1) {
                        response.retire.push(lease);
                    }
                }
                if sender.send(Ok(response)).await.is_err() {
                    break;
                }
            }
            state.renew_streams.fetch_sub(1, Ordering::SeqCst);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn set_status(
        &self,
        request: Request<wire::SetStatusRequest>,
    ) -> Result<Response<wire::SetStatusResponse>, Status> {
        let request = request.into_inner();
        let status = request.status();
        let lease = request.lease.unwrap_or_default();
        let key = (lease.service.clone(), lease.instance_id.clone());
        if self.state.leases.lock().unwrap().get(&key) != Some(&lease.lease) {
            return Err(Status::not_found("the lease is not held"));
        }
        self.state
            .statuses
            .lock()
            .unwrap()
            .push((lease.instance_id, status));
        let revision = self.state.revision.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(Response::new(wire::SetStatusResponse { revision }))
    }

    async fn deregister(
        &self,
        request: Request<wire::DeregisterRequest>,
    ) -> Result<Response<wire::DeregisterResponse>, Status> {
        let lease = request.into_inner().lease.unwrap_or_default();
        let key = (lease.service, lease.instance_id.clone());
        self.state.leases.lock().unwrap().remove(&key);
        self.state
            .deregistered
            .lock()
            .unwrap()
            .push(lease.instance_id);
        let revision = self.state.revision.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(Response::new(wire::DeregisterResponse { revision }))
    }
}

macro_rules! not_for_these_tests {
    ($($name:ident: $request:ident => $response:ident),* $(,)?) => {
        #[tonic::async_trait]
        impl Routing for Service {
            type ReceiptsStream = Answers<wire::ReceiptsResponse>;

            async fn receipts(
                &self,
                _: Request<wire::ReceiptsRequest>,
            ) -> Result<Response<Self::ReceiptsStream>, Status> {
                self.state.receipts_asked.fetch_add(1, Ordering::SeqCst);
                let (sender, receiver) = mpsc::channel(4);
                let state = Arc::clone(&self.state);
                tokio::spawn(async move {
                    loop {
                        let complete = state.receipts_complete.load(Ordering::SeqCst);
                        let response = wire::ReceiptsResponse {
                            watchers: 1,
                            confirmed: u32::from(complete),
                            complete,
                            ..Default::default()
                        };
                        if sender.send(Ok(response)).await.is_err() || complete {
                            break;
                        }
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                });
                Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
            }

            $(async fn $name(
                &self,
                _: Request<wire::$request>,
            ) -> Result<Response<wire::$response>, Status> {
                Err(Status::unimplemented("not for this test"))
            })*
        }
    };
}

not_for_these_tests! {
    shift: ShiftRequest => ShiftResponse,
    rollback: RollbackRequest => RollbackResponse,
    teardown: TeardownRequest => TeardownResponse,
    adjust_instance: AdjustInstanceRequest => AdjustInstanceResponse,
    get_route: GetRouteRequest => GetRouteResponse,
    history: HistoryRequest => HistoryResponse,
    describe: DescribeRequest => DescribeResponse,
}
