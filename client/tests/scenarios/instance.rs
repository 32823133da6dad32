//! An instance of the demo service that counts its calls.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tonic::{Request, Response, Status};
use trimtab_client::sticky::Bucket;
use trimtab_proto::demo::v1::catalog_server::{Catalog, CatalogServer};
use trimtab_proto::demo::v1::{GetItemRequest, GetItemResponse};
use trimtab_proto::v1 as wire;

use crate::process::Process;

pub struct Instance {
    pub id: String,
    pub group: String,
    process: Process,
    behaviour: Arc<Behaviour>,
}

#[derive(Default)]
pub struct Behaviour {
    pub calls: AtomicU64,
    pub under_way: AtomicU64,
    /// Answer INTERNAL.
    pub failing: AtomicBool,
    /// Answer UNAVAILABLE.
    pub unavailable: AtomicBool,
    pub delay_ms: AtomicU64,
    /// Take no more connections, end what is under way, then stop.
    pub end: Notify,
    pub ended: AtomicBool,
    /// What the newest call said of whom it is for.
    pub bucket: Mutex<Option<Bucket>>,
}

struct Service {
    id: String,
    group: String,
    behaviour: Arc<Behaviour>,
}

impl Instance {
    pub async fn start(group: &str, id: &str) -> Self {
        Self::start_at(group, id, None).await
    }

    pub async fn start_at(group: &str, id: &str, address: Option<SocketAddr>) -> Self {
        let behaviour = Arc::new(Behaviour::default());
        let service = Service {
            id: id.to_owned(),
            group: group.to_owned(),
            behaviour: Arc::clone(&behaviour),
        };
        let process = Process::start(address, |incoming| {
            let server =
                tonic::transport::Server::builder().add_service(CatalogServer::new(service));
            let orders = Arc::clone(&behaviour);
            async move {
                let served = server.serve_with_incoming_shutdown(incoming, orders.end.notified());
                let served = served.await;
                orders.ended.store(true, Ordering::SeqCst);
                served
            }
        })
        .await;
        Self {
            id: id.to_owned(),
            group: group.to_owned(),
            process,
            behaviour,
        }
    }

    pub async fn group_of(group: &str, count: usize) -> Vec<Self> {
        let mut instances = Vec::new();
        for number in 0..count {
            instances.push(Self::start(group, &format!("{group}-{number}")).await);
        }
        instances
    }

    pub fn address(&self) -> SocketAddr {
        self.process.address()
    }

    pub fn kill(&mut self) {
        self.process.kill();
    }

    pub fn behaviour(&self) -> &Behaviour {
        &self.behaviour
    }

    pub fn calls(&self) -> u64 {
        self.behaviour.calls.load(Ordering::SeqCst)
    }

    /// As the registry describes it.
    pub fn described(&self, status: wire::InstanceStatus) -> wire::Instance {
        wire::Instance {
            id: self.id.clone(),
            group: self.group.clone(),
            address: self.address().to_string(),
            capacity: 100,
            status: status.into(),
            ..Default::default()
        }
    }
}

pub fn calls(instances: &[Instance]) -> u64 {
    instances.iter().map(Instance::calls).sum()
}

#[tonic::async_trait]
impl Catalog for Service {
    async fn get_item(
        &self,
        request: Request<GetItemRequest>,
    ) -> Result<Response<GetItemResponse>, Status> {
        let behaviour = &self.behaviour;
        behaviour.under_way.fetch_add(1, Ordering::SeqCst);
        let delay = Duration::from_millis(behaviour.delay_ms.load(Ordering::SeqCst));
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        behaviour.calls.fetch_add(1, Ordering::SeqCst);
        *behaviour.bucket.lock().unwrap() = Bucket::from_headers(request.metadata().as_ref());
        if behaviour.failing.load(Ordering::SeqCst) {
            return Err(Status::internal("broken release"));
        }
        if behaviour.unavailable.load(Ordering::SeqCst) {
            return Err(Status::unavailable("shutting down"));
        }
        Ok(Response::new(GetItemResponse {
            title: format!("item {}", request.into_inner().item_id),
            group: self.group.clone(),
            instance_id: self.id.clone(),
        }))
    }
}
