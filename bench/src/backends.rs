//! What is compared: how each registry is started, and what each workload asks of its clients.

pub(crate) mod etcd;
pub(crate) mod null;
pub(crate) mod rnacos;
mod running;
pub(crate) mod trimtab;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt, stream};
use tonic::transport::Channel;

use crate::failure::Failure;
use crate::process::Process;
use crate::sample::Sample;
use crate::wire::{Received, connect_within};

/// Connections that are opened at a time: fewer than a listener's queue holds.
const OPENING_AT_ONCE: usize = 64;

/// What a step of a backend comes to.
pub(crate) type Outcome<'a, T> = BoxFuture<'a, Result<T, Failure>>;

/// A registry that can be started and asked.
pub(crate) trait Backend: Send + Sync {
    /// What it is called in tables.
    fn name(&self) -> &'static str;
    /// Which version would run, or why none can.
    fn version(&self) -> Result<String, String>;
    /// What is on which disk when it answers a write.
    fn syncs(&self) -> &'static str;
    /// Does it answer without having taken anything in?
    fn keeps_nothing(&self) -> bool {
        false
    }
    /// Does it know nothing of what was registered once it is started again?
    fn forgets(&self) -> bool {
        false
    }
    /// Do instances renew leases?
    fn renews(&self) -> bool {
        true
    }
    /// Does it run as that many servers?
    fn runs_as(&self, replicas: usize) -> bool;
    /// Starts servers with empty directories below `directory`, and waits until they answer.
    fn start<'a>(&'a self, replicas: usize, directory: &'a Path) -> Outcome<'a, Box<dyn Cluster>>;
}

/// Servers that run until this is dropped.
pub(crate) trait Cluster: Send + Sync {
    fn servers(&self) -> &[Server];
    fn servers_mut(&mut self) -> &mut [Server];
    /// Starts the server with this place in `servers` again, on the data it had. Returns at once.
    fn restart(&mut self, index: usize) -> Result<(), Failure>;
    /// The place in `servers` of the one that leads; `None` where none does.
    fn leader(&self) -> Outcome<'_, Option<usize>>;
    /// Clients over these connections.
    fn clients<'a>(&'a self, lines: &'a Lines<'a>) -> Outcome<'a, Box<dyn Clients>>;
}

/// Connections that are to be opened.
#[derive(Clone, Debug)]
pub(crate) struct Lines<'a> {
    /// Where to, in turn.
    pub(crate) servers: &'a [SocketAddr],
    pub(crate) connections: usize,
    /// The HTTP/2 windows of a reader that takes little at a time.
    pub(crate) window: Option<u32>,
    /// Where the bytes that come are counted.
    pub(crate) received: Received,
}

impl<'a> Lines<'a> {
    /// So many, counted for themselves.
    pub(crate) fn to(servers: &'a [SocketAddr], connections: usize) -> Self {
        Self {
            servers,
            connections,
            window: None,
            received: Received::default(),
        }
    }

    async fn open(&self) -> Result<Vec<Channel>, Failure> {
        let mut opening = Vec::with_capacity(self.connections);
        for &server in self.servers.iter().cycle().take(self.connections) {
            opening.push(connect_within(server, &self.received, self.window));
        }
        let opened = stream::iter(opening).buffered(OPENING_AT_ONCE);
        opened.try_collect().await
    }
}

/// One server of a cluster.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) process: Process,
}

/// The first line that a command prints, without what it begins with.
fn version_of(command: &mut Command, prefix: &str) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|error| format!("{program} does not run: {error}"))?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let line = printed.lines().next().unwrap_or_default();
    Ok(line.trim_start_matches(prefix).trim().to_owned())
}

/// The addresses of all servers of a cluster.
pub(crate) fn addresses(cluster: &dyn Cluster) -> Vec<SocketAddr> {
    let servers = cluster.servers().iter();
    servers.map(|server| server.address).collect()
}

/// The processor time of all servers of a cluster, together.
pub(crate) fn cpu(cluster: &dyn Cluster) -> Duration {
    let servers = cluster.servers().iter();
    servers.map(|server| server.process.cpu()).sum()
}

/// What a registration is known by.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub(crate) instance: Sample,
    /// The number that the registry gave it.
    pub(crate) number: u64,
}

/// The clients of a run. `at` says which of the connections to use. A registry that cannot do something has no trait
/// for it, and its place in the table stays empty.
pub(crate) trait Clients: Send + Sync {
    fn register(&self) -> &dyn Register;
    fn lookup(&self) -> &dyn Lookup;
    fn renew(&self) -> Option<&dyn Renew>;
    fn fanout(&self) -> &dyn Fanout;
}

/// Instances come and go.
pub(crate) trait Register: Send + Sync {
    /// Registers one instance with a lease of its own.
    fn one<'a>(&'a self, at: usize, instance: &'a Sample, ttl: Duration) -> Outcome<'a, Lease>;
    /// Registers many in one call. `None`: there is no such call.
    fn many<'a>(
        &'a self,
        at: usize,
        instances: &'a [Sample],
        ttl: Duration,
    ) -> Option<Outcome<'a, ()>>;
    /// Takes one away.
    fn leave<'a>(&'a self, at: usize, lease: &'a Lease) -> Outcome<'a, ()>;
}

/// Callers ask who serves a name.
pub(crate) trait Lookup: Send + Sync {
    /// How many instances the service has, and the revision of that.
    fn instances<'a>(&'a self, at: usize, service: &'a str) -> Outcome<'a, (usize, u64)>;
    /// Asks the same, and takes the answer without looking at each instance: the work of a generator, not of a caller.
    fn answer<'a>(&'a self, at: usize, service: &'a str) -> Outcome<'a, ()>;
    /// Asks for what is newer than a revision at which nothing changed since. `None`: it cannot be asked.
    fn unchanged<'a>(
        &'a self,
        at: usize,
        service: &'a str,
        revision: u64,
    ) -> Option<Outcome<'a, ()>>;
}

/// Instances say that they live.
pub(crate) trait Renew: Send + Sync {
    /// A way to renew these leases again and again, `per_message` at a time.
    fn open<'a>(
        &'a self,
        at: usize,
        leases: &'a [Lease],
        per_message: usize,
    ) -> Outcome<'a, Box<dyn Renewals>>;
}

/// The renewals of one process.
pub(crate) trait Renewals: Send {
    /// Renews each lease once, and returns when all are answered.
    fn all(&mut self) -> Outcome<'_, ()>;
}

/// Callers follow a service.
pub(crate) trait Fanout: Send + Sync {
    /// Do several watchers share a connection?
    fn shares_connections(&self) -> bool;
    /// Registers the service that is watched, of that many instances.
    fn found<'a>(&'a self, service: &'a str, instances: usize) -> Outcome<'a, ()>;
    /// Changes one small thing of it; each `number` differs from the one before. Returns the change's revision, or 0.
    fn change<'a>(&'a self, service: &'a str, number: u64) -> Outcome<'a, u64>;
    /// A watcher that has got the newest state.
    fn watch<'a>(
        &'a self,
        at: usize,
        name: String,
        service: &'a str,
    ) -> Outcome<'a, Box<dyn Watcher>>;
    /// Returns when the registry says that all of `watchers` use what was changed at `revision`. `None`: it never says.
    fn receipts<'a>(&'a self, service: &'a str, revision: u64) -> Option<Outcome<'a, ()>>;
}

/// One caller that follows one service.
pub(crate) trait Watcher: Send {
    /// Waits for the next change; what it returns grows with each.
    fn next(&mut self) -> Outcome<'_, u64>;
}
