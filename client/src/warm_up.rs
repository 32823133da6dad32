//! A group that never had weight comes up to its share over time, so that it is not hit cold.
//!
//! Each caller counts from the moment at which it received the revision; no
//! wall clock is compared.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::view::{Group, GroupState, View};

/// Each step has an order of groups of its own, in which shares are exact.
const STEPS: u32 = 10;

/// The ramp that a caller is on, if it is on one.
#[derive(Debug, Default)]
pub(crate) struct WarmUp {
    ramp: Option<Ramp>,
}

#[derive(Debug)]
struct Ramp {
    /// What groups got before, in basis points.
    before: Vec<(Arc<str>, u32)>,
    /// Groups that come from nothing.
    warming: Vec<Arc<str>>,
    since: Instant,
    over: Duration,
}

impl WarmUp {
    /// Another view is followed from now on. A caller that knew none before
    /// has given nobody less than that view says, and has nothing to raise.
    pub(crate) fn follow(&mut self, before: &View, after: &View, now: Instant) {
        let weights_before = self.weights(before, now);
        let is_weighted = |name: &Arc<str>| weight_of(after, name) > 0;
        self.ramp = self
            .ramp
            .take()
            .filter(|ramp| !ramp.is_over(now) && ramp.warming.iter().all(is_weighted));
        let over = after.policy.warm_up;
        if self.ramp.is_some() || over.is_zero() || weights_before.iter().all(|(_, w)| *w == 0) {
            return;
        }
        let had_none = |name: &Arc<str>| {
            let known = weights_before.iter().find(|(known, _)| known == name);
            known.is_none_or(|(_, weight)| *weight == 0)
        };
        // One that carried calls before is what a rollback goes back to, and
        // that cannot wait.
        let is_new = |name: &Arc<str>| {
            let known = before.groups.iter().find(|known| known.name == *name);
            known.is_none_or(|known| known.state == GroupState::Dark)
        };
        let groups = after.groups.iter();
        let warming: Vec<Arc<str>> = groups
            .filter(|group| group.weight > 0)
            .filter(|group| had_none(&group.name) && is_new(&group.name))
            .map(|group| Arc::clone(&group.name))
            .collect();
        if !warming.is_empty() {
            self.ramp = Some(Ramp {
                before: weights_before,
                warming,
                since: now,
                over,
            });
        }
    }

    /// Each group of the view with what it gets now, in basis points.
    pub(crate) fn weights(&self, view: &View, now: Instant) -> Vec<(Arc<str>, u32)> {
        let ramp = self.ramp.as_ref().filter(|ramp| !ramp.is_over(now));
        let mut weights: Vec<(Arc<str>, u32)> = view
            .groups
            .iter()
            .map(|group| {
                let weight = ramp.map_or(group.weight, |it| it.weight(group, now));
                (Arc::clone(&group.name), weight)
            })
            .collect();
        let whole: u32 = view.groups.iter().map(|group| group.weight).sum();
        if let Some(ramp) = ramp {
            ramp.round_up(view, whole, &mut weights);
            round_down(whole, &mut weights);
        }
        weights
    }

    /// When weights change next.
    pub(crate) fn next_step(&self, now: Instant) -> Option<Instant> {
        let ramp = self.ramp.as_ref().filter(|ramp| !ramp.is_over(now))?;
        ramp.since.checked_add(ramp.over * ramp.step(now) / STEPS)
    }

    /// Groups that have less than their share for now.
    pub(crate) fn warming(&self, now: Instant) -> Vec<Arc<str>> {
        let ramp = self.ramp.as_ref().filter(|ramp| !ramp.is_over(now));
        ramp.map(|ramp| ramp.warming.clone()).unwrap_or_default()
    }
}

impl Ramp {
    /// From 1, at the beginning, to [`STEPS`], when it is over.
    fn step(&self, now: Instant) -> u32 {
        let passed = now.saturating_duration_since(self.since).as_nanos();
        let steps = passed * u128::from(STEPS) / self.over.as_nanos().max(1);
        u32::try_from(steps)
            .unwrap_or(STEPS)
            .saturating_add(1)
            .min(STEPS)
    }

