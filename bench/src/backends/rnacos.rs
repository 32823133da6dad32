//! r-nacos with its shipped defaults, over the gRPC that Nacos 2 clients speak. What is registered is ephemeral: it
//! lives as long as the connection that registered it, is never synced to disk, and nothing connects to its address.

mod clients;
mod line;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use futures_util::future::BoxFuture;

use self::clients::RnacosClients;
use super::running::{Kind, Running, missing};
use super::{Backend, Clients, Cluster, Lines, Outcome, Server};
use crate::failure::Failure;
use crate::process::free_addresses;
use crate::sample::Sample;

/// What `include_proto!` brings in of Nacos' envelope.
mod proto {
    #![allow(missing_docs, unreachable_pub, dead_code, clippy::all, rustdoc::all)]
    tonic::include_proto!("nacos");
}

/// A server listens for HTTP, gRPC and its console.
const PORTS: usize = 3;

/// `rnacos` as it is found on PATH.
#[derive(Debug)]
pub(crate) struct Rnacos;

impl Backend for Rnacos {
    fn name(&self) -> &'static str {
        "r-nacos"
    }

    fn version(&self) -> Result<String, String> {
        super::version_of(Command::new("rnacos").arg("--version"), "rnacos")
    }

    fn syncs(&self) -> &'static str {
        "nothing: instances are in memory, and lost with the process"
    }

    fn forgets(&self) -> bool {
        true
    }

    fn renews(&self) -> bool {
        false
    }

    fn runs_as(&self, _replicas: usize) -> bool {
        true
    }

    fn start<'a>(&'a self, replicas: usize, directory: &'a Path) -> Outcome<'a, Box<dyn Cluster>> {
        Box::pin(async move {
            let ports = free_addresses(replicas * PORTS)?;
            Running::start(RnacosNodes { ports }, replicas, directory).await
        })
    }
}

struct RnacosNodes {
    ports: Vec<SocketAddr>,
}

impl RnacosNodes {
    /// Where the server listens for HTTP, gRPC and its console.
    fn ports(&self, index: usize) -> Option<[SocketAddr; PORTS]> {
        self.ports.as_chunks().0.get(index).copied()
    }
}

impl Kind for RnacosNodes {
    const NAME: &'static str = "rnacos";
    /// The next ones join the first.
    const ONE_BY_ONE: bool = true;

    fn address(&self, index: usize) -> Option<SocketAddr> {
        self.ports(index).map(|[_, grpc, _]| grpc)
    }

    fn command(&self, index: usize, data: &Path) -> Result<Command, Failure> {
        let (Some([http, grpc, console]), Some(first)) = (self.ports(index), self.address(0))
        else {
            return Err(missing::<Self>(index));
        };
        let mut command = Command::new("rnacos");
        command
            // It reads settings from a file there.
            .current_dir(data)
            .env("RNACOS_SDK_HOST", "127.0.0.1")
            .env("RNACOS_HTTP_PORT", http.port().to_string())
            .env("RNACOS_GRPC_PORT", grpc.port().to_string())
            .env("RNACOS_HTTP_CONSOLE_PORT", console.port().to_string())
            .env("RNACOS_DATA_DIR", data)
            .env("RNACOS_RAFT_NODE_ID", (index + 1).to_string())
            .env("RNACOS_RAFT_NODE_ADDR", grpc.to_string());
        match index {
            0 => command.env("RNACOS_RAFT_AUTO_INIT", "true"),
            _ => command.env("RNACOS_RAFT_JOIN_ADDR", first.to_string()),
        };
        Ok(command)
    }

    /// Whether it takes a registration.
    fn answers(&self, index: usize, address: SocketAddr) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let instance = Sample::new("ready", index);
            match RnacosClients::open(&Lines::to(&[address], 1)).await {
                Ok(clients) => clients.register_one(0, &instance).await.is_ok(),
                Err(_) => false,
            }
        })
    }

    /// Its leader is for settings alone; registrations have none.
    fn leader<'a>(&'a self, _servers: &'a [Server]) -> Outcome<'a, Option<usize>> {
        Box::pin(async { Ok(None) })
    }

    fn clients<'a>(&'a self, lines: &'a Lines<'a>) -> Outcome<'a, Box<dyn Clients>> {
        Box::pin(async move {
            let clients: Box<dyn Clients> = Box::new(RnacosClients::open(lines).await?);
            Ok(clients)
        })
    }
}
