//! Which group and which instance takes the next call.
//!
//! Pure: what is connected and how busy it is comes in, and so does the
//! generator. A picker is built when a view or a connection changes, and then
//! only read, by all calls at once: a pick takes no lock and allocates nothing.

use std::sync::Arc;

use rand::{Rng, RngExt};

use crate::sampler::Sampler;
use crate::shares::{Schedule, TOTAL_MAX};
use crate::view::GroupState;

/// Schedules kept while a route lasts: that of its weights, and of the newest
/// ways in which shares had to be given to other groups.
const SCHEDULES_KEPT_MAX: usize = 4;

/// The live side of an instance, looked at during a pick.
pub(crate) trait Target {
    /// Can a call be sent to it this moment?
    fn is_connected(&self) -> bool;
    /// Calls it has from this process.
    fn in_flight(&self) -> u32;
}

/// What is known of the connection to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// The first attempt has not ended.
    Untried,
    /// Connected.
    Up,
    /// The last attempt failed, or the connection broke.
    Down,
}

/// An instance that may take calls: READY or SUSPECT.
#[derive(Debug)]
pub(crate) struct Candidate<T> {
    pub(crate) target: T,
    pub(crate) capacity: u32,
    /// READY, not SUSPECT.
    pub(crate) ready: bool,
    pub(crate) link: LinkState,
}

/// A group and those of its instances that may take calls.
#[derive(Debug)]
pub(crate) struct CandidateGroup<T> {
    pub(crate) name: Arc<str>,
    pub(crate) state: GroupState,
    /// Basis points.
    pub(crate) weight: u32,
    pub(crate) candidates: Vec<Candidate<T>>,
}

/// Which groups carry the calls, and which should but cannot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Coverage {
    pub(crate) level: Level,
    /// Weighted groups without a connected instance, whose share others take.
    pub(crate) uncovered: Vec<Arc<str>>,
}

/// From what the route wants to the last resort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// Groups with weight.
    Weighted,
    /// Groups that carried traffic before.
    Standby,
    /// Groups that never did, where the route's policy allows it.
    Dark,
    /// Groups being torn down.
    Retiring,
    /// There is nothing to call.
    Nothing,
}

/// Immutable; replaced whole.
#[derive(Debug)]
pub(crate) struct Picker<T> {
    /// `None` when no group can take a call.
    schedule: Option<Arc<Schedule>>,
    /// In the order of the schedule.
    pools: Box<[Pool<T>]>,
    coverage: Coverage,
    known: usize,
    revision: u64,
}

/// The instances of one group that take calls now: of the READY ones those
/// that are connected, or else of the SUSPECT ones.
#[derive(Debug)]
struct Pool<T> {
    name: Arc<str>,
    members: Box<[Member<T>]>,
    sampler: Sampler,
}

#[derive(Debug)]
struct Member<T> {
    target: T,
    capacity: u32,
}

/// Schedules that survive a change of instances.
#[derive(Debug, Default)]
pub(crate) struct Schedules {
    route: Vec<(Arc<str>, u32)>,
    kept: Vec<(Vec<Arc<str>>, Arc<Schedule>)>,
}

// === impl Picker ===

impl<T> Picker<T> {
    /// Knows no instance.
    pub(crate) fn empty() -> Self {
        Self {
            schedule: None,
            pools: Box::default(),
            coverage: Coverage {
                level: Level::Nothing,
                uncovered: Vec::new(),
            },
            known: 0,
            revision: 0,
        }
    }

