//! What callers count, and the lines in which they tell the director.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Failures that are told in words, to find out what went wrong: a few say it,
/// a broken run could have thousands.
const REASONS_MAX: usize = 5;

/// What a caller is told on its stdin: begin no more calls, end those that are
/// under way, and give the last word.
pub(crate) const FINISH: &str = "finish\n";

/// Calls that ended, of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// All of them.
    pub(crate) calls: u64,
    /// Of these, answered by the instance with an error of its own.
    pub(crate) own_errors: u64,
    /// Of these, failed in any other way: the instance did not say so.
    pub(crate) lost: u64,
    /// Sum of the times to the end of each call.
    pub(crate) latency_us: u64,
}

/// The calls whose instance was chosen in one group by one view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PickTally {
    /// The view's.
    pub(crate) revision: u64,
    pub(crate) group: String,
    #[serde(flatten)]
    pub(crate) tally: Tally,
}

/// Everything one caller counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CallerCount {
    pub(crate) picks: Vec<PickTally>,
    /// Calls that failed before any instance was chosen.
    pub(crate) unplaced: u64,
    /// What the first failures that no instance owned said.
    pub(crate) reasons: Vec<String>,
}

/// One line of a caller.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub(crate) enum CallerLine {
    /// The state of things, every now and then.
    Counting {
        groups: BTreeMap<String, Tally>,
        unplaced: u64,
    },
    /// The last word, when every call has ended.
    Final(CallerCount),
}

/// How one call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    Answered,
    /// The instance said that it is at fault.
    OwnError,
    /// Anything else, in words.
    Lost(String),
}

/// Counts in a caller.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    picks: BTreeMap<(u64, String), Tally>,
    unplaced: u64,
    reasons: Vec<String>,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Tally) {
        self.calls += other.calls;
        self.own_errors += other.own_errors;
        self.lost += other.lost;
        self.latency_us += other.latency_us;
    }

    pub(crate) fn failed(&self) -> u64 {
        self.own_errors + self.lost
    }
}

impl Counter {
    /// Counts a call; `pick` is the revision and group of its instance, when
    /// one was chosen.
    pub(crate) fn count(&mut self, pick: Option<(u64, String)>, ending: Ending, latency_us: u64) {
        let lost = matches!(ending, Ending::Lost(_));
        match pick {
            Some(pick) => self.picks.entry(pick).or_default().add(Tally {
                calls: 1,
                own_errors: u64::from(ending == Ending::OwnError),
                lost: u64::from(lost),
                latency_us,
            }),
            None => self.unplaced += 1,
        }
        if let Ending::Lost(reason) = ending
            && self.reasons.len() < REASONS_MAX
        {
            self.reasons.push(reason);
        }
    }

    pub(crate) fn progress(&self) -> CallerLine {
        let mut groups: BTreeMap<String, Tally> = BTreeMap::new();
        for ((_, group), tally) in &self.picks {
            groups.entry(group.clone()).or_default().add(*tally);
        }
        CallerLine::Counting {
            groups,
            unplaced: self.unplaced,
        }
    }

    pub(crate) fn finish(&self) -> CallerLine {
        let picks = self
            .picks
            .iter()
            .map(|((revision, group), tally)| PickTally {
                revision: *revision,
                group: group.clone(),
                tally: *tally,
            });
        CallerLine::Final(CallerCount {
            picks: picks.collect(),
            unplaced: self.unplaced,
            reasons: self.reasons.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ending_is_counted_where_it_belongs() {
        let mut counter = Counter::default();
        let v3 = || Some((7, "v3".to_owned()));
        counter.count(v3(), Ending::Answered, 100);
        counter.count(v3(), Ending::OwnError, 200);
        counter.count(v3(), Ending::Lost("reset".into()), 300);
        counter.count(None, Ending::Lost("no instance".into()), 0);
        let CallerLine::Final(count) = counter.finish() else {
            panic!("not final");
        };
        let tally = Tally {
            calls: 3,
            own_errors: 1,
            lost: 1,
            latency_us: 600,
        };
        assert_eq!(count.picks.len(), 1);
        assert_eq!(count.picks[0].tally, tally);
        assert_eq!(count.unplaced, 1);
        assert_eq!(count.reasons, ["reset", "no instance"]);
    }

    #[test]
    fn lines_read_back_as_they_were_written() {
        let mut counter = Counter::default();
        counter.count(Some((7, "v1".to_owned())), Ending::Answered, 5);
        let line = serde_json::to_string(&counter.finish()).unwrap();
        let CallerLine::Final(count) = serde_json::from_str(&line).unwrap() else {
            panic!("{line}");
        };
        assert_eq!(count.picks[0].revision, 7);
    }
}
