//! Serves the demo service as one instance of a group, until Ctrl-C or until its group is torn down.
//!
//! `cargo run -p trimtab-client --example instance GROUP [ENDPOINTS]`

#![allow(clippy::print_stdout, reason = "an example talks to a person")]

use std::error::Error;

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use trimtab_client::Client;
use trimtab_client::registration::DRAIN_TIMEOUT;
use trimtab_proto::demo::v1::catalog_server::{Catalog, CatalogServer};
use trimtab_proto::demo::v1::{GetItemRequest, GetItemResponse};

struct Items {
    group: String,
    instance_id: String,
}

#[tonic::async_trait]
impl Catalog for Items {
    async fn get_item(
        &self,
        request: Request<GetItemRequest>,
    ) -> Result<Response<GetItemResponse>, Status> {
        Ok(Response::new(GetItemResponse {
            title: format!("item {}", request.get_ref().item_id),
            group: self.group.clone(),
            instance_id: self.instance_id.clone(),
        }))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let group = arguments.next().ok_or("say which group, for example v1")?;
    let endpoints = arguments
        .next()
        .unwrap_or_else(|| "127.0.0.1:7070".to_owned());

    // Listen first, so that the address is known and calls find someone.
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let instance_id = format!("{group}-{}", std::process::id());
    let items = Items {
        group: group.clone(),
        instance_id: instance_id.clone(),
    };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(CatalogServer::new(items))
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async {
                let _ = stopped.await;
            }),
    );

    let client = Client::connect(&endpoints)?;
    let registration = client.register("catalog", &group, &address).id(instance_id);
    let registration = registration.start().await?;
    println!("{} serves {group} at {address}", registration.id());

    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        () = registration.retired() => println!("told to leave"),
    }
    let drained = registration.drain(DRAIN_TIMEOUT).await?;
    println!("drained, every caller has confirmed: {}", drained.complete);
    // The server ends what it has.
    let _ = stop.send(());
    server.await??;
    Ok(())
}
