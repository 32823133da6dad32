//! What replicas show: the living always, the dead not for long, nothing older than before, and without a break where nothing happened.

use std::collections::BTreeMap;
use std::time::Duration;

use trimtab_tests::history::Answered;

use crate::clock::micros;
use crate::oracles::{Broken, Counts, History};
use crate::record::{Event, Question, Shown};
use crate::stalls;

/// A replica that nothing happened to answers well within this, on a busy
/// machine too.
const GAP_MAX: Duration = Duration::from_secs(5);

pub(super) fn check(history: &History, broken: &mut Broken, counts: &mut Counts) {
    let shown: Vec<&Shown> = history.reader.iter().filter_map(shown).collect();
    let reads: Vec<&Question> = history.reader.iter().filter_map(read).collect();
    counts.views += shown.len();
    counts.reads += reads.len();
    never_back(&shown, &reads, broken);
    the_living_stay(history, &shown, broken);
    the_dead_go(history, &shown, broken);
    for replica in history.steady.iter().chain(&history.answering) {
        reads_go_on(*replica, &reads, broken);
    }
    for replica in &history.steady {
        watches_go_on(*replica, history, &shown, broken);
    }
}

fn shown(event: &Event) -> Option<&Shown> {
    match event {
        Event::Shown(shown) => Some(shown),
        _ => None,
    }
}

fn read(event: &Event) -> Option<&Question> {
    match event {
        Event::Question(read) => Some(read),
        _ => None,
    }
}

fn never_back(shown: &[&Shown], reads: &[&Question], broken: &mut Broken) {
    let mut newest = BTreeMap::<(&str, u64), u64>::new();
    let shown = shown
        .iter()
        .map(|shown| (("watch", shown.replica), shown.revision));
    let read = reads
        .iter()
        .filter_map(|read| Some((("read", read.replica), *read.answer.as_ref().ok()?)));
    for (key, revision) in shown.chain(read) {
        let newest = newest.entry(key).or_default();
        if revision < *newest {
            broken.tell(
                "no replica goes back",
                format!("{key:?}: from {newest} to {revision}"),
            );
        }
        *newest = revision;
    }
}

fn the_living_stay(history: &History, shown: &[&Shown], broken: &mut Broken) {
    for shown in shown.iter().filter(|shown| shown.at >= history.begun) {
        for id in history
            .living
            .iter()
            .filter(|id| !shown.instances.contains_key(*id))
        {
            let (replica, revision) = (shown.replica, shown.revision);
            let text = format!(
                "{id} is missing on replica {replica} at revision {revision}, at {}",
                shown.at
            );
            broken.tell("no living instance is removed", text);
        }
    }
}

fn the_dead_go(history: &History, shown: &[&Shown], broken: &mut Broken) {
    for (id, killed) in &history.killed {
        let gone = shown
            .iter()
            .filter(|shown| shown.at > *killed && !shown.instances.contains_key(id));
        match gone.map(|shown| shown.at - killed).min() {
            Some(after)
                if after <= history.gone_within + stalls::within(*killed, killed + after) => {}
            after => {
                let after = after.map(Duration::from_micros);
                broken.tell("the dead go", format!("{id} was gone after {after:?}"));
            }
        }
    }
}

fn reads_go_on(replica: u64, reads: &[&Question], broken: &mut Broken) {
    let answered: Vec<u64> = (reads.iter())
        .filter(|read| read.replica == replica && read.answer.is_ok())
        .map(|read| read.ended)
        .collect();
    for two in answered.windows(2) {
        let gap = (two[1] - two[0]).saturating_sub(stalls::within(two[0], two[1]));
        if gap > micros(GAP_MAX) {
            let gap = Duration::from_micros(gap);
            broken.tell(
                "reads go on",
                format!("replica {replica} was silent for {gap:?} from {}", two[0]),
            );
        }
    }
}

/// Whoever watches through `replica` is shown each change soon.
fn watches_go_on(replica: u64, history: &History, shown: &[&Shown], broken: &mut Broken) {
    let own: Vec<&&Shown> = shown
        .iter()
        .filter(|shown| shown.replica == replica)
        .collect();
    for event in history.scripts.values().flatten() {
        let Event::Asked(operation) = event else {
            continue;
        };
        let (Some(Answered::Changed(revision, _)), Some(returned)) =
            (&operation.answer, operation.returned)
        else {
            continue;
        };
        let first = own
            .iter()
            .filter(|shown| shown.revision >= *revision)
            .map(|shown| shown.at)
            .min();
        let by = |at| returned + micros(GAP_MAX) + stalls::within(returned, at);
        if first.is_none_or(|at| at > by(at)) {
            let late = first.map(|at| Duration::from_micros(at.saturating_sub(returned)));
            let text = format!("revision {revision} on replica {replica} only after {late:?}");
            broken.tell("watches go on", text);
        }
    }
}
