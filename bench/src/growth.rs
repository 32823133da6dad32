//! How the cost of one thing grows with the number of others: one dimension after another, over three orders of magnitude.

mod axis;
mod cost;
mod entry;
mod fit;
mod plot;
mod point;
mod table;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use tokio::time::timeout;

use self::axis::{Axis, Pace, Size};
use self::cost::Cost;
use crate::backends::trimtab::Trimtab;
use crate::backends::{Backend, Cluster};
use crate::failure::Failure;
use crate::machine::Machine;
use crate::process;

pub(crate) const EXAMPLES: &str = "\
Each point is a registry of its own on loopback. Costs are processor time of its servers, less what they use at rest, so
that they hold on a machine that does other work too; the time to the last receipt does not. The exponent is the slope
of cost against size where both are logarithms: 0 is the same for any size, 1 is in proportion.

Examples:
  cargo run --release -p trimtab-bench -- growth
  cargo run --release -p trimtab-bench -- growth --picture growth.svg
  cargo run --release -p trimtab-bench -- growth --only services,watchers
  cargo run --release -p trimtab-bench -- growth --quick";

/// No point takes longer; one that does is a failure.
const POINT_TIME_MAX: Duration = Duration::from_secs(300);

/// What to sweep over.
#[derive(Debug, Args)]
pub(crate) struct GrowthArgs {
    /// Only two small points of each dimension, to see that it works: less than a minute
    #[arg(long)]
    quick: bool,
    /// Only these dimensions
    #[arg(long, value_name = "DIMENSION,...", value_delimiter = ',')]
    only: Vec<Axis>,
    /// Draw how costs grow there, as SVG
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// The trimtab to measure [default: a release build of this tree]
    #[arg(long, value_name = "BINARY")]
    trimtab: Option<PathBuf>,
    /// Where servers keep their data [default: beside this program]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// One dimension, swept over.
#[derive(Debug)]
struct Sweep {
    axis: Axis,
    /// The size and what things cost there.
    points: Vec<(usize, Cost)>,
}

impl GrowthArgs {
    fn pace(&self) -> Pace {
        match self.quick {
            true => Pace::Quick,
            false => Pace::Whole,
        }
    }

    fn axes(&self) -> Vec<Axis> {
        let all = Axis::ALL.into_iter();
        all.filter(|axis| self.only.is_empty() || self.only.contains(axis))
            .collect()
    }

    /// Where servers keep their data.
    fn directory(&self) -> Result<PathBuf, Failure> {
        if let Some(given) = &self.directory {
            return Ok(given.clone());
        }
        let own = std::env::current_exe().map_err(Failure::system("finding this program"))?;
        let beside = own.parent().map(Path::to_owned);
        beside.ok_or_else(|| Failure::Wrong("this program is in no directory".to_owned()))
    }
}

/// Sweeps over all dimensions and says what came of it.
pub(crate) async fn run(args: &GrowthArgs) -> Result<(), Failure> {
    let trimtab = Trimtab::find(args.trimtab.clone());
    let version = trimtab.version().map_err(Failure::Wrong)?;
    process::raise_file_limit();
    let directory = tempfile::Builder::new()
        .prefix("growth-")
        .tempdir_in(args.directory()?)
        .map_err(Failure::system("making a directory for data"))?;
    let machine = Machine::look(directory.path())?;
    let mut sweeps = Vec::new();
    for axis in args.axes() {
        let mut points = Vec::new();
        for size in axis.sizes(args.pace()) {
            let begun = Instant::now();
            let cost = at(&trimtab, &size, args.pace(), directory.path()).await?;
            let (value, took) = (axis.value(&size), begun.elapsed().as_secs_f64());
            // Nobody may be there to read it.
            let _unread = writeln!(io::stderr(), "{axis}, {value}: {took:.1} s");
            points.push((value, cost));
        }
        sweeps.push(Sweep { axis, points });
    }
    if let Some(path) = &args.picture {
        plot::write(&sweeps, path)?;
    }
    let (machine, tables) = (machine.described(), table::markdown(&sweeps));
    let written = writeln!(io::stdout(), "{version}, {machine}.\n\n{tables}");
    written.map_err(Failure::system("printing the tables"))
}

/// What things cost in a registry of this size.
async fn at(trimtab: &Trimtab, size: &Size, pace: Pace, directory: &Path) -> Result<Cost, Failure> {
    let directory = tempfile::tempdir_in(directory);
    let directory = directory.map_err(Failure::system("making a directory for data"))?;
    let measured = async {
        let cluster: Box<dyn Cluster> = trimtab.start(size.replicas, directory.path()).await?;
        point::measure(&*cluster, size, pace).await
    };
    let in_time = timeout(POINT_TIME_MAX, measured).await;
    in_time.unwrap_or_else(|_| Err(Failure::Late(format!("{size:?}"), POINT_TIME_MAX)))
}
