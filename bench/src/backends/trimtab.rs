//! Trimtab itself: `trimtab serve` as users run it, from a release build of this tree.

pub(super) mod clients;
mod watcher;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use futures_util::future::BoxFuture;
use trimtab_proto::v1::ListServicesRequest;
use trimtab_proto::v1::StatusRequest;
use trimtab_proto::v1::cluster_client::ClusterClient;
use trimtab_proto::v1::discovery_client::DiscoveryClient;

use super::running::{Kind, Running};
use super::{Backend, Clients, Cluster, Lines, Outcome, Server};
use crate::built;
use crate::failure::Failure;
use crate::process::free_addresses;
use crate::wire::{Received, connect};

/// `trimtab serve`.
#[derive(Debug)]
pub(crate) struct Trimtab {
    binary: Result<PathBuf, String>,
}

impl Trimtab {
    /// The binary given, or else one built from this tree in release mode, or else one beside this program.
    pub(crate) fn find(given: Option<PathBuf>) -> Self {
        Self {
            binary: given.map_or_else(|| built::release("trimtab"), Ok),
        }
    }
}

impl Backend for Trimtab {
    fn name(&self) -> &'static str {
        "trimtab"
    }

    fn version(&self) -> Result<String, String> {
        let binary = self.binary.as_ref().map_err(Clone::clone)?;
        super::version_of(Command::new(binary).arg("--version"), "")
    }

    fn syncs(&self) -> &'static str {
        "every write, on a quorum's disks, before it answers; renewals are in memory"
    }

    fn runs_as(&self, _replicas: usize) -> bool {
        true
    }

    fn start<'a>(&'a self, replicas: usize, directory: &'a Path) -> Outcome<'a, Box<dyn Cluster>> {
        Box::pin(async move {
            let servers = TrimtabServers {
                binary: self.binary.clone().map_err(Failure::Wrong)?,
                addresses: free_addresses(replicas)?,
            };
            Running::start(servers, replicas, directory).await
        })
    }
}

struct TrimtabServers {
    binary: PathBuf,
    addresses: Vec<SocketAddr>,
}

impl Kind for TrimtabServers {
    const NAME: &'static str = "trimtab";

    fn address(&self, index: usize) -> Option<SocketAddr> {
        self.addresses.get(index).copied()
    }

    fn command(&self, index: usize, data: &Path) -> Result<Command, Failure> {
        let peers: Vec<String> = (1..)
            .zip(&self.addresses)
            .map(|(id, address)| format!("{id}={address}"))
            .collect();
        let mut command = Command::new(&self.binary);
        command
            .args(["serve", "--until-stdin-closes"])
            .args(["--id", &(index + 1).to_string()])
            .args(["--peers", &peers.join(",")])
            .arg("--data-dir")
            .arg(data);
        Ok(command)
    }

    fn answers(&self, _index: usize, address: SocketAddr) -> BoxFuture<'_, bool> {
        Box::pin(answers(address))
    }

    fn leader<'a>(&'a self, servers: &'a [Server]) -> Outcome<'a, Option<usize>> {
        Box::pin(async move {
            for server in servers {
                let Ok(channel) = connect(server.address, &Received::default()).await else {
                    continue;
                };
                let mut client = ClusterClient::new(channel);
                let status = client.status(StatusRequest::default()).await;
                let status = status.map_err(Failure::call("asking who leads"))?;
                let leader = usize::try_from(status.into_inner().leader_id).ok();
                return Ok(leader.and_then(|leader| leader.checked_sub(1)));
            }
            Ok(None)
        })
    }

    fn clients<'a>(&'a self, lines: &'a Lines<'a>) -> Outcome<'a, Box<dyn Clients>> {
        clients::connect(lines)
    }
}

/// Does it answer a question about its state?
pub(super) async fn answers(address: SocketAddr) -> bool {
    let Ok(channel) = connect(address, &Received::default()).await else {
        return false;
    };
    let mut client = DiscoveryClient::new(channel);
    let asked = client.list_services(ListServicesRequest::default());
    asked.await.is_ok()
}
