//! A registry of one replica, a place for a program, and what callers are told of it.

use tokio::process::Command;
use trimtab_client::error::Error;
use trimtab_client::operator::service_status::{InstanceDetail, InstanceStatus};
use trimtab_tests::cluster::Cluster;
use trimtab_tests::eventually::eventually;

use crate::stand_in::{self, Control, StandIn};
use crate::supervisor::{Supervisor, trimtab};

/// The service that all programs here are instances of.
pub(crate) const SERVICE: &str = "catalog";

/// What all have, and what they have unless a test says otherwise. The lease is
/// so long that no instance is ever gone because it ended.
const FLAGS: [&str; 6] = [
    "--service",
    SERVICE,
    "--check-interval",
    "50ms",
    "--output",
    "json",
];
const DEFAULTS: [[&str; 2]; 3] = [["--group", "v1"], ["--id", "a"], ["--ttl", "10m"]];

pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    pub(crate) control: Control,
    /// Where the program is to listen.
    pub(crate) address: String,
}

impl Stage {
    pub(crate) async fn open() -> Self {
        Self {
            cluster: Cluster::start(1).await,
            control: Control::open().await,
            address: free_address(),
        }
    }

    /// `trimtab run` with a stand-in, in group v1 unless `flags` say another.
    pub(crate) fn command(&self, flags: &[&str]) -> Command {
        let mut command = trimtab();
        self.arguments(&mut command, flags);
        command
    }

    /// As [`Stage::command`], for a command that runs this one.
    pub(crate) fn arguments(&self, command: &mut Command, flags: &[&str]) {
        let (variable, value) = self.control.environment();
        command.arg("run").args(FLAGS);
        for default in DEFAULTS {
            if !flags.contains(&default[0]) {
                command.args(default);
            }
        }
        if !flags.contains(&"--address") {
            command.args(["--address", &self.address]);
        }
        command
            .args(["--endpoints", &self.cluster.endpoints()])
            .args(flags)
            .arg("--")
            .args(stand_in::command())
            .env(variable, value);
    }

    pub(crate) async fn start(&self, flags: &[&str]) -> (Supervisor, StandIn) {
        let supervisor = Supervisor::start(self.command(flags));
        (supervisor, self.control.stand_in().await)
    }

    /// As [`Stage::start`], and waits until it is registered.
    pub(crate) async fn start_registered(&self, flags: &[&str]) -> (Supervisor, StandIn) {
        let (mut supervisor, mut stand_in) = self.start(flags).await;
        stand_in.tell("serve").await;
        supervisor.event("registered").await;
        (supervisor, stand_in)
    }

    /// The instances of the service, and of which lease each is.
    pub(crate) async fn instances(&self) -> Vec<InstanceDetail> {
        match self.cluster.operator().describe(SERVICE).await {
            Ok(status) => status.instances,
            Err(Error::NotFound(_)) => Vec::new(),
            Err(error) => panic!("{error}"),
        }
    }

    /// Waits until the program has this status, and gives its lease.
    pub(crate) async fn until_status(&self, wanted: InstanceStatus) -> u64 {
        let is_so = |instances: &Vec<InstanceDetail>| {
            instances.iter().any(|it| it.instance.status == wanted)
        };
        let what = format!("{wanted}");
        let instances = eventually(&what, async || self.instances().await, is_so).await;
        instances[0].lease
    }

    /// Waits until nothing is registered.
    pub(crate) async fn until_gone(&self) {
        eventually(
            "no instance",
            async || self.instances().await,
            Vec::is_empty,
        )
        .await;
    }
}

/// An address that nobody listens on.
pub(crate) fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}
