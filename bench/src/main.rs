//! The load generator: runs registries side by side and says what each of them does.

mod backends;
mod built;
mod compare;
mod cores;
mod failure;
mod figures;
mod growth;
mod instructions;
mod load;
mod machine;
mod offer;
mod process;
mod progress;
mod report;
mod sample;
mod scale;
mod wire;
mod workloads;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::backends::null::{self, NullArgs};
use crate::compare::CompareArgs;
use crate::growth::GrowthArgs;
use crate::instructions::InstructionsArgs;

/// Trimtab beside other registries, on one machine, in one run.
#[derive(Debug, Parser)]
#[command(name = "trimtab-bench", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run all workloads against all backends in turn, and print a table
    #[command(after_help = compare::EXAMPLES)]
    Compare(CompareArgs),
    /// Sweep over services, instances, watchers, groups and replicas: what things cost, and how fast that grows
    #[command(after_help = growth::EXAMPLES)]
    Growth(GrowthArgs),
    /// Count the instructions of the pure paths, and say which counts moved
    #[command(after_help = instructions::EXAMPLES)]
    Instructions(InstructionsArgs),
    /// Serve Trimtab's messages and do nothing
    #[command(hide = true)]
    Null(NullArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    let ran = match Cli::parse().command {
        Command::Compare(args) => compare::run(&args).await,
        Command::Growth(args) => growth::run(&args).await,
        Command::Instructions(args) => instructions::run(&args),
        Command::Null(args) => null::serve(&args).await,
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody may be there to read it.
            let _unread = writeln!(io::stderr(), "trimtab-bench: {failure}");
            ExitCode::FAILURE
        }
    }
}
