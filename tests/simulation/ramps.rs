//! Warm-up, worked out a second time: what share each group has at which moment, from when its caller heard of it.

use std::collections::BTreeMap;

use trimtab_registry::group::GroupState;
use trimtab_registry::name::ServiceName;
use trimtab_registry::view::ServiceView;

use crate::world::{SERVICES, World};

/// A ramp has so many steps.
const STEPS: u64 = 10;
/// A step is taken within so many milliseconds.
const LATE: u64 = 2;

/// Shares in basis points.
pub(crate) type Weights = BTreeMap<String, u32>;

/// Of one caller and service.
#[derive(Debug, Default)]
pub(crate) struct Ramp {
    on: Option<On>,
}

#[derive(Debug)]
struct On {
    since: u64,
    over: u64,
    before: Weights,
    /// Those that come from nothing.
    warming: Vec<String>,
}

impl On {
    /// From 1 at the beginning; at [`STEPS`] it is over.
    fn step(&self, now: u64) -> u64 {
        (now.saturating_sub(self.since) * STEPS / self.over + 1).min(STEPS)
    }
}

fn route_of(view: &ServiceView) -> impl Iterator<Item = (String, GroupState, u32)> {
    view.groups.iter().map(|(name, state)| {
        let mut weights = view.route.weights.iter();
        let weight = weights.find(|(it, _)| *it == name).map_or(0, |it| it.1);
        (name.to_string(), *state, weight)
    })
}

impl Ramp {
    /// The shares at a moment.
    pub(crate) fn weights(&self, view: &ServiceView, now: u64) -> Weights {
        let route = || route_of(view);
        let on = self.on.as_ref().filter(|on| on.step(now) < STEPS);
        let Some(on) = on else {
            return route().map(|(name, _, weight)| (name, weight)).collect();
        };
        let step = on.step(now) as u32;
        let before = |name: &str| on.before.get(name).copied().unwrap_or(0);
        let mut weights: Weights = route()
            .map(|(name, state, weight)| {
                let between = (before(&name) * (10 - step) + weight * step) / 10;
                let now = match state {
                    GroupState::Retiring => weight,
                    _ => between.max(weight.min(1)),
                };
                (name, now)
            })
            .collect();
        // The rest goes to who had most, of those that are not going away.
        let whole: u32 = route().map(|(.., weight)| weight).sum();
        let given: u32 = weights.values().sum();
        let had = |state: GroupState, name: &str| match state {
            GroupState::Retiring => 0,
            _ => before(name),
        };
        let most = route().max_by_key(|(name, state, _)| had(*state, name));
        if let Some((name, state, _)) = most
            && given < whole
            && had(state, &name) > 0
        {
            *weights.entry(name).or_default() += whole - given;
        }
        // Whoever comes gets something, at the cost of who has most.
        for _ in whole..given {
            let most = weights.values_mut().max();
            most.into_iter().for_each(|weight| *weight -= 1);
        }
        weights
    }

    /// Whether shares may change by time.
    pub(crate) fn is_on(&self) -> bool {
        self.on.is_some()
    }

    /// Another view is followed. Whether a group begins to come up.
    fn follow(&mut self, before: Option<&ServiceView>, after: &ServiceView, now: u64) -> bool {
        let weights = before.map_or_else(Weights::new, |before| self.weights(before, now));
        let has_weight = |name: &String| {
            let mut route = route_of(after);
            route.any(|(it, _, weight)| it == *name && weight > 0)
        };
        let goes_on = |on: &On| on.step(now) < STEPS && on.warming.iter().all(has_weight);
        self.on = self.on.take().filter(goes_on);
        let over = after.route.policy.warm_up.as_millis();
        if self.on.is_some() || over == 0 || weights.values().all(|weight| *weight == 0) {
            return false;
        }
        let was_dark = |name: &str| {
            let mut groups = before.into_iter().flat_map(|view| view.groups.iter());
            let state = groups.find(|(it, _)| it.as_ref() == name);
            state.is_none_or(|(_, state)| *state == GroupState::Dark)
        };
        let had_none = |name: &str| weights.get(name).copied().unwrap_or(0) == 0;
        let warming: Vec<String> = route_of(after)
            .filter(|(name, _, weight)| *weight > 0 && had_none(name) && was_dark(name))
            .map(|(name, ..)| name)
            .collect();
        let begins = !warming.is_empty();
        self.on = begins.then_some(On {
            since: now,
            over,
            before: weights,
            warming,
        });
        begins
    }
}

impl World {
    /// A caller follows another view: that of `before` no longer.
    pub(crate) fn warm_up(&mut self, number: usize, service: usize, before: u64) {
        let caller = &mut self.callers[number];
        let used = caller.core.used(SERVICES[service]);
        let name = ServiceName::parse(SERVICES[service]).expect("a name");
        let view = |revision| self.ledger.view_at(&name, revision);
        if let Some(after) = view(used) {
            let ramp = &mut caller.picks[service].ramp;
            let begins = ramp.follow(view(before).filter(|_| before > 0), after, self.now);
            self.counts.ramps += u64::from(begins);
        }
    }

    /// The shares of a caller's calls are those of the route, or on their way
    /// there.
    pub(crate) fn check_shares(&self, number: usize, service: usize) -> Result<(), String> {
        let caller = &self.callers[number];
        let picks = &caller.picks[service];
        let used = caller.core.used(SERVICES[service]);
        let name = ServiceName::parse(SERVICES[service]).expect("a name");
        let Some(view) = self.ledger.view_at(&name, used) else {
            return Ok(());
        };
        let due = |now| picks.ramp.weights(view, now);
        let of_core =
            |name: &String, weight: &u32| *weight == picks.weights.get(name).copied().unwrap_or(0);
        let is_right = |due: Weights| {
            let known = |name: &String| due.contains_key(name) || picks.weights[name] == 0;
            due.iter().all(|(name, weight)| of_core(name, weight))
                && picks.weights.keys().all(known)
        };
        if is_right(due(self.now)) || is_right(due(self.now.saturating_sub(LATE))) {
            return Ok(());
        }
        Err(format!(
            "caller {number} gives groups of {} {:?}, and should {:?} ({:?})",
            SERVICES[service],
            picks.weights,
            due(self.now),
            picks.ramp
        ))
    }
}
