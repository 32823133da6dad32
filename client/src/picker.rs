//! Which group and which instance takes the next call.
//!
//! Pure: what is connected and how busy it is comes in, and so do the time and
//! the generator. A picker is built when a view or a connection changes, and
//! then only read, by all calls at once: a pick takes no lock and allocates
//! nothing.

use std::sync::Arc;

use rand::{Rng, RngExt};
use tokio::time::Instant;

use crate::buckets::Buckets;
use crate::continuity::Continuity;
use crate::coverage::{CandidateGroup, Coverage, Level, shares_by_capacity};
use crate::crew::{Crew, Role};
use crate::endpoint::Terms;
use crate::latency::Moment;
use crate::policy::Balancing;
use crate::shares::Schedule;
use crate::sticky::{Affinity, Bucket, StickyKey};
use crate::view::View;

/// Immutable; replaced whole.
#[derive(Debug)]
pub(crate) struct Picker<T> {
    /// `None` when no group can take a call.
    schedule: Option<Arc<Schedule>>,
    buckets: Buckets,
    /// In the order of the schedule.
    crews: Box<[Crew<T>]>,
    coverage: Coverage,
    known: usize,
    basis: Basis<T>,
    /// What latencies are dated by.
    origin: Instant,
}

/// What a picker was made of, beyond what a pick needs.
#[derive(Debug)]
pub(crate) struct Basis<T> {
    pub(crate) view: Arc<View>,
    /// Everybody this process connects to.
    pub(crate) roster: Box<[T]>,
    /// Groups that are on their way up to their share.
    pub(crate) warming: Vec<Arc<str>>,
}

/// What a route's policy says of choosing, for one caller.
#[derive(Debug)]
pub(crate) struct Rules<'a> {
    pub(crate) fall_back_to_dark: bool,
    pub(crate) balancing: Balancing,
    /// The caller's own, if instances there are preferred.
    pub(crate) zone: Option<&'a str>,
}

impl<T> Picker<T> {
    /// Knows no instance.
    pub(crate) fn empty(origin: Instant) -> Self {
        Self {
            schedule: None,
            buckets: Buckets::default(),
            crews: Box::default(),
            coverage: Coverage::nothing(),
            known: 0,
            basis: Basis::default(),
            origin,
        }
    }

    /// Groups in the order of their names.
    pub(crate) fn build(
        groups: Vec<CandidateGroup<T>>,
        rules: &Rules<'_>,
        continuity: &mut Continuity,
        origin: Instant,
        rng: &mut impl Rng,
    ) -> Self {
        continuity.keep_for(&groups);
        let seed = continuity.seed(rng);
        let known = groups.iter().map(|group| group.candidates.len()).sum();
        let coverage = Coverage::of(&groups, rules.fall_back_to_dark);
        let wanted: Vec<(u32, bool)> = groups
            .iter()
            .filter(|group| group.weight > 0)
            .map(|group| (group.weight, coverage.has(group)))
            .collect();
        let carrying: Vec<CandidateGroup<T>> = groups
            .into_iter()
            .filter(|group| coverage.has(group))
            .collect();
        let (shares, wanted): (Vec<u32>, _) = match coverage.level {
            Level::Weighted => (carrying.iter().map(|group| group.weight).collect(), wanted),
            _ => {
                let shares = shares_by_capacity(&carrying);
                let wanted = shares.iter().map(|share| (*share, true)).collect();
                (shares, wanted)
            }
        };
        let names: Vec<Arc<str>> = carrying
            .iter()
            .map(|group| Arc::clone(&group.name))
            .collect();
        Self {
            schedule: continuity.schedules.get(&names, &shares, rng),
            buckets: buckets_of(&wanted),
            crews: carrying
                .into_iter()
                .zip(&names)
                .map(|(group, name)| Crew::new(group, rules, continuity.group(name), seed))
                .collect(),
            coverage,
            known,
            basis: Basis::default(),
            origin,
        }
    }

    /// Says which view it follows.
    pub(crate) fn based_on(mut self, basis: Basis<T>) -> Self {
        self.basis = basis;
        self
    }

    pub(crate) fn basis(&self) -> &Basis<T> {
        &self.basis
    }

