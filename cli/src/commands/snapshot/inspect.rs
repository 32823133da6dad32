//! `trimtab snapshot inspect`: what is in a file, or what a stopped replica knows.

use std::path::PathBuf;

use clap::Args;
use trimtab_server::backup::directory::Directory;
use trimtab_server::backup::file::SnapshotFile;

use super::described::Described;
use super::failure;
use crate::failure::Failure;
use crate::output::Output;

pub(super) const EXAMPLES: &str = "\
The file is read to its end and checked. Of several survivors of a lost quorum, the one whose last
entry has the highest term, and of these the highest index, knows most.

Examples:
  trimtab snapshot inspect registry.snap
  trimtab snapshot inspect registry.snap --output json | jq .index
  trimtab snapshot inspect --data-dir /var/lib/trimtab";

#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// The snapshot file
    #[arg(required_unless_present = "data_dir", conflicts_with = "data_dir")]
    file: Option<PathBuf>,

    /// Look at the data directory of a stopped replica instead
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

pub(super) fn run(args: &InspectArgs, output: Output) -> Result<(), Failure> {
    let described = match (&args.file, &args.data_dir) {
        (Some(file), _) => {
            let snapshot = SnapshotFile::read(file).map_err(failure)?;
            Described::file(file.display().to_string(), &snapshot)
        }
        (None, directory) => {
            // The command line has one of the two.
            let path = directory.clone().unwrap_or_default();
            let directory = Directory::read(&path).map_err(failure)?;
            Described::directory(path.display().to_string(), &directory)
        }
    };
    output.warnings(&described.warnings());
    output.result(&described, Described::to_text)
}
