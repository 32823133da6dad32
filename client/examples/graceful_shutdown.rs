//! Serves the demo service, each call taking its time, and stops in order on SIGTERM or Ctrl-C: no call fails for it.
//!
//! `cargo run -p trimtab-client --example graceful_shutdown GROUP [ENDPOINTS]`
//!
//! 1. `drain` says DRAINING and waits until every caller has confirmed that it
//!    sends nothing new here, or time is over; then it leaves the registry.
//! 2. The server takes no more connections and ends what it was asked before.
//! 3. What hangs is not waited for.

#![allow(clippy::print_stdout, reason = "an example talks to a person")]

use std::error::Error;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use trimtab_client::Client;
use trimtab_proto::demo::v1::catalog_server::{Catalog, CatalogServer};
use trimtab_proto::demo::v1::{GetItemRequest, GetItemResponse};

/// Callers confirm within milliseconds; one that hangs is not waited for longer.
const CALLERS_WITHIN: Duration = Duration::from_secs(10);

/// Longer than any call takes. Both together should be shorter than what the
/// supervisor of the process grants it, for example 30 seconds in Kubernetes.
const CALLS_WITHIN: Duration = Duration::from_secs(15);

struct SlowItems {
    group: String,
}

#[tonic::async_trait]
impl Catalog for SlowItems {
    async fn get_item(
        &self,
        request: Request<GetItemRequest>,
    ) -> Result<Response<GetItemResponse>, Status> {
        sleep(Duration::from_millis(200)).await;
        Ok(Response::new(GetItemResponse {
            title: format!("slow item {}", request.get_ref().item_id),
            group: self.group.clone(),
            instance_id: String::new(),
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

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let (stop, stopped) = oneshot::channel::<()>();
    let items = SlowItems {
        group: group.clone(),
    };
    let server = Server::builder().add_service(CatalogServer::new(items));
    let incoming = TcpListenerStream::new(listener);
    let mut server = tokio::spawn(server.serve_with_incoming_shutdown(incoming, async {
        let _ = stopped.await;
    }));

    let client = Client::connect(&endpoints)?;
    let registration = client.register("catalog", &group, &address);
    let registration = registration.start().await?;
    println!("serves {group} at {address}");

    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminated.recv() => println!("told to stop"),
        result = tokio::signal::ctrl_c() => result?,
        () = registration.retired() => println!("told to leave"),
        ended = &mut server => return Err(format!("the server ended: {ended:?}").into()),
    }

    match registration.drain(CALLERS_WITHIN).await {
        Ok(drained) if drained.complete => println!("no caller sends anything new"),
        Ok(drained) => println!("not confirmed by {}", drained.laggards.join(", ")),
        // Its lease ends by itself; callers see the connection close.
        Err(error) => println!("left without the registry: {error}"),
    }
    let _ = stop.send(());
    match timeout(CALLS_WITHIN, server).await {
        Ok(ended) => ended??,
        Err(_) => println!("calls that hang are given up"),
    }
    println!("ended in order");
    Ok(())
}
