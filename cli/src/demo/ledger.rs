//! The demo's arithmetic: shares, failures and volume of each phase, from what
//! the callers counted.
//!
//! Phases are told apart by the revision of the view that chose the instance,
//! not by the clock: a call belongs to the route it was placed by.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::demo::count::{CallerCount, Tally};
use crate::percent::WHOLE;

/// What a caller's calls to a group may differ from its share of the caller's
/// calls.
const DEVIATION_MAX_CALLS: f64 = 1.0;

/// Room for the rounding of the division, far below one call.
const ROUNDING: f64 = 1e-6;

/// A time during which one route was in effect.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Phase {
    pub(crate) name: String,
    /// The first view revision that belongs to it; the next phase's ends it.
    pub(crate) from_revision: u64,
    /// Basis points by group.
    pub(crate) intended: BTreeMap<String, u32>,
    pub(crate) seconds: f64,
}

/// What became of one phase.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct PhaseAccount {
    pub(crate) name: String,
    pub(crate) from_revision: u64,
    pub(crate) seconds: f64,
    pub(crate) calls: u64,
    pub(crate) calls_per_second: f64,
    pub(crate) groups: Vec<GroupAccount>,
}

/// What one group got in one phase.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct GroupAccount {
    pub(crate) group: String,
    pub(crate) intended_basis_points: u32,
    pub(crate) observed_percent: f64,
    pub(crate) calls: u64,
    /// Answered by the instance with an error of its own.
    pub(crate) own_errors: u64,
    /// Failed in any other way.
    pub(crate) lost: u64,
    pub(crate) latency_mean_ms: f64,
    /// The most that one caller's calls differ from its share, in calls.
    pub(crate) worst_deviation_calls: f64,
}

/// All calls of the run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Totals {
    pub(crate) calls: u64,
    /// Failed, and not because a release that is meant to fail said so.
    pub(crate) failed_by_shift_or_registry: u64,
    /// Answered with an error of its own by the release that is meant to fail.
    pub(crate) failed_by_broken_release: u64,
    /// What the first of the former said.
    pub(crate) reasons: Vec<String>,
}

/// The whole account. `broken` is the release that is meant to fail.
pub(crate) fn account(
    phases: &[Phase],
    callers: &[CallerCount],
    broken: &str,
) -> (Vec<PhaseAccount>, Totals) {
    let accounts = phases
        .iter()
        .enumerate()
        .map(|(position, phase)| {
            let end = phases
                .get(position + 1)
                .map_or(u64::MAX, |next| next.from_revision);
            // The first phase takes what was placed before it, too.
            let start = if position == 0 {
                0
            } else {
                phase.from_revision
            };
            account_phase(phase, start..end, callers)
        })
        .collect();
    (accounts, totals(callers, broken))
}

/// Did every caller give every group its share, within one call?
pub(crate) fn shares_hold(accounts: &[PhaseAccount]) -> bool {
    worst_deviation(accounts) <= DEVIATION_MAX_CALLS + ROUNDING
}

/// The most that one caller's calls to a group differ from its share, over all
/// phases.
pub(crate) fn worst_deviation(accounts: &[PhaseAccount]) -> f64 {
    accounts
        .iter()
        .flat_map(|account| &account.groups)
        .map(|group| group.worst_deviation_calls)
        .fold(0.0, f64::max)
}

fn account_phase(
    phase: &Phase,
    revisions: std::ops::Range<u64>,
    callers: &[CallerCount],
) -> PhaseAccount {
    let by_caller: Vec<BTreeMap<&str, Tally>> = callers
        .iter()
        .map(|caller| calls_by_group(caller, &revisions))
        .collect();
    let names: BTreeSet<&str> = phase
        .intended
        .keys()
        .map(String::as_str)
        .chain(by_caller.iter().flat_map(|groups| groups.keys().copied()))
        .collect();
    let calls: u64 = by_caller.iter().map(total_calls).sum();
    let groups = names
        .into_iter()
        .map(|name| account_group(name, phase, &by_caller, calls))
        .collect();
    PhaseAccount {
        name: phase.name.clone(),
        from_revision: phase.from_revision,
        seconds: phase.seconds,
        calls,
        calls_per_second: if phase.seconds > 0.0 {
            calls as f64 / phase.seconds
        } else {
            0.0
        },
        groups,
    }
}

fn calls_by_group<'a>(
    caller: &'a CallerCount,
    revisions: &std::ops::Range<u64>,
) -> BTreeMap<&'a str, Tally> {
    let mut groups: BTreeMap<&str, Tally> = BTreeMap::new();
    for pick in &caller.picks {
        if revisions.contains(&pick.revision) {
            groups.entry(&pick.group).or_default().add(pick.tally);
        }
    }
    groups
}

fn total_calls(groups: &BTreeMap<&str, Tally>) -> u64 {
    groups.values().map(|tally| tally.calls).sum()
}

