//! Hosts on a switch, each in a network namespace of its own, whose cables can be pulled and cut.
//!
//! The hosts' addresses are of 127.0.0.0/8, which the kernel routes between
//! machines where `route_localnet` says so. Nothing is made outside the
//! namespaces, and no packet leaves them.

use std::io;
use std::net::Ipv4Addr;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// How the namespaces of this suite begin; the id of the process that made
/// them follows.
const PREFIX: &str = "trimtab-";

/// A hardware address that nobody has.
const NOBODY: &str = "02:00:00:00:00:fe";

static MADE: AtomicU32 = AtomicU32::new(0);

/// Hosts and a switch. Gone when dropped.
#[derive(Debug)]
pub(crate) struct Network {
    prefix: String,
    hosts: Vec<String>,
}

/// What keeps packets from arriving at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    /// `tc netem`: loss and delay.
    Netem,
    /// `iptables`: loss alone, where the kernel has no netem.
    Statistic,
}

// === impl Network ===

impl Network {
    /// Connects `hosts`, whose names must be short.
    ///
    /// # Errors
    /// With the command that failed and what it said.
    pub(crate) fn new(hosts: &[&str]) -> io::Result<Self> {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let mut network = Network {
            prefix: format!("{PREFIX}{}-{number}", std::process::id()),
            hosts: Vec::new(),
        };
        let switch = network.namespace("switch");
        ip(&["netns", "add", &switch])?;
        ip(&["-n", &switch, "link", "add", "bridge", "type", "bridge"])?;
        ip(&["-n", &switch, "link", "set", "dev", "bridge", "up"])?;
        for host in hosts {
            network.add(host)?;
        }
        Ok(network)
    }

    /// Connects one more host.
    ///
    /// # Errors
    /// As [`Network::new`].
    pub(crate) fn add(&mut self, host: &str) -> io::Result<()> {
        let (own, switch) = (self.namespace(host), self.namespace("switch"));
        ip(&["netns", "add", &own])?;
        self.hosts.push(host.to_owned());
        // Before there is a device, so that it is born so.
        let localnet =
            "for at in all default; do echo 1 > /proc/sys/net/ipv4/conf/$at/route_localnet; done";
        run(Command::new("ip").args(["netns", "exec", &own, "sh", "-c", localnet]))?;
        ip(&[
            "-n", &own, "link", "add", "eth0", "type", "veth", "peer", "name", host, "netns",
            &switch,
        ])?;
        ip(&[
            "-n", &switch, "link", "set", "dev", host, "master", "bridge",
        ])?;
        ip(&["-n", &switch, "link", "set", "dev", host, "up"])?;
        ip(&["-n", &own, "link", "set", "dev", "lo", "up"])?;
        // With it goes the rule that all of 127.0.0.0/8 is here.
        ip(&["-n", &own, "addr", "del", "127.0.0.1/8", "dev", "lo"])?;
        let address = format!("{}/24", self.address(host));
        ip(&[
            "-n", &own, "addr", "add", &address, "dev", "eth0", "scope", "global",
        ])?;
        ip(&["-n", &own, "link", "set", "dev", "eth0", "up"])?;
        Ok(())
    }

    fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }

    /// # Panics
    /// When there is no such host.
    pub(crate) fn address(&self, host: &str) -> Ipv4Addr {
        let at = self.hosts.iter().position(|known| known == host);
        let number = at.unwrap_or_else(|| panic!("no host {host}")) + 1;
        Ipv4Addr::new(127, 77, 0, u8::try_from(number).expect("few hosts"))
    }

    /// A command that runs `program` on a host; the process is the program's
    /// own.
    pub(crate) fn command(&self, host: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(host), program]);
        command
    }

    /// Pulls the host's cable: it hears and reaches nobody.
    pub(crate) fn unplug(&self, host: &str) {
        self.cable(host, "down");
    }

    pub(crate) fn plug(&self, host: &str) {
        self.cable(host, "up");
    }

    fn cable(&self, host: &str, to: &str) {
        let switch = self.namespace("switch");
        ip(&["-n", &switch, "link", "set", "dev", host, to]).expect("the switch obeys");
    }

    /// From now on nothing that `from` sends arrives at `to`: its packets go
    /// to a machine that is not there. Nobody is told.
    pub(crate) fn silence(&self, from: &str, to: &str) {
        let (own, to) = (self.namespace(from), self.address(to).to_string());
        let lost = [
            "neigh",
            "replace",
            &to,
            "lladdr",
            NOBODY,
            "dev",
            "eth0",
            "nud",
            "permanent",
        ];
        ip(&[&["-n", own.as_str()], lost.as_slice()].concat()).expect("a neighbour is lost");
    }

    /// Undoes [`Network::silence`].
    pub(crate) fn unsilence(&self, from: &str, to: &str) {
        let (own, to) = (self.namespace(from), self.address(to).to_string());
        ip(&["-n", &own, "neigh", "del", &to, "dev", "eth0"]).expect("a neighbour is found");
    }

    /// Neither reaches the other.
    pub(crate) fn cut(&self, one: &str, other: &str) {
        self.silence(one, other);
        self.silence(other, one);
    }

    pub(crate) fn mend(&self, one: &str, other: &str) {
        self.unsilence(one, other);
        self.unsilence(other, one);
    }

    /// Of what arrives at a host so many per cent is lost; where the kernel
    /// can, all that it sends is late as well.
    pub(crate) fn spoil(&self, host: &str, weather: Weather, percent: u32, delay_ms: u32) {
        let own = self.namespace(host);
        let spoilt = match weather {
            Weather::Netem => netem(&own, percent, delay_ms),
            Weather::Statistic => statistic(&own, "-A", percent),
        };
        spoilt.expect("bad weather");
    }

    pub(crate) fn clear(&self, host: &str, weather: Weather, percent: u32) {
        let own = self.namespace(host);
        let cleared = match weather {
            Weather::Netem => {
                run(Command::new("tc").args(["-n", &own, "qdisc", "del", "dev", "eth0", "root"]))
            }
            Weather::Statistic => statistic(&own, "-D", percent),
        };
        cleared.expect("good weather");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.hosts.push("switch".to_owned());
        for host in &self.hosts {
            // What cannot be removed now is swept up by the next run.
            let _ = ip(&["netns", "del", &self.namespace(host)]);
        }
    }
}

// === what the machine allows ===

/// Why this machine allows no namespaces; `None` when it does.
pub(crate) fn forbidden() -> Option<String> {
    sweep();
    let probe = Network::new(&["a", "b"]).map(drop);
    probe.err().map(|error| error.to_string())
}

/// What bad weather this kernel can make; `None` when none.
pub(crate) fn weather() -> Option<Weather> {
    let network = Network::new(&["a"]).ok()?;
    let own = network.namespace("a");
    if netem(&own, 1, 1).is_ok() {
        return Some(Weather::Netem);
    }
    statistic(&own, "-A", 1)
        .is_ok()
        .then_some(Weather::Statistic)
}

/// Removes what runs that were killed have left.
fn sweep() {
    let listed =
        ip(&["netns", "list"]).map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    for line in listed.unwrap_or_default().lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        let made_by = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        let is_left = made_by.is_some_and(|pid| !std::path::Path::new("/proc").join(pid).exists());
        if is_left {
            let _ = ip(&["netns", "del", name]);
        }
    }
}

// === commands ===

fn ip(arguments: &[&str]) -> io::Result<Output> {
    run(Command::new("ip").args(arguments))
}

fn netem(namespace: &str, percent: u32, delay_ms: u32) -> io::Result<Output> {
    let (loss, delay) = (format!("{percent}%"), format!("{delay_ms}ms"));
    let netem = [
        "qdisc", "add", "dev", "eth0", "root", "netem", "loss", &loss, "delay", &delay,
    ];
    run(Command::new("tc").args(["-n", namespace]).args(netem))
}

/// Of what arrives, so that a sender is not told.
fn statistic(namespace: &str, verb: &str, percent: u32) -> io::Result<Output> {
    let probability = format!("{}", f64::from(percent) / 100.0);
    let rule = [
        "INPUT",
        "-i",
        "eth0",
        "-m",
        "statistic",
        "--mode",
        "random",
        "--probability",
        &probability,
    ];
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, "iptables", "--wait", verb]);
    run(command.args(rule).args(["--jump", "DROP"]))
}

fn run(command: &mut Command) -> io::Result<Output> {
    let output = command.output();
    let program = command.get_program().to_string_lossy().into_owned();
    let output = output.map_err(|error| io::Error::other(format!("{program}: {error}")))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{command:?}: {}", said.trim())))
}
