//! An instance: serves the demo's service, and keeps itself registered.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use trimtab_client::client::Client;
use trimtab_proto::demo::v1::catalog_server::{Catalog, CatalogServer};
use trimtab_proto::demo::v1::{GetItemRequest, GetItemResponse};

use crate::parts::{SERVICE, told_to_finish};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) group: String,
    pub(crate) zone: String,
    pub(crate) host: Ipv4Addr,
    pub(crate) ttl: Duration,
    pub(crate) endpoints: String,
}

impl Instance {
    /// Ends without a word, as a process does that is killed.
    pub(super) async fn play(self) {
        let listener = TcpListener::bind((self.host, 0))
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let served = Server::builder()
            .add_service(CatalogServer::new(self.clone()))
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
        tokio::spawn(served);
        let client = Client::builder().name(&self.id).connect(&self.endpoints);
        let client = client.expect("valid endpoints");
        let registration = client.register(SERVICE, &self.group, address);
        let registration = registration.id(&self.id).zone(&self.zone).ttl(self.ttl);
        let registration = registration.start().await.expect("registered");
        told_to_finish().await;
        drop(registration);
    }
}

#[tonic::async_trait]
impl Catalog for Instance {
    async fn get_item(
        &self,
        request: Request<GetItemRequest>,
    ) -> Result<Response<GetItemResponse>, Status> {
        Ok(Response::new(GetItemResponse {
            title: format!("item {}", request.into_inner().item_id),
            group: self.group.clone(),
            instance_id: self.id.clone(),
        }))
    }
}
