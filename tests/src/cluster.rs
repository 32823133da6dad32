//! Replicas of a registry in this process, on loopback ports that the system chose.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tonic::transport::{Channel, Endpoint};
use trimtab_client::cluster::Cluster as Replicas;
use trimtab_client::operator::Operator;
use trimtab_proto::v1::cluster_client::ClusterClient;
use trimtab_proto::v1::discovery_client::DiscoveryClient;
use trimtab_proto::v1::registration_client::RegistrationClient;
use trimtab_proto::v1::routing_client::RoutingClient;
use trimtab_proto::v1::{
    Instance, RegisterRequest, RegisterResponse, ReplicaRole, ReplicaStatus, StatusRequest,
};
use trimtab_server::config::Config;
use trimtab_server::node::Node;

use crate::eventually::eventually;

/// A registry whose replicas can be stopped and started again.
#[derive(Debug)]
pub struct Cluster {
    addresses: BTreeMap<u64, SocketAddr>,
    running: BTreeMap<u64, Node>,
    snapshot_every: u64,
    directory: TempDir,
}

impl Cluster {
    /// Starts `size` replicas and waits until all of them serve.
    ///
    /// # Panics
    /// When the machine does not let them start.
    pub async fn start(size: u64) -> Cluster {
        Cluster::start_with(size, 10_000).await
    }

    /// The same with another number of entries between snapshots.
    ///
    /// # Panics
    /// When the machine does not let them start.
    pub async fn start_with(size: u64, snapshot_every: u64) -> Cluster {
        let mut listeners = BTreeMap::new();
        for id in 1..=size {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            listeners.insert(id, listener);
        }
        let addresses = listeners
            .iter()
            .map(|(id, listener)| (*id, listener.local_addr().expect("bound")))
            .collect();
        let mut cluster = Cluster {
            addresses,
            running: BTreeMap::new(),
            snapshot_every,
            directory: TempDir::new().expect("a temporary directory"),
        };
        // They wait for each other.
        let starting = listeners.into_iter().map(|(id, listener)| {
            let config = cluster.config(id);
            async move { (id, Node::start_on(listener, config).await) }
        });
        for (id, node) in join_all(starting).await {
            cluster.running.insert(id, node.expect("replica starts"));
        }
        cluster.all_ready().await;
        cluster
    }

    fn config(&self, id: u64) -> Config {
        let mut config = Config::single(self.addresses[&id], self.data_dir(id));
        config.id = id;
        config.members = self
            .addresses
            .iter()
            .map(|(id, address)| (*id, address.to_string()))
            .collect();
        config.snapshot_every = self.snapshot_every;
        config
    }

    /// Where a replica keeps its log.
    pub fn data_dir(&self, id: u64) -> PathBuf {
        self.directory.path().join(id.to_string())
    }

    /// Stops a replica in order, as on SIGTERM.
    ///
    /// # Panics
    /// When it is not running.
    pub async fn stop(&mut self, id: u64) {
        let node = self.running.remove(&id).expect("it runs");
        node.shutdown().await;
    }

    /// A stopped replica's disk is lost.
    ///
    /// # Panics
    /// When it runs, or its directory cannot be removed.
    pub fn destroy(&self, id: u64) {
        assert!(!self.running.contains_key(&id), "it runs");
        std::fs::remove_dir_all(self.data_dir(id)).expect("removed");
    }

