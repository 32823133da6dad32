//! The replicas: real `trimtab serve` processes, each on its own host, and what `trimtab` says of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::network::Network;
use crate::parts::SERVICE;
use crate::process::Process;
use crate::wait::until;

/// The binary under test.
const TRIMTAB: &str = env!("CARGO_BIN_EXE_trimtab");

/// Every replica has a host, and so a network stack, of its own.
const PORT: u16 = 7070;

/// Few entries, so that who was away gets a snapshot.
const SNAPSHOT_EVERY: &str = "50";

/// Mounts a small file system over the data directory, which the process has
/// for itself and which is gone with it.
const ON_A_SMALL_DISK: &str =
    r#"mkdir -p "$2" && mount -t tmpfs -o "size=$1" tmpfs "$2" && shift 2 && exec "$@""#;

/// The replicas of one registry, running or not.
#[derive(Debug)]
pub(crate) struct Replicas {
    addresses: BTreeMap<u64, String>,
    data: BTreeMap<u64, PathBuf>,
    running: BTreeMap<u64, Process>,
    /// The size of the file system that each keeps its data in, if that is one
    /// of its own.
    disk: Option<&'static str>,
    /// How long they hold removals back.
    pub(crate) brake_hold: Duration,
    /// From where they are asked.
    console: String,
    directory: PathBuf,
}

/// Where a replica lives.
pub(crate) fn host(id: u64) -> String {
    format!("r{id}")
}

fn process_name(id: u64) -> String {
    format!("replica-{id}")
}

impl Replicas {
    /// Nothing is started yet.
    pub(crate) fn new(network: &Network, count: u64, console: &str, directory: &Path) -> Self {
        let ids = 1..=count;
        Self {
            addresses: ids
                .clone()
                .map(|id| (id, format!("{}:{PORT}", network.address(&host(id)))))
                .collect(),
            data: ids
                .map(|id| (id, directory.join(format!("data-{id}"))))
                .collect(),
            running: BTreeMap::new(),
            disk: None,
            brake_hold: Duration::from_secs(60),
            console: console.to_owned(),
            directory: directory.to_owned(),
        }
    }

    pub(crate) fn ids(&self) -> Vec<u64> {
        self.addresses.keys().copied().collect()
    }

    /// All but these.
    pub(crate) fn others(&self, than: &[u64]) -> Vec<u64> {
        let ids = self.ids().into_iter();
        ids.filter(|id| !than.contains(id)).collect()
    }

    pub(crate) fn address(&self, id: u64) -> String {
        self.addresses[&id].clone()
    }

    pub(crate) fn addresses(&self) -> Vec<(u64, String)> {
        self.addresses
            .iter()
            .map(|(id, address)| (*id, address.clone()))
            .collect()
    }

    /// As `--endpoints` takes them.
    pub(crate) fn endpoints(&self) -> String {
        let all: Vec<&str> = self.addresses.values().map(String::as_str).collect();
        all.join(",")
    }

    /// Gives each that is started from now on a small disk of its own, for as
    /// long as it runs. `size` is as `mount` takes it.
    pub(crate) fn on_small_disks(&mut self, size: &'static str) {
        self.disk = Some(size);
    }

    /// Starts one from what is in its directory.
    pub(crate) fn start(&mut self, network: &Network, id: u64) {
        let data = &self.data[&id];
        let mut command = match self.disk {
            None => network.command(&host(id), TRIMTAB),
            Some(size) => {
                let mut command = network.command(&host(id), "sh");
                command.args(["-c", ON_A_SMALL_DISK, "sh", size]);
                command.arg(data).arg(TRIMTAB);
                command
            }
        };
        let peers: Vec<String> = self
            .addresses
            .iter()
            .map(|(id, at)| format!("{id}={at}"))
            .collect();
        command.args([
            "serve",
            "--until-stdin-closes",
            "--snapshot-every",
            SNAPSHOT_EVERY,
        ]);
        command.args(["--id", &id.to_string(), "--peers", &peers.join(",")]);
        let hold = format!("{}ms", self.brake_hold.as_millis());
        command.args(["--brake-hold", &hold]);
        command.arg("--data-dir").arg(data);
        let process = Process::start(&process_name(id), command, &self.directory);
        self.running.insert(id, process);
    }

    /// Starts a new one, which the others have yet to take in.
    pub(crate) fn join(&mut self, network: &Network, id: u64) {
        let join = self.endpoints();
        let address = format!("{}:{PORT}", network.address(&host(id)));
        let data = self.directory.join(format!("data-{id}"));
        let mut command = network.command(&host(id), TRIMTAB);
        command.args([
            "serve",
            "--until-stdin-closes",
            "--snapshot-every",
            SNAPSHOT_EVERY,
        ]);
        command.args([
            "--id",
            &id.to_string(),
            "--join",
            &join,
            "--listen",
            &address,
        ]);
        command.arg("--data-dir").arg(&data);
        let process = Process::start(&process_name(id), command, &self.directory);
        self.addresses.insert(id, address);
        self.data.insert(id, data);
        self.running.insert(id, process);
    }

