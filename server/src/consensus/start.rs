//! From a data directory to a running replica.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::config::ReplicaConfig;
use super::driver::{Driver, Shared};
use super::encoder;
use super::engine::{Engine, Parts};
use super::error::FatalError;
use super::founding::{Restored, founding, joining};
use super::handle::{CALLER_INPUTS_MAX, Handle, Inner};
use super::input::Input;
use super::log::Place;
use super::membership::{Member, cluster_id};
use super::message::{self, MessageError};
use super::observer::Observer;
use super::reach::Reach;
use super::status::Role;
use super::ticker::Ticker;
use crate::peers::Peers;
use crate::storage::error::StorageError;
use crate::storage::file::{Identity, Saved, Storage};

/// Inputs waiting for the thread: those of callers, and room that only other
/// replicas may use, so that however many callers there are, heartbeats get
/// through and the leader keeps its quorum.
const INPUTS_MAX: usize = CALLER_INPUTS_MAX + 1_024;

/// How a replica runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Marks this run's proposals: a random number, drawn anew at each start.
    pub incarnation: u64,
    /// The unit of Raft's time.
    pub tick_interval: Duration,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: usize,
    /// Ticks without a leader after which an election may begin.
    pub election_ticks: usize,
    /// Entries applied between two snapshots.
    pub snapshot_every: u64,
    /// Entries kept before a snapshot for followers that are a little behind.
    pub trailing_entries: u64,
}

impl Settings {
    /// The usual ones: 50 ms ticks, a heartbeat every 2, an election after 10
    /// to 20, a snapshot every 10,000 entries that keeps the last 2,000.
    pub fn new(incarnation: u64) -> Self {
        Self {
            incarnation,
            tick_interval: Duration::from_millis(50),
            heartbeat_ticks: 2,
            election_ticks: 10,
            snapshot_every: 10_000,
            trailing_entries: 2_000,
        }
    }
}

