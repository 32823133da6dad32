//! The ceiling of this RPC stack: a server that answers Trimtab's messages and does nothing for it.

mod routing;
mod server;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use clap::Args;
use futures_util::future::BoxFuture;

use super::running::{Kind, Running, missing};
use super::{Backend, Clients, Cluster, Lines, Outcome, Server};
use crate::failure::Failure;
use crate::process::free_addresses;

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

    fn start<'a>(&'a self, replicas: usize, directory: &'a Path) -> Outcome<'a, Box<dyn Cluster>> {
        Box::pin(async move {
            let addresses = free_addresses(replicas)?;
            Running::start(NullServer { addresses }, replicas, directory).await
        })
    }
}

struct NullServer {
    addresses: Vec<SocketAddr>,
}

impl Kind for NullServer {
    const NAME: &'static str = "null";

    fn address(&self, index: usize) -> Option<SocketAddr> {
        self.addresses.get(index).copied()
    }

    fn command(&self, index: usize, _data: &Path) -> Result<Command, Failure> {
        let own = std::env::current_exe().map_err(Failure::system("finding this program"))?;
        let address = self.address(index).ok_or_else(|| missing::<Self>(index))?;
        let mut command = Command::new(own);
        command.args(["null", "--listen", &address.to_string()]);
        Ok(command)
    }

    fn answers(&self, _index: usize, address: SocketAddr) -> BoxFuture<'_, bool> {
        Box::pin(super::trimtab::answers(address))
    }

    fn leader<'a>(&'a self, _servers: &'a [Server]) -> Outcome<'a, Option<usize>> {
        Box::pin(async { Ok(None) })
    }

    fn clients<'a>(&'a self, lines: &'a Lines<'a>) -> Outcome<'a, Box<dyn Clients>> {
        super::trimtab::clients::connect(lines)
    }
}