    fn is_over(&self, now: Instant) -> bool {
        self.step(now) == STEPS
    }

    fn weight_before(&self, name: &str) -> u32 {
        let known = self.before.iter().find(|(known, _)| **known == *name);
        known.map_or(0, |(_, weight)| *weight)
    }

    /// As far between before and after as the ramp is. Nobody is rounded down
    /// to nothing on the way up.
    fn weight(&self, group: &Group, now: Instant) -> u32 {
        if group.state == GroupState::Retiring {
            return group.weight;
        }
        let step = self.step(now);
        let before = self.weight_before(&group.name) * (STEPS - step);
        let between = (before + group.weight * step) / STEPS;
        between.max(u32::from(group.weight > 0))
    }

    /// What is lost by rounding goes to who has most of what was before.
    fn round_up(&self, view: &View, whole: u32, weights: &mut [(Arc<str>, u32)]) {
        let given: u32 = weights.iter().map(|(_, weight)| weight).sum();
        let carried = |group: &Group| match group.state {
            GroupState::Retiring => 0,
            _ => self.weight_before(&group.name),
        };
        let groups = view.groups.iter().zip(weights);
        let most = groups.max_by_key(|(group, _)| carried(group));
        if let Some((_, (_, weight))) = most.filter(|(group, _)| carried(group) > 0) {
            *weight += whole.saturating_sub(given);
        }
    }
}

/// Groups that were not rounded down to nothing may have made it more than the
/// whole: that comes off whoever has most.
fn round_down(whole: u32, weights: &mut [(Arc<str>, u32)]) {
    let given: u32 = weights.iter().map(|(_, weight)| weight).sum();
    for _ in whole..given {
        let most = weights.iter_mut().max_by_key(|(_, weight)| *weight);
        if let Some((_, weight)) = most {
            *weight = weight.saturating_sub(1);
        }
    }
}

