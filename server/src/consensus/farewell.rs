//! When a removed replica may stop: not before the others can do without it.
//!
//! A change of members counts where it is applied, and whoever has not applied
//! it asks for the vote of the one that it removes. If that one, and the few
//! that knew, were gone, the others could never elect anyone again. So it stays
//! until a majority of those who vote now know that it was removed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long it stays for others that cannot be asked, once one has said that
/// it was removed: they may be gone for good.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// The word of a replica by whose log the asker was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// Who says so.
    pub from: u64,
    /// The last entry it has applied.
    pub applied: u64,
    /// Who votes by then, and where they are.
    pub voters: BTreeMap<u64, String>,
}

/// What a replica was told of its removal. Time is counted from any one
/// moment.
#[derive(Debug, Default)]
pub struct Farewell {
    told_by: BTreeSet<u64>,
    /// By the newest word: when it was said, by the log, and who votes.
    newest: (u64, BTreeMap<u64, String>),
    since: Option<Duration>,
}

impl Farewell {
    /// Whom to ask, besides the members that the replica itself knows.
    pub fn voters(&self) -> &BTreeMap<u64, String> {
        &self.newest.1
    }

    /// Someone knows of the removal.
    pub fn heard(&mut self, word: Word, now: Duration) {
        self.since.get_or_insert(now);
        self.told_by.insert(word.from);
        if word.applied >= self.newest.0 {
            self.newest = (word.applied, word.voters);
        }
    }

    /// Whether the replica may stop.
    pub fn is_over(&self, now: Duration) -> bool {
        let Some(since) = self.since else {
            return false;
        };
        let voters = self.newest.1.keys();
        let knowing = voters.filter(|voter| self.told_by.contains(voter)).count();
        let is_known = knowing > self.newest.1.len() / 2;
        is_known || now.saturating_sub(since) >= WAIT_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(from: u64, applied: u64, voters: &[u64]) -> Word {
        let voters = voters.iter().map(|id| (*id, format!("replica-{id}:1")));
        Word {
            from,
            applied,
            voters: voters.collect(),
        }
    }

    #[test]
    fn it_stays_until_a_majority_of_those_who_vote_now_know() {
        let mut farewell = Farewell::default();
        assert!(!farewell.is_over(WAIT_MAX * 2), "nobody said anything");
        farewell.heard(word(1, 10, &[1, 2, 3]), Duration::ZERO);
        assert!(!farewell.is_over(Duration::ZERO));
        // Who votes has changed since; the older word does not count any more.
        farewell.heard(word(4, 20, &[4, 5]), Duration::ZERO);
        farewell.heard(word(2, 10, &[1, 2, 3]), Duration::ZERO);
        assert!(!farewell.is_over(Duration::ZERO));
        assert_eq!(farewell.voters().len(), 2);
        farewell.heard(word(5, 20, &[4, 5]), Duration::ZERO);
        assert!(farewell.is_over(Duration::ZERO));
    }

    #[test]
    fn it_does_not_stay_forever_for_those_who_are_gone() {
        let mut farewell = Farewell::default();
        let begun = Duration::from_secs(7);
        farewell.heard(word(1, 10, &[1, 2]), begun);
        assert!(!farewell.is_over(begun + WAIT_MAX - Duration::from_millis(1)));
        assert!(farewell.is_over(begun + WAIT_MAX));
    }
}
