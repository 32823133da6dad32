//! Consistent hashing: the same key goes to the same instance, and few keys move when one comes or goes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

/// Primes, so that any step visits every slot. A table has a hundred slots for
/// each instance, which keeps their shares within a percent or so of each
/// other, up to 655 instances. Beyond them it does not grow, which bounds the
/// time to build it and its memory (128 KiB): of 10,000 instances some have
/// six slots, some seven.
const SIZES: [u32; 8] = [251, 503, 1_009, 4_093, 8_191, 16_381, 32_749, 65_537];
const SLOTS_PER_INSTANCE: usize = 100;

/// More instances than this have no table; a service may have 20,000.
const INSTANCES_MAX: usize = u16::MAX as usize;

/// A lookup table after Maglev (D. E. Eisenbud and others, "Maglev: a fast and
/// reliable software network load balancer", NSDI 2016, section 3.4): each
/// instance has an order of preference over the slots, and they take turns to
/// claim the next free one; here, as often as their capacity says. It is the
/// same in every process that knows the same instances.
#[derive(Debug)]
pub(crate) struct Table {
    instances: Box<[(u64, u32)]>,
    slots: Box<[u16]>,
}

/// An instance's order of preference.
struct Preference {
    next: u32,
    step: u32,
}

impl Table {
    /// Of instances with these ranks (hashes of their ids) and capacities,
    /// none of them 0; the one before it if that was the same.
    pub(crate) fn renew(before: Option<&Arc<Self>>, instances: Vec<(u64, u32)>) -> Arc<Self> {
        match before {
            Some(before) if *before.instances == *instances => Arc::clone(before),
            _ => Arc::new(Self::new(instances)),
        }
    }

    fn new(instances: Vec<(u64, u32)>) -> Self {
        let fits = !instances.is_empty() && instances.len() <= INSTANCES_MAX;
        Self {
            slots: if fits {
                fill(&instances)
            } else {
                Box::default()
            },
            instances: instances.into(),
        }
    }

    /// Positions of instances in the order in which a key prefers them, with
    /// repetitions, without end; none when there are none.
    pub(crate) fn preferences(&self, hash: u64) -> impl Iterator<Item = usize> {
        let count = self.slots.len();
        let first = ((u128::from(hash) * count as u128) >> 64) as usize;
        (0..count).map(move |further| {
            let slot = first + further;
            let slot = if slot < count { slot } else { slot - count };
            usize::from(self.slots[slot])
        })
    }
}

fn fill(instances: &[(u64, u32)]) -> Box<[u16]> {
    const FREE: u16 = u16::MAX;
    let wanted = instances.len() * SLOTS_PER_INSTANCE;
    let fitting = SIZES.iter().find(|size| **size as usize >= wanted);
    let size = fitting.copied().unwrap_or(SIZES[SIZES.len() - 1]);
    let mut preferences: Vec<Preference> = instances
        .iter()
        .map(|(rank, _)| Preference {
            next: (*rank as u32) % size,
            step: ((rank >> 32) as u32) % (size - 1) + 1,
        })
        .collect();
    let mut slots = vec![FREE; size as usize];
    // Who has least for its capacity claims next.
    let mut claims: BinaryHeap<_> = instances
        .iter()
        .enumerate()
        .map(|(position, (_, capacity))| {
            let cost = (1 << 40) / u64::from((*capacity).max(1));
            Reverse((cost, position, cost))
        })
        .collect();
    for _ in 0..size {
        let Some(Reverse((spent, position, cost))) = claims.pop() else {
            break;
        };
        let preference = &mut preferences[position];
        while slots[preference.next as usize] != FREE {
            preference.advance(size);
        }
        slots[preference.next as usize] = position as u16;
        claims.push(Reverse((spent + cost, position, cost)));
    }
    slots.into()
}

impl Preference {
    fn advance(&mut self, size: u32) {
        self.next += self.step;
        if self.next >= size {
            self.next -= size;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_64;

    fn instances(numbers: impl Iterator<Item = usize>) -> Vec<(u64, u32)> {
        numbers
            .map(|number| (xxh3_64(format!("i{number}").as_bytes()), 100))
            .collect()
    }

    fn first(table: &Table, key: u64) -> (u64, u32) {
        let hash = xxh3_64(&key.to_le_bytes());
        table.instances[table.preferences(hash).next().unwrap()]
    }

    #[test]
    fn keys_are_shared_by_capacity() {
        let mut uneven = instances(0..50);
        uneven[7].1 = 300;
        let table = Table::new(uneven.clone());
        let mut counts = [0_u32; 50];
        for slot in &table.slots {
            counts[usize::from(*slot)] += 1;
        }
        let fair = table.slots.len() as u32 / 52;
        for (position, count) in counts.iter().enumerate() {
            let due = if position == 7 { 3 * fair } else { fair };
            assert!(count.abs_diff(due) <= 3, "{position}: {count}, not {due}");
        }
    }

    #[test]
    fn few_keys_move_but_those_of_who_is_gone() {
        for count in [5, 100, 1_000] {
            let all = Table::new(instances(0..count));
            let fewer = Table::new(instances((0..count).filter(|number| *number != 3)));
            let gone = all.instances[3];
            let moved = (0..20_000)
                .filter(|key| first(&all, *key) != gone && first(&all, *key) != first(&fewer, *key))
                .count();
            assert!(moved < 20_000 / 15, "{moved} of 20000 moved, of {count}");
        }
    }

    #[test]
    fn every_instance_is_some_preference_of_every_key() {
        let table = Table::new(instances(0..20));
        for key in 0..100 {
            let mut seen: Vec<usize> = table.preferences(key << 57).collect();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), 20);
        }
        assert_eq!(Table::new(Vec::new()).preferences(5).next(), None);
    }

    #[test]
    fn the_largest_service_has_a_table() {
        let table = Table::new(instances(0..20_000));
        assert_eq!(table.slots.len(), 65_537);
        let mut counts = vec![0_u32; 20_000];
        for slot in &table.slots {
            counts[usize::from(*slot)] += 1;
        }
        assert!(counts.iter().all(|count| (3..=4).contains(count)));
    }
}
