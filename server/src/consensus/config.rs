//! What a replica is told at its making, and what it tells the Raft library.

use raft::{Config, ReadOnlyOption};

/// Entries sent in one message, in bytes. Below the transport's bound with
/// room for one entry of the greatest size.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;

/// Messages on their way to one follower that it has not answered: with the
/// bound above, what a broken connection can make us send again.
const MESSAGES_IN_FLIGHT_MAX: usize = 256;

/// Proposals accepted but not yet committed, in bytes: what a stalled quorum
/// may make a leader hold.
const UNCOMMITTED_BYTES_MAX: u64 = 32 << 20;

/// Entries applied in one round, in bytes, so that a long replay leaves room
/// for heartbeats in between.
const APPLIED_PER_ROUND_BYTES_MAX: u64 = 4 << 20;

/// What a replica is told at its making.
#[derive(Debug, Clone)]
pub struct ReplicaConfig {
    /// Its id.
    pub id: u64,
    /// Its data directory, by which the others know that it is still itself.
    pub disk_id: u64,
    /// Marks this run's proposals; a random number.
    pub incarnation: u64,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: usize,
    /// Ticks without a leader after which an election may begin; it does
    /// within twice as many.
    pub election_ticks: usize,
    /// Entries applied between two snapshots.
    pub snapshot_every: u64,
    /// Entries kept before a snapshot for followers that are a little behind.
    pub trailing_entries: u64,
}

/// The library's configuration of a replica that has applied up to `applied`.
pub(super) fn raft_config(config: &ReplicaConfig, applied: u64) -> Config {
    Config {
        id: config.id,
        election_tick: config.election_ticks,
        heartbeat_tick: config.heartbeat_ticks,
        applied,
        max_size_per_msg: MESSAGE_BYTES_MAX,
        max_inflight_msgs: MESSAGES_IN_FLIGHT_MAX,
        check_quorum: true,
        pre_vote: true,
        // Leases count ticks, and ticks stop when a process is paused.
        read_only_option: ReadOnlyOption::Safe,
        max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
        max_committed_size_per_ready: APPLIED_PER_ROUND_BYTES_MAX,
        ..Config::default()
    }
}
