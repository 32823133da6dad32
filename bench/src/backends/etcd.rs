//! etcd with its shipped defaults: an instance is a key under its service's prefix, with a lease.

mod clients;
mod streams;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use self::clients::EtcdClients;
use super::{Backend, Clients, Cluster, Lines, Outcome, Server};
use crate::failure::Failure;
use crate::process::{Process, free_addresses};
use crate::wire::{Received, connect};

/// What `include_proto!` brings in of etcd's API.
mod v3 {
    #![allow(missing_docs, unreachable_pub, dead_code, clippy::all, rustdoc::all)]
    tonic::include_proto!("etcdserverpb");
}

/// How long servers may take to answer after their start.
const START_TIME: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_millis(5);

/// `etcd` as it is found on PATH.
#[derive(Debug)]
pub(crate) struct Etcd;

impl Backend for Etcd {
    fn name(&self) -> &'static str {
        "etcd"
    }

    fn version(&self) -> Result<String, String> {
        super::version_of(Command::new("etcd").arg("--version"), "etcd Version:")
    }

    fn syncs(&self) -> &'static str {
        "every write, leases too, on a quorum's disks, before it answers; renewals are in memory"
    }

    fn runs_as(&self, _replicas: usize) -> bool {
        true
    }

    fn start<'a>(&'a self, replicas: usize, directory: &'a Path) -> Outcome<'a, Box<dyn Cluster>> {
        Box::pin(async move {
            let mut cluster = EtcdCluster {
                directory: directory.to_owned(),
                clients: free_addresses(replicas)?,
                peers: free_addresses(replicas)?,
                servers: Vec::with_capacity(replicas),
            };
            for index in 0..replicas {
                let process = cluster.spawn(index)?;
                let address = cluster.clients.get(index).copied();
                let address = address.ok_or_else(|| Failure::Wrong("no free port".to_owned()))?;
                cluster.servers.push(Server { address, process });
            }
            cluster.answering().await?;
            let cluster: Box<dyn Cluster> = Box::new(cluster);
            Ok(cluster)
        })
    }
}

struct EtcdCluster {
    directory: PathBuf,
    clients: Vec<SocketAddr>,
    peers: Vec<SocketAddr>,
    servers: Vec<Server>,
}

impl EtcdCluster {
    fn spawn(&self, index: usize) -> Result<Process, Failure> {
        let (Some(client), Some(peer)) = (self.clients.get(index), self.peers.get(index)) else {
            return Err(Failure::Wrong(format!("there is no member {index}")));
        };
        let name = |index: usize| format!("etcd-{}", index + 1);
        let members: Vec<String> = self
            .peers
            .iter()
            .enumerate()
            .map(|(index, peer)| format!("{}=http://{peer}", name(index)))
            .collect();
        let mut command = Command::new("etcd");
        command
            .args(["--name", &name(index)])
            .arg("--data-dir")
            .arg(self.directory.join(name(index)))
            .args(["--listen-client-urls", &format!("http://{client}")])
            .args(["--advertise-client-urls", &format!("http://{client}")])
            .args(["--listen-peer-urls", &format!("http://{peer}")])
            .args(["--initial-advertise-peer-urls", &format!("http://{peer}")])
            .args(["--initial-cluster", &members.join(",")])
            .args(["--log-level", "error", "--logger", "zap"]);
        Process::start(&name(index), &mut command, &self.directory)
    }

    /// Waits until each member answers what needs a leader.
    async fn answering(&mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        for server in &mut self.servers {
            while !linearizable(server.address).await {
                server.process.check()?;
                if begun.elapsed() > START_TIME {
                    return Err(Failure::Late("the start of etcd".to_owned(), START_TIME));
                }
                tokio::time::sleep(ASK_EVERY).await;
            }
        }
        Ok(())
    }
}

async fn linearizable(address: SocketAddr) -> bool {
    let Ok(channel) = connect(address, &Received::default()).await else {
        return false;
    };
    let request = v3::RangeRequest {
        key: "any".into(),
        ..v3::RangeRequest::default()
    };
    let mut client = v3::kv_client::KvClient::new(channel);
    client.range(request).await.is_ok()
}

impl Cluster for EtcdCluster {
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
            for (index, server) in self.servers.iter().enumerate() {
                let Ok(channel) = connect(server.address, &Received::default()).await else {
                    continue;
                };
                let mut client = v3::maintenance_client::MaintenanceClient::new(channel);
                let status = client.status(v3::StatusRequest::default()).await;
                let status = status
                    .map_err(Failure::call("asking who leads"))?
                    .into_inner();
                if status
                    .header
                    .is_some_and(|own| own.member_id == status.leader)
                {
                    return Ok(Some(index));
                }
            }
            Ok(None)
        })
    }

    fn clients<'a>(&'a self, lines: &'a Lines<'a>) -> Outcome<'a, Box<dyn Clients>> {
        Box::pin(async move {
            let clients: Box<dyn Clients> = Box::new(EtcdClients::connect(lines).await?);
            Ok(clients)
        })
    }
}
