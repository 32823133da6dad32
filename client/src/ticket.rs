//! One call's place in the order of groups, kept while it waits or is tried again.

use std::sync::Arc;

use rand::Rng;

use crate::endpoint::{Connection, Endpoint};
use crate::picker::Picker;
use crate::shares::Schedule;
use crate::sticky::{Affinity, Bucket};

/// A place in the order of groups that was drawn and not used yet.
#[derive(Debug)]
pub(crate) struct Ticket {
    group: Arc<str>,
    /// Only while this schedule is in use; `None`: while the group takes calls.
    schedule: Option<Arc<Schedule>>,
}

impl Ticket {
    /// For a call that failed at an instance of `group` and is tried again:
    /// it stays in its group, as that is whose turn it is.
    pub(crate) fn again<L>(endpoint: &Endpoint<L>) -> Self {
        Self {
            group: Arc::clone(&endpoint.group),
            schedule: None,
        }
    }

    fn position<T>(&self, picker: &Picker<T>) -> Option<usize> {
        let in_use = match (&self.schedule, picker.schedule()) {
            (Some(drawn_from), Some(current)) => Arc::ptr_eq(drawn_from, current),
            (Some(_), None) => false,
            (None, _) => true,
        };
        picker.position(&self.group).filter(|_| in_use)
    }
}

/// One pick, without waiting: at an instance that was not `tried` if there is
/// one. When nobody is connected, a ticket is left for the next attempt.
///
/// With the bucket that decided the group, if one did.
///
/// A call that is tied to others takes no turn: its group is theirs, whatever
/// the ticket says.
pub(crate) fn pick<'a, L: Connection>(
    picker: &'a Picker<Arc<Endpoint<L>>>,
    ticket: &mut Option<Ticket>,
    tried: &[Arc<Endpoint<L>>],
    affinity: &Affinity,
    rng: &mut impl Rng,
) -> Option<(&'a Arc<Endpoint<L>>, Option<Bucket>)> {
    let bucket = picker.bucket(affinity);
    let kept = ticket.take().and_then(|ticket| ticket.position(picker));
    let group = match bucket {
        Some(bucket) => picker.group_of(bucket)?,
        None => kept.or_else(|| picker.draw())?,
    };
    let avoid = |endpoint: &Arc<Endpoint<L>>| {
        tried
            .iter()
            .any(|tried| Arc::ptr_eq(&tried.link, &endpoint.link))
    };
    let chosen = picker.choose(group, affinity.key.as_ref(), avoid, rng);
    if chosen.is_none() {
        *ticket = picker.group_name(group).map(|name| Ticket {
            group: Arc::clone(name),
            schedule: picker.schedule().cloned(),
        });
    }
    chosen.map(|endpoint| (endpoint, bucket))
}
