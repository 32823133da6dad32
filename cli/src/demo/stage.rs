//! Everyone on the stage: replicas, instances and callers, each a process.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::demo::count::{CallerCount, CallerLine, FINISH};
use crate::demo::plan::{BROKEN, CALLERS, REPLICAS, SERVICE};
use crate::demo::process::{OutputLines, Process};
use crate::demo::screen::LiveCounts;
use crate::failure::{Exit, Failure};

/// A replica is ready in well under a second; a machine under load is not
/// hurried.
const READY_PATIENCE: Duration = Duration::from_secs(20);
/// Somebody else may take a port between looking and using it; not often.
const PORT_ATTEMPTS: usize = 5;
/// How long the last calls of a caller may take to end.
const FINISH_PATIENCE: Duration = Duration::from_secs(20);

/// The processes and the directory they use.
#[derive(Debug)]
pub(crate) struct Stage {
    /// Removed with everything in it at the end.
    directory: TempDir,
    replicas: Vec<Replica>,
    instances: Vec<Instance>,
    callers: Vec<Caller>,
    counts: LiveCounts,
}

#[derive(Debug)]
struct Replica {
    id: u64,
    address: String,
    arguments: Vec<String>,
    process: Process,
}

#[derive(Debug)]
struct Instance {
    group: String,
    process: Process,
}

#[derive(Debug)]
struct Caller {
    process: Process,
    /// Gives the last word, or says why there is none.
    reader: JoinHandle<Result<CallerCount, String>>,
}

impl Stage {
    /// A stage with nobody on it yet. The callers' counts go to `counts`.
    pub(crate) fn new(counts: LiveCounts) -> Result<Self, Failure> {
        Ok(Self {
            directory: tempfile::Builder::new().prefix("trimtab-demo-").tempdir()?,
            replicas: Vec::new(),
            instances: Vec::new(),
            callers: Vec::new(),
            counts,
        })
    }

    /// Starts the replicas and waits until each serves.
    pub(crate) async fn start_replicas(&mut self) -> Result<(), Failure> {
        for attempt in 1..PORT_ATTEMPTS {
            if self.try_replicas(attempt).await.is_ok() {
                return Ok(());
            }
            for mut replica in self.replicas.drain(..) {
                replica.process.kill().await;
            }
        }
        self.try_replicas(PORT_ATTEMPTS).await
    }

    /// Replicas of one cluster on ports that are free now.
    async fn try_replicas(&mut self, attempt: usize) -> Result<(), Failure> {
        let directory = self.directory.path();
        let addresses = free_addresses()?;
        let peers: Vec<String> = addresses
            .iter()
            .enumerate()
            .map(|(position, address)| format!("{}={address}", position + 1))
            .collect();
        for (position, address) in addresses.into_iter().enumerate() {
            let id = position as u64 + 1;
            let data = directory.join(format!("replica-{id}-{attempt}"));
            let arguments = words(&[
                "serve",
                "--id",
                &id.to_string(),
                "--listen",
                &address,
                "--advertise",
                &address,
                "--peers",
                &peers.join(","),
                "--data-dir",
                &data.to_string_lossy(),
                "--until-stdin-closes",
            ]);
            let process = Process::start(&format!("replica-{id}"), &arguments, directory)?;
            self.replicas.push(Replica {
                id,
                address,
                arguments,
                process,
            });
        }
        for replica in &mut self.replicas {
            replica.process.ready(READY_PATIENCE).await?;
        }
        Ok(())
    }

    /// The replicas' addresses, separated by commas.
    pub(crate) fn endpoints(&self) -> String {
        let addresses: Vec<&str> = self.replicas.iter().map(|r| r.address.as_str()).collect();
        addresses.join(",")
    }

    /// Starts one more instance of a release and waits until it is registered.
    pub(crate) async fn start_instance(&mut self, group: &str) -> Result<(), Failure> {
        let number = self.instances.iter().filter(|i| i.group == group).count() + 1;
        let id = format!("{group}-{number}");
        let mut arguments = words(&[
            "demo-instance",
            SERVICE,
            group,
            &id,
            "--endpoints",
            &self.endpoints(),
        ]);
        if group == BROKEN {
            arguments.extend(words(&["--error-rate", "0.2", "--latency", "25ms"]));
        }
        let mut process = Process::start(&id, &arguments, self.directory.path())?;
        process.ready(READY_PATIENCE).await?;
        self.instances.push(Instance {
            group: group.to_owned(),
            process,
        });
        Ok(())
    }

