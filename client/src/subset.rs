//! Which instances of a large group one caller keeps connections to, so that not every caller connects to every instance.
//!
//! Rendezvous hashing (Thaler, Ravishankar: "Using name-based mappings to
//! increase hit rates", 1998): each caller ranks the instances by a hash of its
//! own id and theirs, and keeps the first ones that live. Callers need not know
//! of each other; an instance that comes or goes changes at most one place of
//! each subset, and one that dies is replaced by the next in rank.

use std::cmp::Reverse;
use std::sync::Arc;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// A caller's own order of instances.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ranking {
    seed: u64,
}

impl Ranking {
    /// Of the caller with this id.
    pub(crate) fn of(caller: &str) -> Self {
        Self {
            seed: xxh3_64(caller.as_bytes()),
        }
    }

    /// Chooses, of instances by id and whether each lives, the first in rank
    /// until `size` live ones are among them. The dead ones on the way are
    /// chosen too: they stay wanted, and give their place back to nobody when
    /// they return. The answer is in the order of `instances`.
    pub(crate) fn choose(self, size: usize, instances: &[(&Arc<str>, bool)]) -> Vec<bool> {
        let mut ranked: Vec<(Reverse<u64>, usize)> = instances
            .iter()
            .enumerate()
            .map(|(position, (id, _))| (Reverse(self.rank(id)), position))
            .collect();
        ranked.sort_unstable();
        let mut chosen = vec![false; instances.len()];
        let mut living = 0;
        for (_, position) in ranked {
            if living >= size {
                break;
            }
            if let (Some(chosen), Some((_, lives))) =
                (chosen.get_mut(position), instances.get(position))
            {
                *chosen = true;
                living += usize::from(*lives);
            }
        }
        chosen
    }

    fn rank(self, id: &str) -> u64 {
        xxh3_64_with_seed(id.as_bytes(), self.seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids(count: usize) -> Vec<Arc<str>> {
        (0..count).map(|n| format!("i-{n:05}").into()).collect()
    }

    fn subset(caller: usize, size: usize, ids: &[Arc<str>], dead: &[usize]) -> Vec<usize> {
        let instances: Vec<(&Arc<str>, bool)> = ids
            .iter()
            .enumerate()
            .map(|(n, id)| (id, !dead.contains(&n)))
            .collect();
        let chosen = Ranking::of(&format!("caller-{caller}")).choose(size, &instances);
        (0..ids.len()).filter(|n| chosen[*n]).collect()
    }

    #[test]
    fn a_thousand_callers_spread_over_a_thousand_instances() {
        let ids = ids(1_000);
        let mut callers_of = vec![0_u32; 1_000];
        for caller in 0..1_000 {
            let subset = subset(caller, 20, &ids, &[]);
            assert_eq!(subset.len(), 20);
            for instance in subset {
                callers_of[instance] += 1;
            }
        }
        let (least, most) = (callers_of.iter().min(), callers_of.iter().max());
        assert!(
            least >= Some(&5) && most <= Some(&40),
            "{least:?} to {most:?} callers, 20 on average"
        );
    }

    #[test]
    fn one_instance_more_or_less_changes_one_place_of_few_subsets() {
        let before = ids(1_000);
        let mut moved = 0;
        for caller in 0..1_000 {
            let was = subset(caller, 20, &before, &[]);
            let is = subset(caller, 20, &before[..999], &[]);
            let gone = was.iter().filter(|n| !is.contains(n)).count();
            let new = is.iter().filter(|n| !was.contains(n)).count();
            assert_eq!(gone, new);
            assert!(gone <= 1);
            moved += gone;
        }
        assert!((5..=40).contains(&moved), "{moved} of 20,000 connections");
    }

    proptest! {
        #[test]
        fn the_dead_are_replaced_by_the_next_and_all_else_stays(
            caller in 0..1_000_usize,
            size in 1..30_usize,
            count in 1..200_usize,
            dead in prop::collection::hash_set(0..200_usize, 0..20),
        ) {
            let ids = ids(count);
            let dead: Vec<usize> = dead.into_iter().collect();
            let healthy = subset(caller, size, &ids, &[]);
            let now = subset(caller, size, &ids, &dead);
            prop_assert!(healthy.iter().all(|n| now.contains(n)));
            let living = now.iter().filter(|n| !dead.contains(n)).count();
            let alive = (0..count).filter(|n| !dead.contains(n)).count();
            prop_assert_eq!(living, size.min(alive));
        }
    }
}
