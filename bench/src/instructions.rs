//! Counts the instructions of the pure paths, which no other work on the machine changes, and says which counts moved.

mod callgrind;
mod record;
mod table;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;

use self::record::{MadeWith, Record};
use crate::built;
use crate::failure::Failure;

pub(crate) const EXAMPLES: &str = "\
The paths are those of bench/paths, built in release mode and run under valgrind's callgrind (Debian: apt-get install
valgrind). Counts hold for one compiler, one C library and one kind of processor: those of the record are named where
they differ from what is here.

Examples:
  cargo run --release -p trimtab-bench -- instructions
  cargo run --release -p trimtab-bench -- instructions --record";

/// Where the counts of this tree are kept, in it.
const RECORD: &str = "instructions.json";

/// What to count.
#[derive(Debug, Args)]
pub(crate) struct InstructionsArgs {
    /// Write the counts into the record, bench/instructions.json, as those of this tree
    #[arg(long)]
    record: bool,
    /// The program that runs the paths [default: a release build of this tree's bench/paths]
    #[arg(long, value_name = "BINARY")]
    paths: Option<PathBuf>,
}

/// Counts, and prints a table beside what is recorded.
pub(crate) fn run(args: &InstructionsArgs) -> Result<(), Failure> {
    let binary = match &args.paths {
        Some(given) => given.clone(),
        None => built::release("trimtab-paths").map_err(Failure::Wrong)?,
    };
    let now = Record {
        made_with: MadeWith::here(),
        instructions: callgrind::count(&binary)?,
    };
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(RECORD);
    let recorded = match file.exists() {
        true => Some(Record::read(&file)?),
        false => None,
    };
    let table = table::markdown(recorded.as_ref(), &now);
    let written = writeln!(io::stdout(), "{table}");
    written.map_err(Failure::system("printing the table"))?;
    match args.record {
        true => now.write(&file),
        false => Ok(()),
    }
}
