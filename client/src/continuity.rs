//! What goes on from one picker of a service to the next.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::{Rng, RngExt};

use crate::coverage::CandidateGroup;
use crate::maglev::Table;
use crate::schedules::Schedules;
use crate::turns::Turns;

/// The orders and tables of the picker before.
#[derive(Debug, Default)]
pub(crate) struct Continuity {
    pub(crate) schedules: Schedules,
    groups: BTreeMap<Arc<str>, GroupMemory>,
    /// Keeps this process's orders apart from those of others.
    seed: Option<u64>,
}

/// Of one group.
#[derive(Debug, Default)]
pub(crate) struct GroupMemory {
    pub(crate) here: Option<Arc<Turns>>,
    pub(crate) away: Option<Arc<Turns>>,
    pub(crate) table: Option<Arc<Table>>,
}

impl Continuity {
    /// Forgets what is of no use for these groups.
    pub(crate) fn keep_for<T>(&mut self, groups: &[CandidateGroup<T>]) {
        self.schedules.keep_for(groups);
        self.groups
            .retain(|name, _| groups.iter().any(|group| group.name == *name));
    }

    pub(crate) fn group(&mut self, name: &Arc<str>) -> &mut GroupMemory {
        self.groups.entry(Arc::clone(name)).or_default()
    }

    pub(crate) fn seed(&mut self, rng: &mut impl Rng) -> u64 {
        *self.seed.get_or_insert_with(|| rng.random())
    }
}
