//! Orders of groups that survive a change of instances.

use std::sync::Arc;

use rand::Rng;

use crate::coverage::CandidateGroup;
use crate::shares::Schedule;

/// Schedules kept while a route lasts: that of its weights, and of the newest
/// ways in which shares had to be given to other groups.
const SCHEDULES_KEPT_MAX: usize = 4;

/// The schedules of one route.
#[derive(Debug, Default)]
pub(crate) struct Schedules {
    route: Vec<(Arc<str>, u32)>,
    kept: Vec<(Vec<Arc<str>>, Arc<Schedule>)>,
}

impl Schedules {
    /// Forgets the schedules of an earlier route.
    pub(crate) fn keep_for<T>(&mut self, groups: &[CandidateGroup<T>]) {
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
    pub(crate) fn get(
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