/// Why a replica did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its data directory cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What is in it cannot be used.
    #[error(transparent)]
    Fatal(#[from] FatalError),
    /// The log on disk holds an entry this version does not know.
    #[error("the log cannot be used: {0}; run the version that wrote it")]
    Log(#[from] MessageError),
    /// Its data directory is of no cluster yet.
    #[error("replica {id} cannot start: its data directory is of no cluster yet")]
    NotFounded {
        /// The replica.
        id: u64,
    },
    /// The system gave it no thread.
    #[error("cannot start the consensus thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Starts a replica on what its storage holds: who it is, its members, its log
/// ([`found`], [`found_alone`] and [`join`] put the first of it there). The
/// observer is given the snapshot's state before this returns; the entries
/// after it are applied by the thread. A cluster of one leads at once.
///
/// # Errors
///
/// When the storage is damaged, or is of no cluster yet.
pub fn start<O: Observer + Send + 'static>(
    settings: Settings,
    mut storage: Storage,
    peers: Peers,
    observer: O,
) -> Result<Handle, StartError> {
    let identity = storage.identity();
    let saved = storage.load()?.ok_or(StartError::NotFounded {
        id: identity.replica_id,
    })?;
    let restored = restore(saved)?;
    let (inputs, taken) = sync_channel(INPUTS_MAX);
    let reports = inputs.clone();
    let lines = peers.open_lines(move |report| {
        let queued = reports.try_send(Input::Report(report));
        !matches!(queued, Err(TrySendError::Full(_)))
    });
    let parts = Parts {
        store: storage,
        observer,
        carrier: lines,
    };
    let engine = Engine::start(&replica_config(&settings, identity), restored, parts)?;
    let (status, watched) = watch::channel(engine.status());
    let shared = Arc::new(Shared::default());
    let stopped = CancellationToken::new();
    let driver = Driver {
        engine,
        inputs: taken,
        snapshots: encoder::start(inputs.clone())?,
        status,
        shared: Arc::clone(&shared),
        ticker: Ticker::new(settings.tick_interval, Instant::now()),
    };
    let ended = stopped.clone();
    thread::Builder::new()
        .name("trimtab-consensus".to_owned())
        .spawn(move || {
            run(driver);
            ended.cancel();
        })?;
    Ok(Handle::new(Inner {
        identity,
        inputs,
        status: watched,
        peers,
        shared,
        stopped,
        reach: Reach::default(),
    }))
}

/// Runs the driver to its end and says how it ended. A panic, which a broken
/// invariant in the Raft library is, ends the replica and not the process:
/// reads and watches go on.
fn run<O: Observer>(mut driver: Driver<O>) {
    let ended = catch_unwind(AssertUnwindSafe(|| driver.run()))
        .unwrap_or_else(|panic| Err(FatalError::Panicked(panic_message(panic.as_ref()))));
    let fatal = ended.err().map(|error| error.to_string());
    if let Some(error) = &fatal {
        tracing::error!(error, "this replica has stopped");
    }
    driver.status.send_modify(|status| {
        status.role = Role::Follower;
        status.leader_id = 0;
        status.leads_up_to_date = false;
        status.fatal = fatal;
    });
    let last = driver.status.borrow().clone();
    driver.engine.ended(&last);
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    if let Some(message) = panic.downcast_ref::<&str>() {
        return (*message).to_owned();
    }
    panic
        .downcast_ref::<String>()
        .cloned()
        .unwrap_or_else(|| "no message".to_owned())
}

/// What was saved, as a replica starts from it.
///
/// # Errors
///
/// When the log holds an entry that this version does not know.
pub fn restore(saved: Saved) -> Result<Restored, MessageError> {
    let entries = saved
        .entries
        .into_iter()
        .map(message::entry_from_wire)
        .collect::<Result<_, _>>()?;
    Ok(Restored {
        hard_state: message::hard_state_from_wire(saved.hard_state),
        snapshot: message::snapshot_from_wire(saved.snapshot),
        base: Place {
            index: saved.base.index,
            term: saved.base.term,
        },
        entries,
    })
}

/// Makes an empty data directory that of a founder: one of `founders`, who all
/// do the same.
///
/// # Errors
///
/// When it cannot be written.
pub fn found(storage: &mut Storage, founders: &BTreeMap<u64, Member>) -> Result<(), StartError> {
    begin(storage, cluster_id(founders), founding(founders)?)
}

/// Makes an empty data directory that of a cluster of one, at `address`.
///
/// # Errors
///
/// When it cannot be written.
pub fn found_alone(storage: &mut Storage, address: &str) -> Result<(), StartError> {
    let Identity {
        replica_id,
        disk_id,
        ..
    } = storage.identity();
    let address = address.to_owned();
    found(storage, &[(replica_id, Member { address, disk_id })].into())
}

/// Makes an empty data directory that of a replica which a cluster has taken
/// in: its leader will send it everything.
///
/// # Errors
///
/// When it cannot be written.
pub fn join(storage: &mut Storage, cluster_id: u64) -> Result<(), StartError> {
    begin(storage, cluster_id, joining())
}

fn begin(storage: &mut Storage, cluster_id: u64, first: Restored) -> Result<(), StartError> {
    storage.found(
        cluster_id,
        &message::snapshot_to_wire(first.snapshot),
        &message::hard_state_to_wire(&first.hard_state),
    )?;
    let path = storage.path().display();
    tracing::info!(cluster = format!("{cluster_id:016x}"), %path, "new replica");
    Ok(())
}

fn replica_config(settings: &Settings, identity: Identity) -> ReplicaConfig {
    ReplicaConfig {
        id: identity.replica_id,
        disk_id: identity.disk_id,
        incarnation: settings.incarnation,
        heartbeat_ticks: settings.heartbeat_ticks,
        election_ticks: settings.election_ticks,
        snapshot_every: settings.snapshot_every,
        trailing_entries: settings.trailing_entries,
    }
}
