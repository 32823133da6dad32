//! A caller on one thread and servers on another, for measuring whole calls.

#![allow(
    clippy::expect_used,
    reason = "a benchmark that cannot be set up has nothing to say"
)]

use std::fmt;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::{Body as HttpBody, Bytes, StdError};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use trimtab_client::Client;
use trimtab_client::balancer::Balancer;
use trimtab_client::testing::{FakeInstance, FakeRegistry, FakeService};
use trimtab_proto::demo::v1::catalog_client::CatalogClient;
use trimtab_proto::demo::v1::catalog_server::{Catalog, CatalogServer};
use trimtab_proto::demo::v1::{GetItemRequest, GetItemResponse};

use crate::cpu_time::CpuTime;

/// Servers there are.
const SERVERS: usize = 10;

/// Where calls are made from, and to.
pub struct Callers {
    /// Of one thread, the current one.
    pub runtime: Runtime,
    addresses: Vec<SocketAddr>,
}

struct Item;

#[tonic::async_trait]
impl Catalog for Item {
    async fn get_item(
        &self,
        request: Request<GetItemRequest>,
    ) -> Result<Response<GetItemResponse>, Status> {
        Ok(Response::new(GetItemResponse {
            title: format!("item {}", request.get_ref().item_id),
            group: "v1".to_owned(),
            instance_id: "i1".to_owned(),
        }))
    }
}

/// So many servers on one thread of their own, for as long as the process runs.
fn serve(instances: usize) -> Vec<SocketAddr> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async move {
            let mut servers = JoinSet::new();
            for _ in 0..instances {
                let any = "127.0.0.1:0".parse().expect("an address");
                let incoming = TcpIncoming::bind(any).expect("a free port");
                let incoming = incoming.with_nodelay(Some(true));
                tell.send(incoming.local_addr().expect("bound"))
                    .expect("awaited");
                let server = Server::builder().add_service(CatalogServer::new(Item));
                servers.spawn(server.serve_with_incoming(incoming));
            }
            servers.join_all().await;
        });
    });
    told.iter().take(instances).collect()
}

/// Makes so many calls, and says what they cost this thread.
///
/// # Panics
/// When a call fails.
pub async fn spend<C>(client: &CatalogClient<C>, calls: u64, at_once: u64) -> Duration
where
    C: GrpcService<Body> + Clone + Send + 'static,
    C::Error: Into<StdError>,
    C::Future: Send,
    C::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <C::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    let begun = CpuTime::now();
    let mut callers = JoinSet::new();
    for caller in 0..at_once {
        let mut client = client.clone();
        let share = calls / at_once + u64::from(caller < calls % at_once);
        callers.spawn(async move {
            for item_id in 0..share {
                let answer = client.get_item(GetItemRequest { item_id }).await;
                answer.expect("answered");
            }
        });
    }
    callers.join_all().await;
    CpuTime::now().saturating_sub(begun)
}

async fn registry_of(addresses: &[SocketAddr]) -> FakeRegistry {
    let registry = FakeRegistry::start().await.expect("a free port");
    let service = FakeService::new("catalog").weight("v1", 10_000);
    let service = addresses
        .iter()
        .enumerate()
        .fold(service, |service, (number, address)| {
            let id = format!("i{number}");
            service.instance(FakeInstance::new(&id, "v1", address.to_string()))
        });
    registry.publish(service).expect("valid");
    registry
}

impl Callers {
    /// Starts the servers.
    ///
    /// # Panics
    /// When the machine does not let them start.
    pub fn start() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build();
        Self {
            runtime: runtime.expect("a runtime"),
            addresses: serve(SERVERS),
        }
    }

    /// Over a channel of tonic to one of them.
    ///
    /// # Panics
    /// When it cannot be connected.
    pub fn bare(&self) -> CatalogClient<Channel> {
        let one = format!("http://{}", self.addresses[0]);
        let channel = Endpoint::from_shared(one).expect("valid").tcp_nodelay(true);
        let channel = self.runtime.block_on(channel.connect());
        CatalogClient::new(channel.expect("connected"))
    }

    /// Through a balancer over so many of them, with the registry it needs.
    ///
    /// # Panics
    /// When the registry cannot be started.
    pub fn balanced(
        &self,
        instances: usize,
        idempotent: bool,
    ) -> (FakeRegistry, CatalogClient<Balancer>) {
        self.runtime.block_on(async {
            let registry = registry_of(&self.addresses[..instances]).await;
            let client = Client::connect(&registry.endpoint()).expect("valid");
            let service = client.service("catalog").idempotent(idempotent);
            let balancer = service.await.expect("known");
            (registry, CatalogClient::new(balancer))
        })
    }
}

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callers")
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}
