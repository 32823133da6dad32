//! `trimtab snapshot`: the registry's whole state in a file, and the way back from it.

mod described;
mod inspect;
mod restore;
mod save;

use clap::{Args, Subcommand};
use trimtab_server::backup::error::BackupError;
use trimtab_server::storage::error::StorageError;

use self::inspect::InspectArgs;
use self::restore::RestoreArgs;
use self::save::SaveArgs;
use crate::failure::{Exit, Failure};
use crate::session::Session;

pub(crate) const EXAMPLES: &str = "\
A snapshot holds routes, groups, instances and the history of routes as of one revision. It becomes
a new cluster, never a replica of the old one. docs/recovery.md goes through it step by step.

Examples:
  trimtab snapshot save registry.snap                        of the running registry
  trimtab snapshot inspect registry.snap
  trimtab snapshot inspect --data-dir /var/lib/trimtab       what a stopped replica knows
  trimtab snapshot save registry.snap --data-dir /var/lib/trimtab
  trimtab snapshot restore registry.snap --data-dir /var/lib/trimtab-new";

#[derive(Debug, Args)]
pub(crate) struct SnapshotArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Write the state of the registry, or of a stopped replica, to a file
    #[command(after_help = save::EXAMPLES)]
    Save(SaveArgs),
    /// Show what is in a file, or what a stopped replica knows
    #[command(after_help = inspect::EXAMPLES)]
    Inspect(InspectArgs),
    /// Make the data directory of a new cluster of one from a file
    #[command(after_help = restore::EXAMPLES)]
    Restore(RestoreArgs),
}

pub(crate) async fn run(args: &SnapshotArgs, session: &Session) -> Result<(), Failure> {
    match &args.verb {
        Verb::Save(args) => save::run(args, session).await,
        Verb::Inspect(args) => inspect::run(args, session.output),
        Verb::Restore(args) => restore::run(args, session.output),
    }
}

/// A refusal is told apart from a failure.
fn failure(error: BackupError) -> Failure {
    let is_refusal = matches!(
        error,
        BackupError::Exists { .. }
            | BackupError::NotEmpty { .. }
            | BackupError::TooFar { .. }
            | BackupError::Storage(StorageError::InUse { .. } | StorageError::Unfinished { .. })
    );
    let exit = if is_refusal {
        Exit::Refused
    } else {
        Exit::Failed
    };
    Failure::new(exit, error.to_string())
}
