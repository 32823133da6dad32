//! Runs the scenarios, a few at a time, and says how each went.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::bite;
use crate::network;
use crate::scenarios::{ALL, Ended, Scenario};
use crate::stalls;

/// Mostly they wait.
const AT_ONCE: usize = 2;

/// Callers and instances that stand still for longer are as good as gone: a
/// scenario in which all of them did proves nothing when it fails, once.
const STALLED_MAX: Duration = Duration::from_secs(2);

/// How many went how.
#[derive(Debug, Default)]
struct Tally {
    passed: usize,
    skipped: usize,
    failed: Vec<&'static str>,
}

/// Understands a part of a name, `--list` and `--exact`; other flags of test
/// programs mean nothing here.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let names: Vec<&String> = arguments
        .iter()
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let is_exact = arguments.iter().any(|argument| argument == "--exact");
    let is_meant = |name: &str| {
        let fits =
            |part: &&String| name.contains(part.as_str()) && (!is_exact || name == part.as_str());
        names.is_empty() || names.iter().any(fits)
    };
    let chosen: VecDeque<&Scenario> = ALL
        .iter()
        .filter(|scenario| is_meant(scenario.name))
        .collect();
    // None of them is one of those that `--ignored` asks for.
    if chosen.is_empty() || arguments.iter().any(|argument| argument == "--ignored") {
        return ExitCode::SUCCESS;
    }
    if arguments.iter().any(|argument| argument == "--list") {
        for scenario in chosen {
            println!("{}: test", scenario.name);
        }
        return ExitCode::SUCCESS;
    }
    bite::show();
    if let Some(reason) = network::forbidden() {
        eprintln!(
            "NOTICE: {} scenarios SKIPPED: no network namespaces here: {reason}",
            chosen.len()
        );
        return ExitCode::SUCCESS;
    }
    play_all(chosen)
}

fn play_all(chosen: VecDeque<&'static Scenario>) -> ExitCode {
    stalls::watch();
    let begun = Instant::now();
    println!("\nrunning {} scenarios", chosen.len());
    let waiting = Mutex::new(chosen);
    let tally = Mutex::new(Tally::default());
    let next = || {
        waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    };
    std::thread::scope(|threads| {
        for _ in 0..AT_ONCE {
            threads.spawn(|| {
                while let Some(scenario) = next() {
                    let ended = play(scenario);
                    tally
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .add(scenario.name, ended);
                }
            });
        }
    });
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    let took = begun.elapsed();
    println!(
        "\nscenarios: {} passed, {} failed, {} skipped, in {took:.1?}",
        tally.passed,
        tally.failed.len(),
        tally.skipped
    );
    let stalled = Duration::from_micros(stalls::total());
    if !stalled.is_zero() {
        println!("this machine stood still for {stalled:.1?} meanwhile");
    }
    if tally.failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed: {}", tally.failed.join(", "));
    ExitCode::FAILURE
}

fn play(scenario: &Scenario) -> Result<Ended, PathBuf> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("machines")
        .join(scenario.name);
    let begun = Instant::now();
    let mut ended = catch_unwind(AssertUnwindSafe(|| (scenario.play)(&directory)));
    let stalled = stalls::since(begun);
    if ended.is_err() && stalled > STALLED_MAX {
        eprintln!(
            "NOTICE: {} is played again: this machine stood still for {stalled:.1?}",
            scenario.name
        );
        ended = catch_unwind(AssertUnwindSafe(|| (scenario.play)(&directory)));
    }
    let took = begun.elapsed();
    match ended {
        Ok(Ended::Well(how)) => {
            println!("{} ... ok, {took:.1?}: {how}", scenario.name);
            Ok(Ended::Well(how))
        }
        Ok(Ended::Skipped(why)) => {
            eprintln!("NOTICE: {} SKIPPED: {why}", scenario.name);
            Ok(Ended::Skipped(why))
        }
        Err(_) => {
            println!(
                "{} ... FAILED, {took:.1?}; logs and histories: {}",
                scenario.name,
                directory.display()
            );
            Err(directory)
        }
    }
}

// === impl Tally ===

impl Tally {
    fn add(&mut self, name: &'static str, ended: Result<Ended, PathBuf>) {
        match ended {
            Ok(Ended::Well(_)) => self.passed += 1,
            Ok(Ended::Skipped(_)) => self.skipped += 1,
            Err(_) => self.failed.push(name),
        }
    }
}
