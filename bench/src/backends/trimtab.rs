//! Trimtab itself: `trimtab serve` as users run it, from a release build of this tree.

pub(super) mod clients;
mod watcher;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tonic::transport::Channel;
use trimtab_proto::v1::ListServicesRequest;
use trimtab_proto::v1::StatusRequest;
use trimtab_proto::v1::cluster_client::ClusterClient;
use trimtab_proto::v1::discovery_client::DiscoveryClient;

use self::clients::TrimtabClients;
use super::{Backend, Clients, Cluster, Lines, Outcome, Server};
use crate::built;
use crate::failure::Failure;
use crate::process::{Process, free_addresses};
use crate::wire::{Received, connect};

/// How long servers may take to answer after their start.
const START_TIME: Duration = Duration::from_secs(60);
/// How often they are asked meanwhile.
const ASK_EVERY: Duration = Duration::from_millis(5);

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
            let binary = self.binary.clone().map_err(Failure::Wrong)?;
            let mut cluster = TrimtabCluster {
                binary,
                directory: directory.to_owned(),
                addresses: free_addresses(replicas)?,
                servers: Vec::with_capacity(replicas),
            };
            for index in 0..replicas {
                let (address, process) = (cluster.address(index)?, cluster.spawn(index)?);
                cluster.servers.push(Server { address, process });
            }
            answering(&mut cluster.servers).await?;
            let cluster: Box<dyn Cluster> = Box::new(cluster);
            Ok(cluster)
        })
    }
}

struct TrimtabCluster {
    binary: PathBuf,
    directory: PathBuf,
    addresses: Vec<SocketAddr>,
    servers: Vec<Server>,
}

impl TrimtabCluster {
    fn address(&self, index: usize) -> Result<SocketAddr, Failure> {
        let address = self.addresses.get(index).copied();
        address.ok_or_else(|| Failure::Wrong(format!("there is no replica {index}")))
    }

    fn spawn(&self, index: usize) -> Result<Process, Failure> {
        let peers: Vec<String> = (1..)
            .zip(&self.addresses)
            .map(|(id, address)| format!("{id}={address}"))
            .collect();
        let name = format!("trimtab-{}", index + 1);
        let mut command = Command::new(&self.binary);
        command
            .args(["serve", "--until-stdin-closes"])
            .args(["--id", &(index + 1).to_string()])
            .args(["--peers", &peers.join(",")])
            .arg("--data-dir")
            .arg(self.directory.join(&name));
        Process::start(&name, &mut command, &self.directory)
    }
}

impl Cluster for TrimtabCluster {
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

    fn leader(&self) -> Outcome<'_, Option<usize>> {
        Box::pin(async move {
            for server in &self.servers {
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
        Box::pin(async move {
            let clients: Box<dyn Clients> = Box::new(TrimtabClients::connect(lines).await?);
            Ok(clients)
        })
    }
}

/// Waits until each of the servers answers a question about its state.
pub(super) async fn answering(servers: &mut [Server]) -> Result<(), Failure> {
    let begun = Instant::now();
    for server in servers {
        while !answers(server.address).await {
            server.process.check()?;
            if begun.elapsed() > START_TIME {
                let what = format!("the start of {}", server.address);
                return Err(Failure::Late(what, START_TIME));
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }
    Ok(())
}

async fn answers(address: SocketAddr) -> bool {
    let channel: Result<Channel, Failure> = connect(address, &Received::default()).await;
    let Ok(channel) = channel else {
        return false;
    };
    let mut client = DiscoveryClient::new(channel);
    let asked = client.list_services(ListServicesRequest::default());
    asked.await.is_ok()
}