    /// Groups in the order of their names.
    pub(crate) fn build(
        groups: Vec<CandidateGroup<T>>,
        fall_back_to_dark: bool,
        schedules: &mut Schedules,
        rng: &mut impl Rng,
    ) -> Self {
        schedules.keep_for(&groups);
        let known = groups.iter().map(|group| group.candidates.len()).sum();
        let level = choose_level(&groups, fall_back_to_dark);
        let uncovered = groups
            .iter()
            .filter(|group| group.weight > 0 && !group.can_take_calls())
            .map(|group| Arc::clone(&group.name))
            .collect();
        let carrying: Vec<CandidateGroup<T>> = groups
            .into_iter()
            .filter(|group| group.level() == level && group.can_take_calls())
            .collect();
        let shares = match level {
            Level::Weighted => carrying.iter().map(|group| group.weight).collect(),
            _ => shares_by_capacity(&carrying),
        };
        let names: Vec<Arc<str>> = carrying
            .iter()
            .map(|group| Arc::clone(&group.name))
            .collect();
        Self {
            schedule: schedules.get(&names, &shares, rng),
            pools: carrying.into_iter().map(Pool::new).collect(),
            coverage: Coverage { level, uncovered },
            known,
            revision: 0,
        }
    }

    /// Says which view it follows.
    pub(crate) fn at_revision(mut self, revision: u64) -> Self {
        self.revision = revision;
        self
    }

    /// The view it follows; 0 when that was not said.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// How many instances may take calls, connected or not.
    pub(crate) fn known(&self) -> usize {
        self.known
    }

    pub(crate) fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    pub(crate) fn schedule(&self) -> Option<&Arc<Schedule>> {
        self.schedule.as_ref()
    }

    /// Takes the next place in the order of groups. `None` when no group can
    /// take a call.
    pub(crate) fn draw(&self) -> Option<usize> {
        self.schedule.as_ref().map(|schedule| schedule.next())
    }

    pub(crate) fn group_name(&self, group: usize) -> Option<&Arc<str>> {
        self.pools.get(group).map(|pool| &pool.name)
    }

    /// The position of a group that a pick of an earlier picker drew.
    pub(crate) fn position(&self, group: &str) -> Option<usize> {
        self.pools.iter().position(|pool| &*pool.name == group)
    }
}

impl<T: Target> Picker<T> {
    /// The less busy, for its capacity, of two instances of a group, each
    /// drawn by capacity. `None` while none of the group is connected.
    ///
    /// `avoid` is not chosen while there is another.
    pub(crate) fn choose(
        &self,
        group: usize,
        avoid: impl Fn(&T) -> bool,
        rng: &mut impl Rng,
    ) -> Option<&T> {
        let pool = self.pools.get(group)?;
        let first = pool.members.get(pool.sampler.sample(rng)?)?;
        let second = match pool.members.len() {
            1 => first,
            count => pool.another(first, count, rng)?,
        };
        let suits = |member: &Member<T>| member.target.is_connected() && !avoid(&member.target);
        let best = match (suits(first), suits(second)) {
            (true, true) => less_busy(first, second),
            (true, false) => first,
            (false, true) => second,
            (false, false) => pool
                .first_that(suits, rng)
                .or_else(|| pool.first_that(|member| member.target.is_connected(), rng))?,
        };
        Some(&best.target)
    }
}

// === impl CandidateGroup ===

impl<T> CandidateGroup<T> {
    /// A group with a connection still in its first attempt is counted in, so
    /// that the first of many connections does not get all calls. An attempt
    /// is short.
    fn can_take_calls(&self) -> bool {
        self.candidates
            .iter()
            .any(|c| matches!(c.link, LinkState::Up | LinkState::Untried))
    }

    fn level(&self) -> Level {
        match self.state {
            _ if self.weight > 0 => Level::Weighted,
            GroupState::Retiring => Level::Retiring,
            GroupState::Dark => Level::Dark,
            GroupState::Standby | GroupState::Active => Level::Standby,
        }
    }
}

fn choose_level<T>(groups: &[CandidateGroup<T>], fall_back_to_dark: bool) -> Level {
    let any = |level| {
        groups
            .iter()
            .any(|g| g.level() == level && g.can_take_calls())
    };
    [
        Level::Weighted,
        Level::Standby,
        Level::Dark,
        Level::Retiring,
    ]
    .into_iter()
    .filter(|level| *level != Level::Dark || fall_back_to_dark)
    .find(|level| any(*level))
    .unwrap_or(Level::Nothing)
}

