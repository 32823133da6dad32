//! The instances of one group that take calls now, and which of them takes the next.

use std::sync::Arc;

use rand::{Rng, RngExt};

use crate::coverage::CandidateGroup;
use crate::latency::Moment;
use crate::picker::Ask;
use crate::sampler::Sampler;
use crate::vitals::{Load, Vitals};

/// Of the READY ones those that are connected, or else of the SUSPECT ones.
#[derive(Debug)]
pub(crate) struct Crew<T> {
    name: Arc<str>,
    members: Box<[Member<T>]>,
    sampler: Sampler,
}

/// All that is looked at before one is chosen is here or one pointer away.
#[derive(Debug)]
struct Member<T> {
    vitals: Arc<Vitals>,
    /// One divided by the capacity.
    per_capacity: f32,
    target: T,
}

// === impl Crew ===

impl<T> Crew<T> {
    pub(crate) fn new(group: CandidateGroup<T>) -> Self {
        let name = Arc::clone(&group.name);
        let candidates = group.into_members();
        let capacities: Vec<u32> = candidates.iter().map(|c| c.capacity.max(1)).collect();
        let members = candidates.into_iter().map(|c| Member {
            vitals: c.vitals,
            per_capacity: 1.0 / c.capacity.max(1) as f32,
            target: c.target,
        });
        Self {
            name,
            members: members.collect(),
            sampler: Sampler::new(&capacities),
        }
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// One that is connected, and is not to be avoided while there is another.
    pub(crate) fn choose(
        &self,
        ask: Ask,
        avoid: impl Fn(&T) -> bool,
        rng: &mut impl Rng,
    ) -> Option<&T> {
        let suits = |member: &Member<T>| member.vitals.is_connected() && !avoid(&member.target);
        let best = self.less_loaded_of_two(ask.now, suits, rng).or_else(|| {
            self.first_that(suits, rng)
                .or_else(|| self.first_that(|member| member.vitals.is_connected(), rng))
        })?;
        Some(&best.target)
    }

    /// Of two drawn by capacity, the one whose next call is expected to take
    /// less of the time and of the capacity it has.
    fn less_loaded_of_two(
        &self,
        now: Moment,
        suits: impl Fn(&Member<T>) -> bool,
        rng: &mut impl Rng,
    ) -> Option<&Member<T>> {
        let (first, second) = self.sampler.sample_two(rng)?;
        let (first, second) = (self.members.get(first)?, self.members.get(second)?);
        match (suits(first), suits(second)) {
            (true, true) => Some(less_loaded(first, second, now)),
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
        let (before, from) = self.members.split_at(
            rng.random_range(0..self.members.len().max(1))
                .min(self.members.len()),
        );
        from.iter().chain(before).find(|member| suits(member))
    }
}

fn less_loaded<'a, T>(a: &'a Member<T>, b: &'a Member<T>, now: Moment) -> &'a Member<T> {
    let (load_a, load_b) = (a.vitals.load(now), b.vitals.load(now));
    // One that has not answered yet is taken to be as fast as the other, drawn
    // as it is from the group: it gets neither everything nor nothing.
    let both_known = load_a.latency > 0.0 && load_b.latency > 0.0;
    let cost = |load: Load, member: &Member<T>| {
        let latency = if both_known { load.latency } else { 1.0 };
        (load.in_flight as f32 + 1.0) * latency * member.per_capacity
    };
    if cost(load_b, b) < cost(load_a, a) {
        b
    } else {
        a
    }
}
