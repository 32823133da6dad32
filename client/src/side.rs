//! The members of a group as zones divide them: those that are here, those that help out, and the rest.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::Rng;

use crate::coverage::Candidate;
use crate::sampler::Sampler;
use crate::turns::Turns;
use crate::zones::Split;

/// Members in a row, and how one of them comes up.
#[derive(Debug)]
pub(crate) struct Side {
    begin: usize,
    sampler: Sampler,
    /// Round robin.
    turns: Option<Arc<Turns>>,
}

/// How members are arranged: `here` come first, then `away`, in this order.
pub(crate) struct Arrangement {
    /// Weight of each, in the order of members.
    pub(crate) here: Vec<u32>,
    pub(crate) away: Vec<u32>,
    /// The part of calls that stays here, in cases of 2^32.
    pub(crate) stay: u64,
}

/// Weights that are no whole numbers are rounded to parts of this.
const WEIGHT_PARTS: f64 = 1_000.0;

impl Side {
    /// Of members with these ranks and weights. With `kept`, they take turns,
    /// from where those in it were.
    pub(crate) fn new(
        begin: usize,
        members: &[(u64, u32)],
        kept: Option<&mut Option<Arc<Turns>>>,
        seed: u64,
    ) -> Self {
        let weights: Vec<u32> = members.iter().map(|(_, weight)| *weight).collect();
        let turns = kept.map(|kept| {
            let turns = Arc::new(Turns::new(members, seed, kept.as_deref()));
            *kept = Some(Arc::clone(&turns));
            turns
        });
        Self {
            begin,
            sampler: Sampler::new(&weights),
            turns,
        }
    }

    /// Whether a member is one of it.
    pub(crate) fn has(&self, member: usize) -> bool {
        (self.begin..self.begin + self.sampler.count()).contains(&member)
    }

    /// Whether its members take turns.
    #[inline]
    pub(crate) fn has_turns(&self) -> bool {
        self.turns.is_some()
    }

    /// Whose turn it is.
    pub(crate) fn next(&self) -> Option<usize> {
        Some(self.begin + self.turns.as_ref()?.next()?)
    }

    /// Two drawn by weight, different if there are two.
    #[inline]
    pub(crate) fn sample_two(&self, rng: &mut impl Rng) -> Option<(usize, usize)> {
        let (first, second) = self.sampler.sample_two(rng)?;
        Some((self.begin + first, self.begin + second))
    }
}

// === impl Arrangement ===

impl Arrangement {
    /// Nobody is away.
    pub(crate) fn everywhere<T>(members: &[(usize, Candidate<T>)]) -> Self {
        Self {
            here: members.iter().map(|(_, c)| c.capacity.max(1)).collect(),
            away: Vec::new(),
            stay: 1 << 32,
        }
    }

    /// For a caller in `zone`, which is what `split` was made for.
    pub(crate) fn around<T>(
        zone: &str,
        split: &Split,
        members: &mut [(usize, Candidate<T>)],
    ) -> Self {
        let is_here = |c: &Candidate<T>| *c.zone == *zone;
        let helps = |c: &Candidate<T>| split.weight(&c.zone, c.capacity);
        members.sort_by_key(|(_, c)| Reverse((is_here(c), helps(c) > 0.0)));
        let here = members.iter().filter(|(_, c)| is_here(c));
        let here: Vec<u32> = here.map(|(_, c)| c.capacity.max(1)).collect();
        let away = members[here.len()..].iter().map(|(_, c)| helps(c));
        let away: Vec<f64> = away.filter(|weight| *weight > 0.0).collect();
        let most = away.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let rounded = |weight: &f64| (weight / most * WEIGHT_PARTS).round().max(1.0) as u32;
        Self {
            stay: match here.is_empty() {
                true => 0,
                false => (split.local * (1_u64 << 32) as f64) as u64,
            },
            away: away.iter().map(rounded).collect(),
            here,
        }
    }
}

/// How calls are divided between the zones in which a group is registered, by
/// the capacity of those who take its calls.
pub(crate) fn split_of<T>(
    registered: BTreeSet<Arc<str>>,
    members: &[(usize, Candidate<T>)],
    zone: &str,
) -> Split {
    let none = registered.into_iter().map(|zone| (zone, 0));
    let mut ready: BTreeMap<Arc<str>, u64> = none.collect();
    for (_, member) in members {
        *ready.entry(Arc::clone(&member.zone)).or_default() += u64::from(member.capacity);
    }
    Split::new(zone, &ready)
}
