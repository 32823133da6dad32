//! What every scenario starts from: three replicas, instances in three zones, callers, deploy scripts, and a reader, all at work.

mod end;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use trimtab_tests::history::{Operation, Told};

use crate::clock;
use crate::network::Network;
use crate::oracles::route;
use crate::parts::{Caller, Instance, PLAY, Part, Reader, Script};
use crate::process::Process;
use crate::record::Event;
use crate::replicas::{Replicas, host};
use crate::wait::until;

/// Where callers, scripts and the reader live. Its network never fails.
const CONSOLE: &str = "console";

const REPLICAS: u64 = 3;
const CALLERS: usize = 3;
const SCRIPTS: usize = 2;

/// The failure domains, each a host.
pub(crate) const ZONES: [&str; 3] = ["za", "zb", "zc"];

/// The releases, of which there is at least one instance in every zone.
pub(crate) const GROUPS: [&str; 2] = ["v1", "v2"];

/// How a scenario differs from others before it begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    /// Of the instances' leases.
    pub(crate) ttl: Duration,
    /// Instances of each release in each zone.
    pub(crate) per_zone: usize,
    /// How long removals are held back, at most.
    pub(crate) brake_hold: Duration,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(6),
            per_zone: 1,
            brake_hold: Duration::from_secs(60),
        }
    }
}

/// A scenario under way. Dropped, it leaves nothing behind but its records.
#[derive(Debug)]
pub(crate) struct Stage {
    // In the order in which they go: no process without a network.
    pub(crate) replicas: Replicas,
    instances: BTreeMap<String, Process>,
    callers: Vec<Process>,
    scripts: Vec<Process>,
    reader: Option<Process>,
    pub(crate) network: Network,
    pub(crate) setting: Setting,
    directory: PathBuf,
    /// When instances were killed.
    killed: BTreeMap<String, u64>,
    begun: u64,
    /// Before the scripts began.
    start: Option<Told>,
    /// Replicas that never stop answering, and show every change soon.
    pub(crate) steady: Vec<u64>,
    /// Replicas that never stop answering, be it with what they had.
    pub(crate) answering: Vec<u64>,
}

impl Stage {
    /// Builds the network, starts everything and waits until all is at work.
    pub(crate) fn new(directory: &Path, setting: Setting) -> Self {
        let mut stage = Self::empty(directory, setting);
        stage.start_replicas();
        stage.set();
        stage
    }

    /// The network alone: for who has something to do before replicas start.
    pub(crate) fn empty(directory: &Path, setting: Setting) -> Self {
        // From one run to the next only the last is kept.
        let _ = std::fs::remove_dir_all(directory);
        std::fs::create_dir_all(directory).expect("a directory");
        let hosts: Vec<String> = (1..=REPLICAS).map(host).collect();
        let hosts = hosts
            .iter()
            .map(String::as_str)
            .chain(ZONES)
            .chain([CONSOLE]);
        let network = Network::new(&hosts.collect::<Vec<_>>()).expect("a network");
        let mut replicas = Replicas::new(&network, REPLICAS, CONSOLE, directory);
        replicas.brake_hold = setting.brake_hold;
        Self {
            replicas,
            instances: BTreeMap::new(),
            callers: Vec::new(),
            scripts: Vec::new(),
            reader: None,
            network,
            setting,
            directory: directory.to_owned(),
            killed: BTreeMap::new(),
            begun: 0,
            start: None,
            steady: Vec::new(),
            answering: Vec::new(),
        }
    }

    pub(crate) fn start_replicas(&mut self) {
        for id in self.replicas.ids() {
            self.replicas.start(&self.network, id);
        }
        self.replicas.leader(&self.network, &self.replicas.ids());
    }

    /// Starts all but the replicas.
    pub(crate) fn set(&mut self) {
        for zone in ZONES {
            for group in GROUPS {
                for number in 0..self.setting.per_zone {
                    self.start_instance(&format!("{group}-{zone}-{number}"), group, zone);
                }
            }
        }
        let count = self.instances.len();
        let registered =
            || self.instances_of(self.replicas.view(&self.network, 1)?.get("instances")?);
        until("all instances", || {
            registered().filter(|found| found.len() == count)
        });
        self.start_callers();
        self.begun = clock::now();
        self.start = route(&self.replicas.agree(&self.network));
        self.start_scripts();
        self.changes_go_on();
    }

