//! In which order groups take calls, so that any run of calls has the shares the weights say, within one call.

use rand::{Rng, RngExt};

use crate::place::Place;

/// More groups than a service may have would not fit the table's bytes.
pub(crate) const GROUPS_MAX: usize = 256;

/// Weights sum to at most this, which bounds the table. Basis points do.
pub(crate) const TOTAL_MAX: u32 = 10_000;

/// A repeating order of groups, and where in it this process is.
///
/// After any number n of calls from its beginning, the calls of each group
/// differ from n times its weight by at most one. The order repeats after the
/// sum of the weights in lowest terms, where the difference is 0.
///
/// Each process has its own order, so that many processes do not all give
/// their first call to the same group, or all neglect a small one. It is a
/// solution of the chairman assignment problem (R. Tijdeman, "The chairman
/// assignment problem", Discrete Mathematics 32, 1980), whose differences are
/// at most 1 - 1/(2k-2) for k groups, begun at a random place. For two groups
/// any place keeps within one call. For more, the run from a place may be off
/// by more; then the order from there is bent so that it is not.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// Weights in lowest terms, none of them 0.
    weights: Box<[u32]>,
    /// Positions in `weights`; as many as their sum.
    slots: Box<[u8]>,
    place: Place,
}

impl Schedule {
    /// `None` when there is nothing to choose from, or more than the table can
    /// hold. No weight may be 0.
    pub(crate) fn new(weights: &[u32], rng: &mut impl Rng) -> Option<Self> {
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let fits = weights.len() <= GROUPS_MAX && total <= u64::from(TOTAL_MAX);
        if weights.is_empty() || !fits || weights.contains(&0) {
            return None;
        }
        let weights = lowest_terms(weights);
        let slots = begin_anywhere(&weights, rng);
        Some(Self {
            place: Place::first(slots.len()),
            weights,
            slots,
        })
    }

    /// Whether it gives these shares.
    pub(crate) fn has_shares(&self, weights: &[u32]) -> bool {
        *self.weights == *lowest_terms(weights)
    }

    /// The part of calls that a group gets.
    pub(crate) fn share(&self, group: usize) -> f64 {
        let weight = self.weights.get(group).copied().unwrap_or(0);
        f64::from(weight) / self.slots.len() as f64
    }

    /// The group that takes the next call.
    #[inline]
    pub(crate) fn next(&self) -> usize {
        if self.weights.len() == 1 {
            return 0;
        }
        usize::from(self.slots[self.place.next()])
    }
}

