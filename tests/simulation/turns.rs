//! Round robin: instances of a group take turns, as often as their capacities say.

use std::collections::BTreeMap;
use std::sync::Arc;

use trimtab_registry::policy::Balancing;

use crate::expected::Expected;

/// Turns of one caller at one service, by group.
#[derive(Debug, Default)]
pub(crate) struct Turns(BTreeMap<String, Round>);

/// Calls in a row to the same instances.
#[derive(Debug)]
struct Round {
    shares: Arc<[(String, u32)]>,
    of: BTreeMap<String, u64>,
}

impl Turns {
    /// Turns were taken that are not counted.
    pub(crate) fn interrupted(&mut self) {
        self.0.clear();
    }

    /// The view, a connection or an instance's standing changed. A round of
    /// others, or by another policy, is not this one, even if all is as before
    /// in the end.
    pub(crate) fn expects(&mut self, expected: &Expected) {
        self.0.retain(|group, round| {
            let carrying = expected.groups.get(group);
            go_by_turns(expected)
                && carrying.is_some_and(|carrying| round.shares == carrying.shares)
        });
    }

    /// Each instance has had its turns: within one where all are alike, and
    /// else within what the order of a round may be off.
    pub(crate) fn check(
        &mut self,
        expected: &Expected,
        (group, instance): (&str, &str),
    ) -> Result<(), String> {
        let carrying = expected.groups.get(group);
        let Some(carrying) = carrying.filter(|_| go_by_turns(expected)) else {
            self.0.remove(group);
            return Ok(());
        };
        if !self.0.contains_key(group) {
            let round = Round {
                shares: Arc::clone(&carrying.shares),
                of: BTreeMap::new(),
            };
            self.0.insert(group.to_owned(), round);
        }
        let Some(round) = self.0.get_mut(group) else {
            return Ok(());
        };
        *round.of.entry(instance.to_owned()).or_default() += 1;
        round.check().map_err(|what| format!("{group}: {what}"))
    }
}

/// Whether the calls of a group are one round. With zones there are two.
fn go_by_turns(expected: &Expected) -> bool {
    let policy = expected.policy;
    policy.balancing == Balancing::RoundRobin && !policy.prefer_zone
}

impl Round {
    fn check(&self) -> Result<(), String> {
        let whole: f64 = self.shares.iter().map(|(_, share)| f64::from(*share)).sum();
        let calls: u64 = self.of.values().sum();
        let are_alike = self.shares.windows(2).all(|two| two[0].1 == two[1].1);
        // Twice what a round is off from its beginning.
        let tolerance = match are_alike {
            true => 1.0,
            false => 4.0 + self.shares.len() as f64,
        };
        for (id, share) in self.shares.iter() {
            let due = calls as f64 * f64::from(*share) / whole;
            let had = self.of.get(id).copied().unwrap_or(0) as f64;
            if (had - due).abs() > tolerance {
                return Err(format!("{id} had {had} turns, {due} were due ({self:?})"));
            }
        }
        Ok(())
    }
}
