//! An instance of the demo service that can be made to fail, behind a network that can.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};
use trimtab_proto::demo::v1::catalog_server::{Catalog, CatalogServer};
use trimtab_proto::demo::v1::{GetItemRequest, GetItemResponse};
use trimtab_tests::cluster::Cluster;

use crate::wire::{Passage, Wire};

/// What is wrong with an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Its process is gone, with all its connections; nobody listens.
    Dead,
    /// Its host is gone, or its process was stopped: connections stay open and
    /// nothing comes back, not even to a ping.
    Frozen,
    /// It takes calls, and answers pings, but no call.
    Stuck,
    /// Its connections are reset in the midst of answers.
    Resets,
    /// It holds its answers back until it is healed.
    Late,
    /// Each answer takes so many milliseconds.
    Slow(u64),
    /// The network to it does.
    Far(u64),
    /// It answers every call with this.
    Errs(Code),
}

/// How the service behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Well,
    Never,
    OnceHealed,
    After(u64),
    With(Code),
}

pub struct Instance {
    pub id: String,
    service: Service,
    wire: Wire,
    server: JoinHandle<()>,
}

#[derive(Clone)]
struct Service {
    group: String,
    id: String,
    manner: Arc<watch::Sender<Manner>>,
    calls: Arc<AtomicU64>,
    /// What the newest call said of its time, in microseconds.
    told: Arc<AtomicU64>,
}

impl Instance {
    pub async fn start(group: &str, id: &str) -> Self {
        let service = Service {
            group: group.to_owned(),
            id: id.to_owned(),
            manner: Arc::new(watch::Sender::new(Manner::Well)),
            calls: Arc::default(),
            told: Arc::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let wire = Wire::to(listener.local_addr().unwrap()).await;
        let serve = tonic::transport::Server::builder()
            .add_service(CatalogServer::new(service.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        Self {
            id: id.to_owned(),
            service,
            wire,
            server: tokio::spawn(async move { serve.await.unwrap() }),
        }
    }

    /// So many of one group, registered.
    pub async fn registered(cluster: &Cluster, group: &str, count: usize) -> Vec<Self> {
        let mut instances = Vec::new();
        for number in 0..count {
            let instance = Self::start(group, &format!("{group}-{number}")).await;
            let address = instance.wire.address().to_string();
            cluster
                .register_at(1, "catalog", group, &instance.id, &address)
                .await;
            instances.push(instance);
        }
        instances
    }

    /// Calls that reached it.
    pub fn calls(&self) -> u64 {
        self.service.calls.load(Ordering::SeqCst)
    }

    /// Connections ever made to it.
    pub fn connections(&self) -> u64 {
        self.wire.accepted()
    }

    /// Whether anyone is connected.
    pub fn is_connected(&self) -> bool {
        self.wire.is_in_use()
    }

    /// How much time the newest call said it had.
    pub fn told(&self) -> Duration {
        Duration::from_micros(self.service.told.load(Ordering::SeqCst))
    }

    pub fn fail(&self, fault: Fault) {
        let (manner, passage) = match fault {
            Fault::Dead => (Manner::Well, Passage::Closed),
            Fault::Frozen => (Manner::Well, Passage::Blocked),
            Fault::Stuck => (Manner::Never, Passage::Clear),
            // Some answers pass, some are cut through.
            Fault::Resets => (Manner::Well, Passage::ResetAfter(700)),
            Fault::Late => (Manner::OnceHealed, Passage::Clear),
            Fault::Slow(millis) => (Manner::After(millis), Passage::Clear),
            Fault::Far(millis) => {
                let each = Duration::from_millis(millis);
                (Manner::Well, Passage::Delayed(each))
            }
            Fault::Errs(code) => (Manner::With(code), Passage::Clear),
        };
        self.service.manner.send_replace(manner);
        self.wire.set(passage);
    }

    pub fn heal(&self) {
        self.service.manner.send_replace(Manner::Well);
        self.wire.set(Passage::Clear);
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[tonic::async_trait]
impl Catalog for Service {
    async fn get_item(
        &self,
        request: Request<GetItemRequest>,
    ) -> Result<Response<GetItemResponse>, Status> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let told = request.metadata().get("grpc-timeout");
        let micros = told
            .and_then(|told| told.to_str().ok()?.strip_suffix('u')?.parse().ok())
            .unwrap_or_default();
        self.told.store(micros, Ordering::SeqCst);
        let manner = *self.manner.borrow();
        match manner {
            Manner::Well => {}
            Manner::Never => std::future::pending().await,
            Manner::OnceHealed => {
                let mut manner = self.manner.subscribe();
                let healed = manner.wait_for(|manner| *manner == Manner::Well).await;
                drop(healed.unwrap());
            }
            Manner::After(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
            Manner::With(code) => return Err(Status::new(code, "as the test wants it")),
        }
        Ok(Response::new(GetItemResponse {
            title: format!("item {}", request.into_inner().item_id),
            group: self.group.clone(),
            instance_id: self.id.clone(),
        }))
    }
}
