//! `trimtab demo`: the command, and its end in any case.

use clap::Args;
use tokio::time::Instant;

use crate::demo::director;
use crate::demo::plan::Plan;
use crate::demo::screen::{LiveCounts, Screen};
use crate::demo::stage::Stage;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::signals::asked_to_stop;

pub(crate) const EXAMPLES: &str = "\
Starts three replicas, a few releases of a small service and callers under steady load, each a
process on loopback, in a directory that is removed at the end. Takes about a minute and ends with
a table and with exit code 0 only when every promise held. Ctrl-C ends it at any time and leaves
nothing behind.

Examples:
  trimtab demo
  trimtab demo --fast
  trimtab demo --calls-per-second 1000
  trimtab demo --output json | jq .promises";

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// A quarter of the time and little traffic: for tests
    #[arg(long)]
    fast: bool,

    /// Traffic, over all callers [default: 3000, with --fast 600]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(4..=100_000))]
    calls_per_second: Option<u32>,
}

pub(crate) async fn run(args: &DemoArgs, output: Output) -> Result<(), Failure> {
    let plan = if args.fast {
        Plan::fast(args.calls_per_second)
    } else {
        Plan::normal(args.calls_per_second)
    };
    let counts = LiveCounts::new();
    let mut stage = Stage::new(counts.clone())?;
    let screen = Screen::open(counts);
    let started = Instant::now();
    let performed = tokio::select! {
        performed = director::perform(plan, &mut stage, &screen) => performed,
        stopped = asked_to_stop() => Err(interrupted(stopped)),
    };
    drop(screen);
    let cleared = stage.clear().await;
    let report = performed?.report(started.elapsed());
    cleared?;
    output.result(&report, |report| report.table())?;
    if report.held() {
        return Ok(());
    }
    Err(Failure::new(
        Exit::PromiseBroken,
        "a promise did not hold; the table says which",
    ))
}

fn interrupted(stopped: std::io::Result<()>) -> Failure {
    match stopped {
        Ok(()) => Failure::new(
            Exit::Failed,
            "stopped on request; nothing is left running or behind",
        ),
        Err(error) => error.into(),
    }
}
