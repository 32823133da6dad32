//! `trimtab snapshot restore`: the data directory of a new cluster of one, from a file.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use trimtab_server::backup::file::SnapshotFile;
use trimtab_server::backup::restore::{JUMP, Plan, SETTLE, restore};
use trimtab_server::backup::survey::{Survey, survey};
use trimtab_server::config::{DEFAULT_LISTEN, check_address};

use super::described::{Described, contents};
use super::failure;
use crate::failure::{Exit, Failure};
use crate::output::Output;

pub(super) const EXAMPLES: &str = "\
The directory must be new or empty. The new cluster begins with one replica; start it with
`trimtab serve`. Replicas of the old cluster refuse it, and it refuses them: never start them again.
Revisions jump ahead, so that callers take what is restored for newer than what they hold; restore
the same file a second time with a larger --jump.

Examples:
  trimtab snapshot restore registry.snap --data-dir /var/lib/trimtab
  trimtab snapshot restore registry.snap --data-dir four.data --id 4 --advertise 10.0.0.4:7070
  trimtab snapshot restore registry.snap --data-dir /var/lib/trimtab --jump 2000000000";

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// The snapshot file
    file: PathBuf,

    /// The directory to make: new or empty
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,

    /// The new replica's number in its cluster
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    id: u64,

    /// The address that others reach the new replica at
    #[arg(long, value_name = "HOST:PORT", default_value = DEFAULT_LISTEN)]
    advertise: String,

    /// How far revisions jump ahead: further than the old cluster went on after the snapshot
    #[arg(long, value_name = "REVISIONS", default_value_t = JUMP, value_parser = clap::value_parser!(u64).range(1..))]
    jump: u64,

    // Not a doc comment, which would take the bracket for a link.
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = humantime::parse_duration,
        help = "How long the new cluster, once started, keeps its views to itself so that instances can \
                register anew; callers go on with the views they have [default: 10s]"
    )]
    settle: Option<Duration>,
}

/// What was made.
#[derive(Debug, Serialize)]
struct Restored {
    data_dir: String,
    cluster_id: String,
    replica: u64,
    revision: u64,
    services: u64,
    groups: u64,
    instances: u64,
}

pub(super) fn run(args: &RestoreArgs, output: Output) -> Result<(), Failure> {
    check_address("--advertise", &args.advertise)
        .map_err(|error| Failure::new(Exit::InvalidArgument, error.to_string()))?;
    let snapshot = SnapshotFile::read(&args.file).map_err(failure)?;
    let described = Described::file(args.file.display().to_string(), &snapshot);
    let Survey {
        services,
        groups,
        instances,
    } = survey(&snapshot.registry);
    let plan = Plan {
        replica_id: args.id,
        advertise: args.advertise.clone(),
        jump: args.jump,
        settle: args.settle.unwrap_or(SETTLE),
    };
    let founded = restore(snapshot, &args.data_dir, &plan).map_err(failure)?;
    output.warnings(&described.warnings());
    let restored = Restored {
        data_dir: args.data_dir.display().to_string(),
        cluster_id: format!("{:016x}", founded.identity.cluster_id),
        replica: args.id,
        revision: founded.revision.0,
        services,
        groups,
        instances,
    };
    output.result(&restored, |restored| {
        format!(
            "restored {} into {}\nreplica {} of the new cluster {}, from revision {}\n",
            contents(services, groups, instances),
            restored.data_dir,
            restored.replica,
            restored.cluster_id,
            restored.revision
        )
    })?;
    if !output.is_json() {
        output.note(&format!(
            "start it: trimtab serve --id {} --advertise {} --data-dir {}",
            restored.replica, args.advertise, restored.data_dir
        ));
    }
    Ok(())
}
