//! Servers of any kind as processes: started on empty directories, asked until they answer, started again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;

use super::{Clients, Cluster, Lines, Outcome, Server};
use crate::failure::Failure;
use crate::process::Process;

/// How long a server may take to answer after its start.
const START_TIME: Duration = Duration::from_secs(60);
/// How often it is asked meanwhile.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// What is particular to the servers of one registry. They are known by their places, from 0.
pub(super) trait Kind: Send + Sync + 'static {
    /// What its processes are called.
    const NAME: &'static str;
    /// Must one answer before the next is started?
    const ONE_BY_ONE: bool = false;

    /// Where clients find the server.
    fn address(&self, index: usize) -> Option<SocketAddr>;
    /// What runs the server, with its data in `data`.
    fn command(&self, index: usize, data: &Path) -> Result<Command, Failure>;
    /// Does the server answer what only a ready one can?
    fn answers(&self, index: usize, address: SocketAddr) -> BoxFuture<'_, bool>;
    /// See [`Cluster::leader`].
    fn leader<'a>(&'a self, servers: &'a [Server]) -> Outcome<'a, Option<usize>>;
    /// See [`Cluster::clients`].
    fn clients<'a>(&'a self, lines: &'a Lines<'a>) -> Outcome<'a, Box<dyn Clients>>;
}

/// A cluster that runs.
pub(super) struct Running<K> {
    kind: K,
    directory: PathBuf,
    servers: Vec<Server>,
}

impl<K: Kind> Running<K> {
    /// Starts so many servers, and waits until they answer.
    pub(super) async fn start(
        kind: K,
        replicas: usize,
        directory: &Path,
    ) -> Result<Box<dyn Cluster>, Failure> {
        let mut running = Self {
            kind,
            directory: directory.to_owned(),
            servers: Vec::with_capacity(replicas),
        };
        for index in 0..replicas {
            let address = running.kind.address(index);
            let address = address.ok_or_else(|| missing::<K>(index))?;
            let process = running.spawn(index)?;
            running.servers.push(Server { address, process });
            if K::ONE_BY_ONE {
                running.answering(index).await?;
            }
        }
        for index in 0..replicas {
            running.answering(index).await?;
        }
        Ok(Box::new(running))
    }

    fn spawn(&self, index: usize) -> Result<Process, Failure> {
        let name = format!("{}-{}", K::NAME, index + 1);
        let data = self.directory.join(&name);
        std::fs::create_dir_all(&data).map_err(Failure::system("making a directory"))?;
        let mut command = self.kind.command(index, &data)?;
        Process::start(&name, &mut command, &self.directory)
    }

    async fn answering(&mut self, index: usize) -> Result<(), Failure> {
        let begun = Instant::now();
        let server = self.servers.get_mut(index);
        let server = server.ok_or_else(|| missing::<K>(index))?;
        while !self.kind.answers(index, server.address).await {
            server.process.check()?;
            if begun.elapsed() > START_TIME {
                let what = format!("the start of {} {}", K::NAME, index + 1);
                return Err(Failure::Late(what, START_TIME));
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        Ok(())
    }
}

/// There are fewer servers.
pub(super) fn missing<K: Kind>(index: usize) -> Failure {
    Failure::Wrong(format!("there is no {} {}", K::NAME, index + 1))
}

impl<K: Kind> Cluster for Running<K> {
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
        self.kind.leader(&self.servers)
    }

    fn clients<'a>(&'a self, lines: &'a Lines<'a>) -> Outcome<'a, Box<dyn Clients>> {
        self.kind.clients(lines)
    }
}
