//! Everything an operator may set on a replica: flags over environment over file over defaults, validated once.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use self::brake::{BrakeArgs, FileBrake};
use crate::consensus::membership::VOTERS_MAX;
use crate::enrolment::Way;
use crate::leases::LeaseSettings;

mod brake;

/// Where a replica listens when nothing says otherwise.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:7070";
/// Replicas in one cluster, at most: more voters make every write slower and no one safer.
pub const REPLICAS_MAX: usize = VOTERS_MAX;

const DEFAULT_SNAPSHOT_EVERY: u64 = 10_000;
const DEFAULT_TICK: Duration = Duration::from_millis(50);

/// The flags of `trimtab serve`; each has an environment variable and a key
/// in the configuration file.
#[derive(Args, Clone, Debug, Default)]
pub struct ServeArgs {
    /// A TOML file with the same settings (id, listen, advertise, peers, join, data_dir, snapshot_every, brake, insecure)
    #[arg(long, env = "TRIMTAB_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// This replica's number in the cluster, from 1 [default: 1]
    #[arg(long, env = "TRIMTAB_ID", value_name = "N")]
    pub id: Option<u64>,
    /// The address to listen on [default: the one advertised, else 127.0.0.1:7070]
    #[arg(long, env = "TRIMTAB_LISTEN", value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,
    /// The address that other replicas and clients reach this one at [default: its entry in --peers, else --listen]
    #[arg(long, env = "TRIMTAB_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// All replicas of the cluster, this one too: 1=host:port,2=host:port,3=host:port
    #[arg(
        long,
        env = "TRIMTAB_PEERS",
        value_name = "ID=HOST:PORT,...",
        value_delimiter = ','
    )]
    pub peers: Option<Vec<String>>,
    /// Addresses of a running cluster's replicas. With an empty data directory this one waits there to be taken in by `trimtab cluster add`, and founds no cluster of its own
    #[arg(
        long,
        env = "TRIMTAB_JOIN",
        value_name = "HOST:PORT,...",
        value_delimiter = ','
    )]
    pub join: Option<Vec<String>>,
    /// Where the log and snapshots are kept [default: trimtab-ID.data in this directory]
    #[arg(long, env = "TRIMTAB_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Take a snapshot and cut the log each time this many entries were applied [default: 10000]
    #[arg(long, env = "TRIMTAB_SNAPSHOT_EVERY", value_name = "ENTRIES")]
    pub snapshot_every: Option<u64>,
    /// When removals are held back.
    #[command(flatten)]
    pub brake: BrakeArgs,
    /// Allow an address that others can reach, although nothing is encrypted or authenticated yet
    #[arg(long, env = "TRIMTAB_INSECURE")]
    pub insecure: bool,
}

/// The configuration file: the same settings as the flags.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSettings {
    id: Option<u64>,
    listen: Option<SocketAddr>,
    advertise: Option<String>,
    peers: Option<BTreeMap<String, String>>,
    join: Option<Vec<String>>,
    data_dir: Option<PathBuf>,
    snapshot_every: Option<u64>,
    #[serde(default)]
    brake: FileBrake,
    insecure: Option<bool>,
}

/// A replica's settings, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// This replica's id, a key of `members`.
    pub id: u64,
    /// The address to listen on.
    pub listen: SocketAddr,
    /// The replicas that found the cluster, this one too, with the addresses
    /// they advertise. Once it is founded, the log says who its members are,
    /// and this where those it names are now.
    pub members: BTreeMap<u64, String>,
    /// Replicas of the cluster that is to take this one in. When there are
    /// any, it founds none.
    pub join: Vec<String>,
    /// The directory that holds the log and snapshots.
    pub data_dir: PathBuf,
    /// Entries applied between two snapshots.
    pub snapshot_every: u64,
    /// When removals are held back, and other rules of leases.
    pub leases: LeaseSettings,
    /// The unit of Raft's time: an election starts after 10 to 20 of them without a leader.
    pub tick_interval: Duration,
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration file {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not what is expected.
    #[error("the configuration file {path} is not valid: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A setting breaks its rule.
    #[error("{setting} is {value:?}: {rule}")]
    Invalid {
        /// The flag.
        setting: &'static str,
        /// What was given.
        value: String,
        /// What it must be.
        rule: String,
    },
}

