//! Calls are answered, by a group that has weight, by what the caller is known to follow; and nobody goes back.

use std::time::Duration;

use crate::clock::micros;
use crate::oracles::routes::Routes;
use crate::oracles::{Broken, Counts, History};
use crate::record::{Call, Event};
use crate::stalls;

/// A caller makes fifty calls a second; on a busy machine it may stand still
/// itself for a while.
const GAP_MAX: Duration = Duration::from_secs(5);

pub(super) fn check(history: &History, broken: &mut Broken, counts: &mut Counts) {
    let confirmed = confirmations(history);
    let routes = Routes::of(history);
    for (caller, events) in &history.callers {
        let calls: Vec<&Call> = events.iter().filter_map(call).collect();
        counts.calls += calls.len();
        goes_on(caller, &calls, broken);
        never_back(caller, events, broken);
        for call in calls {
            let answer = match &call.answer {
                Ok(answer) => answer,
                Err(reason) => {
                    broken.tell(
                        "every call is answered",
                        format!("{caller}, at {}: {reason}", call.begun),
                    );
                    continue;
                }
            };
            if answer.revision < call.followed {
                broken.tell(
                    "calls follow the newest view",
                    format!("{caller}: {call:?}"),
                );
            }
            let must = confirmed.partition_point(|(at, _)| *at < call.begun);
            let must = must.checked_sub(1).map_or(0, |last| confirmed[last].1);
            if answer.revision < must {
                broken.tell(
                    "no call by an older view after its receipt",
                    format!("{caller}: revision {must} was confirmed, then {call:?}"),
                );
            }
            let route = routes.at(answer.revision);
            if route.is_some_and(|route| !route.contains(&format!("{:?}", answer.group))) {
                broken.tell(
                    "a group at 0 gets nothing",
                    format!("{caller}, {route:?}: {call:?}"),
                );
            }
        }
    }
}

fn call(event: &Event) -> Option<&Call> {
    match event {
        Event::Call(call) => Some(call),
        _ => None,
    }
}

/// When it was said that all use at least which revision, in order of time.
fn confirmations(history: &History) -> Vec<(u64, u64)> {
    let mut all: Vec<(u64, u64)> = (history.scripts.values().flatten())
        .filter_map(|event| match event {
            Event::Confirmed { at, revision } => Some((*at, *revision)),
            _ => None,
        })
        .collect();
    all.sort_unstable();
    let mut newest = 0;
    for (_, revision) in &mut all {
        newest = newest.max(*revision);
        *revision = newest;
    }
    all
}

fn goes_on(caller: &str, calls: &[&Call], broken: &mut Broken) {
    let mut answered: Vec<u64> = calls
        .iter()
        .filter(|call| call.answer.is_ok())
        .map(|call| call.ended)
        .collect();
    answered.sort_unstable();
    for two in answered.windows(2) {
        let gap = (two[1] - two[0]).saturating_sub(stalls::within(two[0], two[1]));
        if gap > micros(GAP_MAX) {
            let gap = Duration::from_micros(gap);
            broken.tell(
                "traffic goes on",
                format!("{caller}: no answer for {gap:?} from {}", two[0]),
            );
        }
    }
}

fn never_back(caller: &str, events: &[Event], broken: &mut Broken) {
    let mut newest = 0;
    for event in events {
        let Event::Follows { revision, .. } = event else {
            continue;
        };
        if *revision < newest {
            broken.tell(
                "no caller goes back",
                format!("{caller}: from {newest} to {revision}"),
            );
        }
        newest = *revision;
    }
}
