//! The instances of one group that take calls now, and which of them takes the next.

use std::sync::Arc;

use rand::{Rng, RngExt};

use crate::continuity::GroupMemory;
use crate::coverage::{Candidate, CandidateGroup};
use crate::maglev::Table;
use crate::picker::Rules;
use crate::policy::Balancing;
use crate::side::{Arrangement, Side, split_of};
use crate::sticky::StickyKey;
use crate::vitals::Vitals;

/// An instance of the caller's zone gives way to one of another zone whose
/// next call is expected to cost less than this part of its own: whatever was
/// reckoned of zones, no zone is called until it melts.
const ZONE_PATIENCE: f32 = 4.0;

/// Turns of instances that are not connected any more are passed over; the
/// picker that knows of it is on its way.
const TURNS_PASSED_MAX: usize = 8;

/// Of so many draws, each of two, the best takes a call that failed or waits:
/// while half of a group hangs, one in a thousand such calls is misled again.
const DRAWS_WITH_CARE: u32 = 5;

/// Who sits where nobody does.
const NOBODY: u16 = u16::MAX;

/// Of the READY ones those that are connected, or else of the SUSPECT ones.
#[derive(Debug)]
pub(crate) struct Crew<T> {
    name: Arc<str>,
    members: Box<[Member<T>]>,
    /// All of them, or those in the caller's zone where that is preferred.
    here: Side,
    /// Those that get the calls for which there is no capacity here.
    away: Option<Side>,
    /// Of 2^32 calls, how many stay here.
    stay: u64,
    keyed: Option<Keyed>,
}

/// All that is looked at before one is chosen is here or one pointer away.
#[derive(Debug)]
struct Member<T> {
    vitals: Arc<Vitals>,
    /// One divided by the capacity.
    per_capacity: f32,
    target: T,
}

/// Consistent hashing.
#[derive(Debug)]
struct Keyed {
    /// Over all who may take calls, so that it stays when connections change.
    table: Arc<Table>,
    /// Which member is behind a position of the table.
    seats: Box<[u16]>,
}

/// What a member does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Takes calls.
    Here,
    /// Takes those for which there is no capacity in the caller's zone.
    Away,
    /// Takes calls when no other can.
    Reserve,
}

// === impl Crew ===

impl<T> Crew<T> {
    pub(crate) fn new(
        group: CandidateGroup<T>,
        rules: &Rules<'_>,
        memory: &mut GroupMemory,
        seed: u64,
    ) -> Self {
        let name = Arc::clone(&group.name);
        let zones = rules.zone.map(|zone| (zone, group.zones()));
        let hashes = rules.balancing == Balancing::ConsistentHash;
        let ranks = hashes.then(|| group.candidates.iter().map(rank_and_capacity).collect());
        let mut members = group.into_members();
        let arrangement = match zones {
            Some((zone, registered)) => {
                let split = split_of(registered, &members, zone);
                Arrangement::around(zone, &split, &mut members)
            }
            None => Arrangement::everywhere(&members),
        };
        let in_turn = rules.balancing == Balancing::RoundRobin;
        let side = |begin: usize, weights: &[u32], kept| {
            let ranks = members[begin..].iter().map(|(_, c)| c.rank);
            let weighted: Vec<(u64, u32)> = ranks.zip(weights.iter().copied()).collect();
            Side::new(begin, &weighted, in_turn.then_some(kept), seed)
        };
        let here = side(0, &arrangement.here, &mut memory.here);
        let away = (!arrangement.away.is_empty())
            .then(|| side(arrangement.here.len(), &arrangement.away, &mut memory.away));
        Self {
            name,
            here,
            away,
            stay: arrangement.stay,
            keyed: ranks.map(|ranks| Keyed::new(ranks, &members, &mut memory.table)),
            members: members.into_iter().map(|(_, c)| Member::new(c)).collect(),
        }
    }

