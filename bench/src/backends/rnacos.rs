//! r-nacos with its shipped defaults, over the gRPC that Nacos 2 clients speak. What is registered is ephemeral: it
//! lives as long as the connection that registered it, is never synced to disk, and nothing connects to its address.

mod clients;
mod line;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use self::clients::RnacosClients;
use super::{Backend, Clients, Cluster, Lines, Outcome, Server};
use crate::failure::Failure;
use crate::process::{Process, free_addresses};
use crate::sample::Sample;

/// What `include_proto!` brings in of Nacos' envelope.
mod proto {
    #![allow(missing_docs, unreachable_pub, dead_code, clippy::all, rustdoc::all)]
    tonic::include_proto!("nacos");
}

/// How long servers may take to answer after their start.
const START_TIME: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_millis(20);
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

    fn runs_as(&self, _replicas: usize) -> bool {
        true
    }

    fn start<'a>(&'a self, replicas: usize, directory: &'a Path) -> Outcome<'a, Box<dyn Cluster>> {
        Box::pin(async move {
            let mut cluster = RnacosCluster {
                directory: directory.to_owned(),
                ports: free_addresses(replicas * PORTS)?,
                servers: Vec::with_capacity(replicas),
            };
            for index in 0..replicas {
                let (_, address, _) = cluster.ports(index)?;
                let process = cluster.spawn(index)?;
                cluster.servers.push(Server { address, process });
                // The next ones join the first.
                cluster.answering(index).await?;
            }
            let cluster: Box<dyn Cluster> = Box::new(cluster);
            Ok(cluster)
        })
    }
}

struct RnacosCluster {
    directory: PathBuf,
    ports: Vec<SocketAddr>,
    servers: Vec<Server>,
}

impl RnacosCluster {
    /// Where the server listens for HTTP, gRPC and its console.
    fn ports(&self, index: usize) -> Result<(SocketAddr, SocketAddr, SocketAddr), Failure> {
        match self.ports.chunks(PORTS).nth(index) {
            Some(&[http, grpc, console]) => Ok((http, grpc, console)),
            _ => Err(Failure::Wrong(format!("there is no server {index}"))),
        }
    }

    fn spawn(&self, index: usize) -> Result<Process, Failure> {
        let (http, grpc, console) = self.ports(index)?;
        let (_, first, _) = self.ports(0)?;
        let name = format!("rnacos-{}", index + 1);
        let data = self.directory.join(&name);
        std::fs::create_dir_all(&data).map_err(Failure::system("making a directory"))?;
        let mut command = Command::new("rnacos");
        command
            // It reads settings from a file there.
            .current_dir(&data)
            .env("RNACOS_SDK_HOST", "127.0.0.1")
            .env("RNACOS_HTTP_PORT", http.port().to_string())
            .env("RNACOS_GRPC_PORT", grpc.port().to_string())
            .env("RNACOS_HTTP_CONSOLE_PORT", console.port().to_string())
            .env("RNACOS_DATA_DIR", &data)
            .env("RNACOS_RAFT_NODE_ID", (index + 1).to_string())
            .env("RNACOS_RAFT_NODE_ADDR", grpc.to_string());
        match index {
            0 => command.env("RNACOS_RAFT_AUTO_INIT", "true"),
            _ => command.env("RNACOS_RAFT_JOIN_ADDR", first.to_string()),
        };
        Process::start(&name, &mut command, &self.directory)
    }

    /// Waits until the server takes a registration.
    async fn answering(&mut self, index: usize) -> Result<(), Failure> {
        let begun = Instant::now();
        let instance = Sample::new("ready", index);
        while begun.elapsed() < START_TIME {
            let Some(server) = self.servers.get_mut(index) else {
                break;
            };
            server.process.check()?;
            let servers = [server.address];
            if let Ok(clients) = RnacosClients::connect(&Lines::to(&servers, 1)).await
                && clients.register_one(0, &instance).await.is_ok()
            {
                return Ok(());
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        Err(Failure::Late("the start of r-nacos".to_owned(), START_TIME))
    }
}

impl Cluster for RnacosCluster {
    fn servers(&self) -> &[Server] {
        &self.servers
    }

    fn servers_mut(&mut self) -> &mut [Server] {
        &mut self.servers
    }

    fn restart(&mut self, index: usize) -> Result<(), Failure> {
        let process = self.spawn(index)?;
        if let Some(server) = self.servers.get_mut(index) {
            server.process = process;
        }
        Ok(())
    }

    /// Its leader is for settings alone; registrations have none.
    fn leader(&self) -> Outcome<'_, Option<usize>> {
        Box::pin(async { Ok(None) })
    }

    fn clients<'a>(&'a self, lines: &'a Lines<'a>) -> Outcome<'a, Box<dyn Clients>> {
        Box::pin(async move {
            let clients: Box<dyn Clients> = Box::new(RnacosClients::connect(lines).await?);
            Ok(clients)
        })
    }
}