/// Where no weights say otherwise, each group gets what it can carry.
fn shares_by_capacity<T>(groups: &[CandidateGroup<T>]) -> Vec<u32> {
    let capacities: Vec<u64> = groups
        .iter()
        .map(|group| {
            group
                .candidates
                .iter()
                .map(|c| u64::from(c.capacity))
                .sum::<u64>()
                .max(1)
        })
        .collect();
    let total = capacities.iter().sum::<u64>().max(1);
    let parts = u64::from(TOTAL_MAX).saturating_sub(groups.len() as u64);
    capacities
        .iter()
        .map(|capacity| (capacity * parts / total).max(1) as u32)
        .collect()
}

// === impl Pool ===

impl<T> Pool<T> {
    fn new(group: CandidateGroup<T>) -> Self {
        let ready_ones = group
            .candidates
            .iter()
            .any(|c| c.link == LinkState::Up && c.ready);
        let members: Box<[Member<T>]> = group
            .candidates
            .into_iter()
            .filter(|c| c.link == LinkState::Up && c.ready == ready_ones)
            .map(|c| Member {
                target: c.target,
                capacity: c.capacity.max(1),
            })
            .collect();
        let sampler = Sampler::new(members.iter().map(|member| member.capacity).collect());
        Self {
            name: group.name,
            members,
            sampler,
        }
    }

    /// A second candidate, another than the first.
    fn another(&self, first: &Member<T>, count: usize, rng: &mut impl Rng) -> Option<&Member<T>> {
        let second = self.members.get(self.sampler.sample(rng)?)?;
        if !std::ptr::eq(first, second) {
            return Some(second);
        }
        let neighbour = rng.random_range(0..count);
        let member = self.members.get(neighbour)?;
        if std::ptr::eq(first, member) {
            return self.members.get((neighbour + 1) % count);
        }
        Some(member)
    }

    fn first_that(
        &self,
        suits: impl Fn(&Member<T>) -> bool,
        rng: &mut impl Rng,
    ) -> Option<&Member<T>> {
        let (before, from) = self
            .members
            .split_at(rng.random_range(0..self.members.len()));
        from.iter().chain(before).find(|member| suits(member))
    }
}

fn less_busy<'a, T: Target>(a: &'a Member<T>, b: &'a Member<T>) -> &'a Member<T> {
    let load_a = (u64::from(a.target.in_flight()) + 1) * u64::from(b.capacity);
    let load_b = (u64::from(b.target.in_flight()) + 1) * u64::from(a.capacity);
    if load_b < load_a { b } else { a }
}

// === impl Schedules ===

impl Schedules {
    /// Forgets the schedules of an earlier route.
    fn keep_for<T>(&mut self, groups: &[CandidateGroup<T>]) {
        let route: Vec<(Arc<str>, u32)> = groups
            .iter()
            .filter(|group| group.weight > 0)
            .map(|group| (Arc::clone(&group.name), group.weight))
            .collect();
        if route != self.route {
            self.route = route;
            self.kept.clear();
        }
    }

    /// The schedule for these shares: the one in use before if there was one,
    /// so that the run of calls goes on where it was.
    fn get(
        &mut self,
        names: &[Arc<str>],
        shares: &[u32],
        rng: &mut impl Rng,
    ) -> Option<Arc<Schedule>> {
        let known = self
            .kept
            .iter()
            .find(|(kept, schedule)| kept == names && schedule.has_shares(shares));
        if let Some((_, schedule)) = known {
            return Some(Arc::clone(schedule));
        }
        let schedule = Arc::new(Schedule::new(shares, rng)?);
        if self.kept.len() >= SCHEDULES_KEPT_MAX {
            // The first is the route's own; of the others the oldest goes.
            self.kept.remove(1);
        }
        self.kept.push((names.to_vec(), Arc::clone(&schedule)));
        Some(schedule)
    }
}

#[cfg(test)]
#[path = "picker_tests.rs"]
mod tests;