    /// Waits for the end of one that was removed, and forgets it.
    pub(crate) fn await_end(&mut self, id: u64) {
        let mut process = self.running.remove(&id).expect("it runs");
        until(&format!("the end of replica {id}"), || process.ended());
        self.addresses.remove(&id);
    }

    /// Where a running replica's data directory is seen from outside.
    pub(crate) fn data_dir(&self, id: u64) -> PathBuf {
        let inside = self.data[&id].strip_prefix("/").expect("an absolute path");
        self.running[&id].root().join(inside)
    }

    /// How many lines of its log have `words` in them.
    pub(crate) fn said(&self, id: u64, words: &str) -> usize {
        let log = self.directory.join(format!("{}.log", process_name(id)));
        let log = std::fs::read_to_string(log).expect("a log");
        log.lines().filter(|line| line.contains(words)).count()
    }

    pub(crate) fn kill(&mut self, id: u64) {
        let mut process = self.running.remove(&id).expect("it runs");
        process.kill();
    }

    pub(crate) fn signal(&self, id: u64, signal: Signal) {
        self.running[&id].signal(signal);
    }

    /// # Panics
    /// When a replica that was started is not there any more.
    pub(crate) fn assert_running(&mut self) {
        for (id, process) in &mut self.running {
            let ended = process.ended();
            assert_eq!(
                ended,
                None,
                "replica {id} ended, see {}",
                self.directory.display()
            );
        }
    }

    pub(crate) fn finish(self) {
        for (_, process) in self.running {
            process.finish();
        }
    }

    /// Runs `trimtab` on the console against these replicas. Its JSON, or
    /// what it said on stderr.
    pub(crate) fn ask(
        &self,
        network: &Network,
        of: &[u64],
        question: &[&str],
    ) -> Result<Value, String> {
        let endpoints: Vec<String> = of.iter().map(|id| self.address(*id)).collect();
        let mut command = network.command(&self.console, TRIMTAB);
        command.args([
            "--output",
            "json",
            "--timeout",
            "5s",
            "--endpoints",
            &endpoints.join(","),
        ]);
        let output = command.args(question).output().expect("trimtab can be run");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.stdout.is_empty() && !output.status.success() {
            return Err(said);
        }
        serde_json::from_slice(&output.stdout).map_err(|error| format!("{error}; {said}"))
    }

    /// What a replica says of all.
    pub(crate) fn status(&self, network: &Network, of: u64) -> Option<Value> {
        self.ask(network, &[of], &["cluster", "status"]).ok()
    }

    /// Who leads, by the word of one of `of` that knows.
    pub(crate) fn leader(&self, network: &Network, of: &[u64]) -> u64 {
        let asked = || {
            let said = of.iter().filter_map(|id| self.status(network, *id));
            said.filter_map(|status| status["leader_id"].as_u64())
                .find(|leader| of.contains(leader))
        };
        until(&format!("a leader among {of:?}"), asked)
    }

    /// What one replica tells callers, as soon as it tells anything.
    pub(crate) fn view(&self, network: &Network, of: u64) -> Option<Value> {
        let mut view = self.ask(network, &[of], &["resolve", SERVICE]).ok()?;
        view.as_object_mut()?.remove("possibly_stale");
        Some(view)
    }

    /// Waits until all tell callers the same, having applied the same.
    ///
    /// # Panics
    /// When they never do.
    pub(crate) fn agree(&self, network: &Network) -> Value {
        let ids = self.ids();
        until("the replicas to agree", || {
            let applied = ids
                .iter()
                .map(|id| self.applied(network, *id))
                .collect::<Option<Vec<u64>>>()?;
            let views = ids
                .iter()
                .map(|id| self.view(network, *id))
                .collect::<Option<Vec<Value>>>()?;
            let is_one = applied.windows(2).all(|two| two[0] == two[1])
                && views.windows(2).all(|two| two[0] == two[1]);
            is_one.then(|| views[0].clone())
        })
    }

    /// How far a replica is, by its own word.
    fn applied(&self, network: &Network, id: u64) -> Option<u64> {
        let status = self.status(network, id)?;
        let own = status["replicas"]
            .as_array()?
            .iter()
            .find(|replica| replica["id"] == id)?;
        own["applied_index"].as_u64()
    }
}
