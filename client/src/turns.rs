//! Round robin: the instances of a group take turns, as often as their capacity says.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::chance::mixed;
use crate::place::Place;

/// Turns in a round, if there are not more instances than that. Where the
/// capacities' sum is more, they are rounded to fit.
const TURNS_MAX: u64 = 16_384;

/// A repeating order of instances, and where in it this process is.
///
/// Each instance's turns are spread evenly over the round. The order is that
/// of a hash drawn for this process, so that many processes do not call the
/// same instance at the same time, and a new instance comes in somewhere and
/// takes its own turns, no more. A round goes on where the one before it was.
#[derive(Debug)]
pub(crate) struct Turns {
    order: Box<[u32]>,
    place: Place,
}

impl Turns {
    /// Of instances with these ranks and capacities, none of them 0.
    /// `seed` is the process's.
    pub(crate) fn new(instances: &[(u64, u32)], seed: u64, before: Option<&Self>) -> Self {
        let turns = turns_of(instances.iter().map(|(_, capacity)| *capacity));
        let total: u64 = turns.iter().sum();
        let mut order = Vec::with_capacity(total as usize);
        // Whose next turn is due earliest: in the middle of its first part of
        // the round, then once in each part.
        let mut due: BinaryHeap<_> = turns
            .iter()
            .zip(instances)
            .enumerate()
            .map(|(position, (turns, (rank, _)))| {
                let part = u64::MAX / turns / 2;
                Reverse((part, mixed(*rank ^ seed), position, part))
            })
            .collect();
        while let Some(Reverse((at, mixed, position, half_part))) = due.pop() {
            order.push(position as u32);
            if let Some(next) = at.checked_add(half_part.saturating_mul(2)) {
                due.push(Reverse((next, mixed, position, half_part)));
            }
            if order.len() as u64 >= total {
                break;
            }
        }
        let place = match before {
            Some(before) => Place::like(&before.place, order.len()),
            None => Place::at(seed, order.len()),
        };
        Self {
            order: order.into(),
            place,
        }
    }

    /// Whose turn it is: a position. `None` when there is nobody.
    pub(crate) fn next(&self) -> Option<usize> {
        let position = self.order.get(self.place.next())?;
        Some(*position as usize)
    }
}

/// Capacities in lowest terms, or near them if that would be too many turns.
fn turns_of(capacities: impl Iterator<Item = u32> + Clone) -> Vec<u64> {
    let divisor = capacities.clone().map(u64::from).fold(0, common_divisor);
    let total: u64 = capacities.clone().map(u64::from).sum();
    if total / divisor.max(1) <= TURNS_MAX {
        return capacities
            .map(|capacity| u64::from(capacity) / divisor.max(1))
            .collect();
    }
    capacities
        .map(|capacity| ((u64::from(capacity) * TURNS_MAX + total / 2) / total).max(1))
        .collect()
}

fn common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counts(turns: &Turns, instances: usize, calls: usize) -> Vec<u64> {
        let mut counts = vec![0; instances];
        for _ in 0..calls {
            counts[turns.next().unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn nobody_has_no_turn() {
        assert_eq!(Turns::new(&[], 5, None).next(), None);
    }

    #[test]
    fn the_round_goes_on_when_one_comes_or_goes() {
        let all: Vec<(u64, u32)> = (0..100_u64)
            .map(|i| (i.wrapping_mul(0x9e37_79b9), 100))
            .collect();
        // Whoever is there all the time gets its turns, however often the
        // others change.
        let mut turns = Turns::new(&all, 7, None);
        let mut counts = vec![0_u64; all.len()];
        for round in 0..1_000 {
            let present = &all[..60 + round % 40];
            turns = Turns::new(present, 7, Some(&turns));
            for _ in 0..13 {
                counts[turns.next().unwrap()] += 1;
            }
        }
        let (least, most) = (
            counts[..60].iter().min().unwrap(),
            counts[..60].iter().max().unwrap(),
        );
        assert!(*least > 120 && *most < 210, "{counts:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_round_has_turns_by_capacity_and_spreads_them(
            capacities in proptest::collection::vec(1_u32..50, 1..30),
            seed: u64,
        ) {
            let instances: Vec<(u64, u32)> =
                capacities.iter().enumerate().map(|(i, c)| (i as u64, *c)).collect();
            let turns = Turns::new(&instances, seed, None);
            let round = turns.order.len();
            let total: u64 = capacities.iter().map(|c| u64::from(*c)).sum();
            let counts = counts(&turns, instances.len(), round);
            for (count, capacity) in counts.iter().zip(&capacities) {
                prop_assert_eq!(count * total, u64::from(*capacity) * round as u64);
            }
            // Never far from its due within the round.
            let mut had = vec![0_f64; instances.len()];
            for (slot, position) in turns.order.iter().enumerate() {
                had[*position as usize] += 1.0;
                for (had, capacity) in had.iter().zip(&capacities) {
                    let due = (slot + 1) as f64 * f64::from(*capacity) / total as f64;
                    prop_assert!((had - due).abs() < 2.0 + instances.len() as f64 / 2.0);
                }
            }
        }
    }
}