    /// Starts the callers, each with its part of the load, and waits until
    /// each has made its first call.
    pub(crate) async fn start_callers(&mut self, calls_per_second: u32) -> Result<(), Failure> {
        let rate = (calls_per_second / CALLERS as u32).max(1).to_string();
        for number in 0..CALLERS {
            let name = format!("caller-{}", number + 1);
            let arguments = words(&[
                "demo-caller",
                SERVICE,
                "--name",
                &name,
                "--rate",
                &rate,
                "--endpoints",
                &self.endpoints(),
            ]);
            let mut process = Process::start(&name, &arguments, self.directory.path())?;
            process.ready(READY_PATIENCE).await?;
            let lines = process.take_lines();
            let reader = tokio::spawn(read_caller(lines, number, self.counts.clone()));
            self.callers.push(Caller { process, reader });
        }
        Ok(())
    }

    /// Ends a replica as `kill -9` does.
    pub(crate) async fn kill_replica(&mut self, id: u64) -> Result<(), Failure> {
        self.replica(id)?.process.kill().await;
        Ok(())
    }

    /// Starts a replica that was killed on what it left on its disk.
    pub(crate) async fn restart_replica(&mut self, id: u64) -> Result<(), Failure> {
        let directory = self.directory.path().to_owned();
        let replica = self.replica(id)?;
        let name = format!("replica-{id}-again");
        let mut process = Process::start(&name, &replica.arguments, &directory)?;
        process.ready(READY_PATIENCE).await?;
        replica.process = process;
        Ok(())
    }

    fn replica(&mut self, id: u64) -> Result<&mut Replica, Failure> {
        self.replicas
            .iter_mut()
            .find(|replica| replica.id == id)
            .ok_or_else(|| Failure::new(Exit::Failed, format!("there is no replica {id}")))
    }

    /// Waits until the instances of a group, which were told to retire, have
    /// ended by themselves. `Err` names the one that has not, or not well.
    pub(crate) async fn instances_left(
        &mut self,
        group: &str,
        patience: Duration,
    ) -> Result<usize, String> {
        let mut left = 0;
        for instance in self.instances.iter_mut().filter(|i| i.group == group) {
            let name = instance.process.name().to_owned();
            match instance.process.ended(patience).await {
                Some(status) if status.success() => left += 1,
                Some(status) => return Err(format!("{name} ended with {status}")),
                None => return Err(format!("{name} has not ended")),
            }
        }
        self.instances.retain(|instance| instance.group != group);
        Ok(left)
    }

    /// Lets each caller end its last calls and takes its final count.
    pub(crate) async fn finish_callers(&mut self) -> Result<Vec<CallerCount>, Failure> {
        for caller in &mut self.callers {
            caller.process.tell(FINISH).await;
        }
        let mut counts = Vec::new();
        for caller in &mut self.callers {
            let count = match timeout(FINISH_PATIENCE, &mut caller.reader).await {
                Ok(Ok(Ok(count))) => count,
                Ok(Ok(Err(what))) => return Err(caller.process.went_wrong(&what)),
                Ok(Err(error)) => return Err(caller.process.went_wrong(&error.to_string())),
                Err(_) => return Err(caller.process.went_wrong("did not end its calls in time")),
            };
            counts.push(count);
        }
        Ok(counts)
    }

    /// Ends everyone and removes the directory. What is left when the stage is
    /// dropped instead is killed.
    pub(crate) async fn clear(self) -> Result<(), Failure> {
        let callers = self.callers.into_iter().map(|caller| caller.process);
        let instances = self.instances.into_iter().map(|instance| instance.process);
        let replicas = self.replicas.into_iter().map(|replica| replica.process);
        for mut process in callers.chain(instances).chain(replicas) {
            process.kill().await;
        }
        Ok(self.directory.close()?)
    }
}

/// Keeps the live counts of one caller until its last word.
async fn read_caller(
    lines: Option<OutputLines>,
    number: usize,
    counts: LiveCounts,
) -> Result<CallerCount, String> {
    let mut lines = lines.ok_or("has no output")?;
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(CallerLine::Counting { groups, unplaced }) => {
                counts.update(number, groups, unplaced);
            }
            Ok(CallerLine::Final(count)) => return Ok(count),
            Err(error) => return Err(format!("said what cannot be read: {error}")),
        }
    }
    Err("ended early".to_owned())
}

/// Addresses on loopback that nobody has at this moment. All are held until
/// all are known, so that they differ.
fn free_addresses() -> Result<Vec<String>, Failure> {
    let listeners: Vec<TcpListener> = (0..REPLICAS)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<Result<_, _>>()?;
    let addresses: Result<Vec<String>, _> = listeners
        .iter()
        .map(|listener| listener.local_addr().map(|address| address.to_string()))
        .collect();
    Ok(addresses?)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
