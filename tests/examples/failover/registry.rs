//! Three replicas as processes on loopback.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use trimtab_client::cluster::Cluster;
use trimtab_client::operator::Operator;
use trimtab_proto::v1::registration_client::RegistrationClient;
use trimtab_proto::v1::{Instance, RegisterRequest};

/// Longer than the benchmark lasts: nothing renews.
const TTL_SECONDS: i64 = 600;

/// A replica starts and catches up well within this.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// What is changed, watched and read.
pub(crate) const SERVICE: &str = "catalog";
pub(crate) const GROUPS: [&str; 2] = ["v1", "v2"];

/// The replicas; killed when dropped.
#[derive(Debug)]
pub(crate) struct Registry {
    addresses: BTreeMap<u64, String>,
    running: BTreeMap<u64, Child>,
    trimtab: PathBuf,
    directory: TempDir,
}

impl Registry {
    pub(crate) async fn start() -> Result<Self, Box<dyn Error>> {
        let own = std::env::current_exe()?;
        let target = own.parent().and_then(|examples| examples.parent());
        let trimtab = target.ok_or("this program is nowhere")?.join("trimtab");
        if !trimtab.exists() {
            return Err(
                format!("no {}: run cargo build --release first", trimtab.display()).into(),
            );
        }
        // Held until all are chosen, so that they differ.
        let free: Vec<TcpListener> = (0..3)
            .map(|_| TcpListener::bind("127.0.0.1:0"))
            .collect::<Result<_, _>>()?;
        let mut addresses = BTreeMap::new();
        for (id, listener) in (1..).zip(&free) {
            addresses.insert(id, listener.local_addr()?.to_string());
        }
        drop(free);
        let mut registry = Self {
            addresses,
            running: BTreeMap::new(),
            trimtab,
            directory: TempDir::new()?,
        };
        for id in registry.ids() {
            registry.start_again(id)?;
        }
        registry.settled().await?;
        Ok(registry)
    }

    pub(crate) fn ids(&self) -> Vec<u64> {
        self.addresses.keys().copied().collect()
    }

    pub(crate) fn address(&self, id: u64) -> &str {
        self.addresses.get(&id).map_or("", String::as_str)
    }

    /// All replicas, those of `first` before others.
    pub(crate) fn endpoints_from(&self, first: u64) -> String {
        let (later, sooner): (Vec<_>, Vec<_>) =
            self.addresses.iter().partition(|(id, _)| **id < first);
        let all: Vec<&str> = sooner
            .into_iter()
            .chain(later)
            .map(|(_, address)| address.as_str())
            .collect();
        all.join(",")
    }

    pub(crate) fn start_again(&mut self, id: u64) -> Result<(), Box<dyn Error>> {
        let peers: Vec<String> = self
            .addresses
            .iter()
            .map(|(id, at)| format!("{id}={at}"))
            .collect();
        let data = self.directory.path().join(id.to_string());
        let log = File::options()
            .create(true)
            .append(true)
            .open(data.with_extension("log"))?;
        let mut command = Command::new(&self.trimtab);
        command.args(["serve", "--until-stdin-closes", "--id", &id.to_string()]);
        command
            .args(["--peers", &peers.join(",")])
            .arg("--data-dir")
            .arg(data);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log);
        self.running.insert(id, command.spawn()?);
        Ok(())
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self, id: u64) -> Result<(), Box<dyn Error>> {
        let mut child = self.running.remove(&id).ok_or("it does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Waits until every replica says the same of who leads, and has caught
    /// up. Returns the leader.
    pub(crate) async fn settled(&self) -> Result<u64, Box<dyn Error>> {
        let deadline = Instant::now() + SETTLED_WITHIN;
        while Instant::now() < deadline {
            let mut leaders = Vec::new();
            for address in self.addresses.values() {
                let status = Operator::new(Cluster::parse(address)?)
                    .cluster_status()
                    .await;
                let all_well =
                    |replicas: &[trimtab_client::operator::cluster_status::ReplicaStatus]| {
                        replicas
                            .iter()
                            .all(|replica| replica.reachable && replica.caught_up)
                    };
                let status = status.ok().filter(|status| all_well(&status.replicas));
                leaders.extend(status.and_then(|status| status.leader_id));
            }
            leaders.dedup();
            if let [leader] = leaders.as_slice() {
                return Ok(*leader);
            }
            sleep(Duration::from_millis(100)).await;
        }
        Err(format!(
            "the replicas did not settle, see {}",
            self.directory.path().display()
        )
        .into())
    }

    /// Registers an instance of each group.
    pub(crate) async fn fill(&self) -> Result<(), Box<dyn Error>> {
        let mut registration =
            RegistrationClient::connect(format!("http://{}", self.address(1))).await?;
        for group in GROUPS {
            let instance = Instance {
                id: group.to_owned(),
                group: group.to_owned(),
                address: "127.0.0.1:1".to_owned(),
                ..Instance::default()
            };
            let ttl = prost_types::Duration {
                seconds: TTL_SECONDS,
                nanos: 0,
            };
            let request = RegisterRequest {
                service: SERVICE.to_owned(),
                instance: Some(instance),
                ttl: Some(ttl),
            };
            registration.register(request).await?;
        }
        Ok(())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