fn weight_of(view: &View, name: &str) -> u32 {
    let known = view.groups.iter().find(|group| *group.name == *name);
    known.map_or(0, |group| group.weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    fn view(weights: &[(&str, u32)]) -> View {
        let group = |(name, weight): &(&str, u32)| Group {
            name: (*name).into(),
            state: match weight {
                0 => GroupState::Dark,
                _ => GroupState::Active,
            },
            weight: *weight,
            instances: Vec::new(),
        };
        View {
            revision: 1,
            groups: weights.iter().map(group).collect(),
            policy: Policy {
                warm_up: Duration::from_secs(100),
                ..Policy::default()
            },
            salt: 0,
        }
    }

    fn weights(warm_up: &WarmUp, view: &View, now: Instant) -> Vec<u32> {
        warm_up
            .weights(view, now)
            .into_iter()
            .map(|(_, weight)| weight)
            .collect()
    }

    /// As lived through by a caller whose calls followed `before` at first.
    fn switched(before: &View, after: &View, now: Instant) -> WarmUp {
        let mut warm_up = WarmUp::default();
        warm_up.follow(&View::default(), before, now);
        warm_up.follow(before, after, now);
        warm_up
    }

    #[test]
    fn however_many_small_groups_come_up_nobody_gets_more_than_there_is() {
        let begun = Instant::now();
        for new in [
            vec![("v2", 1), ("v3", 1)],
            vec![("v2", 2), ("v3", 6)],
            vec![("v2", 9), ("v3", 9), ("v4", 9), ("v5", 4_000)],
        ] {
            let sum: u32 = new.iter().map(|(_, weight)| weight).sum();
            let dark: Vec<_> = new.iter().map(|(name, _)| (*name, 0)).collect();
            let before = view(&[&[("v1", 10_000)], &dark[..]].concat());
            let after = view(&[&[("v1", 10_000 - sum)], &new[..]].concat());
            let warm_up = switched(&before, &after, begun);
            let mut now = begun;
            while let Some(next) = warm_up.next_step(now) {
                let shares = weights(&warm_up, &after, now);
                assert_eq!(shares.iter().sum::<u32>(), 10_000, "{shares:?}");
                assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
                now = next;
            }
        }
    }

    #[test]
    fn a_switch_is_a_ramp_and_steps_are_announced() {
        let begun = Instant::now();
        let (before, after) = (
            view(&[("v1", 10_000), ("v2", 0)]),
            view(&[("v1", 0), ("v2", 10_000)]),
        );
        let warm_up = switched(&before, &after, begun);
        let mut now = begun;
        let mut seen = vec![weights(&warm_up, &after, now)[1]];
        while let Some(next) = warm_up.next_step(now) {
            assert_eq!(
                weights(&warm_up, &after, next - Duration::from_millis(1)),
                weights(&warm_up, &after, now)
            );
            now = next;
            let now = weights(&warm_up, &after, now);
            assert_eq!(now.iter().sum::<u32>(), 10_000);
            seen.push(now[1]);
        }
        assert_eq!(
            seen,
            [
                1_000, 2_000, 3_000, 4_000, 5_000, 6_000, 7_000, 8_000, 9_000, 10_000
            ]
        );
        assert_eq!(now - begun, Duration::from_secs(90));
    }

    #[test]
    fn a_caller_that_starts_with_the_view_has_no_ramp() {
        let now = Instant::now();
        let first = view(&[("v1", 5_000), ("v2", 5_000)]);
        let mut warm_up = WarmUp::default();
        warm_up.follow(&View::default(), &first, now);
        assert_eq!(weights(&warm_up, &first, now), [5_000, 5_000]);
        assert_eq!(warm_up.next_step(now), None);
    }

    #[test]
    fn a_rollback_ends_the_ramp_at_once_and_a_raise_goes_on_with_it() {
        let begun = Instant::now();
        let before = view(&[("v1", 10_000), ("v2", 0)]);
        let canary = view(&[("v1", 9_000), ("v2", 1_000)]);
        let half_way = begun + Duration::from_secs(45);
        let mut warm_up = switched(&before, &canary, begun);
        assert_eq!(weights(&warm_up, &canary, half_way), [9_500, 500]);
        let raised = view(&[("v1", 5_000), ("v2", 5_000)]);
        warm_up.follow(&canary, &raised, half_way);
        assert_eq!(weights(&warm_up, &raised, half_way), [7_500, 2_500]);
        warm_up.follow(&raised, &before, half_way);
        assert_eq!(weights(&warm_up, &before, half_way), [10_000, 0]);
        assert_eq!(warm_up.next_step(half_way), None);
    }

    /// When the ramp of the bad release is long over, too.
    #[test]
    fn a_rollback_to_what_carried_before_is_at_once() {
        let now = Instant::now();
        let mut bad = view(&[("v1", 0), ("v2", 10_000)]);
        bad.groups[0].state = GroupState::Standby;
        let good = view(&[("v1", 10_000), ("v2", 0)]);
        let warm_up = switched(&bad, &good, now);
        assert_eq!(weights(&warm_up, &good, now), [10_000, 0]);
        assert_eq!(warm_up.next_step(now), None);
    }

    #[test]
    fn a_small_share_is_never_rounded_to_none_nor_a_zero_to_some() {
        let begun = Instant::now();
        let before = view(&[("v0", 0), ("v1", 10_000), ("v2", 0)]);
        let after = view(&[("v0", 0), ("v1", 9_999), ("v2", 1)]);
        let warm_up = switched(&before, &after, begun);
        assert_eq!(weights(&warm_up, &after, begun), [0, 9_999, 1]);
    }

    #[test]
    fn views_without_a_change_of_weights_leave_the_ramp_alone() {
        let begun = Instant::now();
        let (before, after) = (
            view(&[("v1", 10_000), ("v2", 0)]),
            view(&[("v1", 0), ("v2", 10_000)]),
        );
        let mut warm_up = switched(&before, &after, begun);
        let later = begun + Duration::from_secs(35);
        warm_up.follow(&after, &after, later);
        assert_eq!(weights(&warm_up, &after, later), [6_000, 4_000]);
    }
}
