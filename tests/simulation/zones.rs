//! Calls that stay in their caller's zone, and those that do not: no more and no fewer than the capacities say.

use std::collections::{BTreeMap, BTreeSet};

use trimtab_client::simulation::Standing;
use trimtab_registry::policy::Balancing;

use crate::callers::Caller;
use crate::calls::{Call, Tie};
use crate::expected::{Carrying, Expected};
use crate::world::SERVICES;

/// As docs/balancing.md says: an instance of the own zone gives way to one
/// whose next call is expected to cost less than a quarter. A bit less, so
/// that rounding does not decide.
const PATIENCE: f64 = 3.9;
/// A tally as unlikely as e to the minus this is none that chance made: of a
/// million million honest ones, one.
const SURPRISE_MAX: f64 = 32.0;

/// How one caller's calls were divided, by service and group.
#[derive(Debug, Default)]
pub(crate) struct Zones(BTreeMap<String, Tally>);

/// Of calls by the same reckoning.
#[derive(Debug)]
struct Tally {
    split: Split,
    calls: u64,
    stayed: u64,
}

/// The reckoning.
#[derive(Debug, Clone, PartialEq)]
struct Split {
    /// The part of calls that is to stay.
    stays: f64,
    /// Who takes the others; nobody: whoever is elsewhere.
    helpers: BTreeSet<String>,
}

impl Split {
    fn new(zone: &str, carrying: &Carrying) -> Self {
        let mut ready: BTreeMap<&str, f64> = BTreeMap::new();
        ready.insert(zone, 0.0);
        for it in carrying.candidates.iter() {
            ready.entry(&it.zone).or_default();
        }
        for (it, (_, share)) in carrying.instances.iter().zip(carrying.shares.iter()) {
            *ready.entry(&it.zone).or_default() += f64::from(*share);
        }
        let total: f64 = ready.values().sum();
        let part = |zone: &str| ready[zone] / total;
        let fair = 1.0 / ready.len() as f64;
        let others = ready.keys().filter(|it| **it != zone);
        let helpers = others.filter(|it| part(it) > fair + 1e-9);
        Self {
            stays: (part(zone) / fair).min(1.0),
            helpers: helpers.map(ToString::to_string).collect(),
        }
    }
}

impl Tally {
    /// How unlikely it is, as the exponent of Chernoff's bound.
    fn surprise(&self) -> f64 {
        let calls = self.calls as f64;
        let seen = self.stayed as f64 / calls;
        let part = |seen: f64, due: f64| match seen {
            0.0 => 0.0,
            _ if due <= 0.0 => f64::INFINITY,
            _ => seen * (seen / due).ln(),
        };
        let due = self.split.stays;
        calls * (part(seen, due) + part(1.0 - seen, 1.0 - due))
    }
}

impl Zones {
    /// Holds where a call went against the reckoning. Whether it counted.
    pub(crate) fn check(
        &mut self,
        expected: &Expected,
        zone: &str,
        call: &Call,
        (group, instance): (&str, &str),
    ) -> Result<bool, String> {
        let policy = expected.policy;
        let is_keyed =
            matches!(call.tie, Tie::Key(_)) && policy.balancing == Balancing::ConsistentHash;
        let carrying = expected.groups.get(group);
        let Some(carrying) = carrying.filter(|_| policy.prefer_zone && !zone.is_empty()) else {
            self.0.remove(group);
            return Ok(false);
        };
        let Some(member) = carrying.instances.iter().find(|it| it.id == instance) else {
            return Ok(false);
        };
        if is_keyed {
            return Ok(false);
        }
        let split = Split::new(zone, carrying);
        let stayed = member.zone == zone;
        if !stayed && !split.helpers.is_empty() && !split.helpers.contains(&member.zone) {
            return Err(format!(
                "a call left zone {zone} for {}, which has nothing to spare ({split:?}, \
                 {carrying:?})",
                member.zone
            ));
        }
        if call.giving_way.iter().any(|it| it == group) {
            return Ok(false);
        }
        let tally = self.0.entry(group.to_owned()).or_insert_with(|| Tally {
            split: split.clone(),
            calls: 0,
            stayed: 0,
        });
        if tally.split != split {
            *tally = Tally {
                split,
                calls: 0,
                stayed: 0,
            };
        }
        tally.calls += 1;
        tally.stayed += u64::from(stayed);
        if tally.surprise() > SURPRISE_MAX {
            return Err(format!(
                "{} of {} calls to {group} stayed in zone {zone}: {:?}, {carrying:?}",
                tally.stayed, tally.calls, tally.split
            ));
        }
        Ok(true)
    }
}

/// Groups in which an instance of the caller's zone may give way to one
/// elsewhere, as its next call would cost so much more. Asked before a pick,
/// which changes what calls cost.
pub(crate) fn giving_way(caller: &Caller, service: usize) -> Vec<String> {
    let expected = caller.picks[service].expected.as_ref();
    let expected = expected.filter(|it| it.policy.prefer_zone && !caller.zone.is_empty());
    let groups = expected.into_iter().flat_map(|it| it.groups.iter());
    let giving = groups.filter(|(_, carrying)| gives_way(caller, service, carrying));
    giving.map(|(name, _)| name.clone()).collect()
}

fn gives_way(caller: &Caller, service: usize, carrying: &Carrying) -> bool {
    let members = || carrying.instances.iter();
    let cost = |id: &str, capacity: u32, standing: Standing| {
        let number: usize = id.trim_start_matches('i').parse().unwrap_or(0);
        let in_flight = caller.in_flight.get(&number).copied().unwrap_or(0);
        let tenth = if standing == Standing::Probation {
            0.1
        } else {
            1.0
        };
        (f64::from(in_flight) + 1.0) / (f64::from(capacity) * tenth)
    };
    members().filter(|it| it.zone == caller.zone).any(|here| {
        let cost_here = cost(&here.id, here.capacity, here.standing);
        members().filter(|it| it.zone != caller.zone).any(|there| {
            let cost_there = cost(&there.id, there.capacity, there.standing);
            let known = (caller.core).latencies(SERVICES[service], &here.id, &there.id);
            let (of_here, of_there) = known.unwrap_or((1.0, 1.0));
            cost_here * f64::from(of_here) > PATIENCE * cost_there * f64::from(of_there)
        })
    })
}