    /// Sets an address aside for a replica that comes later; until then
    /// nobody listens there.
    ///
    /// # Panics
    /// When the machine has no port to spare.
    pub fn reserve(&mut self, id: u64) -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        self.addresses.insert(id, address);
        address
    }

    /// Starts a replica with an empty directory that waits to be taken in, has
    /// it taken in without a vote, and waits until it serves.
    ///
    /// # Panics
    /// When that is refused, or it has no address ([`Cluster::reserve`]).
    pub async fn join(&mut self, id: u64) {
        let config = self.joining(id);
        let starting = tokio::spawn(Node::start(config));
        let operator = self.operator();
        let address = self.address(id).to_string();
        let added = eventually(
            "the newcomer answers and is taken in",
            async || {
                operator
                    .add_replica(&address)
                    .await
                    .map_err(|e| e.to_string())
            },
            Result::is_ok,
        )
        .await;
        assert_eq!(added.map(|added| added.change.id), Ok(id));
        let node = starting.await.expect("no panic").expect("replica starts");
        node.ready().await.expect("it serves");
        self.running.insert(id, node);
    }

    /// How a replica is started that is to be taken in.
    pub fn joining(&self, id: u64) -> Config {
        let mut config = self.config(id);
        config.members.retain(|member, _| *member == id);
        let others = self.running.keys();
        config.join = others.map(|id| self.addresses[id].to_string()).collect();
        config
    }

    /// How a founder is started.
    pub fn founding(&self, id: u64) -> Config {
        self.config(id)
    }

    /// Waits until a running replica stops by itself, and tells why.
    ///
    /// # Panics
    /// When it does not run.
    pub async fn ended(&mut self, id: u64) -> String {
        let node = self.running.remove(&id).expect("it runs");
        let why = node.failed().await;
        node.shutdown().await;
        why
    }

    /// Starts a stopped replica from its directory, at its old address.
    ///
    /// # Panics
    /// When it cannot start.
    pub async fn start_again(&mut self, id: u64) {
        let node = Node::start(self.config(id)).await;
        self.running.insert(id, node.expect("replica starts"));
    }

    /// Waits until every running replica serves.
    ///
    /// # Panics
    /// When one has failed.
    pub async fn all_ready(&self) {
        for node in self.running.values() {
            node.ready().await.expect("it serves");
        }
    }

    /// The ids of the running replicas.
    pub fn running(&self) -> Vec<u64> {
        self.running.keys().copied().collect()
    }

    /// Where all replicas are, running or not, as `--endpoints` takes it.
    pub fn endpoints(&self) -> String {
        let addresses: Vec<String> = self.addresses.values().map(ToString::to_string).collect();
        addresses.join(",")
    }

    /// Where one replica is.
    pub fn address(&self, id: u64) -> SocketAddr {
        self.addresses[&id]
    }

    /// Operator calls to whichever replica answers.
    ///
    /// # Panics
    /// Never: the addresses are valid.
    pub fn operator(&self) -> Operator {
        Operator::new(Replicas::parse(&self.endpoints()).expect("valid addresses"))
    }

    /// Operator calls to one replica alone.
    ///
    /// # Panics
    /// Never: the address is valid.
    pub fn operator_of(&self, id: u64) -> Operator {
        let address = self.address(id).to_string();
        Operator::new(Replicas::parse(&address).expect("a valid address"))
    }

    fn channel(&self, id: u64) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address(id)))
            .expect("a valid address")
            .connect_lazy()
    }

    /// Discovery at one replica, as any gRPC client speaks it.
    pub fn discovery(&self, id: u64) -> DiscoveryClient<Channel> {
        DiscoveryClient::new(self.channel(id))
    }

    /// Registration at one replica, as any gRPC client speaks it.
    pub fn registration(&self, id: u64) -> RegistrationClient<Channel> {
        RegistrationClient::new(self.channel(id))
    }

    /// Routing at one replica, as any gRPC client speaks it.
    pub fn routing(&self, id: u64) -> RoutingClient<Channel> {
        RoutingClient::new(self.channel(id))
    }

    /// Registers an instance that nothing listens behind, through replica
    /// `id`. Nothing renews its lease, which lasts longer than a test.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn register(
        &self,
        id: u64,
        service: &str,
        group: &str,
        instance: &str,
    ) -> RegisterResponse {
        self.register_at(id, service, group, instance, "127.0.0.1:1")
            .await
    }

    /// The same, at an address where something may listen.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn register_at(
        &self,
        id: u64,
        service: &str,
        group: &str,
        instance: &str,
        address: &str,
    ) -> RegisterResponse {
        let request = RegisterRequest {
            service: service.to_owned(),
            instance: Some(Instance {
                id: instance.to_owned(),
                group: group.to_owned(),
                address: address.to_owned(),
                ..Instance::default()
            }),
            ttl: Some(prost_types::Duration {
                seconds: 600,
                nanos: 0,
            }),
        };
        let registered = self.registration(id).register(request).await;
        registered.expect("registered").into_inner()
    }

    /// What the replicas say of themselves, asked at replica `id`.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn status(&self, id: u64) -> Vec<ReplicaStatus> {
        let answer = ClusterClient::new(self.channel(id))
            .status(StatusRequest {})
            .await;
        answer.expect("status").into_inner().replicas
    }

    /// The replica that leads, as soon as one does.
    ///
    /// # Panics
    /// When none does in time.
    pub async fn leader(&self) -> u64 {
        let asked = *self.running.keys().next().expect("one runs");
        let leads = |status: &&ReplicaStatus| status.role() == ReplicaRole::Leader;
        let statuses = eventually(
            "a leader",
            async || self.status(asked).await,
            |statuses| statuses.iter().any(|status| leads(&status)),
        )
        .await;
        let leader = statuses.iter().find(leads);
        leader.map_or(0, |status| status.id)
    }
}
