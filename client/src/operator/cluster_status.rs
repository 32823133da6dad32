//! The replicas of the registry as they see themselves.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::operator::brake::Brake;
use crate::serial;

/// What a replica is in the consensus group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaRole {
    /// Takes entries from the leader.
    Follower,
    /// Wants to lead.
    Candidate,
    /// Orders the writes.
    Leader,
    /// Not known, for example because the replica cannot be reached.
    Unknown,
}

impl fmt::Display for ReplicaRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
            Self::Unknown => "unknown",
        })
    }
}

/// The whole registry.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClusterStatus {
    /// `None` when none is known.
    pub leader_id: Option<u64>,
    /// Can writes be committed?
    pub has_quorum: bool,
    /// The replica that answered.
    pub answered_by: u64,
    /// Every member, sorted by id.
    pub replicas: Vec<ReplicaStatus>,
    /// What is wrong, in words.
    pub alarms: Vec<String>,
}

/// One replica. All but `id`, `address` and `error` is zero when it could not
/// be reached.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReplicaStatus {
    /// Its number.
    pub id: u64,
    /// Where it listens.
    pub address: String,
    /// Did it answer?
    pub reachable: bool,
    /// What it is in the consensus group.
    pub role: ReplicaRole,
    /// Has it no vote? It gets everything, and serves reads and watches.
    pub is_learner: bool,
    /// Its term.
    pub term: u64,
    /// The last log position known to be committed.
    pub commit_index: u64,
    /// The last log position applied.
    pub applied_index: u64,
    /// How many entries, of those that any replica knows to be committed, it
    /// has not applied.
    pub lag: u64,
    /// The log position its newest snapshot stands for.
    pub snapshot_index: u64,
    /// When it last took a snapshot or was sent one; `None` when it did not
    /// since it started.
    #[serde(serialize_with = "serial::timestamp")]
    pub snapshot_time: Option<SystemTime>,
    /// The size of its newest snapshot.
    pub snapshot_bytes: u64,
    /// The size of the file with its log and snapshot.
    pub data_bytes: u64,
    /// What its disk has left; `None` when that is not known.
    pub disk_free_bytes: Option<u64>,
    /// Why it takes no part until its disk works again; empty when it does.
    pub halted: String,
    /// Has it caught up since it started, so that it answers?
    pub caught_up: bool,
    /// Services registered.
    pub services: u32,
    /// Instances registered.
    pub instances: u32,
    /// Callers that watch through it.
    pub watchers: u32,
    /// Processes that renew leases through it.
    pub renewal_streams: u32,
    /// Time since it started.
    #[serde(rename = "uptime_ms", serialize_with = "serial::milliseconds")]
    pub uptime: Duration,
    /// The release it runs.
    pub version: String,
    /// Why it could not be reached; empty when it could.
    pub error: String,
    /// Leases it knows of.
    pub leases: u64,
    /// How many of these are suspect.
    pub suspect: u64,
    /// Removals it holds back, if it leads; the most first, and not all if
    /// they are very many.
    pub brakes: Vec<Brake>,
}
