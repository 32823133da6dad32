//! All workloads against all backends, in turns, in one run.

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use tokio::time::timeout;

use crate::backends::Backend;
use crate::backends::etcd::Etcd;
use crate::backends::null::Null;
use crate::backends::rnacos::Rnacos;
use crate::backends::trimtab::Trimtab;
use crate::failure::Failure;
use crate::figures::Figures;
use crate::machine::Machine;
use crate::process;
use crate::progress::{Progress, about};
use crate::report::{Peer, Report, goals, json, picture, table};
use crate::scale::Scale;
use crate::workloads::{self, Notes, Trial, Workload};

pub(crate) const EXAMPLES: &str = "\
Servers are started on loopback with data in a directory that is removed afterwards. Registered are only
addresses in 127.0.0.0/8. etcd must be on PATH (Debian: apt-get install etcd-server), r-nacos as well
(cargo install rnacos --locked); who is missing is left out with a notice.

Examples:
  cargo run --release -p trimtab-bench -- compare
  cargo run --release -p trimtab-bench -- compare --output run.json --picture run.svg
  cargo run --release -p trimtab-bench -- compare --only register,lookup --backends trimtab,null
  cargo run --release -p trimtab-bench -- compare --quick";

/// No run of one workload against one backend takes longer; one that does is given up, with a notice.
const TRIAL_TIME_MAX: Duration = Duration::from_secs(180);

/// Whose failures are ours; those of others are noticed.
const OURS: [&str; 2] = ["null", "trimtab"];

/// What to compare.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Only enough of each workload to see that it works: a minute or two
    #[arg(long)]
    quick: bool,
    /// Only these workloads
    #[arg(long, value_name = "WORKLOAD,...", value_delimiter = ',')]
    only: Vec<String>,
    /// Only these backends: trimtab, null, etcd, r-nacos
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    backends: Vec<String>,
    /// How often each workload is run against each backend, but for the long ones, which are run once [default: 3,
    /// with --quick 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=50))]
    rounds: Option<u8>,
    /// How many instances the workload `memory` registers [default: 100000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1_000..=2_000_000))]
    instances: Option<u32>,
    /// Write every value of every round there, as JSON
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Draw latencies and fan-out there, as SVG
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// The trimtab to measure [default: a release build of this tree]
    #[arg(long, value_name = "BINARY")]
    trimtab: Option<PathBuf>,
    /// Where servers keep their data; the disk is that of the figures [default: beside this program]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

impl CompareArgs {
    fn scale(&self) -> Scale {
        let mut scale = match self.quick {
            true => Scale::quick(),
            false => Scale::whole(),
        };
        if let Some(rounds) = self.rounds {
            scale.rounds = usize::from(rounds);
        }
        if let Some(instances) = self.instances {
            scale.instances = usize::try_from(instances).unwrap_or(usize::MAX);
        }
        scale
    }

    fn workloads(&self) -> Result<Vec<Box<dyn Workload>>, Failure> {
        let mut all = workloads::all();
        let names: Vec<&str> = all.iter().map(|one| one.name()).collect();
        known("--only", &self.only, &names)?;
        if !self.only.is_empty() {
            all.retain(|one| self.only.iter().any(|name| name == one.name()));
        }
        Ok(all)
    }

