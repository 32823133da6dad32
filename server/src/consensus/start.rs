//! From a data directory to a running replica.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use raft::eraftpb;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::config::ReplicaConfig;
use super::driver::{Driver, Shared};
use super::encoder;
use super::engine::{Engine, Parts};
use super::error::FatalError;
use super::founding::{Restored, founding};
use super::handle::{CALLER_INPUTS_MAX, Handle, Inner};
use super::input::Input;
use super::log::Place;
use super::message::{self, MessageError};
use super::observer::Observer;
use super::reach::Reach;
use super::status::Role;
use super::ticker::Ticker;
use crate::peers::Peers;
use crate::storage::error::StorageError;
use crate::storage::file::{Saved, Storage};

/// Inputs waiting for the thread: those of callers, and room that only other
/// replicas may use, so that however many callers there are, heartbeats get
/// through and the leader keeps its quorum.
const INPUTS_MAX: usize = CALLER_INPUTS_MAX + 1_024;

/// How a replica runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This replica, one of the members.
    pub id: u64,
    /// All members and the addresses they advertise.
    pub members: BTreeMap<u64, String>,
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
    pub fn new(id: u64, members: BTreeMap<u64, String>, incarnation: u64) -> Self {
        Self {
            id,
            members,
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
    /// It is not one of the members, or the storage is another's.
    #[error("replica {id} cannot start: {reason}")]
    Settings {
        /// The replica.
        id: u64,
        /// What does not fit.
        reason: String,
    },
    /// The system gave it no thread.
    #[error("cannot start the consensus thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Starts a replica on what its storage holds, founding it when that is
/// nothing. The observer is given the snapshot's state before this returns;
/// the entries after it are applied by the thread. A cluster of one leads at
/// once.
///
/// # Errors
///
/// When the storage is damaged or another's, or the settings do not fit it.
pub fn start<O: Observer + Send + 'static>(
    settings: Settings,
    mut storage: Storage,
    peers: Peers,
    observer: O,
) -> Result<Handle, StartError> {
    check(&settings, &storage)?;
    let cluster_id = storage.identity().cluster_id;
    let restored = match storage.load()? {
        Some(saved) => {
            let restored = restore(saved)?;
            check_members(&settings, &restored.snapshot)?;
            restored
        }
        None => found(&settings, &mut storage)?,
    };
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
    let engine = Engine::start(&replica_config(&settings), restored, parts)?;
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
        id: settings.id,
        cluster_id,
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

fn check(settings: &Settings, storage: &Storage) -> Result<(), StartError> {
    let refuse = |reason: String| StartError::Settings {
        id: settings.id,
        reason,
    };
    if !settings.members.contains_key(&settings.id) {
        return Err(refuse("it is not one of the members".to_owned()));
    }
    let found = storage.identity();
    if found.replica_id != settings.id {
        return Err(refuse(format!("the storage was opened for {found}")));
    }
    Ok(())
}

/// The addresses of members may change between starts, the members may not:
/// a replica that counts other voters would make a quorum of its own.
fn check_members(settings: &Settings, snapshot: &eraftpb::Snapshot) -> Result<(), StartError> {
    let mut founded = snapshot.get_metadata().get_conf_state().voters.clone();
    founded.sort_unstable();
    if settings.members.keys().eq(&founded) {
        return Ok(());
    }
    let list = |ids: &[u64]| {
        let ids: Vec<String> = ids.iter().map(u64::to_string).collect();
        ids.join(", ")
    };
    let named: Vec<u64> = settings.members.keys().copied().collect();
    Err(StartError::Settings {
        id: settings.id,
        reason: format!(
            "its data directory belongs to a cluster of replicas {}, the settings name {}; \
             name the same ones, or point it at its own data directory",
            list(&founded),
            list(&named)
        ),
    })
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

fn found(settings: &Settings, storage: &mut Storage) -> Result<Restored, StartError> {
    let restored = founding(&settings.members)?;
    storage.found(
        &message::snapshot_to_wire(restored.snapshot.clone()),
        &message::hard_state_to_wire(&restored.hard_state),
    )?;
    tracing::info!(
        members = settings.members.len(),
        path = %storage.path().display(),
        "new replica"
    );
    Ok(restored)
}

fn replica_config(settings: &Settings) -> ReplicaConfig {
    ReplicaConfig {
        id: settings.id,
        members: settings.members.clone(),
        incarnation: settings.incarnation,
        heartbeat_ticks: settings.heartbeat_ticks,
        election_ticks: settings.election_ticks,
        snapshot_every: settings.snapshot_every,
        trailing_entries: settings.trailing_entries,
    }
}