fn invalid(
    setting: &'static str,
    value: impl Into<String>,
    rule: impl Into<String>,
) -> ConfigError {
    ConfigError::Invalid {
        setting,
        value: value.into(),
        rule: rule.into(),
    }
}

impl ServeArgs {
    /// Merges flags and environment with the file named by `--config`, and
    /// checks the result.
    ///
    /// # Errors
    /// When the file cannot be read or a setting breaks its rule; nothing was
    /// created.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let file = match &self.config {
            Some(path) => read_file(path)?,
            None => FileSettings::default(),
        };
        self.merge(file)
    }

    fn merge(self, file: FileSettings) -> Result<Config, ConfigError> {
        let id = self.id.or(file.id).unwrap_or(1);
        if id == 0 {
            return Err(invalid("--id", "0", "replicas are numbered from 1"));
        }
        let peers = match self.peers {
            Some(flags) => parse_peers(&flags)?,
            None => parse_peer_table(file.peers.unwrap_or_default())?,
        };
        let insecure = self.insecure || file.insecure.unwrap_or(false);
        let advertise = advertised(id, self.advertise.or(file.advertise), &peers)?;
        let listen = match (self.listen.or(file.listen), &advertise) {
            (Some(listen), _) => listen,
            (None, Some(advertised)) => advertised.parse().map_err(|_| {
                invalid(
                    "--advertise",
                    advertised.clone(),
                    "not an IP address with a port, so --listen must say where to listen",
                )
            })?,
            (None, None) => SocketAddr::from(([127, 0, 0, 1], 7070)),
        };
        check_exposure(listen, insecure)?;

        let advertise = match advertise {
            Some(advertise) => advertise,
            None if listen.ip().is_unspecified() => {
                return Err(invalid(
                    "--listen",
                    listen.to_string(),
                    "others cannot connect to this address; say with --advertise which one they can",
                ));
            }
            None => listen.to_string(),
        };
        let join = joined(self.join.or(file.join), &peers)?;
        let mut members = peers;
        members.insert(id, advertise);
        if members.len() > REPLICAS_MAX {
            return Err(invalid(
                "--peers",
                format!("{} replicas", members.len()),
                format!("at most {REPLICAS_MAX}"),
            ));
        }
        let snapshot_every = self
            .snapshot_every
            .or(file.snapshot_every)
            .unwrap_or(DEFAULT_SNAPSHOT_EVERY);
        if snapshot_every == 0 {
            return Err(invalid("--snapshot-every", "0", "at least 1 entry"));
        }
        Ok(Config {
            id,
            listen,
            members,
            join,
            data_dir: self
                .data_dir
                .or(file.data_dir)
                .unwrap_or_else(|| PathBuf::from(format!("trimtab-{id}.data"))),
            snapshot_every,
            leases: self.brake.merge(file.brake)?,
            tick_interval: DEFAULT_TICK,
        })
    }
}

impl Config {
    /// One replica alone: what `trimtab serve` runs without arguments, but
    /// with an address and a directory of the caller's.
    pub fn single(listen: SocketAddr, data_dir: PathBuf) -> Config {
        Config {
            id: 1,
            listen,
            members: BTreeMap::from([(1, listen.to_string())]),
            join: Vec::new(),
            data_dir,
            snapshot_every: DEFAULT_SNAPSHOT_EVERY,
            leases: LeaseSettings::default(),
            tick_interval: DEFAULT_TICK,
        }
    }

    /// How it gets a cluster, if its data directory is of none.
    pub fn way(&self) -> Way {
        match self.join.is_empty() {
            true => Way::Found(self.members.clone()),
            false => Way::Join(self.join.clone()),
        }
    }

    /// The address this replica advertises.
    pub fn advertise(&self) -> &str {
        self.members.get(&self.id).map_or("", String::as_str)
    }
}

