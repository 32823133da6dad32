//! Routes that scripts ask for: weights, and what callers are to do beyond them.

use trimtab_registry::group::GroupState;
use trimtab_registry::instance::Capacity;
use trimtab_registry::name::GroupName;
use trimtab_registry::policy::{Balancing, Count, OutlierPolicy, RoutePolicy, Span};
use trimtab_registry::route::{WHOLE, Weights};

use crate::chance::Chance;
use crate::packet::RouteRead;

/// One, two or three of the groups that there were.
pub(crate) fn weights(read: &RouteRead, chance: &mut Chance) -> Weights {
    let usable = |(_, state): &&(GroupName, GroupState)| *state != GroupState::Retiring;
    let groups: Vec<&GroupName> = (read.groups.iter().filter(usable))
        .map(|(name, _)| name)
        .collect();
    let first = groups[chance.index(groups.len())].clone();
    let second = groups[chance.index(groups.len())].clone();
    if first == second {
        return Weights::whole(first);
    }
    let share = chance.between(1, u64::from(WHOLE) - 2) as u32;
    let third = groups[chance.index(groups.len())].clone();
    if third == first || third == second {
        return Weights::new([(first, share), (second, WHOLE - share)]).expect("the whole");
    }
    let rest = chance.between(1, u64::from(WHOLE - share) - 1) as u32;
    let all = [
        (first, share),
        (second, rest),
        (third, WHOLE - share - rest),
    ];
    Weights::new(all).expect("they sum to the whole")
}

/// Any. Times are such that much happens in a run.
pub(crate) fn policy(chance: &mut Chance) -> RoutePolicy {
    let balancings = [
        Balancing::LeastLoaded,
        Balancing::RoundRobin,
        Balancing::ConsistentHash,
    ];
    let subset = match chance.per_mille(350) {
        true => chance.between(1, 4) as u32,
        false => 0,
    };
    let warm_up = match chance.per_mille(400) {
        true => chance.between(300, 8_000),
        false => 0,
    };
    RoutePolicy {
        fall_back_to_dark: chance.per_mille(500),
        balancing: balancings[chance.index(balancings.len())],
        prefer_zone: chance.per_mille(500),
        subset_size: Count::new("subset", subset).expect("in range"),
        warm_up: Span::from_millis("warm-up", warm_up).expect("in range"),
        outliers: outliers(chance),
    }
}

fn outliers(chance: &mut Chance) -> OutlierPolicy {
    let percent = [1, 10, 35, 50, 100][chance.index(5)];
    let failures = chance.between(1, 5) as u32;
    let base = chance.between(200, 5_000);
    OutlierPolicy {
        disabled: chance.per_mille(150),
        consecutive_failures: Count::new("failures", failures).expect("in range"),
        max_ejected_percent: Count::new("percent", percent).expect("in range"),
        base_ejection: Span::from_millis("ejection", base).expect("in range"),
    }
}

/// What an operator takes an instance to be able to carry, or its own word.
pub(crate) fn capacity(chance: &mut Chance) -> Option<Capacity> {
    let capacity = [10, 50, 100, 200, 400][chance.index(5)];
    let capacity = Capacity::new(capacity).expect("in range");
    chance.per_mille(800).then_some(capacity)
}
