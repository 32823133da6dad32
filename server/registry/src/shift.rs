//! What a shift would make of a route: pure planning, and the guard that refuses it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::command::{ServiceShift, Share, Target};
use crate::group::Tally;
use crate::history::ChangeKind;
use crate::name::GroupName;
use crate::rejection::{Missing, Needed, Rejection, TooFewReady, percent};
use crate::revision::Revision;
use crate::route::{BasisPoints, Route, WHOLE, Weights, even_share};
use crate::service::{NewRoute, Service};

/// How many groups an error lists.
const GROUPS_LISTED_MAX: usize = 10;

/// What a change would make of one service's route.
#[derive(Debug)]
pub(crate) struct Planned {
    /// None when the route already is as asked.
    pub(crate) new: Option<NewRoute>,
    /// What the operator should know.
    pub(crate) warnings: Vec<String>,
}

/// Plans a shift of a service at `at`.
pub(crate) fn plan(
    at: Revision,
    service: &Service,
    current: &Route,
    asked: &ServiceShift,
    force: bool,
) -> Result<Planned, Rejection> {
    check_groups(service, &asked.target)?;
    let tallies = service.tally();
    let (weights, kind) = resolve(service, current, &asked.target, &tallies)?;
    let route = current.next(at, weights, asked.policy.unwrap_or(current.policy));
    let mut warnings = lost_by_rounding(current, &route, &asked.target);
    if route.asks_the_same(current) {
        let new = None;
        return Ok(Planned { new, warnings });
    }
    let guard = Guard::new(service, current, &tallies);
    warnings.extend(guard.check(current, &route, asked, force)?);
    let new = NewRoute {
        route: Arc::new(route),
        kind,
        restored: None,
    };
    Ok(Planned {
        new: Some(new),
        warnings,
    })
}

/// How much must be ready before a group gets more.
pub(crate) struct Guard<'a> {
    service: &'a Service,
    tallies: &'a BTreeMap<GroupName, Tally>,
    /// The capacity that carries the traffic now.
    carrying: u64,
}

impl<'a> Guard<'a> {
    /// A guard that measures against what carries the traffic of `service`
    /// by its `current` route.
    ///
    /// While the route has a single group that is the group's ready capacity.
    /// Later two groups may be up at full size, which together are more than
    /// the traffic needs: then it is what the last single group had, if that
    /// is less.
    pub(crate) fn new(
        service: &'a Service,
        current: &Route,
        tallies: &'a BTreeMap<GroupName, Tally>,
    ) -> Self {
        let ready: u64 = (current.weights.iter())
            .filter_map(|(group, _)| tallies.get(group))
            .map(|tally| tally.ready_capacity)
            .sum();
        let carrying = match current.weights.only() {
            Some(_) => ready,
            None => service
                .baseline
                .map_or(ready, |baseline| ready.min(baseline)),
        };
        Self {
            service,
            tallies,
            carrying,
        }
    }

    /// Refuses a route in which a group gains weight that it is not ready for.
    /// What is let pass by force, or was so before, is a warning.
    fn check(
        &self,
        current: &Route,
        new: &Route,
        asked: &ServiceShift,
        force: bool,
    ) -> Result<Vec<String>, Rejection> {
        let mut warnings = Vec::new();
        for (group, weight) in new.weights.iter() {
            let gains = weight > current.weights.get(group);
            let shortage = if gains {
                let even = is_even(&asked.target, group);
                self.shortage(group, weight, asked.min_ready, even)
            } else {
                self.shortage(group, weight, Some(1), false)
            };
            match shortage {
                Some(shortage) if gains && !force => {
                    return Err(Rejection::TooFewReady(Box::new(shortage)));
                }
                Some(shortage) => warnings.push(shortage.to_string()),
                None => {}
            }
        }
        Ok(warnings)
    }

    /// What `group` lacks for `weight`. An even share follows from the ready
    /// capacities themselves, so that it needs no more than one ready instance.
    pub(crate) fn shortage(
        &self,
        group: &GroupName,
        weight: u32,
        min_ready: Option<u32>,
        even: bool,
    ) -> Option<TooFewReady> {
        let tally = self.tallies.get(group).copied().unwrap_or_default();
        let by_count = |needed: u32| (tally.ready < needed).then_some(Needed::Instances(needed));
        let by_capacity = || {
            let share = u128::from(weight) * u128::from(self.carrying);
            let needed = share.div_ceil(u128::from(WHOLE)) as u64;
            let carrying = self.carrying;
            (tally.ready_capacity < needed).then_some(Needed::Capacity { needed, carrying })
        };
        let needed = match min_ready {
            Some(min) => by_count(min.max(1)),
            None if even => by_count(1),
            None => by_capacity().or_else(|| by_count(1)),
        };
        needed.map(|needed| self.describe(group, weight, tally, needed))
    }

