//! The one thread that moves the engine: its queue of inputs, its time, its status.

use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::time::{Instant, SystemTime};

use tokio::sync::watch;

use super::engine::Engine;
use super::error::FatalError;
use super::input::Input;
use super::observer::Observer;
use super::snapshot::SnapshotJob;
use super::status::ConsensusStatus;
use super::ticker::Ticker;
use crate::peers::line::Lines;
use crate::storage::file::Storage;

/// What the thread shares with its handles.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Messages from peers that found the queue full.
    pub(super) dropped_messages: AtomicU64,
    /// Callers' requests in the queue.
    pub(super) caller_inputs: AtomicUsize,
    /// The last handle is gone.
    pub(super) is_abandoned: AtomicBool,
}

/// Everything the thread owns.
pub(super) struct Driver<O> {
    pub(super) engine: Engine<Storage, O, Lines>,
    pub(super) inputs: Receiver<Input>,
    /// Where they are encoded.
    pub(super) snapshots: SyncSender<SnapshotJob>,
    pub(super) status: watch::Sender<ConsensusStatus>,
    pub(super) shared: Arc<Shared>,
    pub(super) ticker: Ticker,
}

impl<O: Observer> Driver<O> {
    /// Runs until it is stopped or cannot go on.
    pub(super) fn run(&mut self) -> Result<(), FatalError> {
        self.engine.round([], 0)?;
        self.publish();
        loop {
            let wait = self.ticker.until_next(Instant::now());
            let first = match self.inputs.recv_timeout(wait) {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            self.take_round(first)?;
            self.publish();
            if let Some(job) = self.engine.due_snapshot() {
                self.encode(job)?;
            }
            if self.engine.is_done() || self.shared.is_abandoned.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
    }

    fn take_round(&mut self, first: Option<Input>) -> Result<(), FatalError> {
        let waiting = &self.inputs;
        let more = first.is_some();
        let rest = iter::from_fn(|| more.then(|| waiting.try_recv().ok())?);
        let inputs = first.into_iter().chain(rest).inspect(|input| {
            let waiting = &self.shared.caller_inputs;
            waiting.fetch_sub(input.weight(), Ordering::Relaxed);
        });
        let ticks = self.ticker.due(Instant::now());
        self.engine.round(inputs, ticks)
    }

    /// Has a snapshot encoded; here, if the thread for it is gone.
    fn encode(&mut self, job: SnapshotJob) -> Result<(), FatalError> {
        match self.snapshots.try_send(job) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => {
                self.engine.round([Input::Encoded(job.run())], 0)
            }
        }
    }

    fn publish(&self) {
        let mut status = ConsensusStatus {
            dropped_messages: self.shared.dropped_messages.load(Ordering::Relaxed),
            ..self.engine.status()
        };
        self.status.send_if_modified(|last| {
            status.snapshot_time = match status.snapshot_index == last.snapshot_index {
                true => last.snapshot_time,
                false => Some(SystemTime::now()),
            };
            let is_new = *last != status;
            *last = status;
            is_new
        });
    }
}
