//! The thread that encodes snapshots, so that no round waits for it.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use super::input::Input;
use super::snapshot::SnapshotJob;

/// Jobs waiting. There is never more than one.
const JOBS_MAX: usize = 1;

/// Starts the thread. It hands what it made to `inputs`, and ends when the
/// sender of jobs is dropped or nobody takes inputs any more.
pub(super) fn start(inputs: SyncSender<Input>) -> io::Result<SyncSender<SnapshotJob>> {
    let (jobs, taken) = sync_channel::<SnapshotJob>(JOBS_MAX);
    thread::Builder::new()
        .name("trimtab-snapshots".to_owned())
        .spawn(move || {
            while let Ok(job) = taken.recv() {
                if inputs.send(Input::Encoded(job.run())).is_err() {
                    return;
                }
            }
        })?;
    Ok(jobs)
}
