//! The registry simulated from one seed: production replicas on a virtual clock, a network and disks that fail, and checks at every step.
//!
//! docs/simulation.md says what is simulated, what is checked and how to
//! replay a seed. `TRIMTAB_SIM_SEEDS=N` runs N fresh seeds instead of a few,
//! `TRIMTAB_SIM_SEED=K` replays one.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and so does what sets it up"
)]

mod callers;
mod calls;
mod chance;
mod counts;
mod disk;
mod ejections;
mod expected;
mod faults;
mod fleet;
mod host;
mod keys;
mod ledger;
mod lines;
mod mail;
mod misfits;
mod network;
mod operator;
mod packet;
mod picks;
mod planted;
mod policies;
mod ramps;
mod run;
mod scripts;
mod seats;
mod shrinks;
mod streams;
mod subsets;
mod switches;
mod trace;
mod turns;
mod world;
mod zones;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{SystemTime, UNIX_EPOCH};

use trimtab_tests::{checker, history};

use crate::counts::Counts;
use crate::planted::Planted;

/// Seeds of a run that names no number: seconds, not minutes.
const SEEDS_DEFAULT: u64 = 50;
/// Planted bugs that take more are looked for on demand.
const SEEDS_OF_A_TEST: u64 = 500;

fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    let number = value.parse();
    Some(number.unwrap_or_else(|_| panic!("{name} is {value:?}, not a number")))
}

/// A panic in the production code is as wrong as a broken promise.
fn live(seed: u64, planted: Option<Planted>) -> Result<Counts, String> {
    let lived = catch_unwind(AssertUnwindSafe(|| run::run(seed, planted)));
    lived.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        Err(format!("panicked: {}", text.unwrap_or_default()))
    })
}

#[test]
fn promises_hold_whatever_fails() {
    let replayed = setting("TRIMTAB_SIM_SEED");
    let count = replayed.map_or(setting("TRIMTAB_SIM_SEEDS").unwrap_or(SEEDS_DEFAULT), |_| 1);
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let fresh = since.map_or(0, |since| since.as_nanos() as u64 >> 10);
    let first = replayed.unwrap_or(fresh);
    println!("simulating {count} seeds from {first}");
    let mut total = Counts::default();
    let mut failed = 0;
    for seed in first..first + count {
        match live(seed, None) {
            Ok(counts) => total.add(&counts),
            Err(reason) => {
                failed += 1;
                println!("seed {seed}: {reason}\nreplay: {}", replay(seed));
            }
        }
    }
    println!("{total:#?}");
    assert_eq!(failed, 0, "of {count} seeds from {first}; see above");
}

/// In the same profile: the database checks itself in debug builds, and
/// leaves other bytes behind.
fn replay(seed: u64) -> String {
    let profile = if cfg!(debug_assertions) {
        ""
    } else {
        " --release"
    };
    format!(
        "TRIMTAB_SIM_SEED={seed} cargo test{profile} -p trimtab-tests --test simulation promises -- --nocapture"
    )
}

#[test]
fn one_seed_is_one_run() {
    for seed in [1, 2, 3] {
        assert_eq!(live(seed, None), live(seed, None), "seed {seed}");
    }
}

#[test]
fn planted_bugs_are_found() {
    for (planted, within) in Planted::ALL {
        if within <= SEEDS_OF_A_TEST {
            find(planted, within);
        }
    }
}

#[test]
#[ignore = "minutes: the planted bugs that take the most seeds"]
fn rare_planted_bugs_are_found() {
    for (planted, within) in Planted::ALL {
        if within > SEEDS_OF_A_TEST {
            find(planted, within);
        }
    }
}

fn find(planted: Planted, within: u64) {
    let found = (0..within).find_map(|seed| Some((seed, live(seed, Some(planted)).err()?)));
    let (seed, reason) = found.unwrap_or_else(|| panic!("{planted:?}: not in {within} seeds"));
    println!("{planted:?}: seed {seed} of {within}: {reason}");
}

#[test]
#[ignore = "a measurement: how many of TRIMTAB_SIM_SEEDS seeds find each planted bug"]
fn how_often_planted_bugs_are_found() {
    let count = setting("TRIMTAB_SIM_SEEDS").unwrap_or(100);
    for (planted, _) in Planted::ALL {
        let found = (0..count).filter(|seed| live(*seed, Some(planted)).is_err());
        println!("{planted:?}: {} of {count} seeds", found.count());
    }
}