fn lowest_terms(weights: &[u32]) -> Box<[u32]> {
    let divisor = weights
        .iter()
        .copied()
        .fold(0, greatest_common_divisor)
        .max(1);
    weights.iter().map(|weight| weight / divisor).collect()
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

/// One period. At each step, of the groups whose arrears allow it, the one
/// goes first that would be too late soonest.
fn tijdeman(weights: &[u32]) -> Box<[u8]> {
    let total: i64 = weights.iter().map(|weight| i64::from(*weight)).sum();
    let k = weights.len() as i64;
    // All in units of 1 / (total * (2k - 2)) of a call.
    let parts = (2 * k - 2).max(1);
    let latest = if k == 1 { total } else { total * parts - total };
    let earliest = if k == 1 { 0 } else { total };
    let mut arrears = vec![0_i64; weights.len()];
    let mut slots = Vec::with_capacity(total as usize);
    for _ in 0..total {
        let mut chosen = 0;
        let mut soonest = i64::MAX;
        for (group, (owed, weight)) in arrears.iter_mut().zip(weights).enumerate() {
            let gain = i64::from(*weight) * parts;
            *owed += gain;
            if *owed >= earliest {
                let steps_left = (latest - *owed).div_euclid(gain);
                if steps_left < soonest {
                    soonest = steps_left;
                    chosen = group;
                }
            }
        }
        arrears[chosen] -= total * parts;
        slots.push(chosen as u8);
    }
    slots.into()
}

/// Tijdeman's order begun at a random place, as it is or bent.
fn begin_anywhere(weights: &[u32], rng: &mut impl Rng) -> Box<[u8]> {
    let mut slots = tijdeman(weights);
    let start = rng.random_range(0..slots.len());
    let ahead = ahead_at(weights, &slots, start);
    let first = slots[start];
    slots.rotate_left(start);
    if within_one_call(weights, &slots) {
        return slots;
    }
    bend(weights, &ahead)
        .filter(|bent| within_one_call(weights, bent))
        .unwrap_or_else(|| earliest_deadline_first(weights, first))
}

/// How far each group is ahead of its weight before the slot at `start`, in
/// units of a call divided by the period.
fn ahead_at(weights: &[u32], slots: &[u8], start: usize) -> Vec<i64> {
    let mut ahead: Vec<i64> = weights
        .iter()
        .map(|weight| -i64::from(*weight) * start as i64)
        .collect();
    for slot in &slots[..start] {
        ahead[usize::from(*slot)] += slots.len() as i64;
    }
    ahead
}

fn within_one_call(weights: &[u32], slots: &[u8]) -> bool {
    let total = slots.len() as i64;
    let mut ahead = vec![0_i64; weights.len()];
    slots.iter().all(|slot| {
        for (value, weight) in ahead.iter_mut().zip(weights) {
            *value -= i64::from(*weight);
        }
        ahead[usize::from(*slot)] += total;
        ahead.iter().all(|value| value.abs() <= total)
    })
}

/// Tijdeman's rule continued from where groups are `ahead`, but every group's
/// j-th call within the slots that keep it within one call of its weight
/// counted from here. `None` when the two cannot be had together, which
/// happens from four groups on.
fn bend(weights: &[u32], ahead: &[i64]) -> Option<Box<[u8]>> {
    let total: i64 = weights.iter().map(|weight| i64::from(*weight)).sum();
    let parts = (2 * weights.len() as i64 - 2).max(1);
    let latest = total * parts - total;
    let mut arrears: Vec<i64> = ahead.iter().map(|value| -value * parts).collect();
    let mut windows = Windows::new(weights);
    let mut slots = Vec::with_capacity(total as usize);
    for slot in 1..=total {
        let mut chosen = None;
        for (group, weight) in weights.iter().enumerate() {
            let gain = i64::from(*weight) * parts;
            arrears[group] += gain;
            if windows.is_open(group, slot) {
                let due_now = windows.deadline(group) <= slot;
                let steps_left = (latest - arrears[group]).div_euclid(gain);
                let urgency = (!due_now, arrears[group] < total, steps_left, group);
                chosen = Some(
                    chosen.map_or(urgency, |best: (bool, bool, i64, usize)| best.min(urgency)),
                );
            }
        }
        let (_, _, _, group) = chosen?;
        arrears[group] -= total * parts;
        windows.took(group);
        slots.push(group as u8);
    }
    Some(slots.into())
}

/// An order within one call of the weights that begins with the group `first`.
///
/// There is one for any first group: the conditions (one call in each slot; at
/// each slot each group's calls so far rounded down or up) form two laminar
/// families, so their polytope has whole corners, and the weights themselves
/// lie in it with every first slot possible. Calls of one slot's length with
/// whole windows are scheduled by earliest deadline whenever they can be.
fn earliest_deadline_first(weights: &[u32], first: u8) -> Box<[u8]> {
    let total: i64 = weights.iter().map(|weight| i64::from(*weight)).sum();
    let mut windows = Windows::new(weights);
    windows.took(usize::from(first));
    let mut slots = Vec::with_capacity(total as usize);
    slots.push(first);
    for slot in 2..=total {
        let group = (0..weights.len())
            .filter(|group| windows.is_open(*group, slot))
            .min_by_key(|group| windows.deadline(*group))
            .unwrap_or(0);
        windows.took(group);
        slots.push(group as u8);
    }
    slots.into()
}

/// In which slots, counted from 1, each group's next call keeps it within one
/// call of its weight.
struct Windows<'a> {
    weights: &'a [u32],
    total: i64,
    taken: Vec<i64>,
}

impl<'a> Windows<'a> {
    fn new(weights: &'a [u32]) -> Self {
        Self {
            weights,
            total: weights.iter().map(|weight| i64::from(*weight)).sum(),
            taken: vec![0; weights.len()],
        }
    }

    fn is_open(&self, group: usize, slot: i64) -> bool {
        self.taken[group] * self.total < slot * i64::from(self.weights[group])
    }

    fn deadline(&self, group: usize) -> i64 {
        let weight = i64::from(self.weights[group]);
        ((self.taken[group] + 1) * self.total + weight - 1) / weight
    }

