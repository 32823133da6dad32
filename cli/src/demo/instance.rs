//! `trimtab demo-instance`: a process that serves a release of the demo's
//! service, and leaves when it is told to retire.

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataValue;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use trimtab_client::client::Client;
use trimtab_client::registration::DRAIN_TIMEOUT;
use trimtab_proto::demo::v1::catalog_server::{Catalog, CatalogServer};
use trimtab_proto::demo::v1::{GetItemRequest, GetItemResponse};

use crate::arguments::{GlobalArgs, duration};
use crate::failure::{Exit, Failure};
use crate::signals::stdin_lines;

/// An error carries here the name of the release whose own it is.
pub(crate) const RELEASE_HEADER: &str = "demo-release";

#[derive(Debug, Args)]
pub(crate) struct InstanceArgs {
    /// The service
    service: String,

    /// The release it runs
    group: String,

    /// What it is called
    id: String,

    /// How long each call takes
    #[arg(long, default_value = "1ms", value_parser = duration)]
    latency: Duration,

    /// Which part of the calls fails, 0 to 1
    #[arg(long, default_value_t = 0.0)]
    error_rate: f64,
}

/// One release of the service, well or not.
#[derive(Debug)]
struct Release {
    group: String,
    id: String,
    latency: Duration,
    error_rate: f64,
    calls: AtomicU64,
}

pub(crate) async fn run(args: &InstanceArgs, global: &GlobalArgs) -> Result<(), Failure> {
    let mut stdin = stdin_lines();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let release = Release {
        group: args.group.clone(),
        id: args.id.clone(),
        latency: args.latency,
        error_rate: args.error_rate,
        calls: AtomicU64::new(0),
    };
    let leaving = CancellationToken::new();
    let server = tokio::spawn(
        Server::builder()
            .add_service(CatalogServer::new(release))
            .serve_with_incoming_shutdown(
                TcpIncoming::from(listener).with_nodelay(Some(true)),
                leaving.clone().cancelled_owned(),
            ),
    );
    let client = Client::builder()
        .name(&args.id)
        .connect(&global.endpoints)?;
    let registration = client
        .register(&args.service, &args.group, address.to_string())
        .id(&args.id)
        .start()
        .await?;
    say(&format!("{} is registered at {address}", args.id))?;
    tokio::select! {
        () = registration.retired() => {}
        _ = stdin.recv() => return Err(Failure::new(Exit::Failed, "the demo is gone")),
    }
    registration.drain(DRAIN_TIMEOUT).await?;
    leaving.cancel();
    match server.await {
        Ok(Ok(())) => say("retired"),
        Ok(Err(error)) => Err(Failure::new(Exit::Failed, error.to_string())),
        Err(error) => Err(Failure::new(Exit::Failed, error.to_string())),
    }
}

fn say(line: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    Ok(stdout.flush()?)
}

// === impl Release ===

impl Release {
    /// Failures come at even distances, so that a short run has its part, too.
    fn fails(&self, call: u64) -> bool {
        let failures = |calls: u64| (calls as f64 * self.error_rate) as u64;
        failures(call + 1) > failures(call)
    }
}

#[tonic::async_trait]
impl Catalog for Release {
    async fn get_item(
        &self,
        request: Request<GetItemRequest>,
    ) -> Result<Response<GetItemResponse>, Status> {
        sleep(self.latency).await;
        if self.fails(self.calls.fetch_add(1, Ordering::Relaxed)) {
            let mut status = Status::internal("the shelf is empty");
            if let Ok(release) = MetadataValue::try_from(&self.group) {
                status.metadata_mut().insert(RELEASE_HEADER, release);
            }
            return Err(status);
        }
        Ok(Response::new(GetItemResponse {
            title: format!("item {}", request.into_inner().item_id),
            group: self.group.clone(),
            instance_id: self.id.clone(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_spread_evenly() {
        let release = Release {
            group: "v3".into(),
            id: "v3-1".into(),
            latency: Duration::ZERO,
            error_rate: 0.2,
            calls: AtomicU64::new(0),
        };
        let failed = (0..1_000).filter(|call| release.fails(*call)).count();
        assert_eq!(failed, 200);
        assert!(!(0..4).any(|call| release.fails(call)));
        assert!(release.fails(4));
    }
}
