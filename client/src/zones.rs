//! How many calls stay in the caller's own zone, and where the others go.

use std::collections::BTreeMap;
use std::sync::Arc;

/// How one caller's calls to one group are divided between its own zone and
/// the others, so that no zone gets more than its part.
///
/// Every zone is taken to have as many callers as every other: a zone with its
/// fair part of the ready capacity, or more, then keeps its own calls; one with
/// less keeps what it has capacity for, and the rest goes to the zones that have
/// more, by how much more. With callers so spread, each zone is called exactly
/// in proportion to its ready capacity. A zone whose callers make `q` times as
/// many calls as the average zone's is called at most `1 + q` times its part.
///
/// The arithmetic is Envoy's ("zone aware routing") for callers that do not
/// know of each other.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Split {
    /// From 0, none of the calls, to 1, all.
    pub(crate) local: f64,
    /// For each other zone that takes some of the rest: how much for each unit
    /// of its ready capacity, relative to the others.
    away: BTreeMap<Arc<str>, f64>,
}

impl Split {
    /// By the capacity of those who take calls, in each zone in which the group
    /// is registered.
    pub(crate) fn new(own: &str, ready: &BTreeMap<Arc<str>, u64>) -> Self {
        let total: u64 = ready.values().sum();
        let capacity = ready.get(own).copied().unwrap_or(0);
        // Callers are here, even where no instance is.
        let zones = ready.len() + usize::from(!ready.contains_key(own));
        let fair = 1.0 / zones as f64;
        let part = |capacity: u64| capacity as f64 / total.max(1) as f64;
        let others = ready.iter().filter(|(zone, _)| ***zone != *own);
        let spare = others.filter_map(|(zone, capacity)| {
            let spare = part(*capacity) - fair;
            (spare > f64::EPSILON).then(|| (Arc::clone(zone), spare / *capacity as f64))
        });
        Self {
            local: (part(capacity) / fair).min(1.0),
            away: spare.collect(),
        }
    }

    /// What an instance of another zone with that capacity gets of the calls
    /// that leave, relative to others. Where none need to leave, those that do
    /// for another reason go by capacity.
    pub(crate) fn weight(&self, zone: &str, capacity: u32) -> f64 {
        let per_capacity = match self.away.is_empty() {
            true => 1.0,
            false => self.away.get(zone).copied().unwrap_or(0.0),
        };
        per_capacity * f64::from(capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn zones(capacities: &[u64]) -> BTreeMap<Arc<str>, u64> {
        let named = capacities.iter().enumerate();
        named
            .map(|(number, capacity)| (format!("z{number}").into(), *capacity))
            .collect()
    }

    #[test]
    fn calls_stay_where_capacity_is_fair() {
        let split = Split::new("z1", &zones(&[100, 100, 100]));
        assert!((split.local - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_zone_that_lost_most_of_its_instances_keeps_what_it_can_carry() {
        let ready = zones(&[20, 100, 100]);
        let split = Split::new("z0", &ready);
        assert!((split.local - 20.0 / 220.0 * 3.0).abs() < 1e-9);
        let even = split.weight("z1", 100) - split.weight("z2", 100);
        assert!(even.abs() < 1e-9);
    }

    #[test]
    fn calls_leave_a_zone_without_instances() {
        let split = Split::new("elsewhere", &zones(&[100, 300]));
        assert!(split.local.abs() < 1e-9);
        assert!(split.weight("z1", 300) > split.weight("z0", 100));
    }

    proptest! {
        /// Callers in every zone alike: each zone is called as its capacity is.
        #[test]
        fn no_zone_is_called_beyond_its_part(
            capacities in proptest::collection::vec(0_u64..1_000, 1..8),
        ) {
            let ready = zones(&capacities);
            let total: u64 = capacities.iter().sum();
            prop_assume!(total > 0);
            let callers = 1.0 / capacities.len() as f64;
            let mut called: BTreeMap<Arc<str>, f64> = BTreeMap::new();
            for own in ready.keys() {
                let split = Split::new(own, &ready);
                *called.entry(Arc::clone(own)).or_default() += callers * split.local;
                let whole: f64 = ready.iter().map(|(z, c)| split.weight(z, *c as u32)).sum();
                prop_assert!(whole > 0.0 || split.local > 1.0 - 1e-9);
                for (zone, capacity) in ready.iter().filter(|_| whole > 0.0) {
                    let part = split.weight(zone, *capacity as u32) / whole;
                    *called.entry(Arc::clone(zone)).or_default() +=
                        callers * (1.0 - split.local) * part;
                }
            }
            for (zone, capacity) in &ready {
                let due = *capacity as f64 / total as f64;
                let called = called.get(zone).copied().unwrap_or(0.0);
                prop_assert!((called - due).abs() < 1e-6, "{zone}: {called}, not {due}");
            }
        }
    }
}