    /// Everybody, and what each does.
    pub(crate) fn roles(&self) -> impl Iterator<Item = (&T, Role)> {
        let role = |member| match &self.away {
            _ if self.here.has(member) => Role::Here,
            Some(away) if away.has(member) => Role::Away,
            _ => Role::Reserve,
        };
        let members = self.members.iter().enumerate();
        members.map(move |(position, member)| (&member.target, role(position)))
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// One that is connected and suits, if there is any.
    pub(crate) fn choose(
        &self,
        key: Option<&StickyKey>,
        suits: impl Fn(&T) -> bool,
        rng: &mut impl Rng,
    ) -> Option<&T> {
        Some(&self.member(key, &suits, rng)?.target)
    }

    /// The same with more care, for calls that failed or wait: where several
    /// instances hang, one of two drawn may well be another of them.
    pub(crate) fn choose_well(
        &self,
        key: Option<&StickyKey>,
        suits: impl Fn(&T) -> bool,
        rng: &mut impl Rng,
    ) -> Option<&T> {
        let mut best = self.member(key, &suits, rng)?;
        for _ in 1..DRAWS_WITH_CARE {
            let other = self.member(key, &suits, rng)?;
            let (cost_best, cost_other) = costs(best, other);
            if cost_other < cost_best {
                best = other;
            }
        }
        Some(&best.target)
    }

    #[inline]
    fn member(
        &self,
        key: Option<&StickyKey>,
        suits: impl Fn(&T) -> bool,
        rng: &mut impl Rng,
    ) -> Option<&Member<T>> {
        let suits = |member: &Member<T>| member.vitals.is_connected() && suits(&member.target);
        let best = match (&self.keyed, key) {
            (Some(keyed), Some(key)) => self.by_key(keyed, key, suits),
            _ => self.by_zone(suits, rng),
        };
        best.or_else(|| self.first_that(suits, rng))
    }

    fn by_key(
        &self,
        keyed: &Keyed,
        key: &StickyKey,
        suits: impl Fn(&Member<T>) -> bool,
    ) -> Option<&Member<T>> {
        keyed
            .table
            .preferences(key.hash(0))
            .filter_map(|position| self.members.get(usize::from(*keyed.seats.get(position)?)))
            .find(|member| suits(member))
    }

    fn by_zone(
        &self,
        suits: impl Fn(&Member<T>) -> bool,
        rng: &mut impl Rng,
    ) -> Option<&Member<T>> {
        let Some(away) = &self.away else {
            return self.of_side(&self.here, suits, rng);
        };
        if u64::from(rng.next_u32()) >= self.stay {
            return self.of_side(away, suits, rng);
        }
        let here = self.of_side(&self.here, &suits, rng)?;
        let other = self.members.get(away.sample_two(rng)?.0)?;
        let (cost_here, cost_there) = costs(here, other);
        if cost_here > cost_there * ZONE_PATIENCE && suits(other) {
            return Some(other);
        }
        Some(here)
    }

    fn of_side(
        &self,
        side: &Side,
        suits: impl Fn(&Member<T>) -> bool,
        rng: &mut impl Rng,
    ) -> Option<&Member<T>> {
        if side.has_turns() {
            let turns = std::iter::repeat_with(|| self.members.get(side.next()?));
            let mut turns = turns.take(TURNS_PASSED_MAX).flatten();
            return turns.find(|member| suits(member));
        }
        let (first, second) = side.sample_two(rng)?;
        let (first, second) = (self.members.get(first)?, self.members.get(second)?);
        match (suits(first), suits(second)) {
            (true, true) => {
                let (cost_first, cost_second) = costs(first, second);
                Some(if cost_second < cost_first {
                    second
                } else {
                    first
                })
            }
            (true, false) => Some(first),
            (false, true) => Some(second),
            (false, false) => None,
        }
    }

    fn first_that(
        &self,
        suits: impl Fn(&Member<T>) -> bool,
        rng: &mut impl Rng,
    ) -> Option<&Member<T>> {
        if self.members.is_empty() {
            return None;
        }
        let middle = rng.random_range(0..self.members.len());
        let (before, from) = self.members.split_at(middle);
        from.iter().chain(before).find(|member| suits(member))
    }
}

// === impl Member ===

impl<T> Member<T> {
    fn new(candidate: Candidate<T>) -> Self {
        Self {
            vitals: candidate.vitals,
            per_capacity: 1.0 / candidate.capacity.max(1) as f32,
            target: candidate.target,
        }
    }
}

/// What the next call is expected to cost at each of two: the time it would
/// take if calls wait for each other, for what capacity there is.
///
/// One that has not answered yet is taken to be as fast as the other, drawn as
/// it is from the group: so it gets neither everything nor nothing.
#[inline]
fn costs<T>(a: &Member<T>, b: &Member<T>) -> (f32, f32) {
    let (load_a, load_b) = (a.vitals.load(), b.vitals.load());
    let cost_a = (load_a.in_flight as f32 + 1.0) * a.per_capacity;
    let cost_b = (load_b.in_flight as f32 + 1.0) * b.per_capacity;
    match load_a.latency.compared(load_b.latency) {
        Some((latency_a, latency_b)) => (cost_a * latency_a, cost_b * latency_b),
        None => (cost_a, cost_b),
    }
}

fn rank_and_capacity<T>(candidate: &Candidate<T>) -> (u64, u32) {
    (candidate.rank, candidate.capacity.max(1))
}

// === impl Keyed ===

impl Keyed {
    /// Of all who may take calls, and of those who do, with their positions
    /// among all.
    fn new<T>(
        all: Vec<(u64, u32)>,
        members: &[(usize, Candidate<T>)],
        kept: &mut Option<Arc<Table>>,
    ) -> Self {
        let mut seats = vec![NOBODY; all.len()];
        for (member, (position, _)) in members.iter().enumerate() {
            seats[*position] = member.try_into().unwrap_or(NOBODY);
        }
        let table = Table::renew(kept.as_ref(), all);
        *kept = Some(Arc::clone(&table));
        Self {
            table,
            seats: seats.into(),
        }
    }
}