    /// The view it follows; 0 when that was not said.
    pub(crate) fn revision(&self) -> u64 {
        self.basis.view.revision
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

    /// As latencies are dated.
    pub(crate) fn moment(&self, now: Instant) -> Moment {
        Moment::new(now, self.origin)
    }

    /// Of a call that begins now.
    pub(crate) fn terms(&self, now: Instant, bucket: Option<Bucket>) -> Terms {
        Terms {
            revision: self.revision(),
            started: now,
            moment: self.moment(now),
            bucket,
        }
    }

    /// Takes the next place in the order of groups. `None` when no group can
    /// take a call.
    pub(crate) fn draw(&self) -> Option<usize> {
        self.schedule.as_ref().map(|schedule| schedule.next())
    }

    /// The bucket of a call that is tied to others.
    pub(crate) fn bucket(&self, affinity: &Affinity) -> Option<Bucket> {
        affinity.bucket(self.basis.view.salt)
    }

    /// The group of a bucket. `None` when no group can take a call.
    pub(crate) fn group_of(&self, bucket: Bucket) -> Option<usize> {
        self.buckets.group_of(bucket)
    }

    pub(crate) fn group_name(&self, group: usize) -> Option<&Arc<str>> {
        self.crews.get(group).map(Crew::name)
    }

    /// The part of calls that a group gets.
    pub(crate) fn share(&self, group: &str) -> f64 {
        let position = self.position(group);
        position.map_or(0.0, |position| self.share_of(position))
    }

    /// The same by position.
    pub(crate) fn share_of(&self, group: usize) -> f64 {
        let schedule = self.schedule.as_ref();
        schedule.map_or(0.0, |schedule| schedule.share(group))
    }

    /// Those of a group who take its calls, and what each does.
    pub(crate) fn roles(&self, group: usize) -> impl Iterator<Item = (&T, Role)> {
        self.crews.get(group).into_iter().flat_map(Crew::roles)
    }

    /// The position of a group that carries calls.
    pub(crate) fn position(&self, group: &str) -> Option<usize> {
        self.crews.iter().position(|crew| **crew.name() == *group)
    }

    /// An instance of a group that is connected and suits. `None` while there
    /// is none.
    ///
    /// `key` is whom the call is for.
    pub(crate) fn choose(
        &self,
        group: usize,
        key: Option<&StickyKey>,
        suits: impl Fn(&T) -> bool,
        rng: &mut impl Rng,
    ) -> Option<&T> {
        self.crews.get(group)?.choose(key, suits, rng)
    }

    /// The same with more care, for a call that was sent somewhere before.
    pub(crate) fn choose_well(
        &self,
        group: usize,
        key: Option<&StickyKey>,
        suits: impl Fn(&T) -> bool,
        rng: &mut impl Rng,
    ) -> Option<&T> {
        self.crews.get(group)?.choose_well(key, suits, rng)
    }

    /// The same of the groups that carry calls but for one; of those that have
    /// an instance that suits, each with the chance that its share gives it.
    pub(crate) fn choose_elsewhere(
        &self,
        but_for: Option<usize>,
        key: Option<&StickyKey>,
        suits: impl Fn(&T) -> bool,
        rng: &mut impl Rng,
    ) -> Option<&T> {
        let others = (0..self.crews.len()).filter(|group| Some(*group) != but_for);
        let (mut chosen, mut whole) = (None, 0.0);
        for group in others {
            if let Some(suitable) = self.choose_well(group, key, &suits, rng) {
                let share = self.share_of(group);
                whole += share;
                if rng.random::<f64>() * whole <= share {
                    chosen = Some(suitable);
                }
            }
        }
        chosen
    }
}

impl<T> Default for Basis<T> {
    fn default() -> Self {
        Self {
            view: Arc::default(),
            roster: Box::default(),
            warming: Vec::new(),
        }
    }
}

/// The buckets of groups that all have a share; of each, whether it carries
/// its calls.
fn buckets_of(wanted: &[(u32, bool)]) -> Buckets {
    let mut positions = 0..;
    let shares: Vec<(u32, Option<usize>)> = wanted
        .iter()
        .map(|(share, carries)| (*share, carries.then(|| positions.next()).flatten()))
        .collect();
    Buckets::new(&shares)
}

#[cfg(test)]
#[path = "picker_tests.rs"]
mod tests;
