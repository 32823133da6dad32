//! One call's place in the order of groups, kept while it waits or is tried again.

use std::sync::Arc;

use rand::Rng;

use crate::endpoint::{Connection, Endpoint};
use crate::picker::Picker;
use crate::shares::Schedule;
use crate::sticky::{Affinity, Bucket};

/// Where a call that has no instance yet is to find one.
#[derive(Debug)]
pub(crate) enum Ticket {
    /// A place in the order of groups was drawn, and is not used yet. It counts
    /// only while this schedule is in use.
    Drawn {
        group: Arc<str>,
        schedule: Option<Arc<Schedule>>,
    },
    /// The call failed at an instance of this group and is tried again. That
    /// takes no turn: turns are of first attempts alone.
    Again {
        group: Arc<str>,
        /// It failed at two instances of the group, so the fault may be the
        /// group's.
        doubts_group: bool,
    },
}

/// A call that failed at two instances of a group leaves it, though there are
/// others, when the group has no more than this part of the calls: a bad
/// release in its first stages is survived so, and what fails at a large group
/// is not thrown at a small one.
const LEFT_SHARE_MAX: f64 = 0.5;

impl Ticket {
    /// For a call that failed at `endpoint`.
    pub(crate) fn again<L>(endpoint: &Endpoint<L>, doubts_group: bool) -> Self {
        Self::Again {
            group: Arc::clone(&endpoint.group),
            doubts_group,
        }
    }

    /// The group that was drawn, if that still counts.
    fn drawn<T>(&self, picker: &Picker<T>) -> Option<usize> {
        let Self::Drawn { group, schedule } = self else {
            return None;
        };
        let in_use = match (schedule, picker.schedule()) {
            (Some(drawn_from), Some(current)) => Arc::ptr_eq(drawn_from, current),
            (Some(_), None) => false,
            (None, _) => true,
        };
        picker.position(group).filter(|_| in_use)
    }
}

/// One pick, without waiting. When nobody is connected, a ticket is left for
/// the next try.
///
/// With the bucket that decided the group, if one did: a call that is tied to
/// others takes no turn, its group is theirs.
pub(crate) fn pick<'a, L: Connection>(
    picker: &'a Picker<Arc<Endpoint<L>>>,
    ticket: &mut Option<Ticket>,
    tried: &[Arc<Endpoint<L>>],
    affinity: &Affinity,
    rng: &mut impl Rng,
) -> Option<(&'a Arc<Endpoint<L>>, Option<Bucket>)> {
    let bucket = picker.bucket(affinity);
    if let Some(Ticket::Again {
        group,
        doubts_group,
    }) = ticket
    {
        let home = match bucket {
            Some(bucket) => picker.group_of(bucket),
            None => picker.position(group),
        };
        let chosen = pick_again(picker, home, *doubts_group, tried, affinity, rng)?;
        return Some((chosen, bucket));
    }
    let kept = ticket.take().and_then(|ticket| ticket.drawn(picker));
    let group = match bucket {
        Some(bucket) => picker.group_of(bucket)?,
        None => kept.or_else(|| picker.draw())?,
    };
    let chosen = picker.choose(group, affinity.key.as_ref(), is_any, rng);
    if chosen.is_none() {
        *ticket = picker.group_name(group).map(|name| Ticket::Drawn {
            group: Arc::clone(name),
            schedule: picker.schedule().cloned(),
        });
    }
    chosen.map(|endpoint| (endpoint, bucket))
}

/// Another instance of the call's own group; or else of the other groups that
/// carry calls, by their shares; or else one that it was sent to before.
fn pick_again<'a, L: Connection>(
    picker: &'a Picker<Arc<Endpoint<L>>>,
    home: Option<usize>,
    doubts_group: bool,
    tried: &[Arc<Endpoint<L>>],
    affinity: &Affinity,
    rng: &mut impl Rng,
) -> Option<&'a Arc<Endpoint<L>>> {
    let key = affinity.key.as_ref();
    let untried = |endpoint: &Arc<Endpoint<L>>| {
        let is_it = |tried: &Arc<Endpoint<L>>| Arc::ptr_eq(&tried.link, &endpoint.link);
        !tried.iter().any(is_it)
    };
    let leaves = |home| doubts_group && picker.share_of(home) <= LEFT_SHARE_MAX;
    home.filter(|home| !leaves(*home))
        .and_then(|home| picker.choose_well(home, key, untried, rng))
        .or_else(|| picker.choose_elsewhere(home, key, untried, rng))
        .or_else(|| picker.choose_well(home?, key, untried, rng))
        .or_else(|| picker.choose_well(home?, key, is_any, rng))
        .or_else(|| picker.choose_elsewhere(home, key, is_any, rng))
}

fn is_any<T>(_: &T) -> bool {
    true
}

#[cfg(test)]
#[path = "ticket_tests.rs"]
mod tests;
