//! `trimtab snapshot save`: the state of the registry, or of a stopped replica, as a file.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use trimtab_client::operator::Operator;
use trimtab_server::backup::directory::Directory;
use trimtab_server::backup::file::SnapshotFile;
use trimtab_server::backup::format;
use trimtab_server::backup::target::Target;
use trimtab_server::consensus::entry::encode_state;

use super::described::Described;
use super::failure;
use crate::failure::Failure;
use crate::session::Session;

pub(super) const EXAMPLES: &str = "\
From a running registry the file holds every change that was acknowledged before the command, and
writes go on meanwhile; any replica can be asked. Without a quorum nothing can be confirmed: ask
one replica with --allow-stale, or better, stop it and save its --data-dir, which holds its whole
log. The file appears when all of it is written and read back, or not at all.

Examples:
  trimtab snapshot save registry.snap
  trimtab snapshot save registry.snap --force
  trimtab snapshot save survivor.snap --endpoints 10.0.0.2:7070 --allow-stale
  trimtab snapshot save survivor.snap --data-dir /var/lib/trimtab";

/// How long to look for a replica that can vouch for its state, unless told:
/// one without a quorum takes 3 seconds to say so.
const SAVE_DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(super) struct SaveArgs {
    /// The file to write
    file: PathBuf,

    /// Overwrite the file if there is one
    #[arg(long)]
    force: bool,

    /// Where no quorum can be had, take what the replica that answers has applied; the file says so
    #[arg(long)]
    allow_stale: bool,

    /// Read the data directory of a stopped replica instead of asking the registry
    #[arg(long, value_name = "DIR", conflicts_with = "allow_stale")]
    data_dir: Option<PathBuf>,
}

pub(super) async fn run(args: &SaveArgs, session: &Session) -> Result<(), Failure> {
    let mut target = Target::begin(&args.file, args.force).map_err(failure)?;
    match &args.data_dir {
        Some(directory) => from_directory(directory, &mut target)?,
        None => {
            let operator = match session.timeout() {
                Some(_) => session.operator.clone(),
                None => session.operator.clone().with_deadline(SAVE_DEADLINE),
            };
            from_registry(&operator, args.allow_stale, &mut target).await?;
        }
    }
    // A backup that cannot be read is none: better to know it now.
    let written = SnapshotFile::read(target.so_far()).map_err(failure)?;
    let described = Described::file(args.file.display().to_string(), &written);
    target.finish().map_err(failure)?;
    session.output.warnings(&described.warnings());
    session.output.result(&described, Described::to_text)
}

async fn from_registry(
    operator: &Operator,
    allow_stale: bool,
    target: &mut Target,
) -> Result<(), Failure> {
    let mut download = operator.save_snapshot(allow_stale).await?;
    while let Some(chunk) = download.next().await? {
        target.write(&chunk).map_err(failure)?;
    }
    Ok(())
}

fn from_directory(directory: &Path, target: &mut Target) -> Result<(), Failure> {
    let known = Directory::read(directory).map_err(failure)?;
    let header = known.header(now_ms());
    let state = encode_state(&known.state.membership, &known.state.registry);
    let state = state.map_err(|error| failure(error.into()))?;
    for chunk in format::encode(&header, state) {
        target.write(&chunk).map_err(failure)?;
    }
    Ok(())
}

/// For people to read: nothing is decided by it.
fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    since_epoch.map_or(0, |elapsed| {
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    })
}