    fn start_callers(&mut self) {
        let replicas = self.replicas.addresses();
        let reader = Part::Reader(Reader { replicas });
        self.reader = Some(self.start("reader", CONSOLE, &reader));
        for number in 0..CALLERS {
            let name = format!("caller-{number}");
            let caller = Part::Caller(Caller {
                name: name.clone(),
                endpoints: self.replicas.endpoints(),
            });
            self.callers.push(self.start(&name, CONSOLE, &caller));
        }
        for caller in &self.callers {
            until("the first calls", || caller.events().first().cloned());
        }
    }

    fn start_scripts(&mut self) {
        for number in 0..SCRIPTS {
            let name = format!("script-{number}");
            let script = Part::Script(Script {
                name: name.clone(),
                groups: GROUPS.map(str::to_owned).to_vec(),
                endpoints: self.replicas.endpoints(),
            });
            self.scripts.push(self.start(&name, CONSOLE, &script));
        }
    }

    fn instances_of(&self, view: &serde_json::Value) -> Option<Vec<String>> {
        let all = view.as_array()?.iter();
        all.map(|instance| instance["id"].as_str().map(str::to_owned))
            .collect()
    }

    fn start(&self, name: &str, at: &str, part: &Part) -> Process {
        let program = std::env::current_exe().expect("this program");
        let mut command = self.network.command(at, &program.to_string_lossy());
        command.args([PLAY, &serde_json::to_string(part).expect("plain data")]);
        Process::start(name, command, &self.directory)
    }

    fn start_instance(&mut self, id: &str, group: &str, zone: &str) {
        let at: Ipv4Addr = self.network.address(zone);
        let instance = Part::Instance(Instance {
            id: id.to_owned(),
            group: group.to_owned(),
            zone: zone.to_owned(),
            host: at,
            ttl: self.setting.ttl,
            endpoints: self.replicas.endpoints(),
        });
        let process = self.start(id, zone, &instance);
        self.instances.insert(id.to_owned(), process);
    }

    // === what scenarios do and wait for ===

    pub(crate) fn leader(&self) -> u64 {
        self.replicas.leader(&self.network, &self.replicas.ids())
    }

    /// Kills an instance: it must be gone within its bound.
    pub(crate) fn kill_instance(&mut self, id: &str) {
        let mut process = self.instances.remove(id).expect("it lives");
        process.kill();
        self.killed.insert(id.to_owned(), clock::now());
    }

    /// Waits for a change that was asked from now on and acknowledged.
    /// Returns how long it took to be.
    pub(crate) fn changes_go_on(&self) -> Duration {
        let since = clock::now();
        let acknowledged = until("a change to be acknowledged", || {
            let returned = self.operations().into_iter().filter_map(|operation| {
                let is_late = operation.called >= since && operation.is_change();
                operation.returned.filter(|_| is_late)
            });
            returned.min()
        });
        Duration::from_micros(acknowledged - since)
    }

    fn operations(&self) -> Vec<Operation> {
        let events = self.scripts.iter().flat_map(Process::events);
        let asked = events.filter_map(|event| match event {
            Event::Asked(operation) => Some(operation),
            _ => None,
        });
        asked.collect()
    }

    /// Changes that were asked and acknowledged between two times.
    pub(crate) fn changes_within(&self, from: u64, to: u64) -> usize {
        let within = |operation: &Operation| {
            operation.is_change()
                && operation.called >= from
                && operation.returned.is_some_and(|at| at <= to)
        };
        self.operations()
            .iter()
            .filter(|operation| within(operation))
            .count()
    }

    /// Statuses by instance as one replica tells them.
    pub(crate) fn statuses(&self, replica: u64) -> Option<BTreeMap<String, String>> {
        let view = self.replicas.view(&self.network, replica)?;
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        let all = view["instances"].as_array()?.iter();
        all.map(|instance| Some((text(&instance["id"])?, text(&instance["status"])?)))
            .collect()
    }

    /// Lets everything go on as it is for a while.
    pub(crate) fn let_run(&self, time: Duration) {
        std::thread::sleep(time);
    }
}