fn read_file(path: &std::path::Path) -> Result<FileSettings, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    toml::from_str(&text).map_err(|source| ConfigError::Parse {
        path: path.to_owned(),
        source: Box::new(source),
    })
}

fn parse_peers(flags: &[String]) -> Result<BTreeMap<u64, String>, ConfigError> {
    let mut peers = BTreeMap::new();
    for flag in flags.iter().filter(|flag| !flag.trim().is_empty()) {
        let Some((id, address)) = flag.trim().split_once('=') else {
            return Err(invalid(
                "--peers",
                flag.clone(),
                "expected ID=HOST:PORT, for example 1=127.0.0.1:7071",
            ));
        };
        insert_peer(&mut peers, id, address)?;
    }
    Ok(peers)
}

fn parse_peer_table(table: BTreeMap<String, String>) -> Result<BTreeMap<u64, String>, ConfigError> {
    let mut peers = BTreeMap::new();
    for (id, address) in table {
        insert_peer(&mut peers, &id, &address)?;
    }
    Ok(peers)
}

fn insert_peer(
    peers: &mut BTreeMap<u64, String>,
    id: &str,
    address: &str,
) -> Result<(), ConfigError> {
    let number = id
        .parse::<u64>()
        .ok()
        .filter(|id| *id > 0)
        .ok_or_else(|| invalid("--peers", id, "replica ids are whole numbers from 1"))?;
    check_address("--peers", address)?;
    if let Some((other, _)) = peers.iter().find(|(_, known)| known.as_str() == address) {
        return Err(invalid(
            "--peers",
            address,
            format!("replica {other} has this address already"),
        ));
    }
    if peers.insert(number, address.to_owned()).is_some() {
        return Err(invalid("--peers", id, "each replica once"));
    }
    Ok(())
}

/// Checks the form of an address that others are to connect to; `setting`
/// names it in the error.
///
/// # Errors
/// When it is not HOST:PORT.
pub fn check_address(setting: &'static str, address: &str) -> Result<(), ConfigError> {
    let valid = address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0));
    if valid {
        return Ok(());
    }
    Err(invalid(
        setting,
        address,
        "expected HOST:PORT with a port from 1 to 65535",
    ))
}

/// What this replica is known as to others: its own word, which must be that
/// of the list of peers.
fn advertised(
    id: u64,
    flag: Option<String>,
    peers: &BTreeMap<u64, String>,
) -> Result<Option<String>, ConfigError> {
    if let Some(address) = &flag {
        check_address("--advertise", address)?;
    }
    match (flag, peers.get(&id)) {
        (Some(flag), Some(listed)) if flag != *listed => Err(invalid(
            "--advertise",
            flag,
            format!("--peers says that replica {id} is at {listed}; the two must agree"),
        )),
        (None, None) if !peers.is_empty() => Err(invalid(
            "--peers",
            peers
                .keys()
                .map(u64::to_string)
                .collect::<Vec<_>>()
                .join(","),
            format!("must list every replica, and this one is {id}"),
        )),
        (flag, listed) => Ok(flag.or_else(|| listed.cloned())),
    }
}

/// The cluster to be taken into: it is not founded.
fn joined(
    join: Option<Vec<String>>,
    peers: &BTreeMap<u64, String>,
) -> Result<Vec<String>, ConfigError> {
    let join: Vec<String> = join.unwrap_or_default();
    let join: Vec<String> = join.iter().map(|it| it.trim().to_owned()).collect();
    for address in &join {
        check_address("--join", address)?;
    }
    match join.is_empty() || peers.is_empty() {
        true => Ok(join),
        false => Err(invalid(
            "--join",
            join.join(","),
            "a replica either founds a cluster with --peers or is taken into one; give one of the two",
        )),
    }
}

fn check_exposure(listen: SocketAddr, insecure: bool) -> Result<(), ConfigError> {
    let loopback = match listen.ip() {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback(),
    };
    if loopback || insecure {
        return Ok(());
    }
    Err(invalid(
        "--listen",
        listen.to_string(),
        "others can reach this address, and nothing is encrypted or authenticated yet; \
         if the network is trusted, say so with --insecure",
    ))
}

#[cfg(test)]
mod tests;
