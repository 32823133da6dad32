//! Instances of a small real gRPC service that can die without a word.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use trimtab_proto::demo::v1::catalog_server::{Catalog, CatalogServer};
use trimtab_proto::demo::v1::{GetItemRequest, GetItemResponse};

/// A running instance. It has threads of its own, so that it can be killed as
/// a process is: connections and calls in flight break off.
#[derive(Debug)]
pub struct Instance {
    runtime: Option<Runtime>,
    address: SocketAddr,
    calls: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Service {
    group: String,
    id: String,
    calls: Arc<AtomicU64>,
}

#[tonic::async_trait]
impl Catalog for Service {
    async fn get_item(
        &self,
        request: Request<GetItemRequest>,
    ) -> Result<Response<GetItemResponse>, Status> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Ok(Response::new(GetItemResponse {
            title: format!("item {}", request.get_ref().item_id),
            group: self.group.clone(),
            instance_id: self.id.clone(),
        }))
    }
}

impl Instance {
    /// Listens on a port that the system chooses.
    ///
    /// # Panics
    /// When the machine does not let it.
    pub fn start(group: &str, id: &str) -> Instance {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let calls = Arc::new(AtomicU64::new(0));
        let service = Service {
            group: group.to_owned(),
            id: id.to_owned(),
            calls: Arc::clone(&calls),
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("nonblocking");
        let address = listener.local_addr().expect("bound");
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a listener");
            let served = Server::builder()
                .add_service(CatalogServer::new(service))
                .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
            served.await.expect("it serves until it is killed");
        });
        Instance {
            runtime: Some(runtime),
            address,
            calls,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Calls it has begun to answer.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Ends it in the middle of whatever it does.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.kill();
    }
}