    fn backends(&self) -> Result<Vec<Box<dyn Backend>>, Failure> {
        let mut all: Vec<Box<dyn Backend>> = vec![
            Box::new(Null),
            Box::new(Trimtab::find(self.trimtab.clone())),
            Box::new(Etcd),
            Box::new(Rnacos),
        ];
        let names: Vec<&str> = all.iter().map(|one| one.name()).collect();
        known("--backends", &self.backends, &names)?;
        if !self.backends.is_empty() {
            all.retain(|one| self.backends.iter().any(|name| name == one.name()));
        }
        Ok(all)
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

fn known(flag: &str, given: &[String], names: &[&str]) -> Result<(), Failure> {
    match given.iter().find(|name| !names.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => Err(Failure::Wrong(format!(
            "{flag} names {name:?}: it must be of {}",
            names.join(", ")
        ))),
    }
}

/// Runs everything and says what came of it.
pub(crate) async fn run(args: &CompareArgs) -> Result<(), Failure> {
    let (scale, workloads) = (args.scale(), args.workloads()?);
    for workload in &workloads {
        say(&format!("{:>10}: {}", workload.name(), workload.about()));
    }
    process::raise_file_limit();
    let directory = tempfile::Builder::new()
        .prefix("compare-")
        .tempdir_in(args.directory()?)
        .map_err(Failure::system("making a directory for data"))?;
    let machine = Machine::look(directory.path())?;
    say(&machine.described());
    let mut session = Session {
        scale,
        directory: directory.path().to_owned(),
        figures: Figures::default(),
        notices: Vec::new(),
        failed: Vec::new(),
        said: HashSet::new(),
    };
    let (peers, backends) = session.present(args.backends()?);
    session.run_all(&workloads, &backends).await;
    let report = Report {
        machine,
        scale: session.scale,
        peers,
        notices: session.notices,
        figures: session.figures,
    };
    if let Some(path) = &args.output {
        json::write(&report, path)?;
    }
    if let Some(path) = &args.picture {
        picture::write(&report, path)?;
    }
    let (goals, table) = (goals::markdown(&report), table::markdown(&report));
    let written = writeln!(io::stdout(), "{goals}{table}");
    written.map_err(Failure::system("printing the table"))?;
    match session.failed.is_empty() {
        true => Ok(()),
        false => Err(Failure::Wrong(format!(
            "failed: {}",
            session.failed.join(", ")
        ))),
    }
}

/// A run under way.
struct Session {
    scale: Scale,
    directory: PathBuf,
    figures: Figures,
    notices: Vec<String>,
    /// Workloads that one of our own servers did not get through.
    failed: Vec<String>,
    said: HashSet<String>,
}

impl Session {
    /// Those that can be run.
    fn present(&mut self, all: Vec<Box<dyn Backend>>) -> (Vec<Peer>, Vec<Box<dyn Backend>>) {
        let mut peers = Vec::new();
        let mut present = Vec::new();
        for backend in all {
            let name = backend.name();
            match backend.version() {
                Ok(version) => {
                    let syncs = backend.syncs();
                    peers.push(Peer {
                        name,
                        version,
                        syncs,
                    });
                    present.push(backend);
                }
                Err(why) => self.notice(format!("{name} is left out: {why}")),
            }
        }
        (peers, present)
    }

    /// Says it once, and in the report.
    fn notice(&mut self, what: String) {
        if self.said.insert(what.clone()) {
            say(&format!("NOTICE: {what}"));
            self.notices.push(what);
        }
    }

    async fn run_all(&mut self, workloads: &[Box<dyn Workload>], backends: &[Box<dyn Backend>]) {
        let plan = plan(&self.scale, workloads, backends);
        let takes = plan.iter().map(|run| run.workload.takes(&self.scale));
        let mut progress = Progress::new(takes.collect());
        say(&format!(
            "{} runs; quiet, with two cores, they take about {}",
            plan.len(),
            about(progress.expected())
        ));
        for Run {
            workload,
            round,
            backend,
        } in plan
        {
            let begun = Instant::now();
            let ran = self.run_once(workload, backend).await;
            progress.step();
            let (workload, name, took) = (workload.name(), backend.name(), begun.elapsed());
            say(&format!(
                "{workload}, round {}, {name}: {:.1} s ({progress})",
                round + 1,
                took.as_secs_f64()
            ));
            if let Err(why) = ran {
                if OURS.contains(&name) {
                    self.failed.push(format!("{workload} with {name}"));
                }
                self.notice(format!("{workload} with {name} failed: {why}"));
            }
        }
    }

    async fn run_once(
        &mut self,
        workload: &dyn Workload,
        backend: &dyn Backend,
    ) -> Result<(), Failure> {
        let directory = tempfile::Builder::new()
            .prefix(backend.name())
            .tempdir_in(&self.directory)
            .map_err(Failure::system("making a directory for data"))?;
        let trial = Trial {
            scale: &self.scale,
            directory: directory.path(),
            notes: Notes {
                workload: workload.name(),
                backend: backend.name(),
                figures: &mut self.figures,
            },
        };
        let ran = timeout(TRIAL_TIME_MAX, workload.run(backend, trial)).await;
        ran.unwrap_or_else(|_| Err(Failure::Late("a run".to_owned(), TRIAL_TIME_MAX)))
    }
}

/// One workload, once, against one backend.
struct Run<'a> {
    workload: &'a dyn Workload,
    round: usize,
    backend: &'a dyn Backend,
}

/// Each round begins with another backend, so that none always has the warmer machine.
fn plan<'a>(
    scale: &Scale,
    workloads: &'a [Box<dyn Workload>],
    backends: &'a [Box<dyn Backend>],
) -> Vec<Run<'a>> {
    let mut plan = Vec::new();
    for workload in workloads {
        let workload = &**workload;
        for round in 0..workload.rounds(scale) {
            let (first, last) = backends.split_at(round % backends.len().max(1));
            let turns = last.iter().chain(first).map(|backend| &**backend);
            let fitting = turns.filter(|backend| workload.fits(*backend));
            plan.extend(fitting.map(|backend| Run {
                workload,
                round,
                backend,
            }));
        }
    }
    plan
}

/// Tells whoever waits how far it is.
fn say(what: &str) {
    // Nobody may be there to read it.
    let _unread = writeln!(io::stderr(), "{what}");
}
