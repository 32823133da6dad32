//! What a whole call costs the process that makes it, through the balancer and over a bare channel of tonic.
//!
//! The caller has one thread and the server another; processor time of the
//! caller's thread is measured, connections and all. The server answers at
//! once, so what is compared is the cost of calling and nothing else.

#![allow(missing_docs, reason = "criterion's macros write functions")]
#![allow(
    clippy::expect_used,
    reason = "a benchmark that cannot be set up has nothing to say"
)]

use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::{Body as HttpBody, Bytes, StdError};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};
use trimtab_bench::cpu_time::CpuTime;
use trimtab_client::Client;
use trimtab_client::testing::{FakeInstance, FakeRegistry, FakeService};
use trimtab_proto::demo::v1::catalog_client::CatalogClient;
use trimtab_proto::demo::v1::catalog_server::{Catalog, CatalogServer};
use trimtab_proto::demo::v1::{GetItemRequest, GetItemResponse};

/// Calls under way at once.
const AT_ONCE: [u64; 2] = [1, 64];

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
async fn spend<C>(client: &CatalogClient<C>, calls: u64, at_once: u64) -> Duration
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

fn whole_calls(criterion: &mut Criterion<CpuTime>) {
    let runtime: Runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let addresses = serve(10);
    let one = format!("http://{}", addresses[0]);
    let channel = Endpoint::from_shared(one).expect("valid").tcp_nodelay(true);
    let channel = runtime.block_on(channel.connect()).expect("connected");
    let bare = CatalogClient::new(channel);
    let balanced = |instances: usize, idempotent: bool| {
        runtime.block_on(async {
            let registry = registry_of(&addresses[..instances]).await;
            let client = Client::connect(&registry.endpoint()).expect("valid");
            let service = client.service("catalog").idempotent(idempotent);
            let balancer = service.await.expect("known");
            (registry, CatalogClient::new(balancer))
        })
    };
    let (_one, plain) = balanced(1, false);
    let (_same, repeatable) = balanced(1, true);
    let (_ten, of_ten) = balanced(10, false);

    let mut group = criterion.benchmark_group("call");
    group.throughput(Throughput::Elements(1));
    for at_once in AT_ONCE {
        let mut measure = |name: &str, spend: &dyn Fn(u64) -> Duration| {
            group.bench_function(BenchmarkId::new(name, at_once), |b| b.iter_custom(spend));
        };
        measure("tonic channel", &|calls| {
            runtime.block_on(spend(&bare, calls, at_once))
        });
        measure("trimtab", &|calls| {
            runtime.block_on(spend(&plain, calls, at_once))
        });
        measure("trimtab, repeatable", &|calls| {
            runtime.block_on(spend(&repeatable, calls, at_once))
        });
        measure("trimtab, 10 instances", &|calls| {
            runtime.block_on(spend(&of_ten, calls, at_once))
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .with_measurement(CpuTime)
        .measurement_time(Duration::from_secs(5));
    targets = whole_calls
}
criterion_main!(benches);