    fn describe(
        &self,
        group: &GroupName,
        weight: u32,
        tally: Tally,
        needed: Needed,
    ) -> TooFewReady {
        TooFewReady {
            service: self.service.name().clone(),
            group: group.clone(),
            weight,
            instances: tally.instances,
            ready: tally.ready,
            ready_capacity: tally.ready_capacity,
            needed,
        }
    }
}

/// The error for a group that a service does not have.
pub(crate) fn unknown_group(service: &Service, group: &GroupName) -> Rejection {
    let known = service.groups().map(|group| group.name.clone());
    Rejection::NotFound(Missing::Group {
        service: service.name().clone(),
        group: group.clone(),
        known: known.take(GROUPS_LISTED_MAX).collect(),
    })
}

/// Every group that is to have weight must exist and stay.
fn check_groups(service: &Service, target: &Target) -> Result<(), Rejection> {
    let check = |name: &GroupName| match service.group(name) {
        None => Err(unknown_group(service, name)),
        Some(group) if group.retiring => Err(Rejection::GroupRetiring {
            service: service.name().clone(),
            group: name.clone(),
        }),
        Some(_) => Ok(()),
    };
    match target {
        Target::Weights(weights) => weights.iter().try_for_each(|(group, _)| check(group)),
        Target::SwitchTo(group) | Target::Canary { group, .. } => check(group),
        // They were checked when they got their weight.
        Target::Keep => Ok(()),
    }
}

/// The weights that a target means now.
fn resolve(
    service: &Service,
    current: &Route,
    target: &Target,
    tallies: &BTreeMap<GroupName, Tally>,
) -> Result<(Weights, ChangeKind), Rejection> {
    match target {
        Target::Weights(weights) => Ok((weights.clone(), ChangeKind::Shift)),
        Target::SwitchTo(group) => Ok((Weights::whole(group.clone()), ChangeKind::Switch)),
        Target::Keep => Ok((current.weights.clone(), ChangeKind::Policy)),
        Target::Canary { group, share } => {
            let alone = |ready_matters| Rejection::NothingToShareWith {
                service: service.name().clone(),
                group: group.clone(),
                ready_matters,
            };
            let share = match share {
                Share::BasisPoints(share) => *share,
                Share::Even => even_for(current, group, tallies).map_err(alone)?,
            };
            let weights = current.weights.with_share(group, share);
            Ok((weights.ok_or_else(|| alone(false))?, ChangeKind::Canary))
        }
    }
}

/// The even share of `group`, or, when it has nothing to share with, whether
/// other groups have weight but no ready instance.
fn even_for(
    current: &Route,
    group: &GroupName,
    tallies: &BTreeMap<GroupName, Tally>,
) -> Result<BasisPoints, bool> {
    let ready = |name: &GroupName| tallies.get(name).map_or(0, |tally| tally.ready_capacity);
    let others = || current.weights.iter().filter(|(name, _)| *name != group);
    let capacity: u64 = others().map(|(name, _)| ready(name)).sum();
    if capacity == 0 {
        return Err(others().next().is_some());
    }
    Ok(even_share(ready(group), capacity))
}

fn is_even(target: &Target, group: &GroupName) -> bool {
    matches!(target, Target::Canary { group: canary, share: Share::Even } if canary == group)
}

/// A canary can squeeze others out without anyone having asked for it.
fn lost_by_rounding(current: &Route, new: &Route, target: &Target) -> Vec<String> {
    let Target::Canary { group, .. } = target else {
        return Vec::new();
    };
    if new.weights.only() == Some(group) {
        return Vec::new();
    }
    (current.weights.iter())
        .filter(|(name, _)| new.weights.get(name) == 0)
        .map(|(name, weight)| {
            let had = percent(weight);
            format!("group {name} had {had}% and loses it: its part of the rest rounds to nothing")
        })
        .collect()
}