    fn took(&mut self, group: usize) {
        self.taken[group] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    /// Basis points over 1 to 6 groups, from even to extremely uneven.
    fn weights() -> impl Strategy<Value = Vec<u32>> {
        (1_usize..=6)
            .prop_flat_map(|k| proptest::collection::vec(0.0_f64..9.0, k))
            .prop_map(|exponents| {
                let raw: Vec<f64> = exponents.iter().map(|e| e.exp()).collect();
                let sum: f64 = raw.iter().sum();
                let mut weights: Vec<u32> = raw
                    .iter()
                    .map(|r| ((r / sum * 10_000.0) as u32).max(1))
                    .collect();
                let others: u32 = weights.iter().skip(1).sum();
                weights[0] = 10_000 - others;
                weights
            })
    }

    /// The largest difference from the weights, in calls, of any length of run.
    fn worst(weights: &[u32], mut next: impl FnMut() -> usize, calls: usize) -> f64 {
        let total: u32 = weights.iter().sum();
        let mut counts = vec![0_u64; weights.len()];
        let mut worst = 0.0_f64;
        for n in 1..=calls {
            counts[next()] += 1;
            for (count, weight) in counts.iter().zip(weights) {
                let due = n as f64 * f64::from(*weight) / f64::from(total);
                worst = worst.max((*count as f64 - due).abs());
            }
        }
        worst
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_run_from_any_start_offered_is_within_one_call(weights in weights(), seed: u64) {
            let mut rng = SmallRng::seed_from_u64(seed);
            let schedule = Schedule::new(&weights, &mut rng).unwrap();
            let off = worst(&weights, || schedule.next(), 25_000);
            prop_assert!(off <= 1.0 + 1e-9, "off by {off}");
        }

        #[test]
        fn the_order_keeps_the_bound_of_the_theorem(weights in weights()) {
            let k = weights.len() as f64;
            let terms = lowest_terms(&weights);
            let slots = tijdeman(&terms);
            let mut position = 0;
            let off = worst(&weights, || { position += 1; usize::from(slots[(position - 1) % slots.len()]) }, slots.len());
            let bound = if weights.len() == 1 { 0.0 } else { 1.0 - 1.0 / (2.0 * k - 2.0) };
            prop_assert!(off <= bound + 1e-9, "off by {off}, bound {bound}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_group_can_be_first(weights in weights()) {
            let terms = lowest_terms(&weights);
            for first in 0..terms.len() {
                let slots = earliest_deadline_first(&terms, first as u8);
                prop_assert!(within_one_call(&terms, &slots), "{first}");
            }
        }

        #[test]
        fn two_groups_are_within_one_call_in_any_window(weight in 1_u32..10_000, seed: u64, skip in 0_usize..10_000) {
            let weights = [10_000 - weight, weight];
            let schedule = Schedule::new(&weights, &mut SmallRng::seed_from_u64(seed)).unwrap();
            for _ in 0..skip {
                schedule.next();
            }
            let off = worst(&weights, || schedule.next(), 15_000);
            prop_assert!(off <= 1.0 + 1e-9, "off by {off}");
        }
    }

    /// Short lives: together, many processes that make few calls each must
    /// show the shares too.
    #[test]
    fn few_calls_of_many_processes_have_the_shares() {
        let mut rng = SmallRng::seed_from_u64(1);
        for weights in [[9_000, 900, 100], [9_800, 100, 100], [5_000, 3_000, 2_000]] {
            for calls in [1, 20] {
                let mut counts = [0_u32; 3];
                for _ in 0..4_000 {
                    let schedule = Schedule::new(&weights, &mut rng).unwrap();
                    for _ in 0..calls {
                        counts[schedule.next()] += 1;
                    }
                }
                for (count, weight) in counts.iter().zip(weights) {
                    let share = f64::from(*count) / f64::from(4_000 * calls) * 10_000.0;
                    let off = (share - f64::from(weight)).abs();
                    assert!(
                        off < 250.0_f64.min(f64::from(weight) * 0.6),
                        "{weights:?} {calls}: {counts:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_order_repeats_slot_by_slot() {
        let mut rng = SmallRng::seed_from_u64(1);
        for weights in [vec![9_999, 1], vec![1, 2, 4], vec![3_333, 3_333, 3_334]] {
            let schedule = Schedule::new(&weights, &mut rng).unwrap();
            for round in 0..30 {
                for (position, slot) in schedule.slots.iter().enumerate() {
                    assert_eq!(schedule.next(), usize::from(*slot), "{round}, {position}");
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_shared_is_no_schedule() {
        let mut rng = SmallRng::seed_from_u64(1);
        assert!(Schedule::new(&[], &mut rng).is_none());
        assert!(Schedule::new(&[10_000, 0], &mut rng).is_none());
        assert!(Schedule::new(&[10_000, 1], &mut rng).is_none());
        assert!(Schedule::new(&[1; 300], &mut rng).is_none());
    }
}