fn account_group(
    name: &str,
    phase: &Phase,
    by_caller: &[BTreeMap<&str, Tally>],
    calls_in_phase: u64,
) -> GroupAccount {
    let weight = phase.intended.get(name).copied().unwrap_or(0);
    let share = f64::from(weight) / f64::from(WHOLE);
    let mut sum = Tally::default();
    let mut worst: f64 = 0.0;
    for groups in by_caller {
        let tally = groups.get(name).copied().unwrap_or_default();
        sum.add(tally);
        let expected = share * total_calls(groups) as f64;
        worst = worst.max((tally.calls as f64 - expected).abs());
    }
    let per = |total: f64, count: u64| {
        if count == 0 {
            0.0
        } else {
            total / count as f64
        }
    };
    GroupAccount {
        group: name.to_owned(),
        intended_basis_points: weight,
        observed_percent: per(sum.calls as f64 * 100.0, calls_in_phase),
        calls: sum.calls,
        own_errors: sum.own_errors,
        lost: sum.lost,
        latency_mean_ms: per(sum.latency_us as f64 / 1_000.0, sum.calls),
        worst_deviation_calls: worst,
    }
}

fn totals(callers: &[CallerCount], broken: &str) -> Totals {
    let mut totals = Totals {
        calls: 0,
        failed_by_shift_or_registry: 0,
        failed_by_broken_release: 0,
        reasons: Vec::new(),
    };
    for caller in callers {
        totals.calls += caller.unplaced;
        totals.failed_by_shift_or_registry += caller.unplaced;
        for pick in &caller.picks {
            totals.calls += pick.tally.calls;
            totals.failed_by_shift_or_registry += pick.tally.lost;
            if pick.group == broken {
                totals.failed_by_broken_release += pick.tally.own_errors;
            } else {
                totals.failed_by_shift_or_registry += pick.tally.own_errors;
            }
        }
        totals.reasons.extend(caller.reasons.iter().cloned());
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::demo::count::PickTally;

    fn phase(name: &str, from_revision: u64, intended: &[(&str, u32)]) -> Phase {
        Phase {
            name: name.into(),
            from_revision,
            intended: intended
                .iter()
                .map(|(g, w)| ((*g).to_owned(), *w))
                .collect(),
            seconds: 2.0,
        }
    }

    fn pick(revision: u64, group: &str, calls: u64, own_errors: u64, lost: u64) -> PickTally {
        PickTally {
            revision,
            group: group.into(),
            tally: Tally {
                calls,
                own_errors,
                lost,
                latency_us: calls * 2_000,
            },
        }
    }

    fn caller(picks: Vec<PickTally>) -> CallerCount {
        CallerCount {
            picks,
            unplaced: 0,
            reasons: vec![],
        }
    }

    #[test]
    fn a_call_belongs_to_the_route_that_placed_it() {
        let phases = [
            phase("steady", 5, &[("v1", 10_000)]),
            phase("canary", 9, &[("v1", 8_000), ("v2", 2_000)]),
        ];
        let callers = [caller(vec![
            pick(4, "v1", 10, 0, 0),
            pick(8, "v1", 90, 0, 0),
            pick(9, "v1", 60, 0, 0),
            pick(9, "v2", 15, 0, 0),
            pick(12, "v1", 20, 0, 0),
            pick(12, "v2", 5, 0, 0),
        ])];
        let (accounts, totals) = account(&phases, &callers, "v3");
        assert_eq!(totals.calls, 200);
        assert_eq!(accounts[0].calls, 100);
        assert_eq!(accounts[0].calls_per_second, 50.0);
        let canary = &accounts[1].groups;
        assert_eq!((canary[0].calls, canary[1].calls), (80, 20));
        assert_eq!(canary[1].observed_percent, 20.0);
        assert_eq!(canary[1].latency_mean_ms, 2.0);
        assert!(shares_hold(&accounts));
    }

    #[test]
    fn shares_are_judged_caller_by_caller() {
        let phases = [phase("canary", 1, &[("v1", 8_000), ("v2", 2_000)])];
        // Together exact, each three calls off.
        let callers = [
            caller(vec![pick(1, "v1", 83, 0, 0), pick(1, "v2", 17, 0, 0)]),
            caller(vec![pick(1, "v1", 77, 0, 0), pick(1, "v2", 23, 0, 0)]),
        ];
        let (accounts, _) = account(&phases, &callers, "v3");
        assert_eq!(accounts[0].groups[1].observed_percent, 20.0);
        assert!((worst_deviation(&accounts) - 3.0).abs() < 1e-9);
        assert!(!shares_hold(&accounts));
    }

    #[test]
    fn a_call_to_a_group_without_weight_is_a_deviation() {
        let phases = [phase("switched", 1, &[("v2", 10_000)])];
        let callers = [caller(vec![
            pick(1, "v1", 2, 0, 0),
            pick(1, "v2", 98, 0, 0),
        ])];
        let (accounts, _) = account(&phases, &callers, "v3");
        assert_eq!(accounts[0].groups[0].group, "v1");
        assert!(!shares_hold(&accounts));
    }

    #[test]
    fn only_the_broken_releases_own_errors_are_its_own() {
        let mut one = caller(vec![pick(1, "v2", 50, 1, 2), pick(1, "v3", 50, 10, 4)]);
        one.unplaced = 8;
        let totals = totals(&[one], "v3");
        assert_eq!(totals.calls, 108);
        assert_eq!(totals.failed_by_broken_release, 10);
        assert_eq!(totals.failed_by_shift_or_registry, 1 + 2 + 4 + 8);
    }
}
