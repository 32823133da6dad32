//! The ceiling of this RPC stack: a server that answers Trimtab's messages and does nothing for it.

mod routing;
mod server;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use clap::Args;

use super::trimtab::clients::TrimtabClients;
use super::{Backend, Clients, Cluster, Lines, Outcome, Server};
use crate::failure::Failure;
use crate::process::{Process, free_addresses};

/// The null server, in a process of its own.
#[derive(Debug)]
pub(crate) struct Null;

/// What the null server is told.
#[derive(Debug, Args)]
pub(crate) struct NullArgs {
    /// The address to listen on
    #[arg(long)]
    listen: SocketAddr,
}

/// Serves until it is killed.
pub(crate) async fn serve(args: &NullArgs) -> Result<(), Failure> {
    server::serve(args.listen).await
}

impl Backend for Null {
    fn name(&self) -> &'static str {
        "null"
    }

    fn version(&self) -> Result<String, String> {
        Ok("tonic 0.14, Trimtab's messages, no work".to_owned())
    }

    fn syncs(&self) -> &'static str {
        "nothing: it keeps nothing"
    }

    fn keeps_nothing(&self) -> bool {
        true
    }

    fn runs_as(&self, replicas: usize) -> bool {
        replicas == 1
    }

    fn start<'a>(&'a self, _replicas: usize, directory: &'a Path) -> Outcome<'a, Box<dyn Cluster>> {
        Box::pin(async move {
            let own = std::env::current_exe().map_err(Failure::system("finding this program"))?;
            let [address] = free_addresses(1)?[..] else {
                return Err(Failure::Wrong("no free port".to_owned()));
            };
            let mut command = Command::new(own);
            command.args(["null", "--listen", &address.to_string()]);
            let process = Process::start("null", &mut command, directory)?;
            let mut cluster = NullCluster {
                servers: [Server { address, process }],
            };
            super::trimtab::answering(&mut cluster.servers).await?;
            let cluster: Box<dyn Cluster> = Box::new(cluster);
            Ok(cluster)
        })
    }
}

struct NullCluster {
    servers: [Server; 1],
}

impl Cluster for NullCluster {
    fn servers(&self) -> &[Server] {
        &self.servers
    }

    fn servers_mut(&mut self) -> &mut [Server] {
        &mut self.servers
    }

    fn restart(&mut self, _index: usize) -> Result<(), Failure> {
        Err(Failure::Wrong("the null server has no data".to_owned()))
    }

    fn leader(&self) -> Outcome<'_, Option<usize>> {
        Box::pin(async { Ok(None) })
    }

    fn clients<'a>(&'a self, lines: &'a Lines<'a>) -> Outcome<'a, Box<dyn Clients>> {
        Box::pin(async move {
            let clients: Box<dyn Clients> = Box::new(TrimtabClients::connect(lines).await?);
            Ok(clients)
        })
    }
}
