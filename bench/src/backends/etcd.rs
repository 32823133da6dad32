//! etcd with its shipped defaults: an instance is a key under its service's prefix, with a lease.

mod clients;
mod streams;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use futures_util::future::BoxFuture;

use super::running::{Kind, Running, missing};
use super::{Backend, Clients, Cluster, Lines, Outcome, Server};
use crate::failure::Failure;
use crate::process::free_addresses;
use crate::wire::{Received, connect};

/// What `include_proto!` brings in of etcd's API.
mod v3 {
    #![allow(missing_docs, unreachable_pub, dead_code, clippy::all, rustdoc::all)]
    tonic::include_proto!("etcdserverpb");
}

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
            let members = EtcdMembers {
                clients: free_addresses(replicas)?,
                peers: free_addresses(replicas)?,
            };
            Running::start(members, replicas, directory).await
        })
    }
}

struct EtcdMembers {
    clients: Vec<SocketAddr>,
    peers: Vec<SocketAddr>,
}

impl Kind for EtcdMembers {
    const NAME: &'static str = "etcd";

    fn address(&self, index: usize) -> Option<SocketAddr> {
        self.clients.get(index).copied()
    }

    fn command(&self, index: usize, data: &Path) -> Result<Command, Failure> {
        let (Some(client), Some(peer)) = (self.clients.get(index), self.peers.get(index)) else {
            return Err(missing::<Self>(index));
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
            .arg(data.join("data"))
            .args(["--listen-client-urls", &format!("http://{client}")])
            .args(["--advertise-client-urls", &format!("http://{client}")])
            .args(["--listen-peer-urls", &format!("http://{peer}")])
            .args(["--initial-advertise-peer-urls", &format!("http://{peer}")])
            .args(["--initial-cluster", &members.join(",")])
            .args(["--log-level", "error", "--logger", "zap"]);
        Ok(command)
    }

    /// It answers this when it has a leader.
    fn answers(&self, _index: usize, address: SocketAddr) -> BoxFuture<'_, bool> {
        Box::pin(linearizable(address))
    }

    fn leader<'a>(&'a self, servers: &'a [Server]) -> Outcome<'a, Option<usize>> {
        Box::pin(async move {
            for (index, server) in servers.iter().enumerate() {
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
        clients::connect(lines)
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
